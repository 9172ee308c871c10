"""Statistics over repeats with different seeds: means, intervals, differences.

python -c "from analysis.frames.statistics import estimate; print(estimate([0.70, 0.71, 0.69]))"
"""

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
POWER = 0.8

LEAST_DEGREES = 4
"""With fewer degrees of freedom, the spread is too uncertain to say how many seeds are needed."""

MOST_PRIOR = 16
"""What the comparisons of a family have in common counts at most as many degrees of freedom, see `moderate`."""


@dataclass(frozen=True)
class Estimate:
    """Mean, half the width of its 95 % interval (NaN for a single value), and number of values."""

    mean: float
    half_width: float
    n: int


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
    grouped = frame.groupby(by, sort=False, observed=True)[list(columns)]
    means = grouped.mean()
    deviations = grouped.std(ddof=1)
    counts = grouped.count()
    for name in deviations.columns.intersection(list(rounding or ())):
        deviations[name] = deviations[name].clip(lower=rounding[name])
    half_widths = _t(counts.where(counts > 1) - 1) * deviations / np.sqrt(counts)
    return means.join(half_widths.add_suffix("_ci95"))


@dataclass(frozen=True)
class Prior:
    """What the variances of a family of comparisons have in common: a usual variance, worth some degrees of freedom."""

    variance: float
    degrees: float


def fit_prior(variances: Sequence[float], degrees: Sequence[float]) -> Prior:
    """Fit the usual variance, and how many degrees of freedom it is worth, to estimated variances.

    The model is that of Smyth (2004, section 6.2; `fitFDist` of limma): the true variances vary around the usual one
    like scaled inverse chi-square variables. If the estimates vary no more than chance explains, the degrees of
    freedom are infinite, and the usual variance is their mean. Fewer than two variances, or none above 0, have no
    prior: 0 degrees of freedom.
    """
    variances = np.asarray(variances, dtype=float)
    degrees = np.asarray(degrees, dtype=float)
    if len(variances) < 2 or np.median(variances) <= 0:
        return Prior(0.0, 0.0)

    # the logarithm of an estimate, without the bias that chance gives it; tiny estimates do not decide alone
    logs = np.log(np.maximum(variances, 1e-5 * np.median(variances)))
    logs += np.log(degrees / 2) - special.digamma(degrees / 2)

    # how much the logarithms vary beyond chance
    excess = logs.var(ddof=1) - special.polygamma(1, degrees / 2).mean()
    if excess <= 0:
        return Prior(float(variances.mean()), math.inf)
    half = _inverse_trigamma(excess)
    return Prior(float(np.exp(logs.mean() + special.digamma(half) - math.log(half))), 2 * half)


def _inverse_trigamma(value: float) -> float:
    """Solve trigamma(y) = value by Newton's method on 1 / trigamma, which is convex (Smyth 2004, appendix)."""
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = special.polygamma(1, y)
        step = trigamma * (1 - trigamma / value) / special.polygamma(2, y)
        y += step
        if -step / y < 1e-8:
            break
    return float(y)


