"""The local engine: workers that die, devices that fail, runs that are stopped early, sweeps that are shared."""

import fcntl
import multiprocessing
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from analysis.frames import runs as analysed
from analysis.frames.sections import of_sweep
from study.config import Config
from study.local import worker
from study.local.engine import Engine, Job
from study.record.directory import RunDirectory
from study.record.display import SweepDisplay
from study.sweeps import definition as search
from study.sweeps import standing
from study.system.errors import is_device_failure
from tests.conftest import states

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers below /proc")
RATES = {"lr": {"values": [0.1, 0.0001]}, "dropout": {"value": 0.0}, "seed": {"value": 0}, "epochs": {"value": 6}}
EARLY = {"early_terminate": {"type": "hyperband", "min_iter": 2}}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def workers(pid: int) -> list[int]:
    """List the workers of a sweep: processes of the server that its process started."""
    found = []
    for child in children(pid):
        with suppress(OSError):  # it has ended meanwhile
            found += children(child)
    return found


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@needs_proc
@pytest.mark.slow
def test_a_worker_that_dies_takes_only_its_run_which_is_tried_once_more(start, sweep_file, tmp_path):
    path = sweep_file({"seed": {"value": 0}, "dropout": {"value": 0}, "setting": {
        "values": ["model=mlp epochs=50000", "model=cnn epochs=30", "model=mlp epochs=1"]}})  # fmt: skip
    process = start("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu", "--per-device=1")

    def kill_while(model, others):
        """Kill the worker that trains a network, as soon as it has ended an epoch and is none of the others."""
        held = wait_for(
            lambda: [run for run in (tmp_path / "runs").glob(f"{model}-*") if RunDirectory(run).is_locked()]
        )
        rows = len(RunDirectory(held[0]).history())
        pid = wait_for(lambda: [pid for pid in workers(process.pid) if pid not in others])[0]
        wait_for(lambda: len(RunDirectory(held[0]).history()) not in (0, rows) or pid not in workers(process.pid))
        os.kill(pid, signal.SIGKILL)
        return pid

    first = kill_while("mlp", ())
    second = kill_while("mlp", (first,))
    kill_while("cnn", (first, second))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out.count("its worker was ended by SIGKILL; it is tried once more") == 2
    assert "2 finished, 1 failed" in out
    (failed,) = (name for name, state in states(tmp_path / "runs").items() if state == "failed")
    assert RunDirectory(tmp_path / "runs" / failed).info()["error"] == "its worker was ended by SIGKILL"
    assert f"failed: {failed}: its worker was ended by SIGKILL" in err


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_sweep_and_its_runs_go_on(start, call, sweep_file, tmp_path, signum):
    path = sweep_file({"epochs": {"value": 5000}, "seed": {"value": 0}})
    process = start(
        "study.sweep", "run", path, "--wandb=disabled", "--devices=cpu", "--per-device=2", start_new_session=True
    )
    wait_for(lambda: len(list((tmp_path / "runs").glob("*/history.jsonl"))) == 2)
    pids = workers(process.pid)
    assert len(pids) == 2
    process.send_signal(signum)
    assert process.wait(40) == {signal.SIGINT: -2, signal.SIGTERM: 143, signal.SIGKILL: -9}[signum]
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 40)
    assert list(states(tmp_path / "runs").values()) == ["interrupted"] * 2
    assert len(list((tmp_path / "runs").glob("*/last.pt"))) == 2
    assert "2 removed" in call("study.sweep", "clean", path, "--yes").stdout


WORK = """
import multiprocessing, os, signal, sys
from study.local.worker import work

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.kill(os.getpid(), signal.SIGTERM)  # arrives as soon as the worker has a handler for it
work(multiprocessing.Pipe()[1], "cpu", 1, 1, dict(os.environ))
"""


