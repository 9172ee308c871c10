"""What the tests share: commands as real processes, and a folder of real images."""

import gc
import importlib
import multiprocessing.forkserver
import multiprocessing.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from study.local import engine  # noqa: F401 — says what the server of its workers imports
from study.record.directory import RunDirectory
from study.system.process import ENDS, run_command
from tests.forkserver import Process, connect, open_server

# the background of a shell ignores SIGINT, and so would what tests start and end by it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("study", deadline=None, print_blob=True)
settings.load_profile("study")

os.environ["OMP_NUM_THREADS"] = "1"  # two processes test at once
os.environ["WANDB_ERROR_REPORTING"] = "false"

ROOT = Path(__file__).parent.parent
SMALL = {
    "name": "small",
    "program": "study/train.py",
    "command": ["${env}", "${interpreter}", "-m", "study.train", "${args}"],
    "method": "grid",
    "metric": {"name": "val/acc", "goal": "maximize"},
    "parameters": {
        "dataset": {"value": "digits"},
        "model": {"value": "mlp"},
        "epochs": {"value": 2},
        "dropout": {"values": [0.0, 0.5]},
        "seed": {"values": [0, 1]},
    },
}


SHARED = tuple(f"test_{name}.py" for name in (
    "wandb_sweep", "report", "pull", "names", "additions", "damage", "embedding",
))  # fmt: skip
"""The files whose tests share what takes long to make: one process runs all tests of such a file."""

WORKERS = ("test_agents.py", "test_bench.py")
"""The files whose tests start workers: one process runs them all, so that multiprocessing's server is started once."""

LONG = tuple(f"test_{name}.py" for name in ("train", "engine", "sweep", "transfer", "confusion", "export"))


def pytest_collection_modifyitems(items):
    """Begin with what takes longest, so that no core waits for it at the end."""
    order = SHARED + WORKERS + LONG
    items.sort(key=lambda item: order.index(item.path.name) if item.path.name in order else len(order))


class Schedule(LoadScopeScheduling):
    """Gives each process the next test, and all of a file whose tests share something."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.endswith(WORKERS):
            return "workers"
        return file if file.endswith(SHARED) else nodeid


def pytest_xdist_make_scheduler(config, log):
    return Schedule(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Look for no garbage while libraries are imported, nor ever among what they made, which would take seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


SERVER = pytest.StashKey[str]()


def pytest_configure_node(node):
    """Tell each process of xdist where the server of processes is, which is one for all of them."""
    config = node.config
    if SERVER not in config.stash:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        config.stash[SERVER] = stack.enter_context(open_server())
    node.workerinput["server"] = config.stash[SERVER]


@pytest.fixture(scope="session", autouse=True)
def _sockets():
    """Make the folder of multiprocessing's sockets while the folder of temporary files is the machine's."""
    multiprocessing.util.get_temp_dir()


@pytest.fixture(scope="session")
def workers():
    """Start the server that forks workers, which outlives the test that needs it first."""
    multiprocessing.forkserver.ensure_running()


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
    """Give every test a home without a W&B key, a place of its own for what runs tell each other, and its signals."""
    place = tempfile.mkdtemp(prefix="s")  # a short path: sockets lie below it
    monkeypatch.setenv("TMPDIR", place)
    monkeypatch.setattr(tempfile, "tempdir", place)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    handlers = {signum: signal.getsignal(signum) for signum in ENDS}
    yield
    for signum, handler in handlers.items():  # training sets these, and how small numbers are, for its process
        signal.signal(signum, handler)
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]  # the client leaves the address of its service, which the next fixture must not find
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def python(request):
    """Start `python WORDS…` in a folder as tests/forkserver.py does, or with `fresh=True` a new interpreter."""
    with ExitStack() as stack:
        shared = getattr(request.config, "workerinput", {}).get("server")
        server = stack.enter_context(open_server()) if shared is None else shared
        yield stack.enter_context(connect(server))


@pytest.fixture(scope="session")
def run_python(python):
    """Run `python WORDS…` in a folder to its end and return it with its output."""

    def run(words, cwd, env=None, code: int = 0, fresh: bool = False) -> subprocess.CompletedProcess:
        process = python(words, cwd, env, fresh=fresh)
        try:
            out, err = process.communicate(timeout=600)
        finally:
            process.kill()
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture
def start(python, tmp_path):
    """Start `python -m MODULE …` in an empty folder; whatever still runs at the end of the test is killed."""
    processes = []

    def start(module: str, *args: object, **kwargs) -> subprocess.Popen | Process:
        words = [*(("-c",) if module == "-c" else ("-m", module)), *map(str, args)]
        processes.append(python(words, tmp_path, **kwargs))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # of what it started, something may still hold its output
            process.communicate(timeout=60)


@pytest.fixture
def command(start):
    """Run `python -m MODULE …` to its end and return it with its output."""

    def command(module: str, *args: object, code: int = 0) -> subprocess.CompletedProcess:
        process = start(module, *args)
        out, err = process.communicate(timeout=600)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return command


@pytest.fixture
def call(monkeypatch, tmp_path, capfd):
    """Do as `command` does, in this process: for what neither signals nor W&B nor workers take part in."""

    def call(module: str, *args: object, code: int = 0) -> subprocess.CompletedProcess:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [module, *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            run_command(importlib.import_module(module).main)
        out, err = capfd.readouterr()
        assert end.value.code == code, f"exit code {end.value.code}\n{out}\n{err}"
        return subprocess.CompletedProcess(sys.argv, code, out, err)

    return call


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the figures of reports undrawn, which takes the most time: for what is about their words and tables."""
    from analysis.page import html

    monkeypatch.setattr(html, "drawn", lambda figure, suffix, stem: b"")


@pytest.fixture(scope="session")
def digit_images():
    """Return scikit-learn's digits, 8×8 uint8, and their labels."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


@pytest.fixture
def photo_folder(tmp_path, digit_images):
    """Make data/photos/train/{one,two}/ with 20 real digits each, as 16×16 PNG files."""
    from PIL import Image

    images, labels = digit_images
    for name, label in (("one", 1), ("two", 2)):
        folder = tmp_path / "data" / "photos" / "train" / name
        folder.mkdir(parents=True)
        for index, image in enumerate(images[labels == label][:20]):
            Image.fromarray(image).resize((16, 16)).save(folder / f"{index:02d}.png")
    return tmp_path / "data" / "photos"


@pytest.fixture
def sweep_file(tmp_path):
    """Write a sweep file: SMALL with other keys or parameters."""

    def write(parameters=None, **keys) -> Path:
        content = SMALL | keys | {"parameters": SMALL["parameters"] | (parameters or {})}
        path = tmp_path / "small.yaml"
        path.write_text(
            yaml.safe_dump({key: value for key, value in content.items() if value is not None}), encoding="utf-8"
        )
        return path

    return write


def states(folder: Path) -> dict[str, str]:
    return {
        path.name: RunDirectory(path).state() for path in folder.iterdir() if path.name != "wandb" and path.is_dir()
    }
