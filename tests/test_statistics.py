"""Means, intervals, differences, trends: against scipy, and what they must never claim."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.frames import statistics

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
        assert found.p == pytest.approx(test.pvalue)
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


def test_pairs_need_the_same_seeds():
    values = repeats(a=[0.5, 0.6, 0.7], b=[0.49, 0.61, 0.695], c=[0.49, 0.61])
    found = statistics.differences(values, dict.fromkeys("abc", "same"))
    assert found.loc["a", "b"].paired and not found.loc["a", "c"].paired
    assert found.loc["a", "b"].half_width < found.loc["a", "c"].half_width / 5


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
    assert statistics.seeds_to_show(1.5, deviation, share, more_than=n) == n + 1