def moderate(
    variances: Sequence[float], degrees: Sequence[float], most: float, use: Sequence[bool] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Move each variance of a family towards the usual one; return the new variances and their degrees of freedom.

    The new variance is the mean of its own and the usual one, weighted by their degrees of freedom (Smyth 2004). The
    usual one, fitted to the variances chosen by `use`, counts at most MOST_PRIOR degrees; a variance has at most
    `most`, those of the residual if all variances were the same, but never fewer than its own.
    """
    variances = np.asarray(variances, dtype=float)
    degrees = np.asarray(degrees, dtype=float)
    use = np.ones(len(variances), dtype=bool) if use is None else np.asarray(use)
    prior = fit_prior(variances[use], degrees[use])
    weight = min(prior.degrees, MOST_PRIOR)
    moderated = (weight * prior.variance + degrees * variances) / (weight + degrees)
    return moderated, np.maximum(degrees, np.minimum(degrees + weight, most))


def simultaneous(
    difference: Sequence[float],
    error: Sequence[float],
    degrees: Sequence[float],
    shown: Sequence[bool] | slice = slice(None),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Test a family of differences by t tests; `error` is the standard error of each.

    Returns half the width of their intervals, p (two-sided), and p corrected for the size of the family (Holm 1979).
    The intervals are simultaneous (Bonferroni): together they contain all true differences in 95 % of families. Holm's
    test is a little sharper; where it shows a difference whose interval still contains 0, the interval is narrowed to
    end at 0, so that an interval contains 0 exactly if its corrected p is at least 5 %. Where the error is NaN, nothing
    is tested, and all three are NaN. Only the intervals that are `shown` are computed; of others the width is NaN.
    """
    difference, error, degrees = (np.asarray(values, dtype=float) for values in (difference, error, degrees))
    size = np.abs(difference)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.where(size == 0, 1.0, 2 * special.stdtr(degrees, -size / error))
    p[np.isnan(error)] = math.nan
    corrected = holm(p)
    family = max(1, np.count_nonzero(~np.isnan(p)))
    half_width = np.full_like(size, math.nan)
    half_width[shown] = special.stdtrit(degrees[shown], 1 - ALPHA / (2 * family)) * error[shown]
    half_width = np.where(corrected < ALPHA, np.minimum(half_width, size), half_width)
    return half_width, p, corrected


def differences(
    values: pd.Series,
    shared: Mapping[str, Hashable],
    resolution: float = 0.0,
    reference: Hashable = None,
    apart: Collection[Hashable] = (),
) -> pd.DataFrame:
    """Compare the means of all pairs of settings that have at least two repeats.

    `values` is indexed by (setting, seed). Two settings with the same value in `shared` are paired by the seeds that
    both have, if these are at least two and at least half of the seeds of each (Student 1908); others are compared with
    Welch's test for unequal variances (Welch 1947). The variances of all pairs are moderated, see `moderate`: those of
    paired and of other tests each by their own. No variance is smaller than that of rounding to `resolution`, because
    equal differences of a few hundred images prove nothing. A pair of which no setting varies at all is not tested:
    such repeats do not show how much results vary. The variances of settings in `apart` do not count for other pairs.

    Returns a frame indexed by (a, b), both ways round: `difference` a - b (over the shared seeds if paired),
    `half_width` of its simultaneous interval, `p` (two-sided), `holm` (p corrected for the number of pairs), see
    `simultaneous`; `deviation` of the difference between two repeats, its `degrees` of freedom, `prior`, those of them
    that come from other pairs, `share`, those that each repeat after the first adds if both settings have equally many,
    `paired`, and `pairs`, the number of pairs that are tested. With a `reference`, it holds only pairs of this setting.
    """
    # one row per setting, one column per seed
    table = values.unstack()
    table = table[table.count(axis=1) > 1]
    names = list(table.index)
    numbers: dict[Hashable, int] = {}
    kinds = np.array([numbers.setdefault(shared[name], len(numbers)) for name in names], dtype=int)
    accuracies = table.to_numpy(dtype=float)

    # tests with moderated variances
    pairs = raw_pairs(accuracies, kinds, resolution**2 / 12)
    is_apart = np.array([name in apart for name in names], dtype=bool)
    pairs["counts"] = pairs.varies & ~is_apart[pairs["first"]] & ~is_apart[pairs["second"]]
    place = names.index(reference) if reference in names else -1
    is_chosen = (pairs["first"] == place) | (pairs["second"] == place) | (reference is None)
    tested = with_tests(moderated(pairs, residual_degrees(accuracies, kinds)), is_chosen.to_numpy())
    tested = tested.assign(pairs=int(tested.p.notna().sum()))[is_chosen]
    tested = tested.assign(deviation=np.sqrt(tested.variance))

    # ordered pairs of two different settings: all, or those of the reference
    both = pd.concat(
        [tested, tested.assign(first=tested["second"], second=tested["first"], difference=-tested.difference)]
    )

    # one row per pair
    known = pd.Index(names, dtype=object)
    places = both["first"].to_numpy(), both["second"].to_numpy()
    index = pd.MultiIndex.from_arrays([known[place] for place in places], names=["a", "b"])
    columns = ["difference", "half_width", "p", "holm", "deviation", "degrees", "prior", "share", "paired", "pairs"]
    return both[columns].set_axis(index)


def raw_pairs(table: np.ndarray, kinds: np.ndarray, rounding: float = 0.0) -> pd.DataFrame:
    """Return difference and variance of each pair of rows of a table of settings by seeds, NaN where a run is missing.

    Rows with the same number in `kinds` are paired by the seeds that they share. `rounding` is the least variance of a
    setting. Columns: places of the `first` and `second` row, `difference` of their means, `variance` of the difference
    between two repeats, its `degrees` of freedom, `n`, the number of repeats that its mean is worth, `paired`, `share`
    (see `differences`), `varies`, whether any of the two rows does, and `counts`, whether the variance counts for the
    usual one.
    """
    # mean and variance of each setting
    present = ~np.isnan(table)
    count = present.sum(axis=1).astype(float)
    mean = np.nanmean(table, axis=1) if len(table) else count
    variance = np.maximum(np.nanvar(table, axis=1, ddof=1), rounding) if len(table) else count
    varies = np.nanmax(table, axis=1) > np.nanmin(table, axis=1) if len(table) else count > 0
    parts = variance / count

    # row by row, which takes less memory with thousands of settings
    columns: dict[str, list[np.ndarray]] = {}
    for place in range(len(table) - 1):
        rest = slice(place + 1, None)

        # Welch's test: squared error, degrees of freedom, number of repeats
        error = parts[place] + parts[rest]
        repeats = 2 / (1 / count[place] + 1 / count[rest])
        both = variance[place] + variance[rest]
        with np.errstate(invalid="ignore", divide="ignore"):
            degrees = error**2 / (parts[place] ** 2 / (count[place] - 1) + parts[rest] ** 2 / (count[rest] - 1))
            share = both**2 / (variance[place] ** 2 + variance[rest] ** 2)
        row = {
            "difference": mean[place] - mean[rest],
            "variance": error * repeats,
            "degrees": np.where(error > 0, degrees, 1.0),
            "n": repeats,
            "share": np.where(both > 0, share, 1.0),
        }

        # paired test, where the seeds that both have are at least half of each one's
        gaps = table[place] - table[rest]
        common = (~np.isnan(gaps)).sum(axis=1)
        paired = (kinds[rest] == kinds[place]) & (common > 1) & (2 * common >= np.maximum(count[place], count[rest]))
        if paired.any():
            own = gaps[paired]
            row["difference"][paired] = np.nanmean(own, axis=1)
            row["variance"][paired] = np.maximum(np.nanvar(own, axis=1, ddof=1), 2 * rounding)
            row["degrees"][paired] = common[paired] - 1
            row["n"][paired] = common[paired]
            row["share"][paired] = 1.0
        row |= {"paired": paired, "varies": varies[place] | varies[rest]}
        for name, part in row.items():
            columns.setdefault(name, []).append(part)

    # one row per pair
    first, second = np.triu_indices(len(table), 1)
    names = ["difference", "variance", "degrees", "n", "share", "paired", "varies"]
    joined = {name: np.concatenate(columns[name]) if columns else np.empty(0) for name in names}
    booleans = {name: joined[name].astype(bool) for name in ("paired", "varies")}
    return pd.DataFrame({"first": first, "second": second} | joined | booleans | {"counts": booleans["varies"]})


def residual_degrees(table: np.ndarray, kinds: np.ndarray) -> dict[bool, int]:
    """Return the degrees of freedom of the pooled residual of a table, without and with an effect of each seed.

    Without: runs minus settings, for Welch's tests. With one: runs minus settings minus seeds plus 1, summed over the
    `kinds` of settings that are paired.
    """
    present = ~np.isnan(table)
    paired = 0
    for kind in np.unique(kinds):
        rows = present[kinds == kind]
        paired += max(0, int(rows.sum() - len(rows) - rows.any(axis=0).sum() + 1))
    return {False: int(present.sum() - len(table)), True: paired}


def moderated(pairs: pd.DataFrame, most: Mapping[bool, float]) -> pd.DataFrame:
    """Moderate the variances of the pairs of `raw_pairs`, those of paired and of other tests each by their own.

    `most` is the result of `residual_degrees`. Returns the pairs with the moderated `variance` and `degrees`, `prior`,
    the degrees of freedom that come from other pairs, and `error`, the standard error of the difference; NaN for a pair
    of which no setting varies, unless they are equal.
    """
    variance, degrees = (pairs[name].to_numpy(dtype=float, copy=True) for name in ("variance", "degrees"))
    for kind in (False, True):
        own = (pairs.paired == kind).to_numpy()
        variance[own], degrees[own] = moderate(variance[own], degrees[own], most[kind], pairs.counts[own])
    is_known = pairs.varies | (pairs.difference == 0)
    error = np.sqrt(variance / pairs.n).where(is_known)
    return pairs.assign(variance=variance, prior=degrees - pairs.degrees, degrees=degrees, error=error)


def with_tests(pairs: pd.DataFrame, shown: Sequence[bool] | slice = slice(None)) -> pd.DataFrame:
    """Add the `half_width`, `p` and `holm` of `simultaneous` to the pairs of `moderated`, which are one family."""
    tests = simultaneous(pairs.difference, pairs.error, pairs.degrees, shown)
    return pairs.assign(**dict(zip(("half_width", "p", "holm"), tests, strict=True)))


def holm(p: Sequence[float]) -> np.ndarray:
    """Correct p values for multiple comparisons: the probability of any false claim is at most alpha (Holm 1979).

    NaN values stay, and do not count.
    """
    p = np.asarray(p, dtype=float)
    number = np.count_nonzero(~np.isnan(p))
    order = np.argsort(p)[:number]  # NaN come last
    corrected = np.full_like(p, math.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(number, 0, -1)))
    return corrected


