"""`python -m study.train` as a person or `wandb agent` runs it: real processes, the real wandb client."""

import fcntl
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import wandb
from PIL import Image
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
from wandb.sdk.lib import config_util

from analysis import reporting as report
from analysis.frames import sections
from analysis.frames.runs import load
from analysis.themes import costs, layers
from study import models
from study.config import Config
from study.config.choices import AUGMENTATIONS
from study.record.directory import DONE, RunDirectory
from study.record.display import Display, RunDisplay
from study.record.tracker import Tracker
from study.remote import columns, offline
from study.remote.api import state_of
from study.remote.replay import replay
from study.remote.run import place_of
from study.system import devices
from study.system.errors import Interrupted
from study.system.process import Signals
from study.training.evaluation import Evaluator
from study.training.run import train
from study.training.trainer import Trainer
from tests.wandb_server import Server

QUICK = ("--dataset=digits", "--epochs=2", "--model=mlp", "--runs-dir=runs")


def only_run(folder) -> RunDirectory:
    (path,) = (path for path in folder.iterdir() if path.name != "wandb")
    return RunDirectory(path)


def offline_records(folder):
    """Read the records of the one offline log below a folder of runs."""
    (log,) = folder.glob("wandb/offline-run-*")
    return records(log)


def records(log):
    """Read the records of an offline log (LevelDB's log format, protobuf records)."""
    from wandb.proto import wandb_internal_pb2

    (log,) = log.glob("*.wandb")
    content, position, parts = log.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7]) if left >= 7 else (0, 0)
        if kind == 0:
            position += left
            continue
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def test_a_run_leaves_a_complete_directory_and_is_not_trained_twice(command, call, tmp_path):
    out = command("study.train", *QUICK, "--wandb=disabled", "--dropout=0.5").stdout
    run = only_run(tmp_path / "runs")
    assert run.state() == "finished"
    assert sorted(path.name for path in run.path.iterdir()) == [
        ".lock", "best.pt", "evaluation.npz", "history.jsonl", "run.json", "summary.json",
    ]  # fmt: skip
    info, summary, history = run.info(), run.summary(), run.history()
    assert run.path.name == f"mlp-digits-s0-{info['fingerprint']}"
    assert info["config"]["dropout"] == 0.5
    assert [row["epoch"] for row in history] == [1, 2]
    best = max(history, key=lambda row: row["val/acc"])
    assert (summary["best/epoch"], summary["best/val_acc"]) == (best["epoch"], best["val/acc"])
    arrays = run.evaluation()
    right = (arrays["test_probabilities"].argmax(1) == arrays["test_targets"]).mean()
    assert summary["test/acc"] == pytest.approx(right)
    assert len(arrays["logits"]) == len(arrays["penultimate"]) == len(arrays["feature_targets"]) == 287
    with Image.open(io.BytesIO(arrays["feature_images"].tobytes())) as sheet:
        assert (sheet.format, sheet.mode, sheet.size) == ("JPEG", "L", (17 * 8, 17 * 8)), "287 images of 8 x 8"
    assert arrays["feature_images"].nbytes < 15_000
    lines = [line for line in out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2, "one plain line per epoch where there is no terminal"
    assert all("ETA" in line and "images/s" in line for line in lines)
    assert "wandb" not in [path.name for path in (tmp_path / "runs").iterdir()]

    written = (run.path / "summary.json").stat().st_mtime_ns
    with (run.path / ".lock").open("rb") as reader:  # another process that asks whether the run is trained
        fcntl.flock(reader, fcntl.LOCK_SH)
        assert not run.is_locked()
    with run.locked():  # reading needs no lock
        assert run.is_locked()
        again = call("study.train", *QUICK, "--dropout", "0.50", "--wandb=disabled", "--notes=again")
    assert "was trained before" in again.stdout
    assert (run.path / "summary.json").stat().st_mtime_ns == written
    call("study.train", *QUICK, "--dropout=0.5", "--wandb=disabled", "--force=1")
    assert (run.path / "summary.json").stat().st_mtime_ns > written
    assert {k: v for k, v in run.summary().items() if k != "train_seconds"} == {
        k: v for k, v in summary.items() if k != "train_seconds"
    }


def test_the_config_in_a_run_repeats_it_elsewhere(call, tmp_path):
    call("study.train", *QUICK, "--wandb=disabled", "--setting=epochs=1 dropout=0.2")
    first = only_run(tmp_path / "runs")
    call("study.train", "--config", first.path / "run.json", "--runs-dir=copy")
    assert only_run(tmp_path / "copy").path.name == first.path.name
    call("study.train", "--config", first.path / "run.json", "--runs-dir=longer", "--epochs=2")
    assert len(only_run(tmp_path / "longer").history()) == 2
    call("study.train", "--config", first.path / "run.json", "--runs-dir=adam", "--optimizer=adam")
    assert only_run(tmp_path / "adam").info()["config"]["lr"] == 0.001, "what followed from SGD is not taken along"


def test_tags_are_added_to_a_run_that_has_a_result(call, tmp_path):
    call("study.train", *QUICK, "--wandb=disabled", "--tags=exam")
    run = only_run(tmp_path / "runs")
    before = run.info()
    said = call("study.train", *QUICK, "--wandb=disabled", "--tags=exam, retry").stdout
    assert "retry" in said and "run.json" in said and "tags" not in call("study.train", *QUICK, "--tags=retry").stdout
    assert run.info() == before | {"tags": ["exam", "retry"]}


def test_a_log_in_the_folder_of_wandb_dir_is_found(command, run_python, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    said = command("study.train", "--dataset=digits", "--model=mlp", "--epochs=1").stdout
    (log,) = tmp_path.glob("wandb/offline-run-*")
    assert f"wandb sync {log}" in said
    path = only_run(tmp_path / "runs").path
    said = command("study.sync", path).stdout
    (log,) = tmp_path.glob("wandb/offline-run-*")  # which replaces the first
    assert f"wandb sync {log}" in said and "is sent" not in said

    # the folder of a run by any name, beside the logs of others
    others = [
        tmp_path / "wandb" / f"offline-run-20260101_000000-{name}"
        for name in ("other", f"{path.name}0", f"cnn-{path.name}", f"{path.name}-more")
    ]
    for other in others:
        other.mkdir()
    assert "wandb sync" in run_python(["-m", "study.sync", "."], path).stdout
    assert all(other.exists() for other in others) and len(list(tmp_path.glob("wandb/offline-run-*"))) == 5


def test_without_a_key_wandb_is_offline_and_gets_the_same_rows(command, tmp_path):
    command("study.train", *QUICK, "--tags=quick,test", "--notes=hello")
    run = only_run(tmp_path / "runs")
    records = list(offline_records(tmp_path / "runs"))
    (start,) = (record.run for record in records if record.HasField("run"))
    assert (start.run_id, start.project) == (run.path.name, "image-classifier-study")
    assert (start.run_group, start.job_type) == ("mlp digits epochs=2", "train")
    assert (list(start.tags), start.notes) == (["quick", "test"], "hello")
    config = {item.key: json.loads(item.value_json) for item in start.config.update}
    assert columns.options_of(config).items() <= run.info()["config"].items()
    assert config["info"]["records"] == {"notes": "hello", "tags": "quick,test"}
    assert not config.keys() & {"notes", "tags", "entity", "project", "data_dir", "runs_dir", "wandb", "setting"}
    assert Config.recorded(columns.options_of(config)) == Config.recorded(run.info()["config"])
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records if record.HasField("history")
    ]  # fmt: skip
    logged = [{key: value for key, value in row.items() if key[0] != "_"} for row in rows if "val/loss" in row]
    assert logged == run.history()
    assert len(rows) == len(logged) + 1, "the pictures of the end"
    (matrix,) = tmp_path.glob("runs/wandb/offline-run-*/files/media/table/test/confusion_table*.json")
    counts = {(row[0], row[1]): row[2] for row in json.loads(matrix.read_text(encoding="utf-8"))["data"]}
    arrays = run.evaluation()
    predicted = arrays["test_probabilities"].argmax(1)
    assert counts["8", "8"] == ((predicted == 8) & (arrays["test_targets"] == 8)).sum()
    assert any(record.request.HasField("log_artifact") or record.HasField("artifact") for record in records)
    steps = {(m.name or m.glob_name): m.step_metric for m in (r.metric for r in records if r.HasField("metric"))}
    assert steps["*"] == "epoch"
    summary = {}
    for record in records:
        if record.HasField("summary"):
            summary |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
    assert run.summary().items() <= summary.items()


def test_a_run_that_was_ended_goes_on_and_equals_an_undisturbed_one(start, call, tmp_path):
    options = ("--dataset=digits", "--model=cnn", "--epochs=300", "--batch-size=16", "--augment=crop,flip",
               "--dropout=0.5", "--threads=1")  # fmt: skip
    process = start("study.train", *options, "--runs-dir=cut")
    deadline = time.monotonic() + 60
    while not (list((tmp_path / "cut").glob("*/history.jsonl")) and len(only_run(tmp_path / "cut").history()) > 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    run = only_run(tmp_path / "cut")
    assert run.state() == "running"
    call("study.train", *options, "--runs-dir=cut", code=1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert run.state() == "interrupted"
    done = len(run.history())
    assert 2 < done < 300

    # going on for 300 epochs would take long: the same checkpoint must lead to the same next epochs
    process = start("study.train", *options, "--runs-dir=cut", "--threads=2")
    whole = start("study.train", *options, "--runs-dir=whole")
    deadline = time.monotonic() + 120
    while not (list((tmp_path / "whole").glob("*/history.jsonl")) and
               min(len(only_run(tmp_path / name).history()) for name in ("cut", "whole")) > done + 2):  # fmt: skip
        assert time.monotonic() < deadline and process.poll() is None and whole.poll() is None
        time.sleep(0.05)
    for one in (process, whole):
        one.send_signal(signal.SIGINT)
        assert one.wait(30) == -signal.SIGINT, "a shell ends its loop too"
    keys = ("epoch", "train/loss", "train/acc", "val/loss", "val/acc")
    cut, undisturbed = (
        [[row[key] for key in keys] for row in only_run(tmp_path / name).history()[: done + 2]]
        for name in ("cut", "whole")
    )
    assert cut == undisturbed
    assert run.info()["threads"] == 1, "those of the first start"
    assert run.info()["cpu"] and run.info()["cores"] >= 1
    epochs = [
        next(json.loads(item.value_json) for item in record.history.item if "epoch" in (item.key, *item.nested_key))
        for record in offline_records(tmp_path / "cut") if record.HasField("history")
    ]  # fmt: skip
    assert epochs == list(range(1, len(epochs) + 1)), "W&B's log holds every epoch once, those before the cut too"


def test_a_run_that_is_ended_after_its_last_epoch_has_only_its_result_to_find(tmp_path, monkeypatch):
    def config(**options):
        return Config.parse({"dataset": "digits", "model": "cnn", "epochs": 3, "wandb": "disabled"} | options)

    class Ending(Display):
        """Ends the run when its last epoch is told."""

        def epoch(self, row):
            self.told = row["epoch"]
            if row["epoch"] == 3:
                signal.raise_signal(signal.SIGTERM)

        def say(self, text):
            self.last = text

    monkeypatch.chdir(tmp_path)
    display = Ending()
    with pytest.raises(Interrupted):
        train(config(runs_dir="cut"), display, Signals())
    assert display.last == "ended after epoch 3; the same command resumes from here"
    assert only_run(tmp_path / "cut").state() == "interrupted"
    display.told = None
    cut = train(config(runs_dir="cut"), display, Signals())
    whole = train(config(runs_dir="whole"), Display(), Signals())
    assert display.told is None, "no epoch is trained again"
    assert {**cut.summary, "train_seconds": 0} == {**whole.summary, "train_seconds": 0}


def test_a_run_that_is_ended_while_it_diverges_has_diverged(tmp_path, monkeypatch):
    score = Evaluator.score

    def ended(self, split):
        signal.raise_signal(signal.SIGTERM)
        return score(self, split)

    monkeypatch.setattr(Evaluator, "score", ended)
    options = {"dataset": "digits", "model": "mlp", "epochs": 1, "batch_size": 2000, "lr": 1e35, "wandb": "disabled"}
    config = Config.parse(options | {"runs_dir": str(tmp_path / "runs")})
    assert train(config, Display(), Signals()).state == "diverged"
    assert only_run(tmp_path / "runs").state() == "diverged"


def test_a_result_is_written_though_a_signal_comes_meanwhile(tmp_path, monkeypatch):
    write, signals = RunDirectory.write_evaluation, Signals()

    def ended(self, arrays):
        signal.raise_signal(signal.SIGTERM)
        return write(self, arrays)

    monkeypatch.setattr(RunDirectory, "write_evaluation", ended)
    config = {"dataset": "digits", "model": "mlp", "epochs": 1, "wandb": "disabled", "runs_dir": str(tmp_path / "runs")}
    assert train(Config.parse(config), Display(), signals).state == "finished"
    assert only_run(tmp_path / "runs").state() == "finished" and signals.received == signal.SIGTERM


def test_signals_beyond_the_first_do_not_cost_the_checkpoint(tmp_path, monkeypatch):
    """A scheduler may send SIGTERM twice, to the process and to its group, and a held Ctrl-C repeats itself."""
    monkeypatch.setattr(Trainer, "evaluate", lambda self: signal.raise_signal(signal.SIGTERM))
    save = Tracker.save

    def save_and_end(self, name, state):
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        save(self, name, state)

    monkeypatch.setattr(Tracker, "save", save_and_end)
    config = {"dataset": "digits", "model": "mlp", "epochs": 1, "wandb": "disabled", "runs_dir": str(tmp_path / "runs")}
    with pytest.raises(Interrupted):
        train(Config.parse(config), Display(), Signals())
    assert (only_run(tmp_path / "runs").path / "last.pt").exists()


def test_a_second_ctrl_c_ends_at_once_unless_it_comes_with_the_first(monkeypatch):
    signals = Signals()
    with signals.hold():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr("study.system.process.AT_ONCE_SECONDS", 0)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)


def test_a_run_that_was_killed_goes_on(start, call, tmp_path):
    options = ("--dataset=digits", "--model=mlp", "--epochs=300", "--wandb=disabled")
    code = (
        "import sys; from study.train import main; from study.training import trainer; "
        "trainer.CHECKPOINT_SECONDS = 0.05; main(sys.argv[1:])"
    )
    process = start("-c", code, *options)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "runs").glob("*/last.pt")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    run = only_run(tmp_path / "runs")
    assert run.state() == "interrupted"
    with (run.path / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 999, "train/l')
    assert all(row["epoch"] <= 300 for row in run.history())
    assert "resuming " in call("study.train", *options).stdout
    assert run.state() in DONE
    assert [row["epoch"] for row in run.history()] == list(range(1, 301))


@pytest.mark.parametrize("ending", ["forced", "resumed", "cleaned"])
def test_a_forced_run_that_cannot_begin_leaves_the_previous_result(call, tmp_path, ending):
    call("study.train", *QUICK, "--wandb=disabled")
    run = only_run(tmp_path / "runs")
    summary, written = run.summary(), {path.name for path in run.path.iterdir()}
    assert (
        "this machine has"
        in call("study.train", *QUICK, "--wandb=disabled", "--force", "--device=cuda:99", code=2).stderr
    )
    assert run.state() == "failed" and run.had_result()

    # The previous result goes when there is a new one, or returns when the failed training is removed
    if ending == "cleaned":
        assert run.remove() and run.summary() == summary
    else:
        call("study.train", *QUICK, "--wandb=disabled", *(["--force"] if ending == "forced" else []))
    assert run.state() == "finished" and {path.name for path in run.path.iterdir()} == written


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_batches_of_one_image_and_batch_norm_are_a_mistake(call, tmp_path, precision):
    words = ("--dataset=digits", "--model=mlp", "--batch-norm", "--batch-size=1", "--wandb=disabled")
    answer = call("study.train", *words, f"--precision={precision}", code=2)
    assert "batches of 1 are too small for the batch norm of mlp" in answer.stderr
    assert not list((tmp_path / "runs").glob("mlp-*"))


def test_deterministic_is_no_other_run_and_nothing_new_on_a_cpu(call, tmp_path):
    call("study.train", *QUICK, "--wandb=disabled")
    before = only_run(tmp_path / "runs")
    loss = before.summary()["test/loss"]
    assert "was trained before" in call("study.train", *QUICK, "--wandb=disabled", "--deterministic").stdout
    call("study.train", *QUICK, "--wandb=disabled", "--deterministic", "--force")
    again = only_run(tmp_path / "runs")
    assert again.info()["config"]["deterministic"] and again.summary()["test/loss"] == loss


def test_deterministic_holds_for_one_run_of_a_process():
    cuda = SimpleNamespace(type="cuda")
    for device, wanted, expected in ((cuda, True, True), (cuda, False, False), (torch.device("cpu"), True, False)):
        devices.set_deterministic(device, wanted)
        found = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic)
        assert found == (expected, expected)


def test_a_network_that_is_not_deterministic_is_a_mistake(call, monkeypatch):
    def fit(*_):
        raise RuntimeError(
            "avg_pool3d_backward_cuda does not have a deterministic implementation, but you set 'torch…'"
        )

    monkeypatch.setattr(Trainer, "fit", fit)
    answer = call("study.train", *QUICK, "--wandb=disabled", "--deterministic", code=2)
    assert "avg_pool3d_backward_cuda" in answer.stderr and "--deterministic" in answer.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("model", ["cnn", "resnet18", "googlenet"])
def test_deterministic_runs_give_the_same_bits_on_a_gpu(call, tmp_path, model):
    every = f"--augment={','.join(AUGMENTATIONS)}"
    words = ("--dataset=digits", f"--model={model}", "--epochs=2", "--device=cuda", "--wandb=disabled", every)
    summaries = []
    for _ in range(2):
        call("study.train", *words, "--deterministic", "--force")
        summaries.append(only_run(tmp_path / "runs").summary())
    assert summaries[0]["test/loss"] == summaries[1]["test/loss"]


def test_other_images_than_a_run_was_trained_on_are_refused(call, photo_folder, tmp_path):
    options = ("--dataset=folder:photos", "--epochs=1", "--model=mlp", "--wandb=disabled")
    call("study.train", *options)
    (photo_folder / "train" / "one" / "03.png").unlink()
    said = call("study.train", *options, code=2).stderr
    assert all(words in said for words in ("was trained on other files", "added or removed", "replaces the old result"))
    call("study.train", *options, "--force")
    assert sum(only_run(tmp_path / "runs").info()["data"]["images"].values()) == 39


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dropuot=0.5"], "unknown option '--dropuot'; did you mean '--dropout'?"),
        (["--dropout=1.5"], "dropout must be less than 1.0"),
        (["--epochs", "-1"], "epochs must be at least 1"),
        (["--model=resnet"], "unknown model 'resnet'"),
        (["--dataset=folder:nothing"], "there is no folder data/nothing"),
        (["--config=nothing.json"], "nothing.json cannot be read"),
        (["--runs-dir=/dev/null"], "cannot be made (Not a directory); name another --runs-dir"),
    ],
)
def test_a_mistake_costs_one_sentence_and_no_time(command, tmp_path, options, message):
    result = command("study.train", *options, code=2)
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_mistake_that_only_the_data_show_leaves_no_run_and_can_be_mended(call, photo_folder, tmp_path):
    options = ("study.train", "--dataset=folder:photos", "--model=mlp", "--epochs=1", "--wandb=disabled")
    broken = [photo_folder / "train" / "one" / f"broken{index}.png" for index in range(5)]
    for path in broken:
        path.write_bytes(b"no picture")
    call(*options, "--runs-dir=runs", code=2)
    assert not list((tmp_path / "runs").iterdir())
    config = Config.parse({"dataset": "folder:photos", "model": "mlp", "epochs": 1, "runs_dir": "runs"})
    RunDirectory.of(config).record_failure(config, "of other files", "it could not be read")
    for path in broken:
        path.unlink()
    call(*options, "--runs-dir=runs")
    assert only_run(tmp_path / "runs").state() == "finished", "a run that has no result stands in nobody's way"


