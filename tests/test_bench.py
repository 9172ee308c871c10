"""The benchmark, as it is called."""

import json
import subprocess
import sys

import pytest


def bench(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "study.bench", "--dataset=digits", "--model=mlp", "--turns=2", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_loop_is_timed_beside_the_reference(tmp_path):
    ended = bench("--steps=3", "--batch-size=32", f"--out={tmp_path / 'bench.json'}", "--threads=2", "--device=cpu")
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    (case,) = found["cases"].values()
    assert list(case) == [
        "reference, 0 workers", "reference, 2 workers", "timm", "tensors", "ours", "ours auto",
        "ours auto, 2 at a time",
    ]  # fmt: skip
    fastest = min(list(case)[:2], key=lambda name: case[name]["ms_per_step"])
    assert case[fastest]["ratio_range"] == [1, 1]
    for name, row in case.items():
        assert name in ended.stdout
        assert 0 < row["ms_range"][0] <= row["ms_per_step"] <= row["ms_range"][1]
        assert row["ratio_range"][0] <= row["ratio"] <= row["ratio_range"][1]
        assert row["images_per_second"] == pytest.approx(32_000 / row["ms_per_step"])
    assert case["ours auto, 2 at a time"]["peak_mb"] > 1.5 * case["ours auto"]["peak_mb"]
    assert found["overheads"]["seconds_beyond_training"] > 0
    assert found["limits"]["float32_tflops"] > 0


def test_augmentations_that_torchvision_lacks_cannot_be_compared():
    ended = bench("--augment=flip,noise")
    assert ended.returncode == 2
    assert ended.stderr.strip() == "error: torchvision's transforms have no noise to compare with"
