"""The benchmark, as it is called."""

import itertools
import json
import os
import signal
from functools import partial

import pytest
import torch

from study.bench import compare, loops
from study.bench.compare import Contender
from study.config import Config


class Here(Contender):
    """A contender that takes its steps in this process, each of which it says to take a millisecond more."""

    turns = 0

    def __init__(self, name, make, config, device, threads, runs=1, workers=0):
        self.name, self.runs, self.workers, self.step_seconds = name, runs, workers, 0.001
        self.loop = make(config, device)

    def turn(self, steps):
        assert sum(1 for _ in itertools.islice(self.loop, steps)) == steps
        Here.turns += 1
        return float(Here.turns), 100.0 * self.runs

    def close(self):
        del self.loop


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_every_loop_is_timed_beside_the_fastest_reference(call, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "Contender", Here)
    monkeypatch.setattr(Here, "turns", 0)
    monkeypatch.setattr(compare, "SIDE", {"cpu": 256})
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # of this process, for later tests too
    words = ("--dataset=digits", "--batch-size=32", "--steps=3", "--threads=2", "--device=cpu", "--out=bench.json")
    out = call("study.bench.__main__", "--model=mlp", "--turns=2", *words).stdout
    found = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    (case,) = found["cases"].values()
    names = ["ours", "ours auto", "ours auto, 2 at a time", "tensors", "timm"]
    assert list(case) == [*names, "reference, 0 workers", "reference, 2 workers"]
    for place, (name, row) in enumerate(case.items(), 1):
        assert name in out
        assert row["ms_range"] == [place, place + 7] and row["ms_per_step"] == place + 3.5
        assert row["ratio_range"] == [pytest.approx(ratio) for ratio in sorted((6 / place, 13 / (place + 7)))]
        assert row["images_per_second"] == pytest.approx(32_000 / row["ms_per_step"])
        assert row["peak_mb"] == (200 if "2 at a time" in name else 100)
    assert found["overheads"]["seconds_beyond_training"] > 0
    assert found["limits"]["float32_tflops"] > 0


@pytest.mark.usefixtures("workers")
def test_runs_at_a_time_are_processes_whose_memory_is_added():
    config = Config.parse({"dataset": "digits", "model": "mlp", "batch_size": 32})
    loop = partial(loops.ours, precision="float32")
    one, two = (Contender(f"{runs}", loop, config, torch.device("cpu"), threads=2, runs=runs) for runs in (1, 2))
    (ms, peak), (ms_of_two, peak_of_two) = one.turn(3), two.turn(3)
    assert ms > 0 and ms_of_two > 0 and peak_of_two > 1.5 * peak
    for contender in (one, two):
        processes = contender.processes
        contender.close()
        assert [process.exitcode for process in processes] == [0] * contender.runs


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--dataset=digits", "--augment=flip,noise"], "error: torchvision's transforms have no noise to compare with"),
        (
            ["--dataset=digits", "--batch-size=2000"],
            "error: batch_size must be less than 1,151, the training images of digits, to be compared",
        ),
        (["--out=none/a.json"], "error: --out none/a.json cannot be written; name a file in a folder that is there"),
    ],
)
def test_what_cannot_be_compared_is_a_mistake(call, words, sentence):
    assert call("study.bench.__main__", "--model=mlp", *words, code=2).stderr.strip() == sentence


@pytest.mark.usefixtures("workers")
def test_a_loop_that_fails_is_named():
    config = Config.parse({"dataset": "digits", "model": "mlp"})
    with pytest.raises(RuntimeError, match=r"^broken: ValueError: not such a loop$"):
        Contender("broken", broken, config, torch.device("cpu"), threads=1)
    one = Contender("killed", counting, config, torch.device("cpu"), threads=1)
    os.kill(one.processes[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"^killed: its process was ended"):
        one.turn(3)
    one.close()


def broken(config, device):
    raise ValueError("not such a loop")


def counting(config, device):
    yield from range(1000)
