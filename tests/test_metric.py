"""The metric of a run and of its sweep decides the best epoch, the search, and the ranking of the report."""

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from analysis.frames import runs, sections
from analysis.themes import comparison
from analysis.wording import messages
from analysis.wording.ranked import RANKED
from study.config import Config
from study.config.scores import CHOOSING, SCORES
from study.record.directory import RunDirectory
from study.record.metrics import METRICS
from study.remote import sweep as at_wandb
from study.sweeps import definition as search
from study.sweeps import document
from study.system.errors import UserError
from tests.test_analysis import EPOCHS, make_run

OF = {score.key: score.of for score in SCORES}


def test_scores_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (300,), generator=generator)  # class 5 has no images
    logits = torch.randn(300, 6, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 6)
    predicted = logits.argmax(1)
    f1 = oracle.f1_score(labels, predicted, labels=range(5), average="macro")
    recall = oracle.recall_score(labels, predicted, labels=range(5), average="macro")
    top2 = oracle.top_k_accuracy_score(labels, logits, k=2, labels=range(6))
    found = [OF[f"val/{name}"](logits, labels) for name in ("macro_f1", "balanced_acc", "top2")]
    assert found == pytest.approx([f1, recall, top2])
    assert OF["val/top5"](logits[:, :3], labels.clamp(max=2)) == 1, "of fewer than five classes"


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
    logged = {key for key in OF if key in history[0]}
    assert logged == {metric} & OF.keys(), "only the score that chooses is logged"

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
    frame = comparison.compare(section)
    assert [dict(setting.pairs)["model"] for setting in frame.setting] == ["cnn", "mlp"], "not by accuracy"
    assert list(frame.val_acc) == pytest.approx([70.1, 60.1]) and list(frame.test_acc) == pytest.approx([69.1, 59.1])
    assert frame.below[1] == pytest.approx(10) and frame.p_holm[1] < 0.05
    done = call("analysis.summarize", "runs", "--out", "report", "--lang", lang, "--full")
    metric = {"en": "validation macro F1", "es": "F1 macro de validación"}[lang]
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert all(metric in words for words in (done.stdout, page)) and "warning" not in done.stderr


def test_runs_are_ranked_by_the_likelihood_of_a_loss_and_by_accuracy_if_they_differ(tmp_path):
    of_metric(tmp_path / "loss", "val/loss", 0.5, 0.6, acc=0.7, model="mlp")
    of_metric(tmp_path / "loss", "val/loss", 0.4, 0.7, acc=0.6, model="cnn")
    (section,) = sections.by_dataset(runs.load(tmp_path / "loss"))
    frame = comparison.compare(section)
    assert list(frame.val_acc) == pytest.approx([100 * np.exp(-0.4), 100 * np.exp(-0.5)])
    assert list(frame.test_acc) == pytest.approx([100 * np.exp(-0.7), 100 * np.exp(-0.6)])
    make_run(tmp_path / "loss", 0.9, model="mlp")
    (section,) = sections.by_dataset(runs.load(tmp_path / "loss"))
    assert section.metric == "val/acc" and comparison.compare(section).val_acc.max() == pytest.approx(90)


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
    said = call("study.train", "--dataset=digits", "--model=mlp", "--classes=3,8", "--metric=val/top2", code=2).stderr
    assert "val/top2" in said and "2 classes" in said
