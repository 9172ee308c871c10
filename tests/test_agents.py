"""Slots and the logs of agents; what agents do is in test_wandb_sweep.py."""

import pytest

from study import agents, devices
from study.agent_log import AgentLog
from study.errors import UserError

AGENT = "2026-01-02 03:04:05,678 - wandb.wandb_agent - INFO - "


def test_each_slot_has_its_gpu_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(devices, "names", lambda: ["cuda:0", "cuda:1", "cpu"])
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [(slot.name, *slot.environment.values()) for slot in agents.slots(None, 2, None)] == [
        ("gpu 0 #0", "0", "2"), ("gpu 1 #0", "1", "2"), ("gpu 0 #1", "0", "2"), ("gpu 1 #1", "1", "2"),
    ]  # fmt: skip
    assert [(slot.name, *slot.environment.values()) for slot in agents.slots("1", 1, None)] == [("gpu 1", "1", "8")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8f6")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in agents.slots("1,0", 1, None)] == ["GPU-8f6", "5"]
    with pytest.raises(UserError, match="GPU '2' is not there; this machine has 0, 1"):
        agents.slots("0,2", 1, None)
    monkeypatch.setattr(devices, "names", lambda: ["cpu"])
    with pytest.raises(UserError, match="no CUDA device; --cpus N"):
        agents.slots(None, 1, None)
    assert [slot.environment for slot in agents.slots(None, 1, 3)] == [
        {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
    ] * 3


def test_a_log_tells_how_each_run_ended(tmp_path):
    path = tmp_path / "agent.log"
    path.write_text(f"{AGENT}About to run command: /usr/bin/env python -m study.train --seed=9\nfinished: of before\n")
    log = AgentLog(path, lambda values: " ".join(f"{key}={value}" for key, value in values.items()))

    def write(text: str) -> list[tuple[str, str, str]]:
        with path.open("a") as file:
            file.write(text)
        return [(run.label, run.state, run.text) for run in log.read()]

    start = f"{AGENT}About to run command: /usr/bin/env python -m study.train"
    assert write(f'{start} --seed=0 --batch-size=8 "--setting=model=mlp epochs=2"\nepoch 1/2  acc') == []
    assert (log.current.label, log.current.text) == ("seed=0 batch_size=8 setting=model=mlp epochs=2", "")
    assert write(" 50 %\n") == []
    assert log.current.text == "epoch 1/2  acc 50 %"
    assert write("finished: best val acc 90 %\nwandb: uploading\neverything is in runs/a\n") == [
        ("seed=0 batch_size=8 setting=model=mlp epochs=2", "finished", "best val acc 90 %")
    ]
    assert log.current is None
    assert write(f"{start} --seed=1\nerror: the disk is full\n{start} --seed=2\nerror: ended by SIGTERM\n") == [
        ("seed=1", "failed", "the disk is full"), ("seed=2", "ended", "ended by SIGTERM"),
    ]  # fmt: skip
    assert write(f"{start} --seed=3\nTraceback …\nKeyError: 'x'\n{AGENT}Cleaning up finished run: abc\n") == [
        ("seed=3", "failed", "died; its last line: KeyError: 'x'")
    ]
    assert write(f"{start} --seed=4\n") == []
    assert [(run.state, run.text) for run in log.read(agent_has_ended=True)] == [("failed", "died in silence")]
    assert [run.state for run in log.runs] == ["finished", "failed", "ended", "failed", "failed"]
