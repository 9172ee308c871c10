"""From run directories to tables, figures and a page."""

import io
import itertools
import json
import math
import re
import shlex
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from analysis import reporting as report
from analysis.frames import contrasts, runs, statistics
from analysis.frames.sections import best_of_settings, by_dataset, of_sweep
from analysis.page import figures, html, tables
from analysis.page.blocks import Heading, Items
from analysis.themes import about, answers, comparison, costs, protocol, space, speed
from analysis.wording import texts as wording
from study.config import RESULTS_VERSION, Config
from study.config.argv import read_command
from study.config.setting import Listed, Setting
from study.record.directory import HYPERBAND, RunDirectory
from study.sweeps import definition as search
from study.system import forks

EPOCHS = 3


def make_run(folder, val_acc, test_acc=0.6, state="finished", shared_by=1, version=RESULTS_VERSION, **values):
    """Write the directory of a run as training writes it, with chosen accuracies: 8 of 10 test images, say."""
    config = Config(dataset="digits", epochs=EPOCHS, **values)
    directory = RunDirectory(folder / config.run_name)
    directory.path.mkdir(parents=True)
    for epoch in range(1, EPOCHS + 1):
        directory.append(
            {
                "epoch": epoch, "train/loss": 1 / epoch, "train/acc": 0.5, "val/loss": 1.5 / epoch,
                "val/acc": val_acc if epoch == 2 else val_acc / 2, "lr": 0.01,
                "time/epoch": 10.0 if epoch == 1 else 2.0,
                "time/images_per_second": 100.0 if epoch == 1 else 1500.0, "memory/peak_mb": 700.0,
            }
        )  # fmt: skip
    right = round(10 * test_acc)
    targets = np.arange(10) % 2
    predicted = np.where(np.arange(10) < right, targets, 1 - targets)
    summary = {
        "params": 1234567, "param_bytes": 4938268, "flops": 10, "iterations": 30, "train_seconds": 14.0,
        "best/epoch": 2, "best/val_acc": val_acc, "best/val_loss": 0.75, "best/train_acc": val_acc + 0.1,
        "best/train_loss": 0.5, "last/epoch": EPOCHS, "last/val_acc": val_acc / 2, "last/val_loss": 0.5,
        "last/train_acc": val_acc, "last/train_loss": 0.3, "test/acc": right / 10, "test/loss": 1.0,
    }  # fmt: skip
    info = {
        "config": config.model_dump(), "fingerprint": config.fingerprint, "group": config.group, "threads": 1,
        "results_version": version, "device_shared_by": shared_by, "host": "here", "device": "cpu",
        "data": {
            "classes": ["even", "odd"], "image_shape": [1, 8, 8], "images": {"train": 100, "val": 10000, "test": 10},
        },
        "versions": {"torch": "2"},
    }  # fmt: skip
    if state in ("finished", "stopped"):
        directory.write_summary(summary)
        directory.write_evaluation(
            {
                "test_targets": targets, "test_predictions": predicted,
                "test_probabilities": np.eye(2, dtype=np.float16)[predicted],
                "logits": np.ones((4, 2)), "penultimate": np.ones((4, 3)), "intermediate": np.ones((4, 5)),
                "feature_targets": np.zeros(4),
            }
        )  # fmt: skip
    elif state == "diverged":
        directory.write_summary({"last/epoch": EPOCHS})
    stopped_by = {"stopped_by": HYPERBAND} if state == "stopped" else {}
    directory.write_info(info | ({"state": state} if state else {}) | stopped_by)
    return directory


@pytest.fixture
def folder(tmp_path):
    """Make runs of three settings: two with three seeds, one with a single seed that shared its device."""
    for seed, accuracy in enumerate((0.70, 0.72, 0.71)):
        make_run(tmp_path / "runs", accuracy, 0.6 + 0.1 * seed, seed=seed, dropout=0.5)
    for seed, accuracy in enumerate((0.60, 0.62, 0.64)):
        make_run(tmp_path / "runs", accuracy, seed=seed, dropout=0.0)
    make_run(tmp_path / "runs", 0.715, 0.8, shared_by=2, model="mlp")
    return tmp_path / "runs"


def section(folder):
    (found,) = by_dataset(runs.load(folder))
    return found


def by_name(frame):
    """Index a frame by the names of its settings."""
    return frame.assign(setting=frame.setting.map(str)).set_index("setting")


MARKDOWN = """\
| Setting | Seeds | Best val acc (%) | at epoch | Below the best (points) | p (Holm) | Test acc (%) | p test (Holm) |
| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| two-block, dropout 0.5 | 3 | **71.00 ± 2.48** | 2 |  |  | 70.00 ± 24.84 [39.68, 89.22] |  |
| two-block, dropout 0.0 | 3 | 62.00 ± 4.97 | 2 | 9.00 ± 4.30 | 0.012 | 60.00 ± 7.17 [31.27, 83.18] | 0.225 |
"""


