"""Measures how often the comparison of settings finds a true difference, and how often it claims a false one.

python -m tests.measure_power            # the tables of docs/statistics.md, some 20 minutes
python -m tests.measure_power --studies 200 --settings 6 --seeds 3

Each study is drawn at random: accuracies in points with a standard deviation of 0.45 between seeds.
"""

import argparse

import numpy as np

from analysis.frames import statistics

DEVIATION = 0.45
"""Standard deviation of the accuracy between seeds, in points."""

SPREAD = 0.5
"""Standard deviation of the logarithm of this deviation between settings, if their spreads are unequal."""

KINDS = {
    "not paired": (False, 0.0),
    "paired, correlation 0": (True, 0.0),
    "paired, correlation 0.6": (True, 0.6),
}
"""Whether settings are paired by seed, and the correlation between two settings with the same seed."""


def draw(random: np.random.Generator, means: np.ndarray, seeds: int, correlation: float, equal: bool) -> np.ndarray:
    """Draw the accuracies of a study, settings by seeds."""
    shared = np.sqrt(correlation) * random.normal(size=(1, seeds))
    own = np.sqrt(1 - correlation) * random.normal(size=(len(means), seeds))
    spread = DEVIATION * (1.0 if equal else np.exp(random.normal(0, SPREAD, (len(means), 1))))
    return means[:, None] + spread * (shared + own)


def measure(
    random: np.random.Generator, means: np.ndarray, seeds: int, kind: str, equal: bool, studies: int
) -> tuple[float, float, float, float]:
    """Return the share of studies that show a true difference, of true differences that are shown, of studies with a
    false claim, and of studies in which all intervals contain the true difference.
    """
    found = shown = wrong = covered = 0.0
    paired, correlation = KINDS[kind]
    kinds = np.zeros(len(means), dtype=int) if paired else np.arange(len(means))
    for _ in range(studies):
        table = draw(random, means, seeds, correlation, equal)
        pairs = statistics.raw_pairs(table, kinds)
        pairs = statistics.with_tests(statistics.moderated(pairs, statistics.residual_degrees(table, kinds)))
        truth = means[pairs["first"]] - means[pairs["second"]]
        claimed = (pairs.holm < statistics.ALPHA).to_numpy()
        right = claimed & (np.sign(truth) == np.sign(pairs.difference.to_numpy())) & (truth != 0)
        found += right.any()
        shown += right.sum() / max(1, np.count_nonzero(truth))
        wrong += (claimed & ~right).any()
        covered += (np.abs(pairs.difference - truth) <= pairs.half_width).all()
    return found / studies, shown / studies, wrong / studies, covered / studies


def main() -> None:
    """Print a table: a row for each kind of study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="studies of each kind (default: 1000)")
    parser.add_argument("--settings", type=int, nargs="+", default=[3, 6, 12, 20])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    args = parser.parse_args()
    random = np.random.default_rng(0)
    print(
        "| Settings | Seeds | Spreads | Tests | False claim | 1 point: any | each | 2 points: any | each | Coverage |"
    )
    print("| ---: | ---: | :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for settings in args.settings:
        for seeds in args.seeds:
            for equal in (True, False):
                for kind in KINDS:
                    best = np.eye(settings)[0]  # one setting is better than the others
                    found = [measure(random, points * best, seeds, kind, equal, args.studies) for points in (0, 1, 2)]
                    cells = [found[0][2], *found[1][:2], *found[2][:2], min(covered for *_, covered in found)]
                    name = "equal" if equal else "unequal"
                    row = [settings, seeds, name, kind, *(f"{cell:.2f}" for cell in cells)]
                    print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
