"""What disks, signals and strangers do to runs: nothing is lost in silence, and one file stops no command."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from study.data import folder
from study.record.directory import CorruptRun, RunDirectory
from study.sweeps import definition as search
from study.sweeps.standing import Runs
from study.system import files as cache
from study.system.errors import UserError
from study.system.process import ENDS, handle_ends
from tests.conftest import ROOT

QUICK = ("--dataset=digits", "--model=mlp", "--epochs=2", "--wandb=disabled")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run_python):
    """Train a run, once, by the command."""
    place = tmp_path_factory.mktemp("trained")
    run_python(["-m", "study.train", *QUICK], place)
    return next((place / "runs").glob("mlp-*"))


@pytest.fixture
def run(trained, tmp_path):
    """Return a copy of the run, in `runs`."""
    shutil.copytree(trained, tmp_path / "runs" / trained.name)
    return RunDirectory(tmp_path / "runs" / trained.name)


@given(st.data())
def test_a_file_of_tensors_with_a_wrong_bit_is_not_read(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bits.pt"
    torch.save({"a": torch.arange(50.0), "b": [1, 2]}, path)
    assert cache.read(path)["b"] == [1, 2]
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    found = cache.read(path)
    assert found is None or (torch.equal(found["a"], torch.arange(50.0)) and found["b"] == [1, 2])
    path.write_bytes(content[:place])
    assert cache.read(path) is None


@pytest.mark.usefixtures("undrawn")
def test_predictions_with_a_wrong_bit_are_said_to_be_broken(run, call):
    with np.load(run.path / "evaluation.npz") as arrays:
        assert "test_predictions" in arrays
    content = bytearray((run.path / "evaluation.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (run.path / "evaluation.npz").write_bytes(content)
    with pytest.raises(CorruptRun, match="is broken: delete it, then the same command retrains the run"):
        run.evaluation()
    call("analysis.summarize", "--full")
    page = (run.path.parent.parent / "report" / "report.md").read_text(encoding="utf-8")
    assert "evaluation.npz is broken" in page and "### Learning curves" in page, "the rest of the report stands"
    (run.path / "evaluation.npz").unlink()
    assert "is trained again" in call("study.train", *QUICK).stdout
    assert run.state() == "finished" and len(run.evaluation()["test_predictions"]) == 359


def test_an_interrupted_run_whose_description_is_cut_off_is_trained_anew(run, call):
    (run.path / "summary.json").rename(run.path / "last.pt")
    (run.path / "run.json").write_text('{"config": {"mod', encoding="utf-8")
    assert run.state() == "corrupt"
    assert "is trained again" in call("study.train", *QUICK).stdout
    assert run.state() == "finished" and (run.path / "damaged" / "run.json").exists()


DAMAGES = [
    ("history.jsonl", b'{"epoch": 1, "val/acc": 0.5\xff}\n'),
    ("history.jsonl", b'{"epoch": 1, "val/acc": "high"}\n{"epoch": 2}\n'),
    ("run.json", b'{"config": null, "fingerprint": "a", "group": "b"}'),
    ("run.json", b'{"config": {}, "fingerprint": ["a"], "group": "b", "sweeps": null}'),
    ("summary.json", b'{"last/epoch": 2}'),
    ("summary.json", b'{"last/epoch": 2, "best/epoch": 1, "best/val_acc": [1], "test/acc": "0.5"}'),
]


@pytest.mark.usefixtures("undrawn")
def test_no_file_of_one_run_stops_a_command(run, call, sweep_file):
    for place, (name, content) in enumerate(DAMAGES):
        other = run.path.with_name(f"mlp-{place}")
        shutil.copytree(run.path, other)
        (other / name).write_bytes(content)
    path = sweep_file({"dropout": {"value": 0.0}})
    assert "1 finished, 1 missing" in call("study.sweep", "status", path).stdout
    told = call("analysis.summarize", "--out", "report").stderr
    assert all(told.count(f"mlp-{place} is left out") == 1 for place in range(len(DAMAGES))), told
    shutil.copy(run.path.with_name("mlp-5") / "summary.json", run.path)
    assert "its summary.json holds no accuracies" in " ".join(call("study.sweep", "status", path).stdout.split())
    sweep = search.read(sweep_file(method="bayes", run_cap=3))
    assert Runs("runs").points(sweep, {"runs_dir": "runs"}) == []


def test_a_checkpoint_of_another_training_is_not_gone_on_from(run, call):
    info = run.info()
    run.write_info({name: value for name, value in info.items() if name != "state"})
    for broken in ({"model": {}, "optimizer": {}}, {"progress": {"eopch": 1}}, {}):
        torch.save(broken, run.path / "last.pt")
        (run.path / "summary.json").unlink(missing_ok=True)
        out = call("study.train", *QUICK).stdout
        assert "last.pt cannot be read: training starts again" in out
        assert run.state() == "finished" and len(run.history()) == 2
        run.write_info({name: value for name, value in run.info().items() if name != "state"})


def test_a_file_that_cannot_be_written_leaves_nothing_behind(run):
    before = sorted(path.name for path in run.path.iterdir())

    def full(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run.write("last.pt", full)
    assert sorted(path.name for path in run.path.iterdir()) == before
    (run.path / ".last.pt.tmp").write_bytes(b"of a killed process")
    run.clear()
    assert not (run.path / ".last.pt.tmp").exists()


def test_a_training_goes_on_where_no_checkpoint_can_be_written(tmp_path, monkeypatch):
    from study.config import Config
    from study.record.display import Display
    from study.system.process import Signals
    from study.training import trainer
    from study.training.run import train

    class Told(Display):
        lines: ClassVar[list[str]] = []

        def say(self, text):
            self.lines.append(text)

    def full(self, name, save):
        if name == "last.pt":
            raise OSError(28, "No space left on device")
        write(self, name, save)

    write = RunDirectory.write
    monkeypatch.setattr(RunDirectory, "write", full)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    config = Config(dataset="digits", model="mlp", epochs=2, wandb="disabled", runs_dir=str(tmp_path / "runs"))
    assert train(config, Told(), Signals()).state == "finished"
    assert any("no checkpoint could be written (No space left on device)" in line for line in Told.lines)


def test_what_an_earlier_end_left_of_a_removal_is_removed(run, call, sweep_file):
    run.write_info(run.info() | {"state": "failed"})
    half = run.path.with_name(f".{run.path.name}.removed")
    half.mkdir()
    (half / "best.pt").write_bytes(b"")
    assert run.remove()
    assert not half.exists() and not run.path.exists()


def test_a_closed_terminal_leaves_a_checkpoint(start, tmp_path):
    process = start("study.train", *QUICK, "--epochs=10000")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/history.jsonl")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 128 + signal.SIGHUP
    (path,) = tmp_path.glob("runs/*/last.pt")
    assert cache.read(path)["progress"]["epoch"] >= 1
    assert "state" not in json.loads((path.parent / "run.json").read_text(encoding="utf-8"))


def test_what_a_script_or_nohup_lets_be_ignored_ends_nothing_here_but_may_end_what_is_started():
    received = []
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    handle_ends(lambda signum, frame: received.append(signum))
    for signum in ENDS:
        os.kill(os.getpid(), signum)
    assert received == [signal.SIGTERM]
    assert subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 2)"], stderr=-3).returncode != 0


@pytest.mark.slow
def test_a_training_that_nobody_reads_goes_on_and_imports_no_wandb_when_that_is_disabled(tmp_path):
    words = " ".join([sys.executable, "-X", "importtime", "-m", "study.train", *QUICK])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shell = f"{words} | head -1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    heads, _, modules = zip(*(line.partition(" | ") for line in ended.stderr.splitlines()), strict=True)
    assert ended.returncode == 0 and all(head.startswith("import time:") for head in heads), "nothing else is said"
    imported = {module.rpartition(" | ")[2].split(".")[0].strip() for module in modules}
    assert "torch" in imported and "wandb" not in imported
    assert RunDirectory(next(tmp_path.glob("runs/mlp-*"))).state() == "finished"


def test_links_to_nowhere_and_in_circles_are_no_images(photo_folder):
    one = photo_folder / "train" / "one"
    (one / "a.png").symlink_to(one / "nothing.png")
    (one / "b.png").symlink_to(one / "b.png")
    (photo_folder / "train" / "round").symlink_to(photo_folder / "train" / "round")
    (one / "03.png").rename(one / os.fsdecode(b"\xff.png"))
    found = folder.scan(photo_folder.parent, "photos")
    assert found.classes == ("one", "two") and len(found.files["train"]) == 40
    (photo_folder / "train" / os.fsdecode(b"\xfe")).mkdir()
    with pytest.raises(UserError, match="a class is named"):
        folder.scan(photo_folder.parent, "photos")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("config",), [-22], "a recorded config is a mapping"),
        (("data",), {}, "its data.classes cannot be used"),
        (("data", "mean"), {"a": 1}, "its data.mean cannot be used"),
        (("data", "image_shape"), [3, 9, 9], "best.pt does not fit the mlp that run.json describes"),
        (("data", "preparation"), [3], "its data.preparation cannot be used"),
    ],
)
def test_a_network_whose_description_is_damaged_predicts_nothing(run, call, place, value, message):
    info = run.info()
    part = info if len(place) == 1 else info[place[0]]
    part[place[-1]] = value
    run.write_info(info)
    assert message in call("study.predict", run.path, "photo.png", code=2).stderr


def test_a_damaged_run_does_not_keep_others_from_being_copied(run, call):
    other = RunDirectory(shutil.copytree(run.path, run.path.with_name("mlp-other")))
    other.write_info(other.info() | {"config": {"weights": 3}})
    third = RunDirectory(shutil.copytree(run.path, run.path.with_name("mlp-third")))
    third.write_evaluation({"test_predictions": np.zeros(3)})
    ended = call("analysis.export", "runs", "copies", code=2)
    assert "1 runs copied" in ended.stdout and ended.stderr.count("is left out") == 2
    assert RunDirectory(f"copies/{run.path.name}").state() == "finished"


def test_a_file_without_end_is_no_sweep_and_no_config(call):
    assert "longer than 10,000,000 characters" in call("study.sweep", "check", "/dev/zero", code=2).stderr
    assert "longer than 10,000,000 characters" in call("study.train", "--config=/dev/zero", code=2).stderr


def test_a_name_that_is_too_long_is_one_sentence(call):
    long = "a" * 300
    for words in (("study.sweep", "status", long), ("analysis.summarize", long), ("study.predict", long, "photo.png")):
        ended = call(*words, code=2)
        assert "File name too long" in ended.stderr or "has no run.json" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_a_folder_that_is_closed_is_one_sentence(photo_folder):
    """Root may read everything, until it gives up the right to it."""
    (photo_folder / "train" / "one").chmod(0)
    root = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    if root and not shutil.which("setpriv"):
        pytest.skip("root may read everything")
    words = [*root, sys.executable, "-m", "study.train", "--dataset=folder:photos"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        words, cwd=photo_folder.parent.parent, env=environment, capture_output=True, encoding="utf-8"
    )
    (photo_folder / "train" / "one").chmod(0o700)
    assert ended.returncode == 2
    assert ended.stderr == "error: data/photos/train/one cannot be used: Permission denied\n"


@contextmanager
def ended_after(changes: int, monkeypatch) -> Iterator[None]:
    """Let a process end after some changes of files, as one does that is killed."""
    left = itertools.count(-changes)

    def until_the_end(change):
        def changed(*args, **options):
            if next(left) >= 0:
                raise KeyboardInterrupt
            return change(*args, **options)

        return changed

    with monkeypatch.context() as patched:
        for name in ("hardlink_to", "rename", "replace", "unlink"):
            patched.setattr(Path, name, until_the_end(getattr(Path, name)))
        yield


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("changes", [*range(13), 99])
def test_a_previous_result_is_kept_whole_wherever_a_process_ends(run, changes, monkeypatch):
    whole = content(run.path)
    with suppress(KeyboardInterrupt), ended_after(changes, monkeypatch):
        run.keep_result()
    assert content(run.path / "before" if run.had_result() else run.path) == whole
    assert run.had_result() == (changes > len(whole)) and (changes < 99 or not content(run.path))


@pytest.mark.parametrize("changes", [*range(13), 99])
def test_a_previous_result_is_restored_whole_wherever_a_process_ends(run, changes, monkeypatch):
    whole = content(run.path)
    run.keep_result()
    run.write_history([{"epoch": 1}])
    run.write_info({"state": "failed"})
    with suppress(KeyboardInterrupt), ended_after(changes, monkeypatch):
        run.remove()
    run.remove()
    assert content(run.path) == whole and run.state() == "finished"
