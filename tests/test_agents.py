"""Slots, and what `study.sweep agents` does in this process, against the stand-in server."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from analysis.frames import pull
from study.local import agents, seat, wandb_agents
from study.local.seat_display import SeatsDisplay
from study.local.slots import Slot, slots
from study.record.directory import RunDirectory
from study.remote import api, queue
from study.remote import sweep as wandb_sweep
from study.system import devices, process
from study.system.errors import UserError
from tests.conftest import ROOT, SMALL
from tests.wandb_server import Server, Sweep

FOLDERS = {"runs_dir": "kept here", "data_dir": "pictures"}
CPU = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server
    assert not server.unknown


SEATS: list[seat.Seat] = []
"""The slots that a test made, which are closed at its end."""


@pytest.fixture
def sweep(server, workers, monkeypatch, tmp_path):
    """Make a sweep of short runs on the server, and read it."""

    def make(command=SMALL["command"], **parameters):
        name = f"made{len(server.sweeps)}"
        given = {"dataset": "digits", "model": "mlp", "epochs": 1, "seed": 0} | parameters
        content = SMALL | {
            "command": command,
            "parameters": {
                key: {"values": value} if isinstance(value, list) else {"value": value} for key, value in given.items()
            },
        }
        server.sweeps[name] = Sweep(name, "proj", content)
        return wandb_sweep.read(f"somebody/proj/{name}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr(seat, "BEAT_SECONDS", 0.1)
    api.connect.cache_clear()
    yield make
    while SEATS:
        SEATS.pop().close()
    api.connect.cache_clear()
    import wandb

    wandb.teardown()


def train(sweep, count: int = 1) -> int:
    """Train a sweep as `study.sweep agents` does."""
    places = [Slot(f"cpu {place}", CPU) for place in range(count)]
    return agents.run_agents(sweep, places, FOLDERS, 10)


def sit(sweep) -> seat.Seat:
    """Make a slot by itself, which `until` drives."""
    SEATS.append(seat.Seat(Slot("cpu 0", CPU), sweep, FOLDERS, 10))
    return SEATS[-1]


def until(condition, one: seat.Seat, said: list[str] | None = None) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        one.step((said if said is not None else []).append)
        time.sleep(0.02)


def states(server: Server, sweep) -> list[str]:
    return [run.state for run in list(server.runs.values()) if run.sweep == sweep.id]


def test_each_slot_has_its_gpu_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(devices, "names", lambda: ["cuda:0", "cuda:1", "cpu"])
    monkeypatch.setattr(devices, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [(slot.name, *slot.environment.values()) for slot in slots(None, 2, None)] == [
        ("gpu 0 #0", "0", "2"), ("gpu 1 #0", "1", "2"), ("gpu 0 #1", "0", "2"), ("gpu 1 #1", "1", "2"),
    ]  # fmt: skip
    assert [(slot.name, *slot.environment.values()) for slot in slots("1", 1, None)] == [("gpu 1", "1", "8")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8f6")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots("1,0", 1, None)] == ["GPU-8f6", "5"]
    with pytest.raises(UserError, match="GPU '2' is not there; this machine has 0, 1"):
        slots("0,2", 1, None)
    monkeypatch.setattr(devices, "names", lambda: ["cpu"])
    with pytest.raises(UserError, match="no CUDA device; --cpus N"):
        slots(None, 1, None)
    assert [slot.environment for slot in slots(None, 1, 3)] == [
        {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
    ] * 3


def test_a_point_is_trained_once_and_a_failing_one_does_not_stop_the_others(sweep, server, call, capfd):
    call("study.train", "--dataset=digits", "--model=mlp", "--epochs=1", "--wandb=disabled", "--runs-dir=kept here")
    (path,) = Path("kept here").glob("mlp-*")
    before = (path / "summary.json").stat().st_mtime_ns
    grid = sweep(setting=["model=mlp", "model=mlp train_images=5000", "model=mlp hidden=20"])
    assert train(grid, count=2) == 1
    output = capfd.readouterr().out
    assert (path / "summary.json").stat().st_mtime_ns == before
    assert sorted(states(server, grid)) == ["failed", "finished", "finished"]
    assert [path.name for path in Path("kept here").iterdir() if not (path / "run.json").exists()] == ["wandb"]
    assert "train_images must be at most 1,151" in output and "no point was left" in output
    assert f"create --missing {grid.path}" in output and "the same command" not in output
    assert "log of cpu 0: kept here/wandb/agents/" in output


@pytest.mark.slow
def test_an_option_that_the_command_sets_after_the_point_is_that_of_the_run(sweep, server):
    command = ["${env}", "${interpreter}", "-m", "study.train", "${args}", "--momentum=0.3"]
    grid = sweep(command, momentum=0.1, hidden=[32, 33])
    assert train(grid) == 0
    configs = [run.config for run in server.runs.values() if run.sweep == grid.id]
    assert [config["momentum"]["value"] for config in configs] == [0.1, 0.1], "W&B keeps the sweep's"
    assert [config["replaced"]["value"] for config in configs] == [{"momentum": 0.3}] * 2
    assert wandb_sweep.states(wandb_sweep.read(grid.path)) == {"finished": 2}
    pulled, _ = pull.pull(grid.path)
    assert [run.info()["config"]["momentum"] for run in pulled] == [0.3, 0.3]


def test_a_sweep_that_ended_at_wandb_before_its_last_point_is_not_complete(sweep, server, capfd):
    grid = sweep(hidden=[30, 31])
    server.sweeps[grid.id].state = "FINISHED"
    assert train(grid) == 1
    output = capfd.readouterr().out
    assert "2 points have no result at W&B: 2 missing" in output and f"create --missing {grid.path}" in output


@pytest.mark.slow
def test_a_result_that_wandb_does_not_take_is_reported_with_what_sends_it(sweep, server, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "0.2")
    server.fail("file_stream", *["silence"] * 30)
    grid = sweep(hidden=21)
    assert train(grid) == 1
    output = capfd.readouterr().out
    server.failures.clear()
    (path,) = Path("kept here").glob("mlp-*")
    assert RunDirectory(path).info()["wandb_missing"]
    assert "not in W&B" in output and f"python -m study.sync '{path}'" in output


@pytest.mark.slow
def test_a_slot_is_over_after_five_failures_in_a_row(sweep, server):
    one = sit(sweep(seed=list(range(7)), train_images=5000))
    until(lambda: one.is_over, one)
    assert [run.state for run in one.runs] == ["failed"] * 5 and one.reason == "5 runs failed in a row"


@pytest.mark.slow
@pytest.mark.parametrize(
    "run", [agents.run_agents, pytest.param(wandb_agents.run_wandb_agents, marks=pytest.mark.slow)]
)
def test_runs_that_fail_before_they_begin_are_failed_at_wandb_too(sweep, server, capfd, run):
    grid = sweep(["${env}", "${interpreter}", "-m", "study.train", "${args}"], seed=[0, 1], dataset="folder:nowhere")
    assert run(grid, [Slot("cpu 0", CPU)], FOLDERS, 10) == 1
    assert (
        states(server, grid) == ["failed"] * 2 and "2 points have no result at W&B: 2 failed" in capfd.readouterr().out
    )
    wandb_sweep.print_status(wandb_sweep.read(grid.path))
    assert capfd.readouterr().out.count("there is no folder") == 2, "and it says why"
    _, problems = pull.pull(grid.path)
    assert len(problems) == 2 and all("there is no folder" in problem for problem in problems)


def test_a_worker_that_is_killed_costs_one_run(sweep, server):
    one = sit(sweep(seed=[0, 1], epochs=3, hidden=22))
    until(lambda: one.run and one.run.is_connected, one)
    os.kill(one.process.pid, signal.SIGKILL)
    until(lambda: one.is_over, one)
    assert [run.state for run in one.runs] == ["failed", "finished"]
    assert one.runs[0].text.startswith("died ") and "SIGKILL" in one.runs[0].text


def test_a_run_that_is_stopped_at_wandb_is_not_queued_again(sweep, server):
    grid = sweep(setting=["epochs=100000 hidden=23", "hidden=24"])
    one = sit(grid)
    until(lambda: one.run and one.run.row, one)
    server.runs[one.run.id].stop = True
    until(lambda: one.is_over, one)
    assert [run.state for run in one.runs] == ["killed", "finished"], "and the next one is trained"
    assert states(server, grid) == ["failed", "finished"]


@pytest.mark.slow
def test_a_slot_without_an_answer_asks_again_and_gives_up_after_a_while(sweep, server, monkeypatch):
    said: list[str] = []
    server.fail("CreateAgent", 400)
    one = sit(sweep(hidden=27))
    until(lambda: one.is_over, one, said)
    assert [run.state for run in one.runs] == ["finished"] and not one.has_failed
    assert len(said) == 1 and "it is asked again in" in said[0]

    monkeypatch.setattr(seat, "PATIENCE", 0.5)
    server.fail("CreateAgent", *[400] * 20)
    one = sit(sweep(hidden=27))
    until(lambda: one.is_over, one, said)
    server.failures.clear()
    assert one.has_failed and "400" in one.reason


def test_a_key_that_is_refused_ends_a_slot_at_once(sweep, server):
    said: list[str] = []
    grid = sweep(hidden=28)
    server.fail("CreateAgent", 401)
    one = sit(grid)
    until(lambda: one.is_over, one, said)
    assert one.has_failed and "refuses the key" in one.reason and not said
    assert not one.runs and states(server, grid) == []


def test_a_sweep_that_is_deleted_or_cancelled_ends_its_agents(sweep, server):
    server.fail("Heartbeat", 404)
    one = sit(sweep())
    until(lambda: one.is_over, one)
    assert one.has_failed and "deleted" in one.reason
    grid = sweep()
    server.sweeps[grid.id].state = "CANCELED"
    one = sit(grid)
    until(lambda: one.is_over, one)
    assert not one.has_failed and not one.runs and "cancelled" in one.reason


def test_a_run_of_another_command_gets_its_words(sweep):
    command = {"args": {"lr": {"value": 0.1}, "force": {"value": False}}}
    for before in (["${env}", "${interpreter}"], ["${interpreter}"], ["${env}", "python"], ["python3"]):
        start = [*before, "-m", "study.train"]
        content = {"command": [*start, "--model=mlp", "${args_no_boolean_flags}"]}
        assert queue.can_serve(content) and queue.words(content, command) == ["--model=mlp", "--lr=0.1"]
    content = {"program": "study/train.py"}
    assert queue.can_serve(content) and queue.words(content, command) == ["--lr=0.1", "--force=False"]
    for other in (["${env}", "X=1", "${interpreter}", "-m", "study.train", "${args}"], ["bash", "study.train"]):
        assert not queue.can_serve({"command": other})
    assert not queue.can_serve({"program": "train.py"})


@pytest.mark.slow
def test_what_slots_do_fits_into_a_narrow_terminal(sweep, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    display = SeatsDisplay(None)
    one = sit(sweep(epochs=100000))
    until(lambda: one.run and one.run.row, one)
    display.console.print(display.table([one]))
    one.close()
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["agent", "ended", "failed", "trains"]
    assert line.split()[:7] == ["cpu", "0", "0", "0", "small,", "seed", "0"]
    assert "epoch" in line and "/100000" in line and line.strip().endswith("…")


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes below /proc")
@pytest.mark.slow
def test_a_run_whose_agents_are_killed_returns_to_the_queue(sweep, server, start):
    grid = sweep(epochs=100000, hidden=28)
    supervisor = start("study.sweep", "agents", grid.path, "--cpus=1")
    deadline = time.monotonic() + 300
    while not any(run.history for run in list(server.runs.values()) if run.sweep == grid.id):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = psutil.Process(supervisor.pid).children(recursive=True)
    supervisor.kill()
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert states(server, grid) == ["preempted"]


JOB = """#!/bin/bash
trap 'echo asked >> asked; until [ -e enough ]; do sleep 0.05; done; exit 143' TERM
echo "$@" > started
until [ -e done ]; do sleep 0.05; done
"""
SCONTROL = '#!/bin/bash\necho "$@" >> said\n'


@pytest.fixture
def job(tmp_path):
    """Start docs/slurm.sh in a folder whose `python` waits to be asked to end and whose `scontrol` writes what it does.

    Returns how to end it by signals: its exit code, how often it asked, and what was said to Slurm.
    """
    scripts = {
        "activate": f"PATH={tmp_path}/.venv/bin:$PATH",
        "python": JOB,
        "scontrol": '#!/bin/bash\necho "$@" >> said',
    }
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name, script in scripts.items():
        path = tmp_path / ".venv" / "bin" / name
        path.write_text(script, encoding="utf-8")
        path.chmod(0o755)

    def run(*signums: int, folder: Path = tmp_path) -> tuple[int, int, str]:
        process = subprocess.Popen(
            ["bash", ROOT / "docs" / "slurm.sh", "me/proj/abc"],
            env=os.environ | {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_ID": "7"}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while signums and not (tmp_path / "started").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            for signum in signums:
                process.send_signal(signum)
                time.sleep(0.1)
            (tmp_path / "enough").touch()
            code = process.wait(timeout=60)
        finally:
            (tmp_path / "done").touch()
            process.kill()
        texts = [
            path.read_text(encoding="utf-8") if path.exists() else ""
            for path in (tmp_path / "asked", tmp_path / "said")
        ]
        return code, texts[0].count("asked"), texts[1].strip()

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signums", "end"),
    {
        (signal.SIGUSR1,): (143, 1, "requeue 7"),
        (signal.SIGTERM,): (143, 1, ""),
        (signal.SIGUSR1, signal.SIGUSR1): (143, 1, "requeue 7"),
        (signal.SIGUSR1, signal.SIGTERM): (143, 1, ""),
    }.items(),
)
def test_a_job_goes_back_into_the_queue_at_its_time_limit_and_not_when_it_is_cancelled(job, signums, end):
    assert job(*signums) == end


@pytest.mark.slow
def test_a_job_ends_with_agents_and_does_not_begin_elsewhere_or_without_its_environment(job, tmp_path):
    assert job(folder=tmp_path / "nowhere") == (1, 0, "")
    assert job() == (0, 0, "")
    (tmp_path / "started").unlink()
    (tmp_path / ".venv" / "bin" / "activate").unlink()
    assert job() == (1, 0, "")
    assert not (tmp_path / "started").exists()


@pytest.mark.slow
def test_of_an_array_of_jobs_one_goes_back_into_the_queue(job, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert job(signal.SIGUSR1) == (143, 1, "requeue 5_2")


def test_signals_that_come_at_once_are_one(monkeypatch):
    monkeypatch.setattr(process, "AT_ONCE_SECONDS", 60)
    signals = process.EndSignals()
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
    assert signals.received == [signal.SIGTERM]
    monkeypatch.setattr(process, "AT_ONCE_SECONDS", 0)
    time.sleep(0.01)
    signal.raise_signal(signal.SIGINT)
    assert signals.received == [signal.SIGTERM, signal.SIGINT]
