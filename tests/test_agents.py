"""Slots, agents that do what a test says, and their logs; what W&B's agents do is in test_wandb_sweep.py."""

import sys
import time

import pytest

from study import agent_slot, devices
from study.agent_log import AgentLog
from study.errors import UserError

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
    made: list[agent_slot.Agent] = []
    yield start
    for agent in made:
        agent.kill()


def look(*agents: agent_slot.Agent) -> list[str]:
    """Look at agents until all are over; return how their runs ended."""
    ended = []
    while not all(agent.is_over for agent in agents):
        ended += [run.state for agent in agents for run in agent.look()]
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
        with path.open("a") as file:
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
    assert write(f"{START} --seed=1\nerror: the disk is full\n{START} --seed=2\nerror: ended by SIGTERM\n") == [
        ("seed=1", "failed", "the disk is full"), ("seed=2", "ended", "ended by SIGTERM"),
    ]  # fmt: skip
    assert write(f"{START} --seed=3\nTraceback …\nKeyError: 'x'\n{AGENT}Cleaning up finished run: abc\n") == [
        ("seed=3", "failed", "died; its last line: KeyError: 'x'")
    ]
    assert write(f"{START} --seed=4\n") == []
    assert [(run.state, run.text) for run in log.read(agent_has_ended=True)] == [("failed", "died in silence")]
    assert [run.state for run in log.runs] == ["finished", "failed", "ended", "failed", "failed"]


def test_two_that_train_a_sweep_on_one_machine_keep_their_runs_apart(agent):
    script = f"print('{START} --seed=0', flush=True); time.sleep(0.3); print('finished: best', flush=True)"
    both = agent(script), agent(script)
    assert look(*both) == ["finished"] * 2
    assert [len(one.log.runs) for one in both] == [1, 1]


def test_runs_of_agents_go_to_the_folders_that_were_said(agent, tmp_path):
    (tmp_path / "kept").mkdir()
    one = agent("print(*(os.environ[name] for name in ('STUDY_RUNS_DIR', 'STUDY_DATA_DIR', 'WANDB_DIR')))")
    look(one)
    assert one.log.path.read_text().split() == ["kept", "pictures", str(tmp_path / "kept")]
    assert one.log.path.is_relative_to("kept")
