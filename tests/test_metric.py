"""The metric of a run and of its sweep decides the best epoch, the search, and the ranking of the report."""

import io
import itertools
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as oracle

import study
from analysis import reporting as report
from analysis.frames import contrasts, runs, sections
from analysis.page import tables
from analysis.themes import comparison, glossary, space
from analysis.wording import messages
from analysis.wording.ranked import RANKED
from analysis.wording.texts import language, ranked_by, ranking_name
from study.config import Config
from study.config.scores import CHOOSING, SCORES
from study.record.directory import RunDirectory
from study.record.metrics import METRICS
from study.remote import sweep as at_wandb
from study.sweeps import definition as search
from study.sweeps import document
from study.system.errors import UserError
from tests.test_analysis import EPOCHS, make_run


def test_scores_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (300,), generator=generator)  # class 5 has no images
    logits = torch.randn(300, 6, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 6)
    predicted = logits.argmax(1)
    f1 = oracle.f1_score(labels, predicted, labels=range(5), average="macro")
    recall = oracle.recall_score(labels, predicted, labels=range(5), average="macro")
    top2 = oracle.top_k_accuracy_score(labels, logits, k=2, labels=range(6))
    found = [SCORES[f"val/{name}"](logits, labels) for name in ("macro_f1", "balanced_acc", "top2")]
    assert found == pytest.approx([f1, recall, top2])
    assert SCORES["val/top5"](logits[:, :3], labels.clamp(max=2)) == 1, "of fewer than five classes"


@pytest.mark.parametrize("metric", CHOOSING)
def test_the_best_epoch_is_that_of_the_metric(call, tmp_path, metric):
    words = ["--model", "mlp", "--hidden", "8", "--dataset", "digits", "--epochs", "4", "--lr", "0.3"]
    call("study.train", *words, "--metric", metric, "--runs-dir", tmp_path, "--wandb", "disabled")
    (path,) = [path.parent for path in tmp_path.glob("*/run.json")]
    directory = RunDirectory(path)
    history, summary = directory.history(), directory.summary()
    sign = -1 if METRICS[metric].goal == "minimize" else 1
    best = max(history, key=lambda row: (sign * row[metric], -row["val/loss"]))
    assert summary["best/epoch"] == best["epoch"]
    assert summary[f"best/{metric.replace('/', '_')}"] == best[metric]
    logged = {key for key in SCORES if key in history[0]}
    assert logged == {metric} & SCORES.keys(), "only the score that chooses is logged"

    # The score of the test images is that of the stored probabilities
    arrays = np.load(directory.path / "evaluation.npz")
    if metric == "val/macro_f1":
        f1 = oracle.f1_score(arrays["test_targets"], arrays["test_predictions"], average="macro")
        assert summary["test/macro_f1"] == pytest.approx(f1)


def test_the_metric_is_part_of_a_runs_identity_only_if_it_is_given():
    assert Config().fingerprint == Config(metric="val/acc").fingerprint != Config(metric="val/loss").fingerprint
    with pytest.raises(UserError, match="unknown metric 'val/f1'"):
        Config.parse({"metric": "val/f1"})


def test_the_runs_of_a_sweep_choose_by_its_metric(sweep_file):
    metric = {"name": "val/macro_f1", "goal": "maximize"}
    (point, *_) = search.read(sweep_file(metric=metric)).points()
    assert point.config.metric == "val/macro_f1"
    assert "metric" not in point.label
    assert search.read(sweep_file(metric={"name": "best/val_loss"})).points()[0].config.metric == "val/loss"
    assert search.read(sweep_file(metric={"name": "test/macro_f1"})).points()[0].config.metric == "val/macro_f1"
    assert search.read(sweep_file(metric={"name": "time/epoch"})).points()[0].config.metric == "val/acc"

    # what stands in the file as a parameter counts, if the metric is logged
    own = {"model": {"value": "mlp"}, "metric": {"value": "val/acc"}}
    assert search.read(sweep_file(metric={"name": "val/loss"}, parameters=own)).points()[0].config.metric == "val/acc"
    with pytest.raises(UserError, match="only runs with --metric val/macro_f1 log"):
        search.read(sweep_file(metric=metric, parameters=own))