def test_a_worker_that_is_ended_before_it_has_a_run_leaves_no_traceback(command):
    ended = command("-c", WORK)
    assert ended.stdout == ended.stderr == ""


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_a_device_that_does_not_work_is_dropped_and_its_points_go_to_another(sweep_file, tmp_path, capfd, monkeypatch):
    sweep = search.read(sweep_file({"epochs": {"value": 1}}))
    points = sweep.points({"runs_dir": str(tmp_path / "runs"), "wandb": "disabled"})

    def train(*devices):
        with SweepDisplay(len(points)) as display:
            jobs = (Job(point.config, point.label) for point in points)
            return [outcome.state for outcome in Engine(devices, 1, display).run(jobs, len(points))]

    monkeypatch.setattr("study.local.engine.STRIKES", 2)
    assert train("cuda:7", "cpu") == ["finished"] * 4
    points = sweep.points({"runs_dir": str(tmp_path / "single"), "wandb": "disabled"})[:1]
    assert train("cuda:7", "cpu") == ["finished"], "a device beyond the number of runs takes over"
    points = sweep.points({"runs_dir": str(tmp_path / "runs"), "wandb": "disabled"})
    assert "cuda:7 is dropped after 2 failures in a row: device cuda:7 is not there" in capfd.readouterr().out
    assert set(states(tmp_path / "runs").values()) == {"finished"}

    monkeypatch.setattr("study.local.engine.STRIKES", 1)
    points = sweep.points({"runs_dir": str(tmp_path / "other"), "wandb": "disabled"})
    assert train("cuda:7") == [], "no device is left for them"


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_sweep_ends_it_after_its_runs(start, sweep_file, tmp_path, signum):
    """As `timeout` and a closing terminal send it."""
    path = sweep_file({"epochs": {"value": 100000}, "seed": {"value": 0}, "dropout": {"values": [0, 0.5]}})
    words = ("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu", "--per-device=2")
    process = start(*words, start_new_session=True)
    wait_for(lambda: len(list((tmp_path / "runs").glob("*/history.jsonl"))) == 2)
    running = workers(process.pid)
    os.killpg(process.pid, signum)
    assert process.wait(60) == 128 + signum
    assert len(running) == 2 and not [pid for pid in running if Path(f"/proc/{pid}").exists()]
    assert len(list((tmp_path / "runs").glob("*/last.pt"))) == 2


