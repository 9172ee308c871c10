"""Compare what the first part of each training predicts with what its further epochs brought.

python -m tests.measure_longer docs/study
"""

import sys

from analysis.frames import runs, trends
from analysis.frames.sections import by_dataset
from analysis.frames.statistics import estimate

FEWEST = 10
"""Fewest epochs of the part that predicts."""


def main(source: str) -> None:
    """Print a row per setting with several runs of enough epochs: predicted and real gain from twice the epochs."""
    print("| Setting | Runs | Epochs | Predicted gain (points) | Real gain of the best (points) |")
    print("| :--- | ---: | ---: | ---: | ---: |")
    for section in by_dataset(runs.load(source)):
        for setting, own in section.runs.groupby("setting", sort=False):
            history = section.history[section.history.run.isin(own.index)]
            curves = history.pivot(index="run", columns="epoch", values="val/acc")
            length = int(curves.notna().all().sum())
            if len(curves) < 3 or length < 2 * FEWEST or history.lr.nunique() > 1:
                continue

            # the first half and the first third predict what twice as many epochs bring
            values = 100 * curves.to_numpy(dtype=float)
            for part in {length // 2, length // 3} - set(range(FEWEST)):
                predicted = trends.gain(values[:, :part])
                real = values[:, : 2 * part].max(axis=1) - values[:, :part].max(axis=1)
                words = f"{predicted.mean():.2f} ± {estimate(predicted).half_width:.2f} | {real.mean():.2f}"
                print(f"| {setting} | {len(own)} | {part} to {2 * part} | {words} |")


if __name__ == "__main__":
    main(sys.argv[1])
