"""Gives the commands wrong input of every kind, and checks that each of them ends as it should.

    python -m tests.fuzz 10000 [SEED]    # in this process; a hundredth of them again as processes of their own

A command ends with 0, or with 2 and a sentence for a user's input, or with 1 and a sentence for a server that answers
nonsense; never with a traceback, never late, and no run is started. Root loses its right to read everything first.
"""

import contextlib
import copy
import faulthandler
import gc
import importlib
import io
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from study.config import Config
from study.config.choices import AUGMENTATIONS, DATASETS, NETWORKS, OPTIMIZERS
from study.system.process import ENDS, run_command

ROOT = Path(__file__).parent.parent

SECONDS = 120
"""The longest time for a command; the report of a run takes some 10 seconds on a busy machine."""

MEMORY = 12 * 2**30
"""The most memory in bytes that commands may reserve; torch and its threads reserve much that they do not use."""

SHARES = {"argv": 0.5, "sweep file": 0.26, "folder": 0.1, "run directory": 0.1, "server": 0.04}
"""The share of each kind of input."""

SERVER_PROCESSES = 12
"""Cases with a server run in that many processes, because a client waits before it asks again."""

QUICK = ("--dataset=digits", "--model=mlp", "--epochs=1", "--wandb=disabled")
SWEEP = {
    "program": "study/train.py",
    "command": ["${env}", "${interpreter}", "-m", "study.train", "${args}"],
    "method": "grid",
    "metric": {"name": "val/acc", "goal": "maximize"},
    "parameters": {
        "dataset": {"value": "digits"},
        "model": {"values": ["mlp", "cnn"]},
        "epochs": {"value": 1},
        "seed": {"values": [0, 1]},
    },
}
SEARCH = SWEEP | {
    "method": "random", "run_cap": 3, "early_terminate": {"type": "hyperband", "min_iter": 3},
    "parameters": SWEEP["parameters"] | {
        "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1},
        "batch_size": {"distribution": "q_uniform", "min": 16, "max": 128, "q": 16},
        "dropout": {"values": [0.1, 0.2], "probabilities": [0.5, 0.5]},
    },
}  # fmt: skip
SETTINGS = SWEEP | {"parameters": {"setting": {"values": ["model=mlp epochs=1", "model=cnn epochs=1 dropout=0.1"]}}}


def nothing(folder: Path) -> None:
    """Put nothing into a folder."""


@dataclass
class Case:
    """A command with its words; `make` puts what it reads into the folder where it runs."""

    kind: str
    module: str
    words: list[str]
    make: Callable[[Path], object] = nothing
    environment: dict[str, str] = field(default_factory=dict)
    codes: tuple[int, ...] = (0, 2)
    note: object = ""


@dataclass
class Ended:
    """How a command ended: its exit code, -1 if it did not end in time, and what it printed."""

    code: int | str
    out: str
    err: str


# what the commands are given

ODD = [
    "", " ", "-", "--", "---", "--=", "=", "0", "-1", "1e400", "nan", "-inf", "1e-4", "9" * 30, "9" * 5000, "None",
    "none", "[", "[1, 2", "{}", "a=b", "a=b=c", "é", "日本", "\u202e", "\x1b[31m", "\n", "a\nb", "..", "/", "~",
    "~nobody", "/dev/null", "/dev/full", "/proc/self/mem", "a" * 300, "a/b", "a/b/c", "a/b/c/d",
    "https://wandb.ai/a/b/sweeps/c",
    os.fsdecode(b"\xff\xfe"), "%s", "{0}", "${args}", "[red]x", "*", "$HOME", "'", '"', '"a,b', "True",
    "folder:", "folder:..", "folder:/", "folder:a\\b", "timm:", "timm:nothing", "timm:resnet18", "cuda:99", "mps",
]  # fmt: skip
"""Words that programs stumble over."""

