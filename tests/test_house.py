"""The rooms import one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ALLOWED = {
    "study.errors": set(),
    "study.config": {"errors"},
    "study.options": {"config", "errors"},
    "study.devices": {"errors"},
    "study.folder": {"config", "errors"},
    "study.augment": set(),
    "study.data": {"config", "errors", "folder"},
    "study.models": {"config", "errors", "models"},
    "study.optim": {"config", "errors"},
    "study.step": set(),
    "study.trainer": {"augment", "config", "data", "models", "optim", "step"},
    "study.tracker": {"config", "errors"},
    "study.search": {"config", "errors"},
    "study.progress": {"config"},
    "study.train": {"config", "data", "devices", "errors", "folder", "options", "progress", "tracker", "trainer"},
    "study.engine": {"config", "devices", "errors", "progress", "train"},
    "study.sweep": {"config", "devices", "engine", "errors", "folder", "progress", "search", "tracker"},
    "analysis": {"config", "errors", "search", "tracker"},
}
TORCH_FREE = ["study.errors", "study.config", "study.options", "study.devices", "study.folder", "study.tracker",
              "study.search", "study.progress", "study.train", "study.engine", "study.sweep"]  # fmt: skip


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
    room = "analysis" if module.startswith("analysis") else ".".join(module.split(".")[:2])
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("study.")}
    assert ours <= ALLOWED[room], f"{module} imports {ours - ALLOWED[room]}"
    if room != "analysis":
        assert not any(name.startswith("analysis") for name in imports(path))
    for library in ("torch", "wandb"):
        heavy = any(name == library or name.startswith(f"{library}.") for name in imports(path, top_level_only=True))
        assert not (heavy and (library == "wandb" or room in TORCH_FREE or room == "analysis")), f"{module}: {library}"


def test_wandb_is_imported_by_the_tracker_only():
    users = {module for module, path in modules() for name in imports(path) if name.split(".")[0] == "wandb"}
    assert users == {"study.tracker"}