def seeds_to_show(
    difference: float, deviation: float, share: float, comparisons: int = 1, prior: float = 0.0
) -> int | None:
    """Return how many seeds would show a real difference of this size with a power of 80 %; None beyond 100.

    `deviation` is the standard deviation of the difference between two repeats. `share` is the number of degrees of
    freedom that each repeat after the first adds: 1 for paired repeats, otherwise up to 2; `prior` is the number that
    other pairs add. The level is corrected for the number of comparisons (Bonferroni), and the power is that of the
    noncentral t distribution.
    """
    n = np.arange(2, 101)
    degrees = share * (n - 1) + prior
    needed = special.stdtrit(degrees, 1 - ALPHA / comparisons / 2)
    power = 1 - special.nctdtr(degrees, abs(difference) * np.sqrt(n) / deviation, needed)
    enough = n[power >= POWER]
    return int(enough[0]) if len(enough) else None


def range_of_deviation(deviation: float, degrees: float) -> tuple[float, float]:
    """Return the 80 % interval of a standard deviation that was estimated with these degrees of freedom."""
    low, high = special.chdtri(degrees, [0.1, 0.9])
    return deviation * math.sqrt(degrees / low), deviation * math.sqrt(degrees / high)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> tuple[int, int, float]:
    """Compare the correct predictions of two classifiers on the same images (exact test, McNemar 1947).

    Returns how many images only the first and only the second classifies correctly, and the two-sided p value.
    """
    a = np.asarray(a, dtype=bool)
    b = np.asarray(b, dtype=bool)
    first = int((a & ~b).sum())
    second = int((b & ~a).sum())
    p = 2 * special.bdtr(min(first, second), first + second, 0.5) if first + second else 1.0
    return first, second, min(1.0, float(p))


