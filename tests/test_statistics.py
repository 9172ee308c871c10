"""Means, intervals, differences, trends: against scipy, and what they must never claim."""

import math
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats

from analysis.frames import statistics
from tests import measure_power
from tests.conftest import ROOT

ACCURACIES = st.lists(st.floats(0, 1), min_size=2, max_size=8)


def repeats(**settings):
    """Index accuracies by setting and seed."""
    return pd.Series(
        {(name, seed): value for name, values in settings.items() for seed, value in enumerate(values)}, dtype=float
    )


@given(ACCURACIES, ACCURACIES)
def test_intervals_and_p_are_those_of_scipy(a, b):
    found = statistics.estimate(a)
    if np.std(a) > 1e-6:
        test = stats.ttest_1samp(a, 0)
        low, high = test.confidence_interval(0.95)
        assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    frame = pd.DataFrame({"setting": "a", "value": a})
    again = statistics.estimates(frame, "setting", ["value"]).loc["a"]
    assert (again.value, again.value_ci95) == pytest.approx((found.mean, found.half_width))
    if np.std(a) > 1e-6 and np.std(b) > 1e-6:
        test = stats.ttest_ind(a, b, equal_var=False)
        pair = statistics.differences(repeats(a=a, b=b), {"a": 1, "b": 2}).loc["a", "b"]
        low, high = test.confidence_interval(0.95)
        assert (pair.difference - pair.half_width, pair.difference + pair.half_width) == pytest.approx((low, high))
        assert pair.p == pytest.approx(test.pvalue) and not pair.paired


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
def test_pairs_by_seed_are_those_of_scipy(pairs):
    a, b = map(np.array, zip(*pairs, strict=True))
    if np.std(a - b) > 1e-6:
        test = stats.ttest_rel(a, b)
        both = statistics.differences(repeats(a=a, b=b), {"a": 1, "b": 1})
        pair, back = both.loc["a", "b"], both.loc["b", "a"]
        assert pair.paired and pair.p == pytest.approx(test.pvalue)
        assert pair.difference - pair.half_width == pytest.approx(test.confidence_interval(0.95).low)
        assert (back.difference, back.half_width, back.p) == pytest.approx((-pair.difference, pair.half_width, pair.p))


def test_pairs_are_of_the_seeds_that_both_have():
    values = repeats(a=[0.5, 0.6, 0.7, 0.55], b=[0.49, 0.61, 0.695], c=[0.48, 0.57])
    found = statistics.differences(values, dict.fromkeys("abc", "same"))
    assert found.loc["a", "b"].paired and found.loc["a", "b"].difference == pytest.approx(np.mean([0.01, -0.01, 0.005]))
    assert found.loc["a", "c"].paired and found.loc["a", "c"].difference == pytest.approx(np.mean([0.02, 0.03]))
    few = values.drop([("c", 0)])
    assert ("a", "c") not in statistics.differences(few, dict.fromkeys("abc", "same")).index, "one seed is no repeat"
    apart = pd.concat([values["a"], values["b"].rename({0: 7, 1: 8})], keys=["a", "b"])
    other = statistics.differences(apart, dict.fromkeys("ab", "same")).loc["a", "b"]
    assert not other.paired and other.difference == pytest.approx(values["a"].mean() - values["b"].mean())


def test_one_missing_seed_does_not_hide_a_difference():
    """Two settings whose differences are the same with every seed; then one run is missing."""
    base = np.array([0.0, 4.0, 8.0, 12.0, 16.0])
    values = repeats(a=base + 60, b=base + 58 + np.array([0.1, -0.1, 0.05, -0.05, 0.0]))
    whole, part = (statistics.differences(of, dict.fromkeys("ab", 1)).loc["a", "b"] for of in (values, values[:-1]))
    assert whole.p < 1e-4 and part.p < 1e-3


def test_variances_are_moderated_as_smyth_does():
    """Draw variances from the model: the fit finds what it was, and the moderated variances are nearer the truth."""
    random = np.random.default_rng(0)
    degrees = np.full(4000, 4.0)
    true = 2.0 * 10 / random.chisquare(10, 4000)
    estimated = true * random.chisquare(4, 4000) / 4
    prior = statistics.fit_prior(estimated, degrees)
    assert prior.variance == pytest.approx(2, rel=0.1) and prior.degrees == pytest.approx(10, rel=0.25)
    moderated, total = statistics.moderate(estimated, degrees, most=1e9)
    assert np.median(np.abs(np.log(moderated / true))) < 0.7 * np.median(np.abs(np.log(estimated / true)))
    assert total == pytest.approx(4 + prior.degrees)


