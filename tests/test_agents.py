"""Slots, agents that do what a test says, and their logs; what W&B's agents do is in test_wandb_sweep.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from study.remote import agent as agent_slot
from study.remote import agents
from study.remote.log import AgentLog, Run
from study.system import devices
from study.system.errors import UserError
from tests.conftest import ROOT

FOLDERS = {"runs_dir": "kept", "data_dir": "pictures"}
AGENT = "2026-01-02 03:04:05,678 - wandb.wandb_agent - INFO - "
START = f"{AGENT}About to run command: /usr/bin/env python -m study.train"


@pytest.fixture
def agent(monkeypatch, tmp_path):
    """Start an agent, with a script in the place of `wandb agent`."""

    def start(script: str) -> agent_slot.Agent:
        monkeypatch.setattr(agent_slot, "WANDB_AGENT", (sys.executable, "-c", f"import os, sys, time\n{script}"))
        made.append(agent_slot.Agent(agent_slot.Slot("cpu 0", {}), "me/proj/abc", FOLDERS, str))
        return made[-1]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(agent_slot, "FIRST_PAUSE", 0.05)
    made: list[agent_slot.Agent] = []
    yield start
    for agent in made:
        agent.kill()


def look(*agents: agent_slot.Agent, said: list[str] | None = None) -> list[str]:
    """Look at agents until all are over; return how their runs ended, and add to `said` what was said."""
    ended, said = [], [] if said is None else said
    while not all(agent.is_over for agent in agents):
        ended += [run.state for agent in agents for run in agent.look(said.append)]
        time.sleep(0.02)
    return ended


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


def test_a_log_tells_how_each_run_ended(tmp_path):
    path = tmp_path / "agent.log"
    path.touch()
    log = AgentLog(path, lambda values: " ".join(f"{key}={value}" for key, value in values.items()))

    def write(text: str) -> list[tuple[str, str, str]]:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
        return [(run.label, run.state, run.text) for run in log.read()]

    assert write(f'{START} --seed=0 --batch-size=8 "--setting=model=mlp epochs=2"\nepoch 1/2  acc') == []
    assert (log.current.label, log.current.text) == ("seed=0 batch_size=8 setting=model=mlp epochs=2", "")
    assert write(" 50 %\n") == []
    assert log.current.text == "epoch 1/2  acc 50 %"
    assert write("finished: best val acc 90 %\nwandb: uploading\neverything is in runs/a\n") == [
        ("seed=0 batch_size=8 setting=model=mlp epochs=2", "finished", "best val acc 90 %")
    ]
    assert log.current is None
    assert log.runs[-1].directory == "runs/a"
    assert write(f"{START} --seed=1\nerror: the disk is full\n{START} --seed=2\nerror: ended by SIGTERM\n") == [
        ("seed=1", "failed", "the disk is full"), ("seed=2", "ended", "ended by SIGTERM"),
    ]  # fmt: skip
    assert write(f"{START} --seed=3\nTraceback …\nKeyError: 'x'\n{AGENT}Cleaning up finished run: abc\n") == [
        ("seed=3", "failed", "died; its last line: KeyError: 'x'")
    ]
    assert write(f"{START} --seed=4\n") == []
    assert [(run.state, run.text) for run in log.read(agent_has_ended=True)] == [("failed", "died in silence")]
    assert [run.state for run in log.runs] == ["finished", "failed", "ended", "failed", "failed"]
    assert write(f"{START} --seed=5\n{AGENT}Stop: abc\nerror: ended by SIGTERM\n{START} --seed=6\n") == [
        ("seed=5", "killed", "stopped at W&B, by a person or by early_terminate")
    ]
    directory = tmp_path / "b c"
    directory.mkdir()
    (directory / "run.json").write_text('{"wandb_missing": "no answer"}', encoding="utf-8")
    assert write(f"epoch 1\nfinished: best\neverything is in {directory}\n") == [("seed=6", "finished", "best")]
    assert log.runs[-1].outcome == "best, not in W&B"
    assert [(run.directory, run.is_sent) for run in log.runs if run.directory] == [
        ("runs/a", True),
        (str(directory), False),
    ]


def test_two_that_train_a_sweep_on_one_machine_keep_their_runs_apart(agent):
    script = f"print('{START} --seed=0', flush=True); time.sleep(0.3); print('finished: best', flush=True)"
    both = agent(script), agent(script)
    assert look(*both) == ["finished"] * 2
    assert [len(one.log.runs) for one in both] == [1, 1]


def test_runs_of_agents_go_to_the_folders_that_were_said(agent, tmp_path):
    (tmp_path / "kept").mkdir()
    one = agent("print(*(os.environ[name] for name in ('STUDY_RUNS_DIR', 'STUDY_DATA_DIR', 'WANDB_DIR')))")
    look(one)
    assert one.log.path.read_text(encoding="utf-8").split() == ["kept", "pictures", str(tmp_path / "kept")]
    assert one.log.path.is_relative_to("kept")


def test_what_agents_do_fits_into_a_narrow_terminal(agent, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(agent_slot.AgentLog, "current", Run("dropout 0.5, seed 0", "running", "epoch 1/300  " * 20))
    display = agents.Display(None)
    display.console.print(display.table([agent("time.sleep(60)")]))
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["agent", "ended", "failed", "trains"]
    assert line.split()[:8] == ["cpu", "0", "0", "0", "dropout", "0.5,", "seed", "0"]
    assert "epoch 1/300" in line and line.strip().endswith("…")


DOWN = """
print('wandb: ERROR Find detailed error logs at: /tmp/debug', flush=True)
sys.exit('Error: the server is silent')
"""
ONCE_DOWN = f"""
if not os.path.exists('was-down'):
    open('was-down', 'w').close()
    {"; ".join(DOWN.split(chr(10))[1:-1])}
