"""What networks confuse: numbers and pictures of predictions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from analysis import reporting as report
from analysis.frames import runs, statistics
from analysis.frames.sections import best_of_settings, by_dataset
from analysis.page import figures, live
from analysis.page.blocks import Paragraph
from analysis.page.tables import Table
from analysis.themes import comparison, confusion, layers, per_class
from study.system.errors import UserError
from tests.test_analysis import assert_labelled, make_run, text_of


def predictions(classes, images=2000, right=0.7):
    random = np.random.default_rng(0)
    target = random.integers(classes, size=images)
    predicted = np.where(random.random(images) < right, target, random.integers(classes, size=images))
    return pd.DataFrame({"target": target, "predicted": predicted})


def names(count):
    return [f"class {index}" for index in range(count)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_counts_accuracy_and_precision_are_those_of_scikit_learn(pairs):
    frame = pd.DataFrame(pairs, columns=["target", "predicted"])
    counts = confusion.matrix(frame, names(5))
    assert np.array_equal(counts, metrics.confusion_matrix(frame.target, frame.predicted, labels=range(5)))
    rates = confusion.rates(counts)
    for column, score in (("accuracy", metrics.recall_score), ("precision", metrics.precision_score)):
        wanted = score(frame.target, frame.predicted, labels=range(5), average=None, zero_division=np.nan)
        assert np.allclose(rates[column] / 100, wanted, equal_nan=True)
    known = rates.dropna(subset="accuracy")
    assert ((known.accuracy_low <= known.accuracy + 1e-9) & (known.accuracy <= known.accuracy_high + 1e-9)).all()
    assert np.allclose(confusion.shares(counts).sum(axis=1), np.where(rates.images, 100, 0))


@given(st.lists(st.integers(0, 9), min_size=9, max_size=9))
def test_confusions_are_pairs_both_ways(cells):
    counts = pd.DataFrame(np.reshape(cells, (3, 3)), index=names(3), columns=names(3))
    found = confusion.frequent(counts)
    assert len(found) == sum(counts.iat[a, b] + counts.iat[b, a] > 0 for a, b in ((0, 1), (0, 2), (1, 2)))
    assert (found.images >= found.back).all()
    assert (found.images + found.back).is_monotonic_decreasing
    for row in found.itertuples():
        assert counts.loc[row.target, row.predicted] == row.images
        assert counts.loc[row.predicted, row.target] == row.back
        assert row.share == pytest.approx(100 * row.images / counts.loc[row.target].sum())
    assert found.images.sum() + found.back.sum() == counts.to_numpy().sum() - np.trace(counts)


def answer(*rows):
    names = list("abc")[: len(rows)]
    words = {"setting": "mlp", "over": "seed 0", "dataset": "digits"}
    return confusion.answer(pd.DataFrame(list(rows), index=names, columns=names), words)


def test_classes_that_are_level_are_named_together_and_chance_is_said():
    said = answer([19, 1, 0], [0, 20, 0], [0, 1, 19])
    assert "recognises worst are **a; c** (95.0 % each), most often confused with b (2)." in said
    assert "each accuracy reaches 99.1 %, while the accuracy on all test images is 96.7 %" in said
    said = answer([1900, 100, 0], [0, 2000, 0], [0, 100, 1900])
    assert "worst are **a; c**" in said and "chance" not in said, "many images are mistaken"
    assert "recognises worst is **a** (85.0 %), most often confused with b (3)" in answer([17, 3], [0, 20])


def test_confusions_that_do_not_occur_are_named_or_counted():
    assert (
        "4 kinds of mistake never occur (empty cells of the matrix). Of the 3 pairs of classes, 1 is never"
        in answer([19, 1, 0], [0, 20, 0], [0, 1, 19])
    )
    assert answer([9, 1, 1], [1, 9, 0], [1, 1, 9]).endswith("Every kind of mistake occurs except b predicted as c.")
    assert answer([9, 1], [1, 9]).endswith("no cell of the matrix is empty.")


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_matrix_names_every_class(classes):
    counts = confusion.matrix(predictions(classes), names(classes))
    for normalised in (False, True):
        figure = confusion.matrix_figure(counts, "Confusion", normalised)
        assert_labelled(figure)
        axes = figure.axes[0]
        assert [tick.get_text() for tick in axes.get_yticklabels()] == names(classes)
        assert [tick.get_text() for tick in axes.get_xticklabels()] == names(classes)
        if classes <= 10:
            shown = np.reshape([float(text.get_text()) for text in axes.texts], (classes, classes))
            assert np.allclose(shown, confusion.shares(counts) if normalised else counts, atol=0.05)
        assert "Confusion" in text_of(figure)


@pytest.mark.parametrize("classes", [3, 100])
def test_classes_are_drawn_with_the_worst_at_the_top(classes):
    rates = {name: confusion.rates(confusion.matrix(predictions(classes, right=right), names(classes)))
             for name, right in (("a", 0.8), ("b", 0.6))}  # fmt: skip
    given = pd.Series([50.0], index=["class 1"], name="given")
    figure = per_class.accuracy_figure(rates, given, "Classes", figures.looks_of(["a", "b"]))
    assert_labelled(figure)
    lines = {line.get_label(): line.get_xdata() for line in figure.axes[0].get_lines()}
    assert (np.diff(lines["a"]) >= 0).all() and len(lines["a"]) == min(classes, per_class.DRAWN_CLASSES)
    assert {"a", "b", "given"} <= set(lines)


def test_a_class_without_a_test_image_is_named_and_not_drawn(tmp_path):
    for seed in range(2):
        run = make_run(tmp_path / "runs", 0.7, seed=seed)
        arrays = {
            "test_targets": np.arange(60) % 2,
            "test_predictions": np.arange(60) % 3,
            "class_names": np.array(["even", "odd", "rare"]),
        }
        run.write_evaluation(run.evaluation() | arrays)
        info = run.info()
        run.write_info(info | {"data": info["data"] | {"classes": ["even", "odd", "rare"]}})
    frames = runs.load(tmp_path / "runs")
    (section,) = by_dataset(frames)
    _, table, drawn = per_class.blocks(frames, section, figures.looks_of(section.ranked))
    assert table.frame["class"].tolist() == ["even", "odd", "rare"] and np.isnan(table.frame.accuracy[2])
    assert any("rare" in note for note in table.notes) and "rare" in drawn.caption
    live.give_ids(drawn.figure)
    drawn.figure.draw_without_rendering()
    notes = live.readings(drawn.figure)["notes"]
    assert len(notes) == 2 and not any("nan" in note for note in notes)


@pytest.mark.parametrize(("images", "channels"), [(0, 1), (1, 1), (11, 3), (64, 1)])
def test_mistakes_say_what_was_taken_for_what(images, channels):
    arrays = {
        "mistake_images": np.zeros((images, channels, 8, 8), np.uint8), "class_names": np.array(["cat", "dog"]),
        "mistake_targets": np.zeros(images, int), "mistake_predictions": np.ones(images, int),
        "mistake_confidences": np.linspace(0.995, 0.5, images),
    }  # fmt: skip
    figure = confusion.mistakes_figure(arrays, "Mistakes")
    if not images:
        assert figure is None
        return
    assert_labelled(figure)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == min(images, confusion.MISTAKES)
    assert texts[0] == "cat\n→ dog\n99.5 %"


def test_given_accuracies_are_read_or_refused(tmp_path):
    file = tmp_path / "theirs.csv"
    file.write_text("class,accuracy\ncat, 70.1\n3,90\n", encoding="utf-8")
    found = per_class.read_accuracies(file)
    assert found.to_dict() == {"cat": 70.1, "3": 90.0} and found.name == "theirs"
    for text, message in (
        ("", "must be a run's directory, or CSV"),
        ("class,share\ncat,3\n", "must be a run's directory, or CSV"),
        ("class,accuracy\ncat,high\n", "must be a run's directory, or CSV"),
        ("class,accuracy\ncat,70\ncat,80\n", "each class once"),
        ("class,accuracy\ncat,0.7\n", "in percent"),
        ("class,accuracy\ncat,170\n", "in percent"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            per_class.read_accuracies(file)
    with pytest.raises(UserError, match="cannot be read"):
        per_class.read_accuracies(tmp_path / "none.csv")


@pytest.mark.slow
def test_a_report_says_what_is_confused_and_what_is_seen(call, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "THEMES", (comparison.blocks, confusion.blocks, per_class.blocks, layers.blocks))
    for model in ("mlp", "single-block"):
        call("study.train", "--dataset=digits", f"--model={model}", "--epochs=2", "--wandb=disabled")
    failed = make_run(tmp_path / "runs", 0.5, state="failed")  # before it had read its data
    failed.write_info({name: value for name, value in failed.info().items() if name != "data"})
    (tmp_path / "theirs.csv").write_text(
        "class,accuracy\n" + "".join(f"{digit},{90 + digit}\n" for digit in range(10)), encoding="utf-8"
    )
    call("analysis.summarize", "--compare-per-class", "theirs.csv", "--full")
    frames = runs.load(tmp_path / "runs")
    best = frames.runs["best/val_acc"].idxmax()
    tested = frames.predictions[frames.predictions.run == best]
    table = pd.read_csv(tmp_path / "report" / "tables" / "digits-per-class.csv", dtype={"class": str})
    assert list(table["class"]) == list("0123456789"), "in the order of the classes"
    for row in table.itertuples():
        mine = tested[tested.target == row.Index]
        assert row.accuracy == pytest.approx(100 * (mine.predicted == row.Index).mean(), abs=0.01)
        assert row.difference == pytest.approx(row.accuracy - 90 - row.Index, abs=0.01)
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "predicted as" in page and "theirs" in page
    drawn = {path.stem for path in (tmp_path / "report" / "figures").iterdir()}
    other = frames.runs.model.drop(best).iloc[0]
    for name in ("confusion-counts", "confusion-shares", "class-accuracy", "mistakes", f"confusion-{other}"):
        assert any(stem.startswith(f"digits-{name}") for stem in drawn), name
    assert np.allclose(per_class.read_accuracies(tmp_path / "runs" / best), table.accuracy)
    probes = pd.read_csv(tmp_path / "report" / "tables" / "digits-layers.csv")
    assert len(probes) == 5, "the last block of a perceptron is its layer before the last"
    assert probes.probe.between(30, 100).all() and "tsne" in str(drawn)
    cuts = pd.read_csv(tmp_path / "report" / "tables" / "digits-cuts.csv")
    whole = frames.runs[frames.runs.model == "single-block"].iloc[0]
    assert cuts.params.tolist() == [whole.params_intermediate + 513 * 10, whole.params, whole.params]
    (tmp_path / "theirs.csv").write_text("class,accuracy\ncat,50\n", encoding="utf-8")
    assert "no run knows the class 'cat'" in call("analysis.summarize", "--compare-per-class=theirs.csv", code=2).stderr


def test_class_results_are_those_of_all_seeds(tmp_path):
    random = np.random.default_rng(0)
    targets = np.arange(60) % 2
    predicted = {}
    for seed in range(3):
        run = make_run(tmp_path / "runs", 0.7 + 0.01 * seed, seed=seed)
        predicted[seed] = np.where(random.random(60) < 0.8, targets, 1 - targets)
        arrays = {
            "test_targets": targets,
            "test_predictions": predicted[seed],
            "class_names": np.array(["even", "odd"]),
        }
        run.write_evaluation(run.evaluation() | arrays)
    frames = runs.load(tmp_path / "runs")
    (section,) = by_dataset(frames)
    best = best_of_settings(section)
    ((counts, repeats),) = confusion.matrices(frames, section, best).values()
    wanted = sum(metrics.confusion_matrix(targets, of_seed) for of_seed in predicted.values())
    assert repeats == 3 and np.array_equal(counts, wanted)
    rates = confusion.rates(counts, repeats)
    by_seed = np.array([metrics.recall_score(targets, of_seed, average=None) for of_seed in predicted.values()])
    assert list(rates.images) == [30, 30] and np.allclose(rates.accuracy, 100 * by_seed.mean(axis=0))
    for row in rates.itertuples():
        low, high = statistics.sampling_interval(row.accuracy / 100, 30)
        assert (row.accuracy_low, row.accuracy_high) == pytest.approx((100 * low, 100 * high))
    spread = per_class.over_seeds(frames, section, best.setting.iloc[0], ["even", "odd"])
    assert spread == pytest.approx(list(stats.t.ppf(0.975, 2) * 100 * by_seed.std(axis=0, ddof=1) / np.sqrt(3)))
    (table,) = [block for block in per_class.blocks(frames, section, figures.looks_of(section.ranked))
                if isinstance(block, Table)]  # fmt: skip
    assert np.allclose(table.frame.over_seeds, spread) and "over_seeds" in [column.key for column in table.columns]
    words = " ".join(block.text for block in confusion.blocks(frames, section, figures.looks_of(section.ranked))
                     if isinstance(block, Paragraph))  # fmt: skip
    wrong = int(wanted.sum() - np.trace(wanted))
    assert f"{wrong} of 180 test images" in words and "3 seeds" in words
