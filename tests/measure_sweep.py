"""Measures what a sweep costs beyond its training, on this machine as it is now: other work on it shows in the figures.

python -m tests.measure_sweep
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
RUNS, SECONDS = 12, 2.0


def train(folder: Path, parameters: dict, *options: str) -> list[tuple[float, float]]:
    """Run a sweep on the digits, and return for each run when it ended and how long it was trained, in seconds."""
    named = {"dataset": {"value": "digits"}, "model": {"value": "cnn"}, "threads": {"value": 1}, **parameters}
    content = {"method": "grid", "metric": {"name": "val/acc", "goal": "maximize"}, "parameters": named}
    folder.mkdir()
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "study.sweep", "run", "sweep.yaml", "--devices=cpu", *options],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "HOME": str(folder)},
        stdout=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    ends = [time.perf_counter() for line in process.stdout if line.startswith("finished")]
    assert process.wait() == 0
    runs = sorted(folder.glob("runs/cnn-*"), key=lambda run: (run / "summary.json").stat().st_mtime_ns)
    trained = [json.loads((run / "summary.json").read_text(encoding="utf-8"))["train_seconds"] for run in runs]
    return list(zip(ends, trained, strict=True))


def main() -> None:
    """Print both figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for mode in ("disabled", "offline"):
            seeds = {"epochs": {"value": 3}, "seed": {"values": list(range(RUNS))}}
            timed = train(folder / mode, seeds, f"--wandb={mode}", "--per-device=1")
            beyond = (timed[-1][0] - timed[0][0] - sum(seconds for _, seconds in timed[1:])) / (RUNS - 1)
            print(f"a run in a warm worker costs {beyond:.2f} s beyond its training, W&B {mode} (n = {RUNS - 1})")

        def alone(epochs: int, label: str) -> float:
            """Return the seconds of a run in a warm worker with no other beside it."""
            settings = {
                "setting": {"values": ["epochs=1 seed=99", *(f"epochs={epochs} seed={seed}" for seed in (0, 1))]}
            }
            timed = train(folder / label, settings, "--wandb=disabled", "--per-device=1")
            return (timed[-1][0] - timed[0][0]) / 2

        epochs = round(40 * SECONDS / alone(40, "calibration"))
        ideal = 2 * alone(epochs, "alone")
        settings = ["epochs=1 seed=98", "epochs=1 seed=99", *(f"epochs={epochs} seed={seed}" for seed in range(4))]
        timed = train(folder / "four", {"setting": {"values": settings}}, "--wandb=disabled", "--per-device=2")
        taken = timed[-1][0] - timed[1][0]
        print(
            f"four runs of {ideal / 2:.2f} s on two warm slots take {taken:.2f} s, {taken / ideal:.2f} times the ideal"
        )


if __name__ == "__main__":
    main()
