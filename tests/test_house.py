"""The packages import one way, and light commands stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ORDER = {
    "study": ("system", "config", "record", "data", "models", "training", "sweeps", "remote", "local", "bench"),
    "analysis": ("wording", "frames", "page", "themes", "report", "publish", "watch"),
}
"""The packages of each tree: each imports only from those before it, and the commands above them from all."""

READ = {"system", "config", "record", "models", "sweeps", "remote"}
"""What analysis imports of study: nothing that trains."""

WITHOUT_TORCH = ("study.train", "study.sweep", "analysis.summarize", "analysis.frames.pull")
"""Modules that are imported without torch and wandb, so that help, checks and mistakes cost no time."""


def modules():
    for tree in ORDER:
        for path in sorted((ROOT / tree).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imports(path: Path) -> set[str]:
    """List the modules that a file imports, `from a import b` as a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(("module", "path"), [pytest.param(*pair, id=pair[0]) for pair in modules()])
def test_imports_run_one_way(module, path):
    tree, _, rest = module.partition(".")
    package, order = rest.partition(".")[0], ORDER[tree]
    allowed = set(order[: order.index(package) + 1]) if package in order else {*order, package}
    ours = {name.split(".")[1] for name in imports(path) if name.startswith(f"{tree}.")}
    assert ours <= allowed, f"{module} imports {ours - allowed}"
    theirs = {name.split(".")[1] for name in imports(path) if name.startswith("study.") and tree == "analysis"}
    assert theirs <= READ, f"{module} imports {theirs - READ}"
    assert tree == "analysis" or not any(name.startswith("analysis") for name in imports(path))


def test_only_commands_stand_beside_the_packages():
    """What is typed is at the top; `report` holds the order of a report, `publish` what W&B gets of it."""
    files = {tree: {path.stem for path in (ROOT / tree).glob("*.py")} - {"__init__"} for tree in ORDER}
    assert files == {
        "study": {"train", "predict", "sweep", "sync"},
        "analysis": {"summarize", "anatomy", "export", "report", "publish", "results", "watch"},
    }


def test_every_package_says_what_is_in_it():
    for tree, packages in ORDER.items():
        folders = {path.parent for path in (ROOT / tree).glob("*/*.py")}
        assert {folder.name for folder in folders} <= set(packages)
        for folder in folders:  # setuptools leaves out a folder without the file
            assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder


def test_git_and_the_linter_see_new_files_of_every_package():
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    files = [str(folder / "new.py") for tree in ORDER for folder in (ROOT / tree).glob("[!_.]*/")]
    ignored = subprocess.run(["git", "check-ignore", *files], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert ignored.returncode == 1, f"{ignored.stdout}{ignored.stderr}"


def test_wandb_is_imported_in_remote_only():
    users = {module for module, path in modules() for name in imports(path) if name.split(".")[0] == "wandb"}
    assert users and all(module.startswith("study.remote.") for module in users)


def test_light_commands_import_neither_torch_nor_wandb():
    code = f"import sys, {', '.join(WITHOUT_TORCH)}; print({{'torch', 'wandb'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.stdout == "set()\n", done.stderr


def test_text_is_utf_8_and_rich_prints_it_as_it_is():
    """A text file or process without a named encoding would be read as whatever the machine is set to."""
    files = [path for folder in ("study", "analysis", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
    for path in files:
        room = f"{path.parent.name}/{path.stem}"
        for call in (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if is_call(node)):
            place = f"{path.relative_to(ROOT)}:{call.lineno}"
            assert not lacks_encoding(call), f"{place} names no encoding"
            rich = called(call) in ("Console", "TextColumn", "_Console") and room != "system/console"
            assert not rich, f"{place}: study.system.console makes consoles and columns that take no text for markup"


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