@pytest.mark.parametrize("argv", [["--help"], ["--dropout=2"], ["--dataset=folder:nothing"]])
def test_torch_is_not_imported_for_help_or_a_mistake(argv, monkeypatch, capsys):
    """In a fresh interpreter, since this one has torch loaded."""
    import subprocess
    import sys

    code = (
        "import sys, runpy\nsys.argv[1:] = " + repr(argv) + "\n"
        "try: runpy.run_module('study.train', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules, 'wandb' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert out.splitlines()[-1] == ("0 False False" if argv == ["--help"] else "2 False False")


def test_runs_that_train_at_once_on_one_device_say_so(start, tmp_path):
    options = ("--dataset=digits", "--model=cnn", "--epochs=400", "--batch-size=16", "--wandb=disabled")
    both = [start("study.train", *options, f"--seed={seed}") for seed in (0, 1)]
    deadline = time.monotonic() + 60
    found: list[RunDirectory] = []
    while len(found) < 2 or any(run.info()["device_shared_by"] != 2 for run in found):
        assert time.monotonic() < deadline and all(process.poll() is None for process in both)
        found = [RunDirectory(path.parent) for path in tmp_path.glob("runs/*/history.jsonl")]
        time.sleep(0.1)


def test_out_of_memory_has_a_code_of_its_own():
    import subprocess
    import sys

    code = "from study.system.process import run_command; run_command(lambda argv: len(bytearray(1 << 60)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 3


def test_a_device_that_is_not_there_is_a_mistake(call):
    assert "this machine has" in call("study.train", *QUICK, "--wandb=disabled", "--device=cuda:99", code=2).stderr


def test_early_stopping_is_a_state_with_a_result(call, tmp_path):
    call("study.train", "--dataset=digits", "--model=mlp", "--epochs=900", "--lr=1", "--early-stopping=2",
            "--wandb=disabled")  # fmt: skip
    run = only_run(tmp_path / "runs")
    assert (run.state(), run.info()["stopped_by"]) == ("stopped", "early stopping")
    assert run.summary()["last/epoch"] == len(run.history()) < 900
    assert list(load(tmp_path / "runs").runs.state) == ["stopped"]
    assert "was trained before" in call("study.train", "--config", run.path / "run.json").stdout


KEY = "k" * 40


TRAIN_TWO = """
from study.config import Config
from study.record.display import RunDisplay
from study.remote.sink import Sinks
from study.system.process import Signals
from study.training.run import train
connect = Sinks().connect
for seed in (0, 1):
    train(Config(dataset="digits", epochs=2, model="mlp", seed=seed), RunDisplay(), Signals(), connect=connect)
"""


@pytest.mark.slow
def test_without_an_answer_from_wandb_runs_go_on_offline_and_only_the_first_waits(command, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    assert command("-c", TRAIN_TWO).stdout.count("W&B does not answer") == 1
    runs = [RunDirectory(path) for path in sorted((tmp_path / "runs").glob("mlp-*"))]
    assert [run.state() for run in runs] == ["finished"] * 2
    assert all("W&B does not answer" in run.info()["wandb_missing"] for run in runs)
    first, second = (run.info()["wandb_id"] for run in runs)
    assert (first, second) == (f"{runs[0].path.name}-offline", runs[1].path.name), "the second was offline at once"
    for run in runs:
        (log,) = offline.logs(run)
        assert len([record for record in records(log) if record.HasField("history")]) == 3
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("status", [500, 400])
def test_a_result_that_wandb_does_not_take_is_recorded_as_missing_there(command, tmp_path, monkeypatch, status):
    with Server() as server:
        for name, value in agent(server, WANDB_FINISH_TIMEOUT="3").items():
            monkeypatch.setenv(name, value)
        server.fail("file_stream", *[status] * 1000)  # the client tries again after 500, and gives up after 400
        told = command("study.train", *QUICK).stdout
        run = only_run(tmp_path / "runs")
        assert run.state() == "finished" and f"python -m study.sync runs/{run.path.name}" in told
        assert "study.sync" in run.info()["wandb_missing"]
        assert server.runs["handed"].config["info"]["value"]["state"] == "finished"
        server.runs["handed"].crashed = True
        api = wandb.Api({"base_url": server.url}, api_key=KEY)
        assert state_of(api.run("somebody/proj/handed")) == "crashed", "it has no result there"

        # It is sent later, under another id if the run was deleted meanwhile
        for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
            monkeypatch.delenv(name)
        command("study.sync", run.path, code=1)
        assert "wandb_missing" in run.info()
        server.failures.clear()
        if status == 400:
            server.deleted.add("handed")
            del server.runs["handed"]
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "6")  # the client waits for all of it if the run was deleted
        monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "60")
        assert "is sent" in command("study.sync", run.path).stdout
        assert "wandb_missing" not in run.info() and (run.info()["wandb_id"] == "handed") == (status == 500)
        sent = server.runs[run.info()["wandb_id"]]
        assert (sent.sweep, sent.state, sent.summary["test/acc"]) == ("sweep", "finished", run.summary()["test/acc"])
        run.write_info({**run.info(), "wandb_missing": "an older version of this program kept it"})
        assert "is in W&B already" in command("study.sync", run.path).stdout
        assert "wandb_missing" not in run.info()


