"""Writes as many runs as one likes, after the pattern of real ones: to measure the analysis of large studies.

python -m tests.many_runs runs/cnn-digits-s0-FINGERPRINT many --count 1000 --epochs 30
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

from study.config import Config
from study.record.directory import RunDirectory

SEEDS = 5
LOSSES = ("train/loss", "val/loss")


def write(pattern: Path, out: Path, count: int, epochs: int) -> None:
    """Write `count` runs: settings of a learning rate and a momentum, each with SEEDS seeds, and noise of their own."""
    real = RunDirectory(pattern)
    info, history, summary = real.info(), real.history(), real.summary()
    random = np.random.default_rng(0)
    settings = -(-count // SEEDS)
    for place in range(count):
        setting, seed = divmod(place, SEEDS)
        values = {
            "seed": seed, "epochs": epochs, "momentum": round(0.9 * (setting % 8) / 8, 4),
            "lr": round(10 ** (-4 + 4 * (setting // 8) / (settings / 8)), 8),
        }  # fmt: skip
        config = Config.recorded({**info["config"], **values})
        directory = RunDirectory(out / config.run_name)
        directory.path.mkdir(parents=True)
        shift = random.normal(0, 0.01) - 0.05 * abs(setting / settings - 0.5)
        rows = []
        for epoch in range(1, epochs + 1):
            row = dict(history[(epoch - 1) * len(history) // epochs], epoch=epoch)
            row |= {name: row[name] * (1 - shift) for name in LOSSES}
            row |= {name: float(np.clip(row[name] + shift, 0, 1)) for name in ("train/acc", "val/acc")}
            rows.append(row)
            directory.append(row)
        best = max(rows, key=lambda row: row["val/acc"])
        directory.write_summary(
            {
                **summary, "best/epoch": best["epoch"], "best/val_acc": best["val/acc"], "last/epoch": epochs,
                "last/val_acc": rows[-1]["val/acc"], "best/val_loss": best["val/loss"],
                "last/val_loss": rows[-1]["val/loss"],
            }
        )  # fmt: skip
        shutil.copy(pattern / "evaluation.npz", directory.path)
        told = {"config": config.model_dump(), "fingerprint": config.fingerprint, "group": config.group}
        directory.write_info({**info, **told})


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m tests.many_runs", description=__doc__)
    parser.add_argument("pattern", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    write(args.pattern, args.out, args.count, args.epochs)