def test_the_table_to_the_letter(folder):
    make_run(folder / "more", 0.5)  # a folder in between is no run: named and left out
    one = section(folder)
    kept = {
        name: getattr(one, name)[getattr(one, name).setting.map(str) != "mlp, dropout 0.0"]
        for name in ("runs", "points")
    }
    text = tables.markdown(comparison.table(replace(one, **kept)))
    # 0.70, 0.72, 0.71: mean 71, s = 1, t(2) = 4.303, so ± 4.303 / √3 = 2.48; the differences are 10, 10, 7, so
    # in pairs ± 4.303 and t = 9, p = 0.012; three times 6 of 10 test images: no spread but that of rounding; there the
    # differences are 0, 10, 20, so t = √3; in brackets Wilson's intervals of 7 and of 6 of 10 images
    assert text == MARKDOWN


def test_a_single_seed_has_no_spread_and_is_not_bold(folder):
    table = comparison.table(section(folder))
    frame = table.frame
    single = by_name(frame).loc["mlp, dropout 0.0"]
    assert single.n == 1 and not single.tied
    assert math.isnan(single.score_ci95) and math.isnan(single.p) and math.isnan(single.below_ci95)
    low, high = (100 * bound for bound in stats.binomtest(8, 10).proportion_ci(method="wilson"))
    assert (single.test_score_low, single.test_score_high) == pytest.approx((low, high))
    assert str(frame.setting[0]) == single.name, "settings are ranked by validation accuracy"
    assert list(frame.tied) == [False, True, False], "nothing is compared with a single run"
    row = next(line for line in tables.markdown(table).splitlines() if "mlp" in line)
    assert row == "| mlp, dropout 0.0 | 1 | 71.50 | 2 |  |  | 80.00 [49.02, 94.33] |  |"


@pytest.fixture
def imaged(tmp_path):
    """Make runs of two settings with three seeds each, which differ by 2 points with every seed, and 500 test images.

    Returns the folder, and for each setting the share of its seeds that classify each test image correctly.
    """
    random = np.random.default_rng(0)
    targets = np.arange(500) % 2
    share = {}
    for dropout, accuracy in ((0.0, 0.80), (0.5, 0.78)):
        right = random.random((3, 500)) < accuracy
        share[f"dropout {dropout}"] = right.mean(axis=0)
        for seed, of_seed in enumerate(right):
            run = make_run(tmp_path / "runs", accuracy + 0.001 * (seed + dropout * (seed % 2)), seed=seed,
                           dropout=dropout)  # fmt: skip
            predicted = np.where(of_seed, targets, 1 - targets)
            run.write_evaluation(
                run.evaluation()
                | {"test_targets": targets, "test_predictions": predicted, "class_names": np.array(["even", "odd"])}
            )
            run.write_summary(run.summary() | {"test/acc": of_seed.mean()})
            info = run.info()
            run.write_info(info | {"data": info["data"] | {"images": {"train": 1000, "val": 287, "test": 500}}})
    return tmp_path / "runs", share


def test_a_difference_has_an_interval_over_images_too(imaged):
    folder, share = imaged
    frames = runs.load(folder)
    (one,) = by_dataset(frames)
    row = by_name(contrasts.with_images(frames, one)).loc["dropout 0.5"]
    a, b = share.values()
    for images, found in ((287, row.below_images), (500, row.test_below_images)):
        assert found == pytest.approx(stats.norm.ppf(0.975) * 100 * np.std(a - b, ddof=1) / math.sqrt(images))
    assert row.p_holm < 0.05 and row.below_ci95 < row.below < row.below_images
    low, high = (100 * bound for bound in statistics.sampling_interval(b.mean(), 500))
    assert (row.test_score_low, row.test_score_high) == pytest.approx((low, high)) and low < row.test_score < high
    for lang, words, gone in (
        ("en", "on these images [", "With other images there might be no difference from dropout"),
        ("es", "en estas imágenes [", "Con otras imágenes podría no haber diferencia con dropout"),
    ):
        with wording.language(lang):
            assert words in answers.headline(frames, one)
            said = [
                line
                for line in answers.sentences(frames, one)
                if f"± {wording.number(row.below_images, '.2f')}" in line
            ]
            assert len(said) == 1, "it is said once how much, and that the difference could be gone"
            assert gone in said[0]
    table = comparison.table(one, contrasts.with_images(frames, one))
    assert f"± {row.below_images:.2f}" in [cell.text for cell in table.rows[1]]


def test_without_readable_predictions_or_a_number_of_images_nothing_is_said_of_images(imaged):
    folder, _ = imaged
    paths = sorted(path for path in folder.iterdir())
    run = RunDirectory(paths[0])
    run.write_info(run.info() | {"data": run.info()["data"] | {"images": {"train": 1000}}})
    frames = runs.load(folder)
    (one,) = by_dataset(frames)
    assert contrasts.with_images(frames, one).below_images.notna().sum() == 1, "another run knows the number"
    for path in paths[1:]:
        run = RunDirectory(path)
        run.write_info(run.info() | {"data": run.info()["data"] | {"images": {"train": 1000}}})
    frames = runs.load(folder)
    (one,) = by_dataset(frames)
    frame = contrasts.with_images(frames, one)
    assert frame[["below_images", "test_score_low"]].isna().all(axis=None) and (frame.p_holm.dropna() < 0.05).all()
    assert "on these images" not in " ".join(answers.sentences(frames, one))
    run = RunDirectory(paths[0])
    run.write_evaluation({name: values for name, values in run.evaluation().items() if name != "class_names"})
    frames = runs.load(folder)
    (one,) = by_dataset(frames)
    assert frames.tested(paths[0].name) is None and len(contrasts.right(frames, one)) == 1