KNOWN = [
    *NETWORKS, *DATASETS, *OPTIMIZERS, *AUGMENTATIONS, "cosine", "hyperband", "svm", "runs", "data", "sweep.yaml",
    "good.yaml", "missing.yaml", "run", "photo.png", "True", "False", "1", "0.5", "32,64", "val/acc", "digits", "es",
]  # fmt: skip

COMMANDS = {
    "study.train": [
        *(f"--{name.replace('_', '-')}" for name in Config.model_fields),
        *("--config", "--show-augment", "--dry-run", "--force"),
    ],
    "study.sweep check": ["--set", "--runs-dir", "--data-dir", "--wandb"],
    "study.sweep run": ["--set", "--runs-dir", "--devices", "--per-device", "--force", "--wandb"],
    "study.sweep status": ["--set", "--runs-dir"],
    "study.sweep clean": ["--set", "--runs-dir", "--yes"],
    "study.sweep create": ["--set", "--missing", "--entity", "--project"],
    "study.sweep agents": ["--gpus", "--cpus", "--per-gpu", "--grace", "--runs-dir", "--data-dir"],
    "study.sweep": ["--help", "check", "run"],
    "study.predict": ["--device"],
    "study.sync": [],
    "study.bench": ["--model", "--augment", "--dataset", "--device", "--batch-size", "--threads", "--steps", "--out"],
    "analysis.summarize": ["--sweep", "--set", "--out", "--lang", "--compare-per-class", "--refresh"],
    "analysis.anatomy": ["--table", "--compare", "--image-size", "--channels", "--classes", "--format", "--lang",
                         "--filters", "--activation", "--hidden", "--stem", "--batch-norm"],
    "analysis.export": [],
}  # fmt: skip
"""The commands, and their options."""

HARMLESS = {
    "study.train": ["--dataset=folder:missing"],
    "study.sweep run": ["--dry-run"],
    "study.bench": ["--model=nothing"],
    "analysis.anatomy": ["--out=pictures"],
}
"""Words at the end with which no right words before them train a network."""

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
WORDS = st.sampled_from(KNOWN) | st.sampled_from(ODD) | TEXTS
NUMBERS = st.integers(-3, 300).map(str) | st.floats().map(str) | st.integers().map(str)


@st.composite
def argv(draw: Any) -> Case:
    """Draw a command line."""
    command = draw(st.sampled_from(list(COMMANDS)))
    module, *words = command.split(" ")
    options = st.sampled_from([*COMMANDS[command], *COMMANDS[command], "--help", "--nothing", "-x"])
    values = WORDS | NUMBERS
    pairs = st.tuples(options, values).map("=".join) | st.tuples(options, values).map(list) | options | values
    for part in draw(st.lists(pairs, max_size=5)):
        words += part if isinstance(part, list) else [part]
    if "--show-augment" in words:
        words = [word for word in words if word != "--"]
    return Case("argv", module, words + HARMLESS.get(command, []))


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([*ODD, *KNOWN, "\ud800"])
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
"""What JSON can hold."""


def places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """Yield the place of each part of nested lists and mappings."""
    yield place
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*place, key))


def with_change(value: Any, number: int, how: str, new: Any) -> Any:
    """Return a copy of nested lists and mappings in which one place is changed."""
    value = copy.deepcopy(value)
    listed = sorted(places(value), key=len)
    place = listed[number % len(listed)]
    if not place:
        return new
    part = value
    for key in place[:-1]:
        part = part[key]
    if how == "remove":
        del part[place[-1]]
    elif how == "add" and isinstance(part, dict):
        part[str(new)[:20]] = new
    else:
        part[place[-1]] = new
    return value


CHANGES = st.tuples(
    st.integers(0, 40) | st.integers(0, 10_000), st.sampled_from(["replace", "replace", "remove", "add"]), ANYTHING
)


def changed(value: Any, most: int = 3) -> st.SearchStrategy:
    """Draw what is near a value: with one to three changes."""

    def apply(changes: list) -> Any:
        result = value
        for change in changes:
            result = with_change(result, *change)
        return result

    return st.lists(CHANGES, min_size=1, max_size=most).map(apply)