def test_the_fit_agrees_with_the_formulas_of_smyth():
    """Solve his two equations by another method: the mean and the variance of the log variances (section 6.2)."""
    variances, degrees = np.array([0.1, 0.5, 2.0, 9.0, 0.3, 1.2]), np.array([2.0, 2, 3, 4, 2, 5])
    prior = statistics.fit_prior(variances, degrees)
    e = np.log(variances) - special.digamma(degrees / 2) + np.log(degrees / 2)
    excess = np.mean((e - e.mean()) ** 2 * 6 / 5 - special.polygamma(1, degrees / 2))
    half = optimize.brentq(lambda y: special.polygamma(1, y) - excess, 1e-3, 1e3)
    assert prior.degrees == pytest.approx(2 * half)
    assert prior.variance == pytest.approx(np.exp(e.mean() + special.digamma(half) - np.log(half)))
    moderated, total = statistics.moderate(variances, degrees, most=8)
    weight = prior.degrees
    assert moderated == pytest.approx((weight * prior.variance + degrees * variances) / (weight + degrees))
    assert total == pytest.approx(np.minimum(weight + degrees, 8))


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=30), st.integers(1, 30))
def test_a_moderated_variance_lies_between_its_own_and_the_usual_one(variances, degrees):
    prior = statistics.fit_prior(variances, [degrees] * len(variances))
    moderated, total = statistics.moderate(variances, [degrees] * len(variances), most=2 * degrees)
    low, high = (pick([variances, np.full(len(variances), prior.variance)], axis=0) for pick in (np.min, np.max))
    assert (moderated >= low * (1 - 1e-9)).all() and (moderated <= high * (1 + 1e-9)).all()
    assert (total >= degrees).all() and (total <= 2 * degrees).all()


def test_equal_variances_and_single_ones():
    assert statistics.fit_prior([2.0, 2.0, 2.0], [3, 3, 3]) == statistics.Prior(2.0, math.inf)
    moderated, total = statistics.moderate([2.0, 2.0, 2.0], [3, 3, 3], most=100)
    assert list(moderated) == [2.0] * 3 and list(total) == [3 + statistics.MOST_PRIOR] * 3
    for alone in ([5.0], [0.0, 0.0]):
        assert list(statistics.moderate(alone, [3] * len(alone), most=100)[0]) == alone
        assert list(statistics.moderate(alone, [3] * len(alone), most=100)[1]) == [3] * len(alone)


@given(st.lists(st.lists(st.integers(0, 40), min_size=3, max_size=3), min_size=2, max_size=8), st.booleans())
def test_an_interval_contains_0_exactly_if_p_is_not_below_5_percent(rows, paired):
    values = repeats(**{f"s{place}": np.array(row) + place * place for place, row in enumerate(rows)})
    shared = {name: 0 if paired else name for name in values.index.get_level_values(0).unique()}
    found = statistics.differences(values, shared, 1.0)
    found = found[found.p.notna()]
    assert ((found.difference.abs() < found.half_width) == (found.holm >= 0.05)).all()
    assert (found.holm >= found.p).all() and found.holm.le(1).all()


def test_intervals_hold_together():
    """Simulate studies of six settings whose true means are known: in most, all intervals contain the truth."""
    random = np.random.default_rng(0)
    means = np.array([0, 0.3, 0.6, 1, 2, 4])
    kinds = np.zeros(6, dtype=int)
    covered = 0
    for _ in range(300):
        table = random.normal(means[:, None], 0.5, (6, 5))
        pairs = statistics.raw_pairs(table, kinds)
        pairs = statistics.with_tests(statistics.moderated(pairs, statistics.residual_degrees(table, kinds)))
        truth = means[pairs["first"]] - means[pairs["second"]]
        covered += (np.abs(pairs.difference - truth) <= pairs.half_width).all()
    assert covered / 300 > 0.92


def test_repeats_that_never_vary_prove_nothing():
    """Repeats that all give the same result do not show how much results vary."""
    found = statistics.differences(repeats(a=[80, 80, 80], b=[90, 90, 90], c=[70, 71, 72]), dict.fromkeys("abc", 1), 1)
    assert math.isnan(found.p["a", "b"]) and math.isnan(found.holm["a", "b"]) and math.isnan(found.half_width["a", "b"])
    assert found.holm["a", "c"] < 0.05 and (found.pairs == 2).all()