def test_the_headline_says_if_the_test_images_show_the_opposite(tmp_path):
    for seed in range(3):
        make_run(tmp_path / "runs", 0.80 + 0.001 * seed, 0.1, seed=seed)
        make_run(tmp_path / "runs", 0.70 + 0.002 * seed, 0.9 + 0.1 * (seed > 1), seed=seed, dropout=0.1)
    frames = runs.load(tmp_path / "runs")
    (one,) = by_dataset(frames)
    row = by_name(contrasts.compare(one)).loc["dropout 0.1"]
    assert row.p_holm < 0.05 and row.below > 0 and row.p_test < 0.05 and row.test_below == pytest.approx(-250 / 3)
    for lang, key in (("en", "The test images show the opposite"), ("es", "Las imágenes de prueba muestran lo contra")):
        with wording.language(lang):
            assert key in answers.headline(frames, one)
            assert f"{wording.number(250 / 3, '.2f')} " in answers.headline(frames, one).partition(key)[2]


def test_intervals_end_at_100_percent(tmp_path):
    for seed, accuracy in enumerate((0.999, 0.98, 0.995)):
        make_run(tmp_path / "runs", accuracy, seed=seed)
        make_run(tmp_path / "runs", accuracy / 2, seed=seed, dropout=0.1)
    one = section(tmp_path / "runs")
    rows = [[cell.text for cell in row] for row in comparison.table(one).rows]
    mean, half = np.mean([99.9, 98, 99.5]), stats.t.ppf(0.975, 2) * np.std([99.9, 98, 99.5], ddof=1) / np.sqrt(3)
    assert rows[0][2] == f"{mean:.2f} [{mean - half:.2f}, 100.00]" and "±" in rows[1][2]
    assert f"{mean:.2f} % [{mean - half:.2f}, 100.00]" in answers.sentences(None, one)[0]
    figure = comparison.ranking(contrasts.compare(one), one.runs, "Title")
    ends = [segment[:, 0].max() for bars in figure.axes[0].collections for segment in bars.get_segments()]
    assert max(ends) == pytest.approx(100)


def test_latex_and_csv_hold_the_same(folder):
    table = comparison.table(section(folder))
    frame, latex = table.frame, tables.latex(table)
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len({line.count("&") for line in rows}) == 1
    assert r"Best val acc (\%)" in latex
    assert r"71.00 $\pm$ 2.48" in latex
    assert not re.search(r"(?<!\\)[%#_]", latex)
    again = pd.read_csv(io.StringIO(tables.csv(table)))
    names = {"score": "val_acc", "score_ci95": "val_acc_ci95", "test_score": "test_acc"}
    assert set(again.columns) >= {*names.values()} and len(again.columns) == len(frame.columns)
    for name, of_file in names.items():
        assert np.allclose(again[of_file], frame[name], equal_nan=True)
    assert list(again.model) == list(frame.model)


def test_latex_takes_no_star_and_no_dash_from_a_name():
    """A star after the end of a row would be taken for its option, and two hyphens for a dash."""
    table = tables.Table(
        "t", "t", pd.DataFrame({"name": ["*other", "a--b---c"]}), [tables.Column("name", header="name")]
    )
    lines = tables.latex(table).splitlines()
    assert sum("other" in line or "b" in line for line in lines) >= 2
    assert not any(line.startswith("*") or "--" in line for line in lines)


@pytest.mark.parametrize("name", ["words", "Page words", "table x"])
def test_no_name_of_a_section_takes_an_id_of_the_page(tmp_path, name):
    block = tables.Table("x", "t", pd.DataFrame({"name": ["a"]}), [tables.Column("name", header="name")])
    page = html.write([html.Part(name, name, [Heading("x"), block])], "t", "s", str, tmp_path)
    ids = re.findall(r' id="([^"]*)"', page.read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids)) >= 3


def test_commands_are_the_same_in_markdown():
    command = r"python -m study.train '--labels=^(.*)_\d+' --tags=a_b"
    written = html.plain(f"`{wording.protected(command)}` for {wording.protected('a_b*c')}")
    assert f"`{command}`" in written and written.endswith(r"a\_b\*c")


def test_a_copy_of_a_run_is_no_further_seed(folder):
    before = tables.markdown(comparison.table(section(folder)))
    one = next(folder.glob("two-block*"))
    shutil.copytree(one, folder / "copy")
    frames = runs.load(folder)
    assert tables.markdown(comparison.table(by_dataset(frames)[0])) == before
    assert frames.problems == [f"{folder / 'copy'} is left out: it is the same run as {one}"]