@st.composite
def spoilt(draw: Any, content: bytes) -> bytes:
    """Draw the content of a file with bytes removed, inserted or replaced."""
    start = draw(st.integers(0, max(0, len(content) - 1)))
    length = draw(st.sampled_from([0, 1, 8, len(content)]))
    return content[:start] + draw(st.binary(max_size=8)) + content[start + length :]


@st.composite
def sweep_file(draw: Any) -> Case:
    """Draw a command that reads a file near a right sweep file."""
    base = draw(st.sampled_from([SWEEP, SEARCH, SETTINGS, SEARCH | {"method": "bayes"}]))
    content = draw(changed(base))
    try:
        text = yaml.safe_dump(content, allow_unicode=draw(st.booleans()), sort_keys=False).encode("utf-8", "replace")
    except yaml.YAMLError:
        text = json.dumps(content).encode()
    if draw(st.integers(0, 3)) == 0:
        text = draw(spoilt(text))
    words = draw(st.sampled_from([
        ["study.sweep", "check", "sweep.yaml"], ["study.sweep", "status", "sweep.yaml"],
        ["study.sweep", "run", "sweep.yaml", "--dry-run"], ["study.sweep", "create", "sweep.yaml"],
        ["study.sweep", "clean", "sweep.yaml"], ["analysis.summarize", "--sweep", "sweep.yaml"],
        ["study.train", "--config", "sweep.yaml", "--dataset=folder:missing"],
    ]))  # fmt: skip
    return Case("sweep file", words[0], words[1:], partial(write, text), note=text)


def write(content: bytes, folder: Path) -> None:
    (folder / "sweep.yaml").write_bytes(content)


NAMES = [
    os.fsdecode(name)
    for name in (
        b"train", b"test", b"val", b"one", b"two", b"a b", b"\xff", b"\xc3\xa9", b"e\xcc\x81", b"-x", b"x,y", b"[red]",
        b"new\nline", b"x" * 200, b"'", b"=1+1", b".hidden", b"Training", b"\xe6\x97\xa5", b"a.png", b"b.JPG", b"c.tif",
        b"d.txt", b"e.gif",
    )
]  # fmt: skip
ENTRIES = st.sampled_from([
    "folder", "folder", "folder", "png", "png", "png", "grey", "deep", "tiny", "empty", "cut", "noise", "link up",
    "link to itself", "link to nowhere", "link out", "closed file", "closed folder", "pipe",
])  # fmt: skip


@st.composite
def tree(draw: Any) -> list[tuple[str, str]]:
    """Draw the entries of a folder of images: (path, kind)."""
    entries, folders = [], ["."]
    if draw(st.booleans()):
        for split in draw(st.sampled_from([["."], ["train"], ["train", "test"], ["train", "val"]])):
            names = [f"{split}/{name}" for name in ("one", "two") if draw(st.integers(0, 5))]
            entries += [(name, "folder") for name in names]
            entries += [(f"{name}/{index}.png", "png") for name in names for index in range(4)]
            folders += names
    taken = {path for path, _ in entries}
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(ENTRIES)
        path = f"{draw(st.sampled_from(folders))}/{draw(st.sampled_from(NAMES))}"
        entries.append((path, kind))
        folders += [path] if kind == "folder" and path not in taken else []
        taken.add(path)
    return entries