class _Ended(RunDirectory):
    """A run directory that a signal meets after its epochs were sent."""

    def summary(self):
        raise Interrupted(signal.SIGINT)


def test_a_result_whose_sending_is_interrupted_is_not_at_wandb(command, tmp_path, monkeypatch):
    wandb.teardown()  # of a test before
    command("study.train", *QUICK, "--wandb=disabled")
    run = only_run(tmp_path / "runs")
    with Server() as server:
        for name, value in agent(server).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(Interrupted):
            replay(_Ended(run.path), Config.recorded(run.info()["config"]), print)
        sent = server.runs["handed"]
        assert sent.state == "preempted" and len(sent.history) > 0, "the sweep hands it out again"
        found = wandb.Api({"base_url": server.url}, api_key=KEY).run("somebody/proj/handed")
        assert state_of(found) == "queued"


CUT_OFF = """
import os, signal
from study.remote.run import WandbRun
from study.system.process import run_command
from study.train import main

end = WandbRun._end

def cut_off(self, code):
    if not code:
        os.kill(os.getpid(), signal.SIGNUM)
    end(self, code)

WandbRun._end = cut_off
run_command(main)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_result_whose_sending_ends_early_is_recorded_as_missing_and_sent_later(
    command, tmp_path, monkeypatch, signum
):
    with Server() as server:
        for name, value in {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        command("-c", CUT_OFF.replace("SIGNUM", signum.name), *QUICK, code=-signum)
        run = only_run(tmp_path / "runs")
        sent = server.runs[run.path.name]
        assert run.state() == "finished" and sent.state != "finished"
        assert f"python -m study.sync runs/{run.path.name}" in run.info()["wandb_missing"]
        assert "is sent" in command("study.sync", run.path).stdout
        assert run.is_sent() and sent.state == "finished" and "wandb_missing" not in sent.config["info"]["value"]


@pytest.mark.slow
def test_a_sweep_whose_results_are_not_all_in_wandb_ends_with_1(command, sweep_file, tmp_path, monkeypatch):
    with Server() as server:
        for name, value in {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        server.fail("file_stream", *[400] * 1000)
        words = (sweep_file({"dropout": {"value": 0.0}, "seed": {"value": 0}}), "--runs-dir=kept here")
        told = command("study.sweep", "run", *words, "--devices=cpu", "--per-device=1", code=1).stdout
    run = only_run(tmp_path / "kept here")
    assert run.state() == "finished" and "study.sync" in run.info()["wandb_missing"]
    remedy = f"python -m study.sync 'kept here/{run.path.name}'"
    assert remedy in told and remedy in command("study.sweep", "status", *words).stdout


@pytest.mark.slow
def test_a_run_whose_id_is_refused_gets_another_and_the_next_run_is_online_too(command, tmp_path, monkeypatch):
    with Server() as server:
        for name, value in {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "WANDB_INIT_TIMEOUT": "3"}.items():
            monkeypatch.setenv(name, value)
        refused = Config(dataset="digits", epochs=2, model="mlp", seed=0).run_name
        server.deleted.add(refused)
        command("-c", TRAIN_TWO)
    first, second = (RunDirectory(path) for path in sorted((tmp_path / "runs").glob("mlp-*")))
    assert first.info()["wandb_id"].startswith(f"{refused}-") and second.info()["wandb_id"] == second.path.name
    for run in (first, second):
        assert "wandb_missing" not in run.info() and not offline.logs(run)
        sent = server.runs[run.info()["wandb_id"]]
        assert sent.state == "finished" and run.summary().items() <= sent.summary.items()


def agent(server, **more):
    return {
        "WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "WANDB_SWEEP_ID": "sweep", "WANDB_RUN_ID": "handed",
        "WANDB_PROJECT": "proj", "WANDB_ENTITY": "somebody", **more,
    }  # fmt: skip


def test_a_point_is_trained_without_wandb_and_sent_later_to_where_it_belongs(command, tmp_path, monkeypatch):
    with Server() as server:
        more = {"WANDB_INIT_TIMEOUT": "2", "WANDB_DIR": str(tmp_path), "WANDB_NAME": "hidden 100, s00"}
        for name, value in agent(server, **more).items():
            monkeypatch.setenv(name, value)
        server.fail("RunResumeStatus", *[500] * 50)
        result = command("study.train", *QUICK)
        run = only_run(tmp_path / "runs")
        assert f"python -m study.sync runs/{run.path.name}" in result.stdout and "Traceback" not in result.stderr
        assert run.state() == "finished" and "study.sync" in run.info()["wandb_missing"]
        assert not (tmp_path / "wandb").exists(), "an agent's WANDB_DIR is where it was started"
        server.failures.clear()
        for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_NAME"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "60")
        assert "is sent" in command("study.sync", run.path).stdout
        sent = server.runs["handed"]
        assert sent.fields["displayName"] == "hidden 100, s00", "as its agent named it"
        assert (sent.sweep, sent.fields["project"], sent.summary["epoch"]) == ("sweep", "proj", 2)
        assert list(server.runs) == ["handed"]
        requests = dict(server.requests)
        assert "is in W&B already" in command("study.sync", run.path).stdout
        assert len(sent.history) == 3 and server.requests["UpsertBucket"] == requests["UpsertBucket"]
        sent.artifacts.clear()
        assert "is sent" in command("study.sync", run.path).stdout
        assert [row["epoch"] for row in sent.history] == [1, 2, 2, 2], "the charts again, but no row of an epoch"
        assert sent.summary["epoch"] == 2 and "evaluation" in {made["type"] for made in sent.artifacts}
        for name, value in agent(server, WANDB_INIT_TIMEOUT="2").items():
            monkeypatch.setenv(name, value)
        server.fail("RunResumeStatus", *[500] * 50)
        told = command("study.train", *QUICK, code=1).stderr
        assert "cannot be sent; W&B does not answer" in told and len(told.splitlines()) == 1


def hand_out(folder, args, monkeypatch):
    """Return the words with which `wandb agent` starts a run with these values, and leave its file beside them."""
    path = folder / "config-handed.yaml"
    config_util.save_config_file_from_dict(str(path), args)
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(path))
    return create_sweep_command_args({"args": args})["args"]


@pytest.mark.slow
@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_run_that_is_handed_out_again_with_its_whole_config_takes_the_keys_of_its_sweep(
    command, tmp_path, monkeypatch, is_recorded
):
    values = {"dataset": "digits", "epochs": 2, "setting": "model=mlp hidden=20", "augment": "flip,crop", "seed": 1}
    with Server() as server:
        for name, value in agent(server).items():
            monkeypatch.setenv(name, value)
        words = hand_out(tmp_path, {name: {"value": value} for name, value in values.items()}, monkeypatch)
        monkeypatch.setenv("STUDY_RUNS_DIR", "first")
        command("study.train", "--threads=2", *words)

        # Another machine, with other folders, gets the run
        config = server.runs["handed"].config
        assert config["sweep_keys"]["value"].split(",") == list(values)
        if not is_recorded:  # a run that an older version of this program began
            del config["sweep_keys"]
        words = hand_out(tmp_path, config, monkeypatch)
        assert {word.partition("=")[0] for word in words} >= {"--info", "--fingerprint", "--threads"}
        monkeypatch.setenv("STUDY_RUNS_DIR", "second")
        monkeypatch.setenv("STUDY_DATA_DIR", "pictures")
        told = command("study.train", "--threads=1", "--device=cpu", *words)
        assert "locked" not in told.stdout + told.stderr
        first, second = (only_run(tmp_path / name) for name in ("first", "second"))
        assert second.path.name == first.path.name and second.summary()["last/epoch"] == 2
        info = second.info()
        here = {"runs_dir": "second", "data_dir": "pictures", "device": "cpu", "threads": 1}
        assert {name: info["config"][name] for name in here} == here
        assert server.runs["handed"].config["info"]["value"]["started"] == info["started"]
        assert server.runs["handed"].config["info"]["value"]["state"] == "finished"
        kept = values | {name: here[name] for name in ("device", "threads")}
        assert all(server.runs["handed"].config[name]["value"] == value for name, value in kept.items())
        assert server.runs["handed"].config["info"]["value"]["records"] == {
            "data_dir": "pictures",
            "runs_dir": "second",
        }
        assert server.runs["handed"].fields["displayName"] == "mlp digits hidden=20 augment=crop,flip epochs=2, s01"


def test_a_point_that_another_process_trains_is_waited_for_and_sent(start, call, tmp_path, monkeypatch):
    call("study.train", *QUICK, "--wandb=disabled")
    run = only_run(tmp_path / "runs")
    info = run.info()
    with Server() as server:
        for name, value in agent(server).items():
            monkeypatch.setenv(name, value)
        with run.locked():
            (run.path / "run.json").unlink()  # as if that were still being trained
            process = start("study.train", *QUICK)
            assert "waiting for its result" in process.stdout.readline()
            run.write_info(info)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "was trained before" in out and "Error" not in err
        assert len(server.runs["handed"].history) == 3


def test_the_variables_of_the_client_are_heeded_where_no_option_says_otherwise(command, monkeypatch):
    with Server() as server:
        for name, value in agent(server, WANDB_TAGS="a,b", WANDB_NAME="mine", WANDB_RUN_GROUP="ours").items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("WANDB_SWEEP_ID")
        command("study.train", *QUICK)
    assert "handed" not in server.runs, "that id is for one run"
    (sent,) = (run.fields for run in server.runs.values())
    assert [sent[name] for name in ("project", "entity", "displayName", "groupName", "tags")] == [
        "proj", "somebody", "mine", "ours", ["a", "b"],
    ]  # fmt: skip
    assert place_of(Config(project="named")) == {"project": "named", "entity": "somebody", "sweep": None}
    assert place_of(Config(entity="me")) == {"project": "proj", "entity": "me", "sweep": None}


PATIENT = """
import sys
from study.remote import run
from study.system.process import run_command
from study.train import main