def sampling_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy measured on n images (Wilson 1927); NaN if n is not known.

    With the mean accuracy of several trainings it is a little too wide, because their luck partly cancels.
    """
    if not n > 0:
        return math.nan, math.nan
    z = float(special.ndtri((1 + CONFIDENCE) / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def error_over_images(first: np.ndarray, second: np.ndarray) -> float:
    """Return the standard deviation over images of the difference between two settings, as a share.

    `first` and `second` hold, for each of the same images, the share of a setting's trainings that classify it
    correctly. Divided by the square root of a number of images, it is the standard error of the difference that is due
    to which images were drawn. It is never less than with one image that only one of the two gets right, because
    two settings that agree on these images need not agree on others.
    """
    return math.sqrt(max(float(np.var(first - second, ddof=1)) if len(first) > 1 else 1.0, 1 / max(1, len(first))))


def width_over_images(deviation: float, images: float, comparisons: int) -> float:
    """Return half the interval of a difference over the choice of images, corrected for a number of comparisons.

    `deviation` is the result of `error_over_images`. The interval is that of the normal distribution, simultaneous by
    Bonferroni, as those of `simultaneous` are over seeds. NaN if the number of images is not known.
    """
    if not images > 0:
        return math.nan
    return float(-special.ndtri(ALPHA / (2 * max(1, comparisons)))) * deviation / math.sqrt(images)


def _t(degrees):
    """Return the quantile of Student's t for a two-sided interval of CONFIDENCE."""
    return special.stdtrit(degrees, (1 + CONFIDENCE) / 2)