def picture(kind: str, index: int) -> bytes:
    """Return the content of an image file."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(index).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    images = {"grey": lambda: Image.fromarray(pixels[..., 0]), "tiny": lambda: Image.new("RGB", (1, 1)),
              "deep": lambda: Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)}  # fmt: skip
    file = io.BytesIO()
    images.get(kind, lambda: Image.fromarray(pixels))().save(file, "PNG")
    return {"empty": b"", "cut": file.getvalue()[:-40], "noise": b"\x89PNG" + bytes(50)}.get(kind, file.getvalue())


def plant(entries: list[tuple[str, str]], folder: Path) -> None:
    """Make the folder of images `data/pictures`."""
    root = folder / "data" / "pictures"
    root.mkdir(parents=True)
    closed = []
    for index, (relative, kind) in enumerate(entries):
        path = root / relative
        targets = {"link up": "..", "link to itself": path.name, "link to nowhere": "/nowhere",
                   "link out": "/usr/share/doc/bash"}  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            continue
        if kind in targets:
            path.symlink_to(targets[kind])
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind.endswith("folder"):
            path.mkdir()
        else:
            path.write_bytes(picture(kind, index))
        closed += [path] if kind.startswith("closed") else []
    for path in closed:
        path.chmod(0)


@st.composite
def image_folder(draw: Any) -> Case:
    """Draw a command that reads a folder of images."""
    entries = draw(tree())
    dataset = draw(st.sampled_from(["folder:pictures"] * 6 + ["folder:../data/pictures", "folder:pictures/train"]))
    more = draw(
        st.lists(st.sampled_from(["classes=one,two", "train_images=3", "image_size=8", "image_size=8"]), max_size=2)
    )
    options = [f"--{pair.replace('_', '-')}" for pair in more]
    train = ["study.train", "--show-augment=sheet.png", "--augment=flip,crop", f"--dataset={dataset}", *options]
    dry = ["study.sweep", "run", "good.yaml", "--dry-run", "--set", f"dataset={dataset}", *more]
    words = draw(st.sampled_from([train, train, dry, ["study.sweep", "check", "good.yaml", *dry[4:]]]))
    return Case("folder", words[0], words[1:], partial(plant, entries), note=entries)


RUN_FILES = ("run.json", "history.jsonl", "summary.json", "evaluation.npz", "best.pt")


@st.composite
def run_directory(draw: Any, trained: Path) -> Case:
    """Draw a command that reads a damaged run directory."""
    name = draw(st.sampled_from(RUN_FILES[:3] * 3 + RUN_FILES[3:]))
    content = (trained / name).read_bytes()
    how = draw(
        st.sampled_from(
            ["structure"] * 6 + ["bytes"] * 3 + ["missing", "folder", "loop", "closed", "closed run", "empty"]
        )
    )
    if how == "structure" and name.endswith((".json", ".jsonl")):
        content = (json.dumps(draw(changed(json.loads(content)))) + "\n").encode()
    elif how in ("structure", "bytes"):
        how, content = "bytes", draw(spoilt(content))
    elif how == "empty":
        content = b""
    run = draw(st.sampled_from(["run", "run", os.fsdecode(b"r\xff"), "[red] =1|<b>", "a\nb"]))
    words = draw(st.sampled_from([
        *[["study.sweep", "status", "good.yaml"]] * 3, *[["analysis.export", "runs", "copies"]] * 4,
        *[["study.predict", f"runs/{run}", "photo.png"]] * 4, *[["study.sweep", "run", "good.yaml", "--dry-run"]] * 2,
        *[["study.sweep", "clean", "good.yaml"]] * 2, ["analysis.summarize", "runs"],
        *[["study.train", f"--config=runs/{run}", "--dataset=folder:missing"]] * 2,
        *[["study.sync", f"runs/{run}"]] * (name in RUN_FILES[:3] and how != "structure"),
    ]))  # fmt: skip
    return Case(
        "run directory",
        words[0],
        words[1:],
        partial(damage, trained, run, name, how, content),
        note=(run, name, how, content[:400]),
    )


def damage(trained: Path, run: str, name: str, how: str, content: bytes, folder: Path) -> None:
    """Copy a run, and damage one of its files."""
    path = folder / "runs" / run
    shutil.copytree(trained, path)
    (folder / "photo.png").write_bytes(picture("png", 0))
    (path / name).unlink()
    if how == "folder":
        (path / name).mkdir()
    elif how == "loop":
        (path / name).symlink_to(name)
    elif how != "missing":
        (path / name).write_bytes(content)
    if how.startswith("closed"):
        (path if how == "closed run" else path / name).chmod(0)


OPERATIONS = (
    "",
    "Viewer",
    "GetViewer",
    "GetSweep",
    "SweepWithRuns",
    "Runs",
    "RunContents",
    "Run",
    "UpsertSweep",
    "GET",
)


BODIES = [b"", b"<html>", b"[]", b"null", b"{", b"1", b'{"data": null}', b'{"errors": 3}',
          b'{"errors": [{"message": "no"}]}', b"\xff\xfe"]  # fmt: skip


@st.composite
def server_answer(draw: Any) -> Case:
    """Draw a command that asks a server which answers nonsense."""
    wrong = draw(st.one_of(
        CHANGES.map(lambda change: ("change", change)),
        CHANGES.map(lambda change: ("change", change)),
        st.tuples(st.just("status"), st.sampled_from([400, 401, 403, 404, 409, 429, 500, 502, 503])),
        st.tuples(st.just("body"), st.sampled_from(BODIES)),
        ANYTHING.map(lambda value: ("body", json.dumps(value).encode())),
    ))  # fmt: skip
    words = draw(st.sampled_from([
        *[["study.sweep", "status", "somebody/many/sweep0"]] * 4, ["analysis.summarize", "somebody/many", "--refresh"],
        ["study.sweep", "create", "good.yaml", "--project=many"],
        ["study.sweep", "agents", "somebody/many/sweep1", "--cpus=1"],
        *[["study.sweep", "create", "--missing", "somebody/many/sweep0"]] * 3,
        ["analysis.summarize", "runs", "--sweep", "somebody/many/sweep0"],
    ]))  # fmt: skip
    operation = draw(st.sampled_from(OPERATIONS))
    if words[1] == "agents":  # with a sweep that it cannot read, so that no worker is started
        operation, wrong = "GetSweep", ("status", 404) if wrong[0] == "change" else wrong
    return Case(
        "server", words[0], words[1:], partial(spoil, operation, wrong), codes=(0, 1, 2), note=(operation, wrong)
    )


def spoil(operation: str, wrong: tuple, folder: Path) -> None:
    """Let the server of this process answer an operation, or all of them, with nonsense."""
    SERVED.wrong = (operation, wrong)


class _Served:
    """The server of a process, which is started when it is first needed."""

    wrong: tuple | None = None
    server: Any = None


SERVED = _Served()


def serve(trained: Path) -> dict[str, str]:
    """Start a stand-in for W&B's server that answers nonsense; return the environment of its clients."""
    from tests import measure_pull, wandb_graphql
    from tests.wandb_server import Server, Sweep, _Handler

    class Handler(_Handler):
        def _graphql(self, request: dict[str, Any]) -> None:
            named = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            operation = request.get("operationName") or (named[1] if named else "")
            wanted, (how, what) = SERVED.wrong or (None, (None, None))
            if wanted not in ("", operation):
                return super()._graphql(request)
            if how == "status":
                return self._answer({"errors": [{"message": "a failure"}]}, what)
            if how == "body":
                return self._answer(what)
            with self.server.lock:
                answer = wandb_graphql.answer(self.server, operation, request.get("variables") or {})
            return self._answer(json.dumps(with_change(answer, *what)).encode())

        def do_GET(self) -> None:
            if SERVED.wrong and SERVED.wrong[0] == "GET":
                self._answer(b"nonsense", 200)
            else:
                super().do_GET()

    SERVED.server = Server()
    SERVED.server.RequestHandlerClass = Handler
    SERVED.server.__enter__()
    measure_pull.serve(SERVED.server, trained)
    SERVED.server.sweeps["sweep0"] = Sweep("sweep0", "many", SWEEP)
    SERVED.server.sweeps["sweep1"] = Sweep("sweep1", "many", SWEEP)
    SERVED.server.sweeps["sweep1"].state = "FINISHED"
    return {
        "WANDB_BASE_URL": SERVED.server.url, "WANDB_API_KEY": "k" * 40, "WANDB_X_GRAPHQL_RETRY_MAX": "0",
        "WANDB_HTTP_TIMEOUT": "5", "WANDB_ERROR_REPORTING": "false",
    }  # fmt: skip