run.QUIET = 600
run_command(main)
"""


@pytest.mark.parametrize("status", [401, 0])
def test_without_leave_to_log_a_run_goes_on_and_says_so_in_one_line(command, tmp_path, monkeypatch, status):
    with Server() as server:
        if status:
            server.fail("RunResumeStatus", *[status] * 50)
            for name, value in agent(server).items():
                monkeypatch.setenv(name, value)
        else:
            (tmp_path / "runs").mkdir()
            (tmp_path / "runs" / "wandb").write_text("of another user", encoding="utf-8")
        result = command("-c", PATIENT, *QUICK)
    assert ("W&B refuses the key" if status else "W&B cannot use") in result.stdout.splitlines()[0]
    assert "Error" not in result.stdout + result.stderr
    (path,) = (tmp_path / "runs").glob("mlp-*")
    assert RunDirectory(path).state() == "finished"


@pytest.mark.parametrize(("key", "message"), [("", "there is no W&B key"), ("short", "API key")])
def test_a_missing_or_wrong_key_is_a_mistake(command, monkeypatch, tmp_path, key, message):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    result = command("study.train", *QUICK, "--wandb=online", code=2)
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "runs").glob("mlp-*"))


IMPATIENT = """
import sys
from study import sync
from study.remote import run

run.QUIET = 0.001
sync.main(sys.argv[1:])
"""


def test_a_run_is_sent_to_wandb_from_its_directory(command, call, tmp_path, monkeypatch):
    call("study.train", *QUICK, "--wandb=disabled")
    run = only_run(tmp_path / "runs")
    assert "there is no W&B key" in command("study.sync", run.path, code=2).stderr
    assert not (tmp_path / "runs" / "wandb").exists()

    # Where W&B's settings want that, it is written to a log
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "has not answered" not in command("-c", IMPATIENT, run.path).stdout
    rows = [record for record in offline_records(tmp_path / "runs") if record.HasField("history")]
    assert len(rows) == len(run.history()) + 1
    assert "has no result to send" in command("study.sync", tmp_path, code=2).stderr

    # With a key it is sent; that W&B is slow is said, and no more
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        told = command("-c", IMPATIENT, run.path).stdout
        assert "is sent" in told and "W&B has not answered yet\n" in told and "continue" not in told
        assert server.runs[run.path.name].state == "finished"


def test_online_and_synced_runs_arrive_whole(command, tmp_path, monkeypatch):
    with Server() as server:
        command("study.train", *QUICK, "--seed=1", "--wandb=offline")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        out = command("study.train", *QUICK, "--tags=here").stdout
        assert f"W&B: {server.url}" in out
        (log,) = (tmp_path / "runs").glob("wandb/offline-run-*")
        command("wandb", "sync", log)
        for path in (path for path in (tmp_path / "runs").iterdir() if path.name != "wandb"):
            sent, run = server.runs[path.name], RunDirectory(path)
            assert sent.fields["groupName"] == "mlp digits epochs=2" and sent.exitcode == 0
            rows = [{key: row[key] for key in row if key[0] != "_"} for row in sent.history if "val/loss" in row]
            assert rows == run.history()
            assert run.summary().items() <= sent.summary.items()
            best = {"train/acc": max, "val/acc": max, "train/loss": min, "val/loss": min}
            for key, choose in best.items():
                assert sent.summary[key] == {choose.__name__: choose(row[key] for row in run.history())}
            assert sent.summary["epoch"] == sent.summary["last/epoch"] == 2 and sent.summary["lr"] == rows[-1]["lr"]
            config = {key: value["value"] for key, value in sent.config.items()}
            assert Config.recorded(columns.options_of(config)) == Config.recorded(run.info()["config"])
            assert ("evaluation", "COMMITTED") in {(one["type"], one["state"]) for one in sent.artifacts}
            assert (run.path / "evaluation.npz").read_bytes() in server.blobs.values()
        assert len(server.runs) == 2

        before = len(server.runs[path.name].history)
        command("study.sync", path)
        assert len(server.runs[path.name].history) <= before + 1, "rows that are there are not sent again"

        seed, before = run.info()["config"]["seed"], len(sent.history)
        shutil.rmtree(path)
        monkeypatch.setenv("WANDB_RUN_ID", path.name)
        command("study.train", *QUICK, f"--seed={seed}")
        assert len(sent.history) == before + 3, "its own rows and pictures, beside those of another start"


RESUMED = """
from pathlib import Path
from study.config import Config
from study.record.directory import RunDirectory
from study.remote.run import connect
directory = RunDirectory("runs/resumed")
directory.path.mkdir(parents=True)
directory.write_info({"config": {}})
rows = [{"epoch": epoch, "val/acc": acc, "val/loss": 1 - acc} for epoch, acc in enumerate((0.5, 0.9, 0.7, 0.8), 1)]
for end in (2, 4):
    run = connect(directory, Config(), "resumed", print, resumes=True)
    directory.write_history(rows[:end])
    for row in rows[:end]:
        run.log(row)
    run.finish(1, {})