def of_metric(folder, metric, value, test, **values):
    """Write a run that is at `value` by its metric, with the same on its test images at `test`."""
    directory = make_run(folder, values.pop("acc"), metric=metric, **values)
    name = metric.removeprefix("val/")
    directory.write_summary(directory.summary() | {f"best/val_{name}": value, f"test/{name}": test})


@pytest.mark.parametrize("lang", ["en", "es"])
def test_a_report_ranks_by_the_metric_of_the_runs_and_says_so(tmp_path, call, undrawn, lang):
    for seed, luck in enumerate((0, 0.001, 0.002)):
        of_metric(tmp_path / "runs", "val/macro_f1", 0.6 + luck, 0.59 + luck, acc=0.8, model="mlp", seed=seed)
        of_metric(tmp_path / "runs", "val/macro_f1", 0.7 + luck, 0.69 + luck, acc=0.7, model="cnn", seed=seed)
    (section,) = sections.by_dataset(runs.load(tmp_path / "runs"))
    frame = contrasts.compare(section)
    assert [dict(setting.pairs)["model"] for setting in frame.setting] == ["cnn", "mlp"], "not by accuracy"
    assert list(frame.score) == pytest.approx([70.1, 60.1]) and list(frame.test_score) == pytest.approx([69.1, 59.1])
    assert frame.below[1] == pytest.approx(10) and frame.p_holm[1] < 0.05
    done = call("analysis.summarize", "runs", "--out", "report", "--lang", lang, "--full")
    metric = {"en": "validation macro F1", "es": "F1 macro de validación"}[lang]
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert all(metric in words for words in (done.stdout, page)) and "warning" not in done.stderr


def test_runs_are_ranked_by_the_likelihood_of_a_loss_and_by_accuracy_if_they_differ(tmp_path):
    of_metric(tmp_path / "loss", "val/loss", 0.5, 0.6, acc=0.7, model="mlp")
    of_metric(tmp_path / "loss", "val/loss", 0.4, 0.7, acc=0.6, model="cnn")
    (section,) = sections.by_dataset(runs.load(tmp_path / "loss"))
    frame = contrasts.compare(section)
    assert list(frame.score) == pytest.approx([100 * np.exp(-0.4), 100 * np.exp(-0.5)])
    assert list(frame.test_score) == pytest.approx([100 * np.exp(-0.7), 100 * np.exp(-0.6)])
    make_run(tmp_path / "loss", 0.9, model="mlp")
    (section,) = sections.by_dataset(runs.load(tmp_path / "loss"))
    assert section.metric == "val/acc" and contrasts.compare(section).score.max() == pytest.approx(90)


ACCURACY = re.compile(r"accura|\bacc\b|exactitud", re.IGNORECASE)
BY_ACCURACY = re.compile(r"(best|highest|by) (validation |val |test )?acc|mejor exactitud", re.IGNORECASE)


def ranked_elsewhere(folder, metric, score=0.0, acc=0.0):
    """Make runs of several settings whose score by a metric is apart from their accuracy; both may be raised a bit."""
    name = metric.removeprefix("val/")
    ways = itertools.product(({"pretrained": False}, {"pretrained": True}), (0.01, 0.1), (0.0, 0.001))
    for place, (way, lr, decay) in enumerate(ways):
        for seed in (0, 1, 2):
            value = 0.9 - 0.05 * place + 0.0137 * seed + score
            lost = {"state": "stopped"} if place == 6 else {}  # a setting that its sweep stopped
            directory = make_run(
                folder, 0.31 + 0.02 * place + acc + 0.0011 * seed, model="resnet18", image_size=32, optimizer="sgd",
                lr=lr, weight_decay=decay, seed=seed, metric=metric, **way, **lost,
            )  # fmt: skip
            ends = {f"best/val_{name}": value, f"last/val_{name}": value - 0.02, f"test/{name}": value - 0.01}
            directory.write_summary(directory.summary() | ends)