@needs_proc
@pytest.mark.slow
def test_a_sweep_whose_output_nobody_reads_ends_with_a_checkpoint(start, sweep_file, tmp_path):
    """The worker waits to tell of an epoch, and must not wait for that when it is ended."""
    path = sweep_file({"epochs": {"value": 100000}, "seed": {"value": 0}, "dropout": {"value": 0}})
    words = ("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu", "--per-device=1")
    process = start(*words, fresh=True)
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)  # as little as Linux allows
    (history,) = wait_for(lambda: list((tmp_path / "runs").glob("*/history.jsonl")))
    stopped = None
    while stopped != history.stat().st_size:
        stopped = history.stat().st_size
        time.sleep(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143, "the worker has 30 seconds before it is killed"
    assert (history.parent / "last.pt").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_a_result_is_kept_though_its_worker_dies_before_it_tells_of_it(tmp_path, monkeypatch):
    config = Config(dataset="digits", model="mlp", epochs=1, wandb="disabled", runs_dir=str(tmp_path))
    train = worker.train

    def train_and_die(*words, **options):
        train(*words, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(worker, "train", train_and_die)
    monkeypatch.setattr(worker, "_processes", multiprocessing.get_context("fork"))
    with SweepDisplay(1) as display:
        (outcome,) = Engine(["cpu"], 1, display).run([Job(config, "a run", tries=1)], 1)
    assert outcome.state == RunDirectory.of(config).state() == "finished"


@pytest.mark.slow
def test_notes_on_the_data_are_printed_once_for_all_workers(command, sweep_file, photo_folder):
    (photo_folder / "train" / "one" / "notes.txt").write_text("text", encoding="utf-8")
    path = sweep_file({"dataset": {"value": "folder:photos"}, "dropout": {"value": 0}, "epochs": {"value": 1}})
    said = command("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu", "--per-device=2").stdout
    assert said.count("2 finished") == 1 and said.count("notes.txt") == 1


@pytest.mark.slow
@needs_proc
def test_what_another_sweep_leaves_unfinished_is_taken_over(start, sweep_file, tmp_path):
    path = sweep_file({"epochs": {"value": 300}, "seed": {"value": 0}, "dropout": {"value": 0}})
    first = start("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu", "--per-device=1")
    wait_for(lambda: list((tmp_path / "runs").glob("*/history.jsonl")))
    (pid,) = workers(first.pid)
    os.kill(pid, signal.SIGSTOP)  # it must not be done before the second has begun
    second = start("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu", "--per-device=1")
    assert "1 to train" in second.stdout.readline()
    assert "waiting for runs that other processes train: mlp-digits" in second.stdout.readline()
    first.kill()
    os.kill(pid, signal.SIGCONT)
    assert first.wait() == -9
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0 and "1 finished" in out


@pytest.mark.parametrize(
    ("error", "is_the_device"),
    [
        ("CUDA error: uncorrectable ECC error encountered", True),
        ("CUDA error: all CUDA-capable devices are busy or unavailable", True),
        ("No CUDA GPUs are available", True),
        ("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", True),
        ("CUDA error: device-side assert triggered", False),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", False),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_a_failing_device_is_distinguished_from_a_failing_run(error, is_the_device):
    assert is_device_failure(RuntimeError(error)) == is_the_device


@pytest.mark.usefixtures("workers")
def test_an_answer_for_which_a_stopped_run_did_not_wait_is_no_order(tmp_path):
    process, connection = worker.start(worker.work, "cpu", 1, 1, dict(os.environ))
    config = Config(dataset="digits", model="mlp", epochs=1, wandb="disabled", runs_dir=str(tmp_path))
    connection.send(False)
    connection.send(worker.Order(config))
    kinds = [connection.recv()[0]]
    while kinds[-1] != "end":
        kinds.append(connection.recv()[0])
    connection.close()
    process.join()
    assert kinds[0] == "ready" and "begin" in kinds and RunDirectory.of(config).state() == "finished"


def test_hyperband_stops_a_losing_run_for_good_but_only_for_its_sweep(command, call, sweep_file, tmp_path):
    path = sweep_file(RATES, **EARLY)
    assert (
        "1 finished, 1 stopped"
        in command("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu", "--per-device=1").stdout
    )
    found = {RunDirectory(folder).state(): RunDirectory(folder) for folder in (tmp_path / "runs").iterdir()}
    stopped = found["stopped"]
    assert stopped.info()["config"]["lr"] == 0.0001
    assert (stopped.info()["stopped_by"], len(stopped.history())) == ("hyperband", 2)
    assert stopped.summary()["last/epoch"] == 2
    assert "stopped │ by hyperband after epoch 2 of 6" in " ".join(call("study.sweep", "status", path).stdout.split())
    assert "nothing to do" in call("study.sweep", "run", path).stdout

    (section,) = of_sweep(analysed.load(tmp_path / "runs"), search.read(path))
    assert section.states == {"finished": 1, "stopped": 1}
    assert list(section.runs.lr) == [0.1], "what was stopped is not averaged"

    path = sweep_file(RATES)
    assert (
        "2 runs, 1 to train"
        in command("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu", "--per-device=1").stdout
    )
    assert stopped.state() == "finished" and len(stopped.history()) == 6


def test_two_processes_share_sweeps_without_doing_anything_twice(start, command, call, sweep_file, tmp_path):
    grid = sweep_file({"epochs": {"value": 40}}).rename(tmp_path / "grid.yaml")
    drawn = {
        "lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.5},
        "dropout": {"min": 0.0, "max": 0.5},
    }
    drawn |= {"seed": {"value": 0}}
    bayes = sweep_file(drawn, method="bayes", run_cap=4)
    words = ("run", grid, bayes, "--wandb=disabled", "--devices=cpu", "--per-device=1")
    processes = [start("study.sweep", *words) for _ in range(2)]
    ends = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    assert all("8 finished" in out for out, _ in ends), "both end with all of it"
    begun = [line for out, _ in ends for line in out.splitlines() if line.startswith("begins")]
    assert len(begun) == len(set(begun)) == 8, "each is trained once"
    before = standing.Runs(tmp_path / "runs").infos()
    assert len(before) == 8
    assert Counter(tuple(info.get("sweeps", ())) for info in before.values()) == {(): 4, ("small",): 4}
    assert all(info["tags"] == ["small"] for info in before.values()), "as in W&B"
    assert "nothing to do" in call("study.sweep", *words).stdout

    sweep_file(drawn, method="bayes", run_cap=5)
    assert "4 finished, 1 missing" in call("study.sweep", "status", bayes).stdout
    assert "5 runs, 1 to train" in command("study.sweep", "run", bayes, *words[3:]).stdout
    after = standing.Runs(tmp_path / "runs").infos()
    assert len(after) == 9 and all(after[name] == info for name, info in before.items())
    (section,) = of_sweep(analysed.load(tmp_path / "runs"), search.read(bayes))
    assert len(section.runs) == 5 and section.varied == ["dropout", "lr"]