# running a command


class Hang(BaseException):
    """A command took too long."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise Hang if the block takes longer."""

    def late(signum: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def call(case: Case) -> Ended:
    """Run a command in this process, in the current folder."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    handlers = {signum: signal.getsignal(signum) for signum in ENDS}
    before = sys.argv, sys.stdin
    sys.argv, sys.stdin = [case.module, *case.words], io.StringIO()
    code: int | str | None = None
    try:
        main = importlib.import_module(MODULES.get(case.module, case.module)).main
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]), at_most(SECONDS):
            run_command(main)
    except SystemExit as end:
        code = end.code
    except Hang:
        code = "late"
    finally:
        sys.argv, sys.stdin = before
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        gc.unfreeze()
    out, err = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in streams)
    return Ended(code, out, err)


MODULES = {"study.bench": "study.bench.compare"}


def start(case: Case) -> Ended:
    """Run a command as a process of its own, in the current folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", case.module, *case.words]
    try:
        done = subprocess.run(
            words, env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=2 * SECONDS
        )
    except subprocess.TimeoutExpired:
        return Ended("late", "", "")
    return Ended(done.returncode, *(text.decode("utf-8", "replace") for text in (done.stdout, done.stderr)))


def fault(case: Case, ended: Ended) -> str | None:
    """Return what is wrong with the end of a command: a traceback's last lines, or a few words; None if all is well."""
    if "Traceback" in ended.err:
        frames = re.findall(r'File "([^"]+)", line (\d+)', ended.err)
        own = [
            f"{Path(file).name}:{line}"
            for file, line in frames
            if str(ROOT / "study") in file or str(ROOT / "analysis") in file
        ]
        last = [line for line in ended.err.splitlines() if re.match(r"\w[\w.]*(Error|Exception|Warning|\b.*):", line)][
            -1:
        ]
        kind = last[0].partition(":")[0] if last else "?"
        return f"traceback: {kind} at {own[-1] if own else '?'}"
    if ended.code not in case.codes:
        return f"exit code {ended.code}: {ended.err[-200:]}"
    if ended.code in (1, 2) and not re.search(r"error: .*\w", ended.err, re.DOTALL):
        return f"no sentence: {case.module}: {ended.err[:200]!r}"
    if ended.code == 0 and "error:" in ended.err:
        return f"an error without a code: {ended.err[:200]}"
    return None


def runs_in(folder: Path) -> set[Path]:
    """List the run directories in a folder, except copies of others."""
    return {path for path in folder.glob("**/run.json") if not {"copies", "cache"} & set(path.parts)}


def attempt(case: Case, run: Callable[[Case], Ended]) -> tuple[str | None, Ended]:
    """Run a case in a folder of its own, and return what is wrong, and how it ended."""
    before = Path.cwd()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    environment = dict(os.environ)
    try:
        (folder / "good.yaml").write_text(yaml.safe_dump(SWEEP), encoding="utf-8")
        case.make(folder)
        runs = runs_in(folder)
        os.chdir(folder)
        os.environ |= {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), **case.environment}
        ended = run(case)
        started = runs_in(folder) - runs
        return f"a run was started: {started}" if started else fault(case, ended), ended
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder, also parts that are closed."""
    for path, names, _ in os.walk(folder):
        for name in names:
            inner = Path(path, name)
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


# many commands


@dataclass
class Found:
    """The counts of exit codes by kind, and for each kind of fault its number and the shortest case."""

    ends: Counter = field(default_factory=Counter)
    faults: dict[str, tuple[int, Case, Ended]] = field(default_factory=dict)

    def add(self, what: str, case: Case, ended: Ended, count: int = 1) -> None:
        number, shortest, end = self.faults.get(what, (0, case, ended))
        if len(str(case.words) + str(case.note)) < len(str(shortest.words) + str(shortest.note)):
            shortest, end = case, ended
        self.faults[what] = (number + count, shortest, end)

    def merge(self, other: "Found") -> None:
        self.ends += other.ends
        for what, (number, case, ended) in other.faults.items():
            self.add(what, case, ended, number)


def search(cases: st.SearchStrategy, count: int, number: int, run: Callable[[Case], Ended] = call) -> Found:
    """Try that many cases, and return what was found."""
    found = Found()

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def test(case: Case) -> None:
        what, ended = attempt(case, run)
        found.ends[case.kind, ended.code] += 1
        if what:
            found.add(what, case, ended)

    test()
    return found


def kinds(trained: Path) -> dict[str, st.SearchStrategy]:
    """Return the strategy of each kind of input; `trained` is the directory of a run."""
    return {
        "argv": argv(),
        "sweep file": sweep_file(),
        "folder": image_folder(),
        "run directory": run_directory(trained),
        "server": server_answer(),
    }


def search_server(trained: Path, count: int, number: int) -> Found:
    """Try cases with a server, in a process of its own."""
    quiet()
    found = Found()
    os.environ |= serve(trained)
    found.merge(search(server_answer(), count, number))
    for what, (many, case, ended) in list(found.faults.items()):
        found.faults[what] = (many, Case(case.kind, case.module, case.words, note=case.note), ended)
    return found


def quiet() -> None:
    """Leave no W&B account, and keep its client from reporting."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    os.environ |= {
        "WANDB_ERROR_REPORTING": "false",
        "NETRC": "/nowhere",
        "OMP_NUM_THREADS": "1",
        "WANDB_SILENT": "true",
    }