def said_of(folder):
    """Return the texts of a report of runs, sentence by sentence, the values of its tables by header and of its CSV."""
    (section,) = sections.by_dataset(runs.load(folder))
    frames = runs.load(folder)
    looks = report.looks_of([section])[0]
    sentences, values = [], {}
    for block in [
        *report.short(frames, section, looks),
        *report.section_blocks(frames, section, looks),
        *glossary.terms([section]),
    ]:
        words = [getattr(block, name, "") for name in ("text", "title", "caption")]
        words += [*getattr(block, "texts", ()), *getattr(block, "notes", ())]
        words += [word for entry in getattr(block, "entries", ()) for word in entry[:2]]
        sentences += [sentence for word in words for sentence in re.split(r"(?<=[.:;]) ", word)]
        if isinstance(block, tables.Table):
            for place, header in enumerate(block.header):
                values[block.name, header] = [row[place].text for row in block.rows]
            frame = pd.read_csv(io.StringIO(tables.csv(block)))
            values |= {(block.name, f"csv {key}"): list(map(str, frame[key])) for key in frame}
    return sentences, values


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "lang"),
    [
        ("val/loss", "en"),
        ("val/macro_f1", "es"),
        *(
            pytest.param(metric, "en", marks=pytest.mark.slow)
            for metric in CHOOSING
            if metric not in ("val/acc", "val/loss")
        ),
    ],
)
def test_nothing_in_a_section_ranked_by_another_metric_calls_it_accuracy(tmp_path, monkeypatch, metric, lang):
    # what changes with the score alone, or with the accuracy alone, shows what a text or a number is of
    monkeypatch.setattr(space, "importance", lambda frame, varied: (pd.Series(0.3, varied), 1.0))  # takes seconds
    for folder, raised in (("runs", {}), ("score", {"score": 0.004}), ("acc", {"acc": 0.004})):
        ranked_elsewhere(tmp_path / folder, metric, **raised)
    with language(lang):
        sentences, values = said_of(tmp_path / "runs")
        by_score, values_by_score = said_of(tmp_path / "score")
        values_by_accuracy = said_of(tmp_path / "acc")[1]
        with ranked_by(metric):
            own = re.compile(re.escape(ranking_name()), re.IGNORECASE)

    # sentences that change with the score; accuracy in the name of the metric is right
    assert len(sentences) == len(by_score) and any(map(own.search, sentences))
    said = [own.sub("", one) for one, other in zip(sentences, by_score, strict=True) if one != other]
    assert said and not [words for words in said if ACCURACY.search(words)]
    assert not [words for words in sentences if BY_ACCURACY.search(own.sub("", words))]

    # columns of the score, and of the accuracy
    name = "likelihood" if metric == "val/loss" else metric.removeprefix("val/")
    columns = [f"val_{name}{more}" for more in ("", "_ci95", "_change", "_last")] + [f"test_{name}"]
    assert {f"csv {column}" for column in columns} <= {key for _, key in values}
    for key, of_runs in values.items():
        header = own.sub("SCORE", key[1])
        if re.search(rf"SCORE|csv (val|test)_{name}(_|$)", header):
            assert values_by_accuracy[key] == of_runs, f"{key} follows the accuracy"
        elif ACCURACY.search(header.replace("_", " ")):
            assert values_by_score[key] == of_runs, f"{key} follows {metric}"


def test_each_text_for_another_metric_stands_for_one_that_is_said():
    texts = {words for message in messages.messages() for words in (message.text, message.plural)}
    assert set(RANKED) <= texts


