"""The rooms import one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ORDER = (
    "errors", "names", "values", "config", "options", "devices", "folder", "augment", "cache", "sources", "data",
    "models", "optim", "step", "evaluation", "trainer", "transfer", "run_directory", "wandb_api", "wandb_run",
    "tracker", "space", "hyperband", "sweep_file", "search", "progress", "sheet", "train", "predict", "loops",
    "bench", "worker", "engine", "standing", "bayes", "plan", "status", "wandb_sweep", "agent_log",
    "agent_slot", "agents", "sweep",
)  # fmt: skip
"""The rooms of study: each imports only from those before it."""

READ = {"config", "errors", "models", "names", "options", "run_directory", "search", "values", "wandb_api"}
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
    tree = ast.parse(path.read_text())
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
