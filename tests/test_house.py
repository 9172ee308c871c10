"""The rooms import one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ALLOWED = {
    "study.errors": set(),
    "study.names": set(),
    "study.values": {"errors", "names"},
    "study.config": {"errors", "names", "values"},
    "study.options": {"config", "errors", "values", "names"},
    "study.devices": {"errors"},
    "study.folder": {"config", "errors"},
    "study.augment": set(),
    "study.cache": set(),
    "study.sources": {"cache", "config", "errors", "folder"},
    "study.data": {"config", "errors", "folder", "sources"},
    "study.models": {"config", "errors", "models", "names", "values"},
    "study.optim": {"config", "errors"},
    "study.step": {"errors", "optim"},
    "study.evaluation": {"data", "models", "step"},
    "study.trainer": {
        "augment", "cache", "config", "data", "devices", "errors", "evaluation", "models", "optim", "step",
    },
    "study.transfer": {"cache", "config", "data", "devices", "errors", "evaluation", "folder", "models"},
    "study.run_directory": {"config", "errors"},
    "study.wandb_api": {"errors"},
    "study.wandb_run": {"config", "errors", "run_directory", "wandb_api"},
    "study.tracker": {"config", "errors", "run_directory", "wandb_run"},
    "study.space": {"errors"},
    "study.hyperband": {"errors"},
    "study.sweep_file": {"errors", "hyperband", "names", "space", "values"},
    "study.search": {"config", "errors", "hyperband", "space", "sweep_file", "values"},
    "study.progress": {"config"},
    "study.sheet": {"augment", "config", "data", "errors"},
    "study.train": {
        "config", "devices", "errors", "folder", "models", "options", "progress", "run_directory", "sheet", "tracker",
        "trainer", "transfer", "values", "wandb_run",
    },
    "study.predict": {
        "cache", "config", "data", "devices", "errors", "evaluation", "models", "run_directory", "sources",
    },
    "study.bench": {"config", "data", "devices", "errors", "loops", "models", "values"},
    "study.loops": {"config", "data", "errors", "models", "trainer"},
    "study.worker": {"config", "devices", "errors", "progress", "train"},
    "study.engine": {"config", "devices", "errors", "folder", "progress", "run_directory", "worker"},
    "study.standing": {"progress", "run_directory", "search"},
    "study.bayes": {"errors", "folder", "run_directory", "search", "space", "standing"},
    "study.plan": {"bayes", "engine", "search", "standing"},
    "study.status": {"errors", "run_directory", "search", "standing"},
    "study.wandb_sweep": {
        "config", "errors", "progress", "run_directory", "search", "sweep_file", "values", "wandb_api",
    },
    "study.agent_log": {"run_directory"},
    "study.agents": {"agent_log", "devices", "errors", "progress"},
    "study.sweep": {
        "agents", "config", "devices", "engine", "errors", "folder", "plan", "progress", "run_directory", "search",
        "standing", "status", "wandb_sweep", "values",
    },
    "analysis.anatomy": {"config", "errors", "models", "names", "values"},
    "analysis": {"config", "errors", "names", "run_directory", "search", "values", "wandb_api"},
}  # fmt: skip
TORCH_USERS = {
    f"study.{name}"
    for name in (
        "augment", "cache", "sources", "data", "evaluation", "models", "optim", "step", "trainer", "transfer",
        "predict", "bench", "loops",
    )
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
    room = ".".join(module.split(".")[:2])
    room = "analysis" if module.startswith("analysis") and room not in ALLOWED else room
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("study.")}
    assert ours <= ALLOWED[room], f"{module} imports {ours - ALLOWED[room]}"
    if not room.startswith("analysis"):
        assert not any(name.startswith("analysis") for name in imports(path))
    heavy = {name.split(".")[0] for name in imports(path, top_level_only=True)} & {"torch", "wandb"}
    assert heavy <= ({"torch"} if room in TORCH_USERS else {"wandb"} if room == "study.wandb_run" else set())


def test_wandb_is_imported_where_it_is_written_and_where_it_is_read():
    users = {module for module, path in modules() for name in imports(path) if name.split(".")[0] == "wandb"}
    assert users == {"study.wandb_api", "study.wandb_run", "study.wandb_sweep", "analysis.pull"}
