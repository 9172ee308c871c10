"""Statistics over repeats with different seeds: means, intervals, differences.

python -c "from analysis.frames.statistics import estimate; print(estimate([0.70, 0.71, 0.69]))"
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """Mean, half the width of its 95 % interval (NaN for a single value), and number of values."""

    mean: float
    half_width: float
    n: int

    @property
    def p(self) -> float:
        """Return the two-sided p value of Student's t test against 0; NaN for a single value."""
        if math.isnan(self.half_width):
            return math.nan
        if self.mean == 0 or self.half_width == 0:
            return float(self.mean == 0)
        return float(2 * stats.t.sf(abs(self.mean) / self.half_width * _t(self.n - 1), self.n - 1))


def estimate(values: Sequence[float], rounding: float = 0.0) -> Estimate:
    """Estimate a mean and its 95 % interval (Student t) from repeats; NaN values are ignored.

    `rounding` is the standard deviation caused by rounding alone; the estimated deviation is never smaller.
    """
    present = np.asarray(values, dtype=float)
    present = present[~np.isnan(present)]
    if len(present) == 0:
        return Estimate(math.nan, math.nan, 0)
    if len(present) == 1:
        return Estimate(float(present[0]), math.nan, 1)
    half_width = _t(len(present) - 1) * max(present.std(ddof=1), rounding) / math.sqrt(len(present))
    return Estimate(float(present.mean()), float(half_width), len(present))