def train(folder: Path) -> Path:
    """Train the run whose directory is damaged."""
    words = [sys.executable, "-m", "study.train", *QUICK]
    subprocess.run(words, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.DEVNULL)
    return next((folder / "runs").glob("mlp-*"))


def main(count: int, number: int, only: str = "") -> int:
    """Try that many cases in this process, and a hundredth of them as processes, and print what was found."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # else what takes too much ends this process
    quiet()
    with tempfile.TemporaryDirectory() as place:
        trained = train(Path(place))
        found = Found()
        for kind, strategy in kinds(trained).items():
            share = math.ceil(SHARES[kind] * count)
            if only and kind not in only:
                continue
            started = time.perf_counter()
            if kind == "server":
                workers = min(SERVER_PROCESSES, share)
                with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
                    parts = [
                        pool.submit(search_server, trained, share // workers, number + index)
                        for index in range(workers)
                    ]
                    for part in parts:
                        found.merge(part.result())
            else:
                found.merge(search(strategy, share, number))
                if not only:
                    found.merge(search(strategy, max(1, share // 100), number + 1, start))
            print(f"{kind}: {time.perf_counter() - started:.0f} s", flush=True)
    for (kind, code), times in sorted(found.ends.items(), key=str):
        print(f"{kind}, exit code {code}: {times}")
    for what, (times, case, ended) in sorted(found.faults.items()):
        print(f"\n{times} × {what}\n  python -m {case.module} {case.words}\n  {str(case.note)[:600]}")
        print(ended.err[-900:])
    print(f"{found.ends.total()} cases, {len(found.faults)} kinds of fault")
    return 1 if found.faults else 0


if __name__ == "__main__":
    if os.geteuid() == 0 and shutil.which("setpriv") and "FUZZ_AS_ROOT" not in os.environ:
        os.environ["FUZZ_AS_ROOT"] = "without its rights to files"
        rights = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
        os.execvp("setpriv", [*rights, sys.executable, "-m", "tests.fuzz", *sys.argv[1:]])
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, *sys.argv[3:4]))
