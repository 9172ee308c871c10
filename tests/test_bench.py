"""The benchmark, as it is called."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
import torch

from study.bench.compare import Contender
from study.config import Config


def bench(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "study.bench", "--model=mlp", "--turns=2", *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def test_every_loop_is_timed_beside_the_reference(tmp_path):
    out = tmp_path / "bench.json"
    ended = bench("--dataset=digits", "--batch-size=32", "--steps=3", "--threads=2", "--device=cpu", f"--out={out}")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    (case,) = found["cases"].values()
    references = ["reference, 0 workers", "reference, 2 workers"]
    assert list(case) == ["ours", "ours auto", "ours auto, 2 at a time", "tensors", "timm", *references]
    fastest = min(references, key=lambda name: case[name]["ms_per_step"])
    assert case[fastest]["ratio_range"] == [1, 1]
    for name, row in case.items():
        assert name in ended.stdout
        assert 0 < row["ms_range"][0] <= row["ms_per_step"] <= row["ms_range"][1]
        assert row["ratio_range"][0] <= row["ratio"] <= row["ratio_range"][1]
        assert row["images_per_second"] == pytest.approx(32_000 / row["ms_per_step"])
    assert case["ours auto, 2 at a time"]["peak_mb"] > 1.5 * case["ours auto"]["peak_mb"]
    assert found["overheads"]["seconds_beyond_training"] > 0
    assert found["limits"]["float32_tflops"] > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--dataset=digits", "--augment=flip,noise"], "error: torchvision's transforms have no noise to compare with"),
        (
            ["--dataset=digits", "--batch-size=2000"],
            "error: batch_size must be less than 1,151, the training images of digits, to be compared",
        ),
    ],
)
def test_what_cannot_be_compared_is_a_mistake(call, words, sentence):
    assert call("study.bench.__main__", "--model=mlp", *words, code=2).stderr.strip() == sentence


def test_a_loop_that_fails_is_named(monkeypatch):
    spawn = multiprocessing.get_context("spawn")  # a server of forks outlives a test
    monkeypatch.setattr("study.bench.compare.PROCESSES", spawn)
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
