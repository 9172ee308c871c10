"""Slots, agents that do what a test says, and their runs; what W&B's agents do is in test_wandb_sweep.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from study.record.directory import RunDirectory
from study.remote import agent as agent_slot
from study.remote import agents
from study.system import devices
from study.system.errors import UserError
from tests.conftest import ROOT

FOLDERS = {"runs_dir": "kept", "data_dir": "pictures"}
TRAINED = ("--dataset=digits", "--model=mlp", "--epochs=1", "--wandb=disabled")

AGENT = """
import json, os, signal, sys, time
from study import train
from study.record.directory import RunDirectory
from study.remote import events
from study.system.errors import Interrupted
from study.system.process import run_command

def run(main, *argv, pause=0.0):
    # start a run in a process group of its own, and notice its end a while later, as `wandb agent` does
    pid = os.fork()
    if pid:
        time.sleep(pause)
        os.waitpid(pid, 0)
    else:
        os.setpgid(0, 0)
        sys.argv[1:] = argv
        run_command(main, at_end=events.end)

def begin(argv, epochs):
    events.start(argv)
    directory = RunDirectory("kept/begun")
    directory.path.mkdir(exist_ok=True)
    directory.write_info({"config": {"epochs": 300}})
    metrics = ("train/loss", "val/loss", "train/acc", "val/acc", "time/images_per_second", "time/epoch")
    directory.write_history({"epoch": epoch} | dict.fromkeys(metrics, 0.5) for epoch in range(1, epochs + 1))
    events.append("directory", path="kept/begun")
    events.append("connected")

def end_by(signum):
    raise Interrupted(signum)
"""


@pytest.fixture
def agent(monkeypatch, tmp_path):
    """Start an agent, with a script in the place of `wandb agent`; one that trains nothing may be `quick`."""

    def start(script: str, quick: bool = False) -> agent_slot.Agent:
        script = ("import os, sys, time\n" if quick else AGENT) + script
        monkeypatch.setattr(agent_slot, "WANDB_AGENT", (sys.executable, "-c", script))
        made.append(agent_slot.Agent(agent_slot.Slot("cpu 0", {}), "me/proj/abc", FOLDERS, label, 60))
        return made[-1]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(agent_slot, "FIRST_PAUSE", 0.05)
    made: list[agent_slot.Agent] = []
    yield start
    for agent in made:
        agent.kill()


def label(values: dict[str, str]) -> str:
    """Return the label of a run, as a sweep does."""
    return f"seed {values.get('seed')}"


def look(*agents: agent_slot.Agent, said: list[str] | None = None) -> list[str]:
    """Look at agents until all are over; return how their runs ended, and add to `said` what was said."""
    ended, said = [], [] if said is None else said
    while not all(agent.is_over for agent in agents):
        ended += [run.state for agent in agents for run in agent.look(said.append)]
        time.sleep(0.02)
    return ended


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_slot_has_its_gpu_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(devices, "names", lambda: ["cuda:0", "cuda:1", "cpu"])
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [(slot.name, *slot.environment.values()) for slot in agent_slot.slots(None, 2, None)] == [
        ("gpu 0 #0", "0", "2"), ("gpu 1 #0", "1", "2"), ("gpu 0 #1", "0", "2"), ("gpu 1 #1", "1", "2"),
    ]  # fmt: skip
    assert [(slot.name, *slot.environment.values()) for slot in agent_slot.slots("1", 1, None)] == [("gpu 1", "1", "8")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8f6")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in agent_slot.slots("1,0", 1, None)] == ["GPU-8f6", "5"]
    with pytest.raises(UserError, match="GPU '2' is not there; this machine has 0, 1"):
        agent_slot.slots("0,2", 1, None)
    monkeypatch.setattr(devices, "names", lambda: ["cpu"])
    with pytest.raises(UserError, match="no CUDA device; --cpus N"):
        agent_slot.slots(None, 1, None)
    assert [slot.environment for slot in agent_slot.slots(None, 1, 3)] == [
        {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
    ] * 3


def test_events_and_directories_tell_how_each_run_ended(agent, call):
    call("study.train", *TRAINED, "--runs-dir=kept", "--data-dir=pictures")
    one = agent(f"""