def test_a_search_and_early_termination_follow_the_metric(sweep_file, tmp_path):
    metric = {"name": "val/balanced_acc", "goal": "maximize"}
    sweep = search.read(sweep_file(metric=metric, early_terminate={"type": "hyperband", "min_iter": 1}))
    rows = [{"val/acc": 0.9, "val/balanced_acc": 0.2}, {"val/acc": 0.8, "val/balanced_acc": 0.3}]
    assert sweep.losses(rows) == [-0.2, -0.3]


def test_a_sweep_at_wandb_gets_the_metric_as_a_parameter(sweep_file):
    path = sweep_file(metric={"name": "val/macro_f1", "goal": "maximize"})
    content = document.load(path).content
    parameters = at_wandb._parameters(content, search.read(path), {})
    assert parameters["metric"] == {"value": "val/macro_f1"} and "metric" not in content["parameters"]
    again = search.parse("wandb", content | {"parameters": parameters})
    assert [point.config for point in again.points()] == [point.config for point in search.read(path).points()]
    with pytest.raises(UserError, match="only runs with --metric val/macro_f1 log"):
        search.parse("wandb", content)  # which `wandb sweep` made of the file


def test_a_metric_that_is_none_of_validation_does_not_rank_and_the_report_says_so(tmp_path, sweep_file):
    for seed in (0, 1):
        make_run(tmp_path / "runs", 0.8, model="mlp", seed=seed)
    parameters = {"epochs": {"value": EPOCHS}, "dropout": {"value": 0.0}}
    for name, is_said in (("val/acc", False), ("best/val_acc", False), ("time/epoch", True), ("test/acc", True)):
        sweep = search.read(sweep_file(parameters, metric={"name": name}))
        (section,) = sections.of_sweep(runs.load(tmp_path / "runs"), sweep)
        assert section.metric == "val/acc" and len(section.runs) == 2
        assert any(name in note for note in comparison.ranking_notes(section)) == is_said


def test_a_metric_by_which_every_image_is_right_is_refused(call):
    words = ["--dataset=digits", "--model=mlp", "--classes=3,8", "--metric=val/top2", "--wandb=disabled"]
    said = call("study.train", *words, code=2).stderr
    assert "val/top2" in said and "2 classes" in said


@pytest.mark.parametrize("metric", ["val/macro_f1", "val/loss"])
def test_the_last_line_of_a_run_names_the_metric_that_chose_and_its_value(call, tmp_path, metric):
    words = ["--dataset=digits", "--model=mlp", "--epochs=2", "--wandb=disabled", f"--metric={metric}"]
    last = call("study.train", *words).stdout.splitlines()[-2]
    (summary,) = (json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("runs/*/summary.json"))
    value = summary[f"best/{metric.replace('/', '_')}"]
    assert f"{metric} {value:.4f}" in last or f"{metric} {100 * value:.2f}%" in last
    (run,) = (study.Run(path.parent) for path in tmp_path.glob("runs/*/summary.json"))
    assert metric in repr(run)


@pytest.mark.parametrize("value", [-0.2, 1.5, math.nan])
def test_a_score_that_is_no_share_is_refused(call, tmp_path, monkeypatch, value):
    monkeypatch.setitem(SCORES, "val/macro_f1", lambda logits, labels: value)
    words = ["--dataset=digits", "--model=mlp", "--epochs=1", "--wandb=disabled", "--metric=val/macro_f1"]
    said = call("study.train", *words, code=2).stderr
    assert "val/macro_f1" in said and str(value) in said and said.count("\n") == 1


def test_a_score_of_each_image_is_refused(call, tmp_path, monkeypatch):
    monkeypatch.setitem(SCORES, "val/macro_f1", lambda logits, labels: (logits.argmax(1) == labels).float())
    words = ["--dataset=digits", "--model=mlp", "--epochs=1", "--wandb=disabled", "--metric=val/macro_f1"]
    said = call("study.train", *words, code=2).stderr
    assert "val/macro_f1" in said and "(287,)" in said and said.count("\n") == 1
