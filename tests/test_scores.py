"""Scores beyond accuracy: against torchmetrics, by their definitions, and from what runs record."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from torchmetrics.functional import classification as oracle

from analysis.frames import runs
from analysis.frames.sections import by_dataset
from analysis.page.blocks import Paragraph, Picture
from analysis.page.tables import Table
from analysis.reporting import looks_of
from analysis.themes import scores
from tests.test_analysis import make_run


def drawn(seed: int, classes: int, images: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Draw true classes, each at least once, and probabilities that know something of them."""
    random = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(classes), random.integers(0, classes, images)])
    logits = random.normal(size=(len(targets), classes)) + 1.5 * np.eye(classes)[targets]
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), targets


@given(st.integers(0, 1000), st.integers(2, 100), st.sampled_from([np.uint8, np.int16, np.int64]))
def test_scores_are_those_of_torchmetrics(seed, classes, kind):
    probabilities, targets = drawn(seed, classes)
    found = scores.of_probabilities(probabilities, targets)
    predicted = probabilities.argmax(axis=1)  # copies of runs hold bytes, runs themselves larger numbers
    found |= scores.of_classes(targets.astype(kind), predicted.astype(kind), classes)
    values, truth = torch.tensor(probabilities), torch.tensor(targets)
    many = {"num_classes": classes}
    assert found["macro_f1"] == pytest.approx(100 * oracle.multiclass_f1_score(values, truth, **many).item(), abs=1e-3)
    recall = oracle.multiclass_accuracy(values, truth, average="macro", **many)
    assert found["balanced"] == pytest.approx(100 * recall.item(), abs=1e-3)
    assert found["auc"] == pytest.approx(oracle.multiclass_auroc(values, truth, **many).item(), abs=1e-5)
    average = oracle.multiclass_average_precision(values, truth, **many)
    assert found["average_precision"] == pytest.approx(average.item(), abs=1e-5)
    if classes > 2:
        k = 5 if classes >= 20 else 2
        top = oracle.multiclass_accuracy(values, truth, top_k=k, average="micro", **many)
        assert found["top_k"] == pytest.approx(100 * top.item(), abs=1e-3)
    else:
        assert "top_k" not in found, "of two classes, one of the two is always right"


@given(seed=st.integers(0, 1000), classes=st.integers(2, 10))
def test_calibration_and_coverage_follow_their_definitions(seed, classes):
    probabilities, targets = drawn(seed, classes)
    groups = scores.bins(probabilities, targets)
    assert groups.images.sum() == len(targets) and groups.images.max() - groups.images.min() <= 1
    assert groups.confidence.is_monotonic_increasing
    certain = np.eye(classes)[targets]
    perfect = scores.of_probabilities(certain, targets)
    assert perfect["ece"] == perfect["brier"] == 0 and perfect["sure"] == 100 and perfect["auc"] == 1
    wrong = scores.of_probabilities(np.roll(certain, 1, axis=1), targets)
    assert wrong["ece"] == 100 and wrong["brier"] == 2
    found = scores.of_probabilities(probabilities, targets)
    accuracy = 100 * (probabilities.argmax(axis=1) == targets).mean()
    assert 0 <= abs(found["surer"]) <= found["ece"] + 1e-9, "the mean of distances is at least the distance of means"
    assert found["surer"] == pytest.approx(100 * probabilities.max(axis=1).mean() - accuracy)


def with_classes(run, without=()):
    """Record the names of the classes of a run, and leave out some of its arrays."""
    arrays = {name: array for name, array in run.evaluation().items() if name not in without}
    run.write_evaluation(arrays | {"class_names": np.array(["even", "odd"])})


def test_the_theme_shows_what_the_runs_recorded(tmp_path):
    for seed in range(3):
        for dropout, right in ((0.0, 0.6), (0.5, 0.8)):
            with_classes(make_run(tmp_path / "runs", 0.7 + dropout / 10, right, seed=seed, dropout=dropout))
    frames = runs.load(tmp_path / "runs")
    (section,) = by_dataset(frames)
    blocks = scores.blocks(frames, section, looks_of([section])[0])
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert list(table.frame.balanced.round(6)) == [80, 60] and list(table.frame.ece.round(6)) == [20, 40]
    (said,) = (block.text for block in blocks if isinstance(block, Paragraph))
    assert "overconfident" in said and "20.0 ± 0.0" in said
    assert {block.name for block in blocks if isinstance(block, Picture)} == {"calibration", "coverage", "roc"}


def test_copies_without_probabilities_have_the_scores_of_their_predictions(tmp_path):
    with_classes(make_run(tmp_path / "runs", 0.7, 0.8), without=["test_probabilities"])
    frames = runs.load(tmp_path / "runs")
    (section,) = by_dataset(frames)
    blocks = scores.blocks(frames, section, looks_of([section])[0])
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert "macro_f1" in table.frame and "ece" not in table.frame and not any(isinstance(b, Picture) for b in blocks)


def test_each_curve_has_a_name_below_it():
    """matplotlib leaves out of a legend what begins with _, as class names may."""
    probabilities, targets = drawn(0, 3)
    figure = scores.roc_figure(probabilities, targets, ["_background_", "yes", "no"], "Curves")
    for axes, legend in zip(figure.axes, figure.legends, strict=True):
        assert len(axes.lines) == len(legend.get_texts()) == 4
        assert any("_background_" in text.get_text() for text in legend.get_texts())


def test_curves_of_a_class_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    for digits in (1, 2, 9):  # with many equal probabilities, and with none
        probabilities, own = random.random(300).round(digits), random.random(300) < 0.2
        found, grid = scores.curves_of_class(probabilities, own), np.linspace(0, 1, 37)
        x, y, _ = metrics.roc_curve(own, probabilities)
        assert np.allclose(np.interp(grid, *found["auc"]), np.interp(grid, x, y))
        y, x, _ = metrics.precision_recall_curve(own, probabilities)
        assert np.allclose(np.interp(grid, *found["average_precision"]), np.interp(grid, x[::-1], y[::-1]))
