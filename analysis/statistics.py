"""What repeats with different seeds tell: means, intervals, differences.

python -c "from analysis.statistics import estimate; print(estimate([0.70, 0.71, 0.69]))"
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, half the width of its 95 % interval (NaN for a single value), and the number of values."""

    mean: float
    half_width: float
    n: int

    @property
    def contains_zero(self) -> bool:
        """Tell whether 0 lies in the interval; a single value has none."""
        return abs(self.mean) <= self.half_width


def estimate(values: Sequence[float]) -> Estimate:
    """Estimate a mean from repeats, by Student's t; NaN values count as absent."""
    present = np.asarray(values, dtype=float)
    present = present[~np.isnan(present)]
    if len(present) == 0:
        return Estimate(math.nan, math.nan, 0)
    if len(present) == 1:
        return Estimate(float(present[0]), math.nan, 1)
    half_width = _t(len(present) - 1) * present.std(ddof=1) / math.sqrt(len(present))
    return Estimate(float(present.mean()), float(half_width), len(present))


def difference(a: pd.Series, b: pd.Series, paired: bool) -> Estimate:
    """Estimate mean(a) - mean(b) from repeats indexed by seed.

    Paired by seed where asked for and both have the same seeds; else for unequal variances (Welch 1947).
    """
    if paired and len(a) > 1 and set(a.index) == set(b.index):
        return estimate(a - b.reindex(a.index))
    smaller, mean = min(len(a), len(b)), float(a.mean() - b.mean())
    if smaller < 2:
        return Estimate(mean, math.nan, smaller)
    spread_a, spread_b = a.var() / len(a), b.var() / len(b)
    if spread_a + spread_b == 0:
        return Estimate(mean, 0.0, smaller)
    degrees = (spread_a + spread_b) ** 2 / (spread_a**2 / (len(a) - 1) + spread_b**2 / (len(b) - 1))
    return Estimate(mean, _t(degrees) * math.sqrt(spread_a + spread_b), smaller)


def sampling_interval(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy that was measured on n images (Wilson 1927)."""
    interval = stats.binomtest(round(share * n), n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def _t(degrees: float) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))