"""


def test_the_best_epoch_of_a_resumed_run_may_lie_before_its_resumption(command, monkeypatch):
    with Server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        command("-c", RESUMED)
    sent = server.runs["resumed"]
    assert [row["epoch"] for row in sent.history] == [1, 2, 3, 4]
    assert sent.summary["val/acc"] == {"max": 0.9} and sent.summary["val/loss"] == {"min": pytest.approx(0.1)}
    assert sent.summary["epoch"] == 4


def test_predict_says_what_a_network_sees(call, tmp_path, digit_images):
    from PIL import Image

    call("study.train", "--dataset=digits", "--model=mlp", "--epochs=15", "--wandb=disabled")
    run = only_run(tmp_path / "runs")
    files = []
    for label in (0, 4, 6):
        image = next(image for image, name in zip(*digit_images, strict=True) if name == label)
        files.append(tmp_path / f"{label}.png")
        Image.fromarray(image).convert("RGB").save(files[-1])
    lines = call("study.predict", run.path, *files).stdout.splitlines()
    assert [line.split(": ")[1].split()[0] for line in lines] == ["0", "4", "6"]
    assert all(float(line.split()[2].rstrip("%,")) > 50 for line in lines)
    answer = call("study.predict", run.path, run.path / "run.json", tmp_path / "none.png", files[0], code=2)
    assert "run.json cannot be read as an image: it is damaged" in answer.stderr
    assert f"{tmp_path / 'none.png'} cannot be read" in answer.stderr
    assert str(files[0]) in answer.stdout
    assert "holds no images" in call("study.predict", run.path, run.path, code=2).stderr
    assert (
        "none/x.csv cannot be written" in call("study.predict", run.path, files[0], "--out=none/x.csv", code=2).stderr
    )
    assert "is not a run" in call("study.predict", tmp_path, files[0], code=2).stderr


def test_the_time_that_is_left_counts_whole_epochs_after_an_interruption():
    """The rest of an epoch that was interrupted is short; the line of its end says what five whole ones take."""
    row = {"epoch": 1, "train/loss": 1, "val/loss": 1, "train/acc": 1, "val/acc": 1, "time/epoch": 10.0}
    display = RunDisplay((lines := []).append)
    display.start(Config(dataset="digits", epochs=6), "data", 0.9)
    display.epoch(row | {"time/images_per_second": 100.0})
    assert lines[-1].endswith("ETA 50s")


def test_a_contact_sheet_of_augmentation(call, tmp_path):
    from PIL import Image

    options = ("--dataset=digits", "--augment=rotate,noise", "--show-augment=sheets/a.png")
    call("study.train", *options)
    with Image.open(tmp_path / "sheets" / "a.png") as sheet:
        assert sheet.size == (8 * 8 * 12 + 9 * 2 * 12,) * 2
    assert not (tmp_path / "runs").exists()


def test_a_run_that_diverges_is_a_result(call, tmp_path):
    call("study.train", *QUICK, "--lr=1e6", "--wandb=disabled")
    run = only_run(tmp_path / "runs")
    assert run.state() == "diverged"
    assert run.history()[-1]["train/loss"] is None


class Formula(torch.nn.Module):
    """A matrix product without a layer, of at least two images: neither FLOPs nor layers can be measured."""

    def __init__(self, classes: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(64, classes))

    def forward(self, images):
        if len(images) == 1:
            raise ValueError("a single image")
        return images.flatten(1) @ self.weight


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_what_cannot_be_measured_is_left_out_before_training_and_in_the_report(call, tmp_path, monkeypatch):
    monkeypatch.setitem(models.NETWORKS, "single-block", lambda config, image_shape, classes: Formula(classes))
    argv = (*QUICK, "--wandb=disabled", "--precision=float32")
    out = call("study.train", *argv, "--model=single-block").stdout
    before, after = out.split("epoch 1/2")
    assert before.count("left out") == 1 and "left out" not in after
    run = only_run(tmp_path / "runs")
    summary, arrays = run.summary(), run.evaluation()
    assert run.state() == "finished" and run.defect() is None
    assert {name for name in summary if "/" not in name} == {"params", "param_bytes", "iterations", "train_seconds"}
    assert {"logits", "penultimate", "intermediate"} & set(arrays) == {"logits"}
    assert summary["test/acc"] > 0.5

    call("study.train", *argv)
    frames = load(tmp_path / "runs")
    assert not frames.problems
    assert [set(frames.features(name)) - {"targets"} for name in sorted(frames.runs.index)] == [
        {"logits", "penultimate", "intermediate"}, {"logits"},
    ]  # fmt: skip
    (section,) = sections.by_dataset(frames)
    assert layers.blocks(frames, section, report.looks_of([section])[0])
    frame = costs.measure(section).set_index("setting")
    assert frame.mflops.notna().sum() == 1 and frame.params.notna().all()
    shutil.rmtree(next((tmp_path / "runs").glob("mlp-*")))
    call("analysis.summarize", "runs", "--out=report", "--lang=es")


@pytest.mark.parametrize("name", ["adahessian", "fusedadam", "bnbadam"])
def test_an_optimizer_that_cannot_train_here_is_refused_before_training(name, call, tmp_path):
    out = call("study.train", *QUICK, "--wandb=disabled", f"--optimizer=timm:{name}", code=2)
    assert out.stderr.startswith(f"error: optimizer timm:{name} cannot train here (")
    assert len(out.stderr.splitlines()) == 1 and "epoch 1" not in out.stdout
    assert not list((tmp_path / "runs").glob("mlp-*"))


@pytest.mark.slow
def test_compiling_without_a_compiler_is_refused_before_training(command, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    out = command("study.train", *QUICK, "--wandb=disabled", "--device=cpu", "--compile", code=2)
    (line,) = [line for line in out.stderr.splitlines() if line.startswith("error: ")]
    assert "compiler" in line and line.endswith("omit --compile")
    assert "Traceback" not in out.stderr and "epoch 1" not in out.stdout
    assert not list((tmp_path / "runs").glob("mlp-*"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a terminal of one's own is made as Linux makes it")
def test_a_closed_terminal_ends_a_training_as_its_signal_says(tmp_path):
    """Whatever is being printed then: the run keeps its checkpoint, and can be resumed."""
    ours, theirs = os.openpty()

    def in_the_terminal() -> None:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    words = ["study.train", "--dataset=digits", "--model=mlp", "--epochs=100000", "--wandb=disabled"]
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        preexec_fn=in_the_terminal,
    )
    os.close(theirs)
    try:
        said = b""
        while b"epoch 3" not in said:
            said += os.read(ours, 1 << 16)
        os.close(ours)
        assert process.wait(60) == 129
    finally:
        process.kill()
    (path,) = (tmp_path / "runs").glob("mlp-*")
    assert (path / "last.pt").exists() and RunDirectory(path).state() == "interrupted"