@pytest.mark.parametrize("chunk", [200, 2])
def test_unreadable_runs_are_named_and_left_out(folder, monkeypatch, chunk):
    monkeypatch.setattr(forks, "CHUNK", chunk)  # few runs are read in this process, many in several
    (folder / "empty").mkdir()
    broken = make_run(folder, 0.5, seed=11)
    (broken.path / "run.json").write_text('{"config": {', encoding="utf-8")
    cut = make_run(folder, 0.5, seed=12)
    (cut.path / "history.jsonl").write_text('{"epoch": 1}\n', encoding="utf-8")
    no_summary = make_run(folder, 0.5, seed=13)
    (no_summary.path / "summary.json").unlink()
    strange = make_run(folder, 0.5, seed=14)
    strange.write_info({"state": "finished"})
    frames, known = runs.load(folder), {}
    again = [runs.load(folder, known=known) for _ in range(2)]
    assert all(later.runs.equals(frames.runs) and later.history.equals(frames.history) for later in again)
    assert all(later.problems == frames.problems for later in again) and len(known) == 7
    assert len(frames.runs) == 7
    for directory in (broken, cut, no_summary, strange):
        assert sum(str(directory.path) in problem for problem in frames.problems) == 1
    assert len(frames.problems) == 5


def test_runs_whose_options_are_not_known_any_more_are_named_once(folder):
    """Their score, network or augmentation was removed from the code."""
    before = runs.load(folder)
    for seed in range(3):
        directory = make_run(folder, 0.5, seed=30 + seed)
        info = directory.info()
        info["config"]["metric"] = "val/cost"
        directory.write_info(info)
    frames = runs.load(folder)
    assert len(frames.runs) == len(before.runs) and frames.left_out == before.left_out + 3
    (problem,) = set(frames.problems) - set(before.problems)
    assert all(word in problem for word in ("3 runs", "val/cost", "put it back"))


def test_runs_without_a_result_are_counted_not_averaged(folder):
    make_run(folder, 0.99, state="diverged", seed=21, dropout=0.5)
    make_run(folder, 0.99, state=None, seed=22, dropout=0.5)
    make_run(folder, 0.99, seed=23, dropout=0.5, version=RESULTS_VERSION + 1)
    one = section(folder)
    assert one.states == {"finished": 7, "diverged": 1, "interrupted": 1}
    assert by_name(contrasts.compare(one)).loc["two-block, dropout 0.5"].score == pytest.approx(71)


SWEEP = """
name: dropout
description: Which dropout?
method: grid
metric: {name: val/acc, goal: maximize}
parameters:
  dataset: {value: digits}
  epochs: {value: 3}
  dropout: {values: [0.5, 0.0]}
  seed: {values: [0, 1, 2, 3]}
"""


def test_a_sweep_chooses_its_runs_and_names_what_is_missing(folder, tmp_path):
    (tmp_path / "dropout.yaml").write_text(SWEEP, encoding="utf-8")
    (found,) = of_sweep(runs.load(folder), search.read(tmp_path / "dropout.yaml"))
    assert list(map(str, found.runs.setting.unique())) == ["dropout 0.5", "dropout 0.0"]
    assert len(found.runs) == 6
    assert found.missing == ["dropout 0.5, seed 3", "dropout 0.0, seed 3"]
    assert set(map(str, found.history.setting)) == {"dropout 0.5", "dropout 0.0"}
    assert len(found.history) == 6 * EPOCHS


def test_runs_of_a_sweep_without_a_result_are_not_among_the_other_runs(folder, tmp_path, call, monkeypatch):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "dropout.yaml").write_text(SWEEP, encoding="utf-8")
    make_run(folder, 0.1, state="diverged", seed=3, dropout=0.5)
    make_run(folder, 0.1, state="diverged", seed=3, dropout=0.9)
    shown = []
    monkeypatch.setattr(report, "write", lambda frames, found, *rest: shown.extend(found) or tmp_path)
    call("analysis.summarize")
    assert [(section.name, section.states) for section in shown] == [
        ("dropout", {"finished": 6, "diverged": 1}), ("digits, other runs", {"finished": 1, "diverged": 1}),
    ]  # fmt: skip


def test_a_sweep_that_varies_nothing_but_the_seed_names_its_setting(folder, tmp_path):
    text = SWEEP.replace("values: [0.5, 0.0]", "value: 0.5")
    (tmp_path / "one.yaml").write_text(text, encoding="utf-8")
    (found,) = of_sweep(runs.load(folder), search.read(tmp_path / "one.yaml"))
    assert {str(setting) for setting in found.runs.setting} == {"dropout"}
    assert found.missing == ["dropout, seed 3"]
    assert comparison.table(found).rows[0][0].text == "dropout"


SEARCH = """
method: random
run_cap: 3
metric: {name: val/acc, goal: maximize}
parameters:
  dataset: {value: digits}
  epochs: {value: 3}
  lr: {distribution: log_uniform_values, min: 1.0e-4, max: 0.1}
  momentum: {values: [0.5, 0.123456]}
"""