def estimates(
    frame: pd.DataFrame, by: str | list[str], columns: Sequence[str], rounding: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Estimate the mean of each column in each group, as `estimate` does; `rounding` maps columns to their rounding.

    Returns a frame indexed by group, in the order of the first rows: for each column the mean, and half the width of
    its interval as `<column>_ci95`.
    """
    grouped = frame.groupby(by, sort=False)[list(columns)]
    means = grouped.mean()
    deviations = grouped.std(ddof=1)
    counts = grouped.count()
    for name in deviations.columns.intersection(list(rounding or ())):
        deviations[name] = deviations[name].clip(lower=rounding[name])
    half_widths = _t(counts.where(counts > 1) - 1) * deviations / np.sqrt(counts)
    return means.join(half_widths.add_suffix("_ci95"))


def differences(
    values: pd.Series, shared: Mapping[str, Hashable], resolution: float = 0.0, reference: Hashable = None
) -> pd.DataFrame:
    """Compare the means of all pairs of settings that have at least two repeats.

    `values` is indexed by (setting, seed). Two settings with the same seeds and the same value in `shared` are paired
    by seed; others are compared with Welch's test for unequal variances (Welch 1947). The deviation is never smaller
    than that of rounding to `resolution`, because equal differences of a few hundred images prove nothing.

    Returns a frame indexed by (a, b), both ways round: `difference` a - b, `half_width` of its 95 % interval, `p`
    (two-sided), `holm` (p corrected for the number of pairs, Holm 1979), `deviation` of one repeat, `paired`, and
    `share`, the degrees of freedom that each repeat after the first adds if both settings have equally many. With a
    `reference`, it holds only the pairs of this setting; `holm` counts all pairs, and so do `pairs`, their number, and
    `usual_deviation`, the root of the mean square of their deviations.
    """
    # one row per setting, one column per seed
    table = values.unstack()
    table = table[table.count(axis=1) > 1]
    names = list(table.index)
    count = table.count(axis=1).to_numpy(dtype=float)
    rounding = resolution**2 / 12
    variance = np.maximum(table.var(axis=1, ddof=1).to_numpy(dtype=float), rounding)
    mean = table.mean(axis=1).to_numpy(dtype=float)
    difference = mean[:, None] - mean[None, :]

    # Welch's test for all pairs: standard error, degrees of freedom, deviation
    parts = variance / count
    squared_error = parts[:, None] + parts[None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = parts**2 / (count - 1)
        degrees = np.where(squared_error > 0, squared_error**2 / (terms[:, None] + terms[None, :]), 1.0)
    both = variance[:, None] + variance[None, :]
    deviation = np.sqrt(both)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(both**2 / (variance[:, None] ** 2 + variance[None, :] ** 2), nan=1.0)
    del both  # of thousands of settings, each matrix takes much memory

    # paired test instead, for settings with the same seeds and the same shared value
    paired = np.zeros(difference.shape, dtype=bool)
    kinds = pd.Series([(shared[name], *table.columns[table.loc[name].notna()]) for name in names], dtype=object)
    for _, places in kinds.groupby(kinds):
        at = places.index.to_numpy()
        rows = table.iloc[at].dropna(axis=1).to_numpy(dtype=float)
        spread = np.stack([(row - rows).var(axis=1, ddof=1) for row in rows])  # row by row, which takes less memory
        spread = np.maximum(spread, 2 * rounding)
        block = np.ix_(at, at)
        squared_error[block] = spread / rows.shape[1]
        degrees[block] = rows.shape[1] - 1
        deviation[block] = np.sqrt(spread)
        share[block] = 1.0
        paired[block] = True

    # p of each pair, corrected over each pair once
    error = np.sqrt(squared_error, out=squared_error)
    upper = np.triu_indices(len(names), 1)
    size = np.abs(difference[upper])
    with np.errstate(invalid="ignore", divide="ignore"):
        tested = np.where(size == 0, 1.0, 2 * stats.t.sf(size / error[upper], degrees[upper]))
    p = np.ones_like(difference)
    corrected = np.ones_like(difference)
    for matrix, of_pairs in ((p, tested), (corrected, holm(tested))):
        matrix[upper] = of_pairs
        matrix.T[upper] = of_pairs

    # ordered pairs of two different settings: all, or those of the reference
    places = np.arange(len(names))
    if reference is None:
        first, second = (grid.ravel() for grid in np.meshgrid(places, places, indexing="ij"))
    else:
        own = np.full(len(names), names.index(reference)) if reference in names else places[:0]
        others = places[: len(own)]
        first, second = np.r_[own, others], np.r_[others, own]
    differ = first != second
    chosen = first[differ], second[differ]
    columns = {
        "difference": difference[chosen],
        "half_width": _t(degrees[chosen]) * error[chosen],
        "p": p[chosen],
        "holm": corrected[chosen],
        "deviation": deviation[chosen],
        "share": share[chosen],
        "paired": paired[chosen],
    }
    if reference is not None:
        of_pairs = deviation[upper]
        usual = math.sqrt((of_pairs**2).mean()) if len(of_pairs) else math.nan
        columns |= {"pairs": len(of_pairs), "usual_deviation": usual}

    # one row per pair
    known = pd.Index(names, dtype=object)
    index = pd.MultiIndex.from_arrays([known[place] for place in chosen], names=["a", "b"])
    return pd.DataFrame(columns, index=index)


def holm(p: Sequence[float]) -> np.ndarray:
    """Correct p values for multiple comparisons: the probability of any false claim is at most alpha (Holm 1979)."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def seeds_to_show(
    difference: float, deviation: float, share: float, comparisons: int = 1, more_than: int = 1
) -> int | None:
    """Return how many seeds would show a real difference of this size with a power of 80 %; None beyond 100.

    `deviation` is the standard deviation of the difference between two repeats. `share` is the number of degrees of
    freedom that each repeat after the first adds: 1 for paired repeats, otherwise up to 2. The level is corrected for
    the number of comparisons (Bonferroni), the power is that of the noncentral t distribution, and the result is
    larger than `more_than`, the number of seeds that did not show the difference.
    """
    n = np.arange(more_than + 1, 101)
    degrees = share * (n - 1)
    needed = stats.t.ppf(1 - ALPHA / comparisons / 2, degrees)
    power = stats.nct.sf(needed, degrees, abs(difference) * np.sqrt(n) / deviation)
    enough = n[power >= POWER]
    return int(enough[0]) if len(enough) else None


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> tuple[int, int, float]:
    """Compare the correct predictions of two classifiers on the same images (exact test, McNemar 1947).

    Returns how many images only the first and only the second classifies correctly, and the two-sided p value.
    """
    a = np.asarray(a, dtype=bool)
    b = np.asarray(b, dtype=bool)
    first = int((a & ~b).sum())
    second = int((b & ~a).sum())
    p = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    return first, second, float(p)


def sampling_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy measured on n images (Wilson 1927)."""
    interval = stats.binomtest(round(share * n), n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def _t(degrees):
    """Return the quantile of Student's t for a two-sided interval of CONFIDENCE."""
    return stats.t.ppf((1 + CONFIDENCE) / 2, degrees)