print('{START} --seed=0')
print('finished: best')
print('{AGENT}Received exit command. Killing runs and quitting.')
"""


def test_an_agent_that_fails_is_started_again(agent):
    said: list[str] = []
    one = agent(ONCE_DOWN)
    assert look(one, said=said) == ["finished"]
    assert said == ["cpu 0: the agent ended with exit code 1: the server is silent; it is started again in 0.05s"]
    assert one.reason() == "no point was left"


def test_an_agent_that_goes_on_failing_is_over_after_a_while(agent, monkeypatch):
    monkeypatch.setattr(agent_slot, "PATIENCE", 0.5)
    said: list[str] = []
    one = agent(DOWN)
    assert look(one, said=said) == []
    assert 1 <= len(said) <= 4, "pauses grow"
    assert one.reason() == "ended with exit code 1: the server is silent"


def test_an_agent_is_not_started_again_after_five_failures_or_when_it_was_asked_to_end(agent):
    fails = f"for seed in range(5): print('{START}', seed); print('error: no device', flush=True)\nsys.exit(1)"
    said: list[str] = []
    assert look(agent(fails), said=said) == ["failed"] * 5
    asked = agent("time.sleep(60)")
    asked.send(signal.SIGINT)
    look(asked, said=said)
    assert said == []


def test_an_agent_that_was_killed_is_started_again(agent):
    said: list[str] = []
    one = agent("if not os.path.exists('x'): open('x', 'w').close(); os.kill(os.getpid(), 9)")
    look(one, said=said)
    assert said == ["cpu 0: the agent was ended by SIGKILL; it is started again in 0.05s"]


def test_at_the_end_it_is_shown_what_can_be_done_next(agent, monkeypatch, capsys):
    monkeypatch.setattr(agents, "STAGGER_SECONDS", 0)
    script = "\n".join(f"print({line!r})" for line in (
        f"{START} --seed=0", "finished: best", "everything is in kept/a b",
        f"{START} --seed=1", "error: the disk is full", f"{AGENT}Received exit command. Killing runs and quitting.",
    ))  # fmt: skip
    agent(script)  # takes the place of `wandb agent`
    Path("kept/a b").mkdir(parents=True)
    Path("kept/a b/run.json").write_text('{"wandb_missing": "no answer"}', encoding="utf-8")
    grid = SimpleNamespace(path="me/proj/abc", left=2, label=str, sweep=SimpleNamespace(method="grid"))
    assert agents.run_agents(grid, [agent_slot.Slot("cpu 0", {})], FOLDERS, 1) == 1
    told = capsys.readouterr().out
    assert "best, not in W&B  [1 of at most 2" in told and "1 finished, 1 failed, 1 not in W&B" in told
    assert "log of cpu 0: kept/wandb/agents/abc/" in told
    assert "python -m study.sync 'kept/a b'" in told
    assert "create --missing me/proj/abc" in told and "the same command" not in told


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_agents_end_with_the_process_that_started_them_even_if_that_is_killed(start, tmp_path):
    script = "open('begun', 'w')\ntry: time.sleep(60)\nexcept KeyboardInterrupt: open('ended', 'w')"
    supervisor = start("-c", (
        "import sys, time; from study.remote import agent as agent_slot\n"
        f"agent_slot.WANDB_AGENT = (sys.executable, '-c', {'import time' + chr(10) + script!r})\n"
        "agent_slot.Agent(agent_slot.Slot('cpu 0', {}), 'me/proj/abc', {'runs_dir': 'kept', 'data_dir': 'data'}, str)\n"
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
    signals = agents._Signals()
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
    assert signals.received == [signal.SIGTERM]
    time.sleep(0.15)
    signal.raise_signal(signal.SIGINT)
    assert signals.received == [signal.SIGTERM, signal.SIGINT]