@pytest.mark.parametrize(
    ("rates", "shown"),
    [((0.0123456, 0.0543219, 0.00030001), ("0.0123", "0.0543", "0.0003")),
     ((0.0123456, 0.0123487, 0.00030001), ("0.012346", "0.012349", "0.00030001"))],
)  # fmt: skip
def test_numbers_that_were_drawn_have_few_digits_in_names_and_all_in_the_csv_file(tmp_path, rates, shown):
    (tmp_path / "search.yaml").write_text(SEARCH, encoding="utf-8")
    for rate in rates:
        make_run(tmp_path / "runs", 0.7 - rate, lr=rate, momentum=0.123456)
    sweep = replace(search.read(tmp_path / "search.yaml"), drawn_elsewhere=True)
    (found,) = of_sweep(runs.load(tmp_path / "runs"), sweep)
    assert set(map(str, found.runs.setting)) == {f"lr {rate}, momentum 0.123456" for rate in shown}
    assert found.drawn == ["lr"]
    again = pd.read_csv(io.StringIO(tables.csv(comparison.table(found))))
    assert set(again.lr) == set(rates)


def test_what_its_sweep_stopped_is_named_below_the_answer_with_what_it_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "THEMES", report.THEMES[:4])
    (tmp_path / "search.yaml").write_text(SEARCH, encoding="utf-8")
    sweep = search.read(tmp_path / "search.yaml")
    for place, point in enumerate(sweep.points()[:2]):
        state = "stopped" if place else "finished"
        make_run(tmp_path / "runs", 0.7 - place / 10, state=state, lr=point.config.lr, momentum=point.config.momentum)
    frames = runs.load(tmp_path / "runs")
    (found,) = of_sweep(frames, sweep)
    names = list(found.points.setting)
    assert found.missing == [
        f"{names[1]}, seed 0 (stopped by its sweep after epoch 3, best val acc 60.00 %)", f"{names[2]}, seed 0"
    ]  # fmt: skip
    looks = report.looks_of([found])[0]
    answered = [block for block in report.short(frames, found, looks) if isinstance(block, Items)]
    assert answered[-1].texts == [
        "2 of the 3 runs have no result and are not included in any mean (stopped: 1, not started: 1)."
    ]
    said = [block for block in report.section_blocks(frames, found, looks) if isinstance(block, Heading | Items)]
    assert said[0] == Heading("The answer") and said[-1].texts == found.missing


def test_predictions_are_tidy(folder):
    frames = runs.load(folder)
    found = frames.predictions
    assert len(found) == 7 * 10
    for run, group in found.groupby("run"):
        assert (group.target == group.predicted).mean() == pytest.approx(frames.runs["test/acc"][run])
    assert frames.features(frames.runs.index[0])["penultimate"].shape == (4, 3)