run(train.main, *{TRAINED}, "--seed=0")
run(train.main, "--seed=1", "--epochs=none")
run(train.main, "--seed=2", "--epoch=1")
run(lambda argv: (begin(argv, 2), end_by(signal.SIGTERM)), "--seed=3")
run(lambda argv: (begin(argv, 2), end_by(signal.SIGINT)), "--seed=4")
run(lambda argv: (begin(argv, 3), {{}}["x"]), "--seed=5")
run(lambda argv: (begin(argv, 3), os.kill(os.getpid(), signal.SIGKILL)), "--seed=6")
run(lambda argv: (events.start(argv), os.kill(os.getpid(), signal.SIGKILL)), "--seed=7")
run(lambda argv: os._exit(1), "--seed=8", pause=1.0)
""")
    states = ["finished", "failed", "failed", "killed", "ended", "failed", "failed", "failed", "failed"]
    assert look(one) == states == [run.state for run in one.runs.started]
    assert [run.label for run in one.runs.started[:8]] == [f"seed {seed}" for seed in range(8)]
    texts = [run.text for run in one.runs.started]
    assert texts[0].startswith("best val acc ")
    assert "'none'" in texts[1] and "'epoch'" in texts[2], "its own errors"
    assert "W&B" in texts[3] and "SIGINT" in texts[4] and "KeyError" in texts[5]
    assert "died after epoch 3" in texts[6] and "died" in texts[7] and "died" in texts[8]


def test_a_run_that_was_asked_to_end_was_not_stopped_at_wandb(agent):
    one = agent('run(lambda argv: (begin(argv, 1), time.sleep(60)), "--seed=0")')
    wait_for(lambda: one.look(print) or (one.runs.current and not one.runs.is_starting))
    one.is_asked = True
    os.kill(one.runs.current.pid, signal.SIGKILL)
    assert look(one) == ["failed"]
    other = agent("""
def wait(argv):
    begin(argv, 1)
    signal.signal(signal.SIGTERM, lambda signum, frame: end_by(signum))
    time.sleep(60)
run(wait, "--seed=0")
""")
    wait_for(lambda: other.look(print) or (other.runs.current and not other.runs.is_starting))
    time.sleep(0.1)
    other.is_asked = True
    os.kill(other.runs.current.pid, signal.SIGTERM)
    assert look(other) == ["ended"]


def test_a_result_that_wandb_lacks_is_told_from_one_that_it_has(agent, call):
    call("study.train", *TRAINED, "--runs-dir=kept", "--data-dir=pictures")
    (path,) = Path("kept").glob("mlp-*")
    directory = RunDirectory(path)
    directory.write_info({**directory.info(), "wandb_missing": "no answer"})
    one = agent(f"run(train.main, *{TRAINED})\nrun(train.main, '--epochs=none')")
    assert look(one) == ["finished", "failed"]
    assert [run.is_sent for run in one.runs.started] == [False, True]


def test_agents_whose_results_are_not_all_in_wandb_end_with_1(agent, call, monkeypatch):
    call("study.train", *TRAINED, "--runs-dir=kept", "--data-dir=pictures")
    (path,) = Path("kept").glob("mlp-*")
    agent(f"run(train.main, *{TRAINED})")  # takes the place of `wandb agent`
    grid = SimpleNamespace(path="me/proj/abc", left=1, label=label, sweep=SimpleNamespace(is_search=False))
    assert agents.run_agents(grid, [agent_slot.Slot("cpu 0", {})], FOLDERS, 1) == 0
    directory = RunDirectory(path)
    directory.write_info({**directory.info(), "wandb_missing": "no answer"})
    assert agents.run_agents(grid, [agent_slot.Slot("cpu 0", {})], FOLDERS, 1) == 1


def test_runs_of_agents_wait_for_wandb_for_less_than_the_agents_wait_for_them(agent, monkeypatch):
    script = "print(os.environ['WANDB_FINISH_TIMEOUT'])"
    one = agent(script, quick=True)
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "7")
    other = agent(script, quick=True)
    look(one, other)
    told = [float(each.log.read_text(encoding="utf-8")) for each in (one, other)]
    assert 20 < told[0] < 60 and told[1] == 7, "unless a person chose another limit"


def test_two_that_train_a_sweep_on_one_machine_keep_their_runs_apart(agent):
    script = "run(lambda argv: (begin(argv, 1), end_by(signal.SIGINT)), '--seed={}')"
    both = [agent(script.format(seed)) for seed in range(2)]
    assert look(*both) == ["ended"] * 2
    assert [len(one.runs.started) for one in both] == [1, 1]


def test_runs_of_agents_go_to_the_folders_that_were_said(agent, tmp_path):
    (tmp_path / "kept").mkdir()
    one = agent("print(*(os.environ[name] for name in ('STUDY_RUNS_DIR', 'STUDY_DATA_DIR', 'WANDB_DIR')))", quick=True)
    look(one)
    assert one.log.read_text(encoding="utf-8").split() == ["kept", "pictures", str(tmp_path / "kept")]
    assert one.log.is_relative_to("kept")


def test_what_agents_do_fits_into_a_narrow_terminal(agent, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    display = agents.Display(None)
    one = agent('run(lambda argv: (begin(argv, 1), time.sleep(60)), "--seed=0")')
    wait_for(lambda: one.look(print) or (one.runs.current and one.runs.current.text))
    display.console.print(display.table([one]))
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["agent", "ended", "failed", "trains"]
    assert line.split()[:8] == ["cpu", "0", "0", "0", "seed", "0", "epoch", "1/300"]
    assert "loss" in line and line.strip().endswith("…")


DOWN = "sys.exit('Error: the server is silent')"
ONCE_DOWN = f"""
if not os.path.exists('was-down'):
    open('was-down', 'w').close()
    {DOWN}