def test_a_single_repeat_is_compared_with_nothing():
    found = statistics.differences(repeats(a=[0.5, 0.6], b=[0.7], c=[0.4, 0.4]), dict.fromkeys("abc", 1))
    assert set(found.index) == {("a", "c"), ("c", "a")}
    assert statistics.differences(repeats(a=[0.5], b=[0.7]), dict.fromkeys("ab", 1)).empty


def test_equal_differences_of_an_image_prove_nothing():
    values = repeats(a=[80, 81, 82], b=[81, 82, 83])
    exact, rounded = (statistics.differences(values, dict.fromkeys("ab", 1), step).loc["a", "b"] for step in (0, 1))
    assert exact.p == 0
    assert rounded.p > 0.01 and rounded.half_width > 0
    assert statistics.differences(repeats(a=[80, 80], b=[80, 80]), dict.fromkeys("ab", 1)).p.eq(1).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm(p):
    corrected = statistics.holm(p)
    order = np.argsort(p, kind="stable")
    expected, highest = {}, 0.0
    for place, index in enumerate(order):  # step down: the smallest p times their number, the next times one less
        highest = max(highest, min(1, p[index] * (len(p) - place)))
        expected[index] = highest
    assert list(corrected) == pytest.approx([expected[index] for index in range(len(p))])


@pytest.mark.slow
def test_a_false_claim_is_as_rare_as_said():
    """Twelve settings that are all the same: in at most 5 % of studies may any pair be told apart."""
    random = np.random.default_rng(0)
    names = [f"s{place}" for place in range(12)]
    claims = 0
    for study in range(400):
        values = repeats(**{name: random.normal(70, 1, 5) for name in names})
        found = statistics.differences(
            values, {name: place % 3 if study % 2 else place for place, name in enumerate(names)}
        )
        claims += (found.holm < 0.05).any()
    assert claims / 400 < 0.08


def test_mcnemar_is_the_sign_test_of_the_discordant():
    a, b = [True] * 9 + [False] * 1 + [True] * 50, [False] * 9 + [True] * 1 + [True] * 50
    assert statistics.mcnemar(a, b) == (9, 1, pytest.approx(stats.binomtest(9, 10).pvalue))
    assert statistics.mcnemar(a, a) == (0, 0, 1.0)


@pytest.mark.parametrize("paired", [True, False])
def test_as_many_seeds_as_said_do_show_a_difference(paired):
    """Simulate studies with that many seeds: four in five find the difference, and fewer with half as many."""
    deviation = 1.0 if paired else math.sqrt(2)
    share = 1 if paired else 2
    n = statistics.seeds_to_show(1.5, deviation, share)
    random = np.random.default_rng(0)

    def power(n):
        a, b = random.normal(1.5, 1, (2000, n)), np.zeros((2000, n)) if paired else random.normal(0, 1, (2000, n))
        p = stats.ttest_1samp(a, 0, axis=1).pvalue if paired else stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue
        return (p < 0.05).mean()

    assert 0.75 < power(n) < 0.95
    assert power(n // 2) < 0.65
    assert statistics.seeds_to_show(0.001, 1, share) is None
    assert statistics.seeds_to_show(1.5, deviation, share, comparisons=15) > n
    assert statistics.seeds_to_show(0.8, deviation, share, prior=10) <= statistics.seeds_to_show(0.8, deviation, share)
    low, high = statistics.range_of_deviation(deviation, 8)
    samples = deviation * np.sqrt(random.chisquare(8, 2000) / 8)
    bounds = np.array([statistics.range_of_deviation(sample, 8) for sample in samples])
    assert low < deviation < high
    assert np.mean((bounds[:, 0] < deviation) & (deviation < bounds[:, 1])) == pytest.approx(0.8, abs=0.03)


@pytest.mark.slow
def test_the_table_of_power_and_error_is_that_of_the_docs(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["measure_power", "--studies", "60", "--settings", "3", "--seeds", "5"])
    measure_power.main()
    header, _, *rows = capsys.readouterr().out.splitlines()
    docs = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8").splitlines()
    assert header in docs
    of_docs = [line for line in docs if line.startswith("| 3 | 5 |")]
    for row, known in zip(rows, of_docs, strict=True):
        (*kind, wrong, _, _, found, _, _), (*same, _, _, _, often, _, _) = (
            [cell.strip() for cell in line.strip("|").split("|")] for line in (row, known)
        )
        assert kind == same and float(wrong) < 0.2 and float(found) == pytest.approx(float(often), abs=0.15)