def text_of(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue().decode()


def assert_labelled(figure: Figure) -> None:
    for axes in figure.axes:
        assert axes.get_ylabel()
        if axes.get_label() != "<colorbar>":
            assert axes.get_title() and axes.get_xlabel()


def test_learning_curves_show_the_mean_and_its_interval(folder):
    one = section(folder)
    figure = figures.learning_curves(one.history, "Curves")
    assert_labelled(figure)
    validation = figure.axes[1]
    lines = {line.get_label(): line.get_ydata() for line in validation.get_lines()}
    assert lines["two-block, dropout 0.5"] == pytest.approx([35.5, 71, 35.5])
    assert len(validation.collections) == 2, "a band for each setting with several seeds"
    ElementTree.fromstring(text_of(figure))


def test_parallel_coordinates_place_what_was_drawn_by_its_size():
    frame = pd.DataFrame(
        {"lr": [1e-4, 1e-3, 0.02, 0.1], "momentum": [0.1, 0.2, 0.7, 0.9], "hidden": [
            Listed(widths) for widths in ([200], [20], [64, 32], [50])],
         "score": [10.0, 60.0, 97.5, 98.0]}
    )  # fmt: skip
    stopped = pd.DataFrame({"lr": [0.01], "momentum": [0.5], "hidden": [Listed([20])], "score": [20.0]})
    axes = space.parallel(frame, ["lr", "momentum", "hidden"], "Title", ["lr", "momentum"], stopped).axes[0]
    settings, given_up = axes.collections
    heights = np.array([row[:, 1] for row in [*settings.get_segments(), *given_up.get_segments()]])
    assert heights[:4, 0] == pytest.approx([0, 1 / 3, np.log10(200) / 3, 1]), "by its logarithm"
    assert heights[:4, 1] == pytest.approx([0, 0.125, 0.75, 1]) and heights[:4, 3] == pytest.approx(
        [0, 50 / 88, 87.5 / 88, 1]
    )
    assert heights[4] == pytest.approx([2 / 3, 0.5, 0, 10 / 88]) and len(heights) == 5
    assert given_up.get_linestyle()[0][1] and not settings.get_linestyle()[0][1], "dashed, and not"
    ticks = [[text.get_text() for text in axes.texts if int(text.get_position()[0]) == place] for place in range(4)]
    assert ticks[0] == ["0.0001", "0.001", "0.01", "0.1"], "decades show that the scale is logarithmic"
    assert ticks[1] == ["0.2", "0.4", "0.6", "0.8"] and ticks[3] == ["20", "40", "60", "80"]
    assert ticks[2] == ["20", "50", "64,32", "200"], "in the order of numbers, evenly"
    without = frame.assign(momentum=pd.Series([0.9, None, None, 0.5], dtype=object))
    axes = space.parallel(without, ["lr", "momentum"], "Title").axes[0]
    heights = [row[1, 1] for row in axes.collections[0].get_segments()]
    assert heights == [0.5, 1, 1, 0], "what has no such option is above the others"
    narrow = space.parallel(frame[2:], ["lr", "momentum", "hidden"], "Title").axes[0]
    ticks = [text.get_text() for text in narrow.texts if text.get_position()[0] > 3]
    assert ticks == ["97.5", "97.6", "97.7", "97.8", "97.9", "98"], "few accuracies are no steps either"


def test_nothing_to_report_is_a_mistake(call, tmp_path):
    assert "there is no directory nowhere" in call("analysis.summarize", "nowhere", code=2).stderr
    (tmp_path / "runs").mkdir()
    assert "no finished run" in call("analysis.summarize", code=2).stderr
    (tmp_path / "runs" / "x").mkdir()
    (tmp_path / "runs" / "x" / "run.json").write_text(json.dumps([]), encoding="utf-8")
    assert "x/run.json" in call("analysis.summarize", code=2).stderr


def test_sections_are_of_one_task_and_name_settings_by_what_is_unusual(tmp_path):
    usual = {"dropout": 0.5, "augment": "flip", "label_smoothing": 0.1, "weight_decay": 1e-4, "image_size": 16}
    changes = {
        "dropout": 0.0,
        "augment": "",
        "label_smoothing": 0.0,
        "weight_decay": 0.0,
        "lr": 0.1,
        "image_size": None,
    }
    for change in ({}, *({name: value} for name, value in changes.items())):
        make_run(tmp_path / "runs", 0.7, **usual | change)
    make_run(tmp_path / "runs", 0.9, classes="3,8")
    few, many = by_dataset(runs.load(tmp_path / "runs"))[::-1]
    assert (few.name, many.name) == ("digits, classes 3,8", "digits")
    assert list(map(str, few.runs.setting)) == ["two-block"]
    assert set(map(str, many.runs.setting)) == {
        "two-block", "dropout 0.0", "augment none", "label smoothing 0.0", "weight decay 0.0", "lr 0.1",
        "image size original",
    }  # fmt: skip


def test_a_sweep_of_several_tasks_is_several_sections(tmp_path):
    for classes, dropout, seed in itertools.product(("", "3,8"), (0.0, 0.5), (0, 1)):
        accuracy = 0.7 + 0.1 * dropout + 0.01 * seed
        make_run(tmp_path / "runs", accuracy, classes=classes, dropout=dropout, seed=seed)
    (tmp_path / "tasks.yaml").write_text(
        "method: grid\nmetric: {name: val/acc, goal: maximize}\nparameters:\n  dataset: {value: digits}\n"
        "  epochs: {value: 3}\n  classes: {values: ['', '3,8']}\n  dropout: {values: [0.0, 0.5]}\n"
        "  seed: {values: [0, 1]}\n",
        encoding="utf-8",
    )
    found = of_sweep(runs.load(tmp_path / "runs"), search.read(tmp_path / "tasks.yaml"))
    assert [section.name for section in found] == ["tasks, digits, classes all", "tasks, digits, classes 3,8"]
    assert [section.varied for section in found] == [["dropout"]] * 2
    assert [list(map(str, contrasts.compare(section).setting)) for section in found] == [
        ["dropout 0.5", "dropout 0.0"]
    ] * 2


def test_runs_on_other_files_are_not_compared(folder, tmp_path):
    for path in folder.glob("two-block-*"):
        directory = RunDirectory(path)
        info = directory.info()
        directory.write_info(info | {"data_digest": "old" if info["config"]["dropout"] else "new"})
    (tmp_path / "dropout.yaml").write_text(SWEEP, encoding="utf-8")
    found = of_sweep(runs.load(folder), search.read(tmp_path / "dropout.yaml"))
    assert [section.name for section in found] == ["dropout, digits, files old", "dropout, digits, files new"]
    assert [list(map(str, section.runs.setting.unique())) for section in found] == [["dropout 0.5"], ["dropout 0.0"]]
    nothing = replace(search.read(tmp_path / "dropout.yaml"), drawn_elsewhere=True, method="random", name="none")
    (empty,) = of_sweep(replace(runs.load(folder), directories={}), nothing)
    assert empty.runs.empty and empty.title == "none"


REPEATED = {
    "seed and split": 'setting: {values: ["seed=0 split_seed=0", "seed=1 split_seed=1", "seed=2 split_seed=2"]}',
    "split": "split_seed: {values: [0, 1, 2]}",
}


@pytest.mark.parametrize("by", ["sweep", "data set"])
@pytest.mark.parametrize("what", REPEATED)
def test_a_split_for_each_repeat_is_a_repeat(tmp_path, by, what):
    """Settings whose runs differ in the split, with or without the seed, are compared over both, and paired."""
    for repeat, easier in enumerate((0.0, 0.05, 0.02)):
        for dropout in (0.0, 0.5):
            accuracy = 0.7 + easier + 0.02 * dropout + 0.001 * (repeat == dropout)
            seed = 0 if what == "split" else repeat
            make_run(tmp_path / "runs", accuracy, seed=seed, split_seed=repeat, dropout=dropout)
    frames = runs.load(tmp_path / "runs")
    sweep = SWEEP.replace("name: dropout", "name: repeated").replace("seed: {values: [0, 1, 2, 3]}", REPEATED[what])
    (tmp_path / "repeated.yaml").write_text(sweep, encoding="utf-8")
    found = of_sweep(frames, search.read(tmp_path / "repeated.yaml")) if by == "sweep" else by_dataset(frames)
    (one,) = found
    assert one.varied == ["dropout"] and one.splits_vary and len(one.runs) == 6 and "split" not in one.name
    frame = by_name(contrasts.compare(one))
    assert list(frame.n) == [3, 3] and frame.paired.iloc[1] and frame.p_holm.iloc[1] < 0.05
    said = " ".join(comparison.table(one).notes)
    assert ("Repeats differ in the split only" if what == "split" else "in the seed and in the split") in said
    assert best_of_settings(one).split_seed.nunique() == 1, "networks are looked at on the same images"


def test_splits_that_do_not_go_with_the_seed_are_tasks(tmp_path):
    for seed, split_seed in itertools.product((0, 1), (0, 1)):
        make_run(tmp_path / "runs", 0.7, seed=seed, split_seed=split_seed)
    found = by_dataset(runs.load(tmp_path / "runs"))
    assert [section.name for section in found] == ["digits", "digits, split seed 1"]
    assert not any(section.splits_vary for section in found)
    assert "always the same" in " ".join(comparison.table(found[0]).notes)
    make_run(tmp_path / "other", 0.7, seed=0)
    make_run(tmp_path / "other", 0.8, seed=1, split_seed=1, dropout=0.1)
    assert len(by_dataset(runs.load(tmp_path / "other"))) == 2, "two settings, each with one run"


@pytest.mark.slow
def test_the_smallest_difference_that_matters_is_an_option(call, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "THEMES", (answers.blocks,))
    for seed, luck in enumerate((0.0, 0.004, -0.003, 0.002, 0.001)):
        for dropout in (0.0, 0.5):
            make_run(tmp_path / "runs", 0.7 + luck + 1e-3 * dropout * (seed - 1), seed=seed, dropout=dropout)
    for words, said in (
        ([], "the other setting is as good: no true difference from it is likely to reach 0.5 points"),
        (["--smallest", "3"], "the other setting is as good: no true difference from it is likely to reach 3 points"),
        (["--smallest", "0.1"], "the difference from the other setting may be noise"),
    ):
        call("analysis.summarize", *words)
        assert said in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for wrong in ("0", "-1", "x", "101"):
        assert "--smallest" in call("analysis.summarize", "--smallest", wrong, code=2).stderr


def test_what_a_reviewer_asks_is_in_the_report_once(folder, call, undrawn):
    commits = ["a" * 40, "b" * 40 + "+", None]
    for path, commit in zip(sorted(folder.iterdir()), commits, strict=False):
        run = RunDirectory(path)
        run.write_info(run.info() | {"git_commit": commit})
    make_run(folder, 0.0, state="diverged", seed=3, dropout=0.0)
    make_run(folder, 0.0, state="failed", seed=4, dropout=0.0)
    make_run(folder, 0.0, state="stopped", seed=5, dropout=0.0)
    frames = runs.load(folder)
    (one,) = by_dataset(frames)
    rows = by_name(protocol.failures([one]))
    (other,) = (name for name in rows.index if "two-block" in name and "0.0" in name)
    assert rows.loc[other, ["asked", "result", "diverged", "error", "stopped", "rest"]].to_list() == [6, 3, 1, 1, 1, 0]
    assert rows.rate[other] == pytest.approx(40) and (rows.rate.drop(other) == 0).all(), "a stopped run did not fail"
    assert protocol.machines(frames).runs.to_list() == [6, 1], "one shared its device"
    assert protocol.data(frames)[["train", "val", "test", "runs"]].to_numpy().tolist() == [[100, 10000, 10, 7]]
    said = " ".join(protocol.code(frames))
    assert (
        "a" * 40 + " (1 run)" in said and "b" * 40 + " with changed files" in said and "commit not recorded (" in said
    )
    for config in frames.configs.values():
        words = shlex.split(protocol.command(config))
        assert words[:3] == ["python", "-m", "study.train"]
        assert read_command(words[3:]).config.fingerprint == config.fingerprint
    values = {"model": "timm:resnet18", "pretrained": True, "weights_digest": "0" * 16, "weights": "mine.safetensors"}
    assert "--weights=mine.safetensors" in protocol.command(Config(**values))
    call("analysis.summarize", folder, "--full")
    page = (folder.parent / "report" / "report.md").read_text(encoding="utf-8")
    assert page.count("Settings with failed runs") == 1
    assert (folder.parent / "report" / "tables" / "protocol-failures.csv").exists()


def test_how_learning_rates_were_chosen_is_said(tmp_path):
    def chosen(*values):
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        for value in values:
            make_run(place, 0.5, **value)
        return protocol.rates(by_dataset(runs.load(place))).iloc[0]

    assert chosen({"lr": 0.1}, {"lr": 0.1, "dropout": 0.1}).chosen == wording.text(protocol.CHOSEN["given"])
    row = chosen({"lr": 0.1}, {"lr": 0.01}, {"lr": 0.01, "seed": 1})
    assert (row.chosen, row.lr, row.tried, row.seeds) == (wording.text(protocol.CHOSEN["compared"]), "0.01, 0.1", 2, 2)
    assert chosen({"lr": 0.1}, {"lr": 0.01, "dropout": 0.1}).chosen == wording.text(protocol.CHOSEN["own"])
    assert chosen(*({"lr": 10.0**-place} for place in range(7))).lr == "1e-06 to 1.0"


def test_times_are_tested(tmp_path):
    """An option that makes each epoch 22 % longer is found, though by construction it should cost nothing."""
    random = np.random.default_rng(0)
    for seed in range(4):
        for dropout, factor in ((0.0, 1.0), (0.1, 1.0), (0.5, 1.22)):
            run = make_run(tmp_path / "runs", 0.7 + 0.01 * random.random(), seed=seed, dropout=dropout)
            seconds = 2 * factor * (1 + 0.01 * random.normal())
            run.write_history([row | {"time/epoch": seconds} for row in run.history()])
    frames = runs.load(tmp_path / "runs")
    (one,) = by_dataset(frames)
    frame = by_name(costs.measure(one))
    slow = frame.loc["dropout 0.5"]
    assert slow.p_time < 0.001 and slow.extra_time_low < 22 < slow.extra_time_high < 30
    assert frame.p_time.drop("dropout 0.5").dropna().gt(0.05).all() and frame.extra_time.isna().sum() == 1
    tests = speed.times(one)
    same = {name: setting for setting in one.ranked if (name := str(setting)) in frame.index}
    seconds = speed.epoch_seconds(one).seconds.groupby(one.runs.setting).apply(lambda column: np.log(column).mean())
    assert tests.difference[same["dropout 0.5"], same["dropout 0.0"]] == pytest.approx(
        seconds[same["dropout 0.5"]] - seconds[same["dropout 0.0"]]
    )
    assert speed.work(one).nunique() == 1 and speed.alike(one).nunique() == 3, "their mean says nothing"
    for lang in wording.LANGUAGES:
        with wording.language(lang):
            said = " ".join(text for block in costs.blocks(frames, one, figures.looks_of(one.ranked))
                            if isinstance(block, Items) for text in block.texts)  # fmt: skip
            assert f"{wording.number(slow.extra_time, '.1f')} % [" in said


def test_times_that_were_shared_or_single_are_not_tested(folder):
    one = section(folder)
    assert costs.measure(one).p_time.dropna().eq(1).all(), "equal times"
    one = replace(one, runs=one.runs.assign(device_shared_by=2))
    assert speed.times(one).empty and costs.measure(one).p_time.isna().all()


def test_times_of_two_machines_with_one_name_are_not_mixed(folder):
    one = section(folder)
    cpus = np.where(one.runs.seed == 0, "Slow", "Fast")
    one = replace(one, runs=one.runs.assign(cpu=cpus, cores=2))
    assert set(one.runs.seed[speed.is_timed(one)]) == {1, 2}
    for lang in wording.LANGUAGES:
        with wording.language(lang):
            (table,) = (block for block in costs.blocks(runs.load(folder), one, figures.looks_of(one.ranked))
                        if isinstance(block, tables.Table))  # fmt: skip
            shown, left_out = table.notes[1:3]
            assert "Fast" in shown and "Slow" in left_out and "Slow" not in shown


def test_devices_that_differ_between_settings_are_named(folder):
    """Runs of one setting may differ in their device as those of the others do; a sweep of devices differs in it."""
    one = section(folder)
    first, *others = one.ranked

    def said(devices) -> str:
        return " ".join(about.notes(replace(one, runs=one.runs.assign(device=devices))))

    by_setting = said(np.where(one.runs.setting == first, "Fast", "cpu"))
    assert f"Fast ({first})" in by_setting
    assert set(by_setting.partition("cpu (")[2].partition(")")[0].split("; ")) == set(map(str, others))
    several = one.runs[one.runs.setting.duplicated(keep=False)]
    by_seed = np.where(several.seed == 0, "Fast", "cpu")
    alike = " ".join(about.notes(replace(one, runs=several.assign(device=by_seed))))
    assert "device: Fast, cpu" in alike and "(" not in alike.partition("device")[2]
    assert "device" not in said("cpu")

    # settings that name the option are meant to differ in it
    devices = np.where(one.runs.setting == first, "Fast", "cpu")
    named = [
        Setting((*setting.pairs, ("device", device))) for setting, device in zip(one.runs.setting, devices, strict=True)
    ]
    assert "Fast" not in " ".join(about.notes(replace(one, runs=one.runs.assign(device=devices, setting=named))))


def test_a_task_is_named_in_the_language_of_the_report(tmp_path):
    make_run(tmp_path, 0.5, val_share=0.3)
    assert section(tmp_path).name == "digits, val share 0.3"
    with wording.language("es"):
        assert section(tmp_path).name == "digits, proporción de validación 0,3"