run(lambda argv: (begin(argv, 1), end_by(signal.SIGINT)), '--seed=0')
"""


def test_an_agent_that_fails_is_started_again(agent):
    said: list[str] = []
    one = agent(ONCE_DOWN)
    assert look(one, said=said) == ["ended"]
    assert len(said) == 1 and "exit code 1: Error: the server is silent; " in said[0], "the last line of its log"
    assert "silent" not in one.reason() and one.process.returncode == 0


def test_an_agent_that_goes_on_failing_is_over_after_a_while(agent, monkeypatch):
    monkeypatch.setattr(agent_slot, "PATIENCE", 1.0)
    said: list[str] = []
    one = agent(DOWN, quick=True)
    assert look(one, said=said) == []
    assert 1 <= len(said) <= 5, "pauses grow"
    assert one.reason().endswith("exit code 1: Error: the server is silent")


def test_an_agent_is_over_after_five_failures_or_when_it_was_asked_to_end(agent):
    said: list[str] = []
    faulty = agent("for seed in range(5): run(train.main, f'--seed={seed}', '--epochs=none')")
    assert look(faulty, said=said) == ["failed"] * 5
    assert "5 runs failed" in faulty.reason()
    asked = agent("time.sleep(60)", quick=True)
    asked.send(signal.SIGINT)
    look(asked, said=said)
    assert said == []


def test_an_agent_that_was_killed_is_started_again(agent):
    said: list[str] = []
    one = agent("if not os.path.exists('x'): open('x', 'w').close(); os.kill(os.getpid(), 9)", quick=True)
    look(one, said=said)
    assert said == ["cpu 0: the agent was ended by SIGKILL; it is started again in 0.05s"]


def test_the_end_shows_what_to_do_next(agent, call, monkeypatch, capfd):
    monkeypatch.setattr(agents, "STAGGER_SECONDS", 0)
    monkeypatch.setitem(FOLDERS, "runs_dir", "kept here")
    call("study.train", *TRAINED, "--runs-dir=kept here", "--data-dir=pictures")
    (path,) = Path("kept here").glob("mlp-*")
    directory = RunDirectory(path)
    directory.write_info({**directory.info(), "wandb_missing": "no answer"})
    agent(f"run(train.main, *{TRAINED})\nrun(train.main, '--epochs=none')")  # takes the place of `wandb agent`
    grid = SimpleNamespace(path="me/proj/abc", left=2, label=label, sweep=SimpleNamespace(is_search=False))
    assert agents.run_agents(grid, [agent_slot.Slot("cpu 0", {})], FOLDERS, 1) == 1
    told = capfd.readouterr().out
    assert "not in W&B  [1 of at most 2" in told and "1 finished, 1 failed, 1 not in W&B" in told
    assert "log of cpu 0: kept here/wandb/agents/abc/" in told
    assert f"python -m study.sync '{path}'" in told
    assert "create --missing me/proj/abc" in told and "the same command" not in told


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_agents_end_with_the_process_that_started_them_even_if_that_is_killed(start, tmp_path):
    script = "open('begun', 'w')\ntry: time.sleep(60)\nexcept KeyboardInterrupt: open('ended', 'w')"
    supervisor = start("-c", (
        "import sys, time; from study.remote import agent as agent_slot\n"
        f"agent_slot.WANDB_AGENT = (sys.executable, '-c', {'import time' + chr(10) + script!r})\n"
        "folders = {'runs_dir': 'kept', 'data_dir': 'data'}\n"
        "agent_slot.Agent(agent_slot.Slot('cpu 0', {}), 'me/proj/abc', folders, str, 60)\n"
        "time.sleep(60)"
    ))  # fmt: skip
    for name in ("begun", "ended"):
        deadline = time.monotonic() + 30
        while not (tmp_path / name).exists():
            assert time.monotonic() < deadline, name
            time.sleep(0.05)
        supervisor.kill()


JOB = """#!/bin/bash
trap 'echo asked >> asked; sleep 0.5; exit 143' TERM
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
        while signums and not (tmp_path / "started").exists():
            time.sleep(0.02)
        for signum in signums:
            process.send_signal(signum)
            time.sleep(0.1)
        code = process.wait(timeout=20)
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
    (tmp_path / "done").touch()
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
    monkeypatch.setattr(agents, "AT_ONCE_SECONDS", 0.1)
    signals = agents.EndSignals()
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
    assert signals.received == [signal.SIGTERM]
    time.sleep(0.15)
    signal.raise_signal(signal.SIGINT)
    assert signals.received == [signal.SIGTERM, signal.SIGINT]
