"""The rooms import one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ORDER = (
    "errors", "console", "names", "values", "config", "options", "devices", "folder", "splits", "pictures", "augment",
    "cache", "sources", "data", "models", "optim", "step", "evaluation", "trainer", "transfer", "run_directory",
    "wandb_api", "wandb_run", "tracker", "space", "hyperband", "sweep_file", "search", "progress", "sheet", "train",
    "predict", "loops", "bench", "worker", "engine", "standing", "bayes", "plan", "status", "wandb_sweep",
    "agent_log", "agent_slot", "agents", "sweep",
)  # fmt: skip
"""The rooms of study: each imports only from those before it."""

READ = {"config", "console", "errors", "models", "names", "options", "run_directory", "search", "values", "wandb_api"}
"""What analysis imports of study: nothing that trains."""

TORCH_USERS = {
    "augment", "cache", "sources", "data", "evaluation", "models", "optim", "step", "trainer", "transfer", "predict",
    "bench", "loops",
}  # fmt: skip


def modules():
    for package in ("study", "analysis"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """List the modules that a file imports, `from a import b` as a.b."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(("module", "path"), [pytest.param(*pair, id=pair[0]) for pair in modules()])
def test_imports_run_one_way(module, path):
    if module == "study":
        assert not imports(path)
        return
    package, room = module.split(".")[0], module.split(".")[1] if "." in module else ""
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("study.")}
    allowed = {*ORDER[: ORDER.index(room) + 1]} if package == "study" else READ
    assert ours <= allowed, f"{module} imports {ours - allowed}"
    assert package == "analysis" or not any(name.startswith("analysis") for name in imports(path))
    heavy = {name.split(".")[0] for name in imports(path, top_level_only=True)} & {"torch", "wandb"}
    assert heavy <= ({"torch"} if room in TORCH_USERS else {"wandb"} if room == "wandb_run" else set())


def test_wandb_is_imported_where_it_is_written_and_where_it_is_read():
    users = {module for module, path in modules() for name in imports(path) if name.split(".")[0] == "wandb"}
    assert users == {"study.wandb_api", "study.wandb_run", "study.wandb_sweep"}


def test_text_is_utf_8_and_rich_prints_it_as_it_is():
    """A text file or process without a named encoding would be read as whatever the machine is set to."""
    files = [path for folder in ("study", "analysis", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
    for path in files:
        room = f"{path.parent.name}/{path.stem}"
        for call in (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if is_call(node)):
            place = f"{path.relative_to(ROOT)}:{call.lineno}"
            assert not lacks_encoding(call), f"{place} names no encoding"
            rich = called(call) in ("Console", "TextColumn", "_Console") and room != "study/console"
            assert not rich, f"{place}: study.console makes consoles and columns that take no text for markup"


def is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call)


def called(call: ast.Call) -> str:
    return getattr(call.func, "attr", "") or getattr(call.func, "id", "")


def lacks_encoding(call: ast.Call) -> bool:
    """Tell whether a call opens a file or a process as text and leaves its encoding to the machine."""
    named = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if "encoding" in named:
        return False
    if called(call) in ("read_text", "write_text"):
        return True
    if called(call) in ("open", "fdopen"):
        words = [ast.unparse(word) for word in call.args]
        modes = [named.get("mode", ""), *words[0 if called(call) == "open" and owner(call) not in ("", "os") else 1 :]]
        return owner(call) not in ("Image", "os") and not any("b" in mode for mode in modes)
    return named.get("text") == "True" or named.get("universal_newlines") == "True"


def owner(call: ast.Call) -> str:
    """Return what a method is called of, nothing for a function."""
    return ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
