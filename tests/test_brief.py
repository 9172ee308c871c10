"""The short form of a report: what is recommended and why, what is asked, and what the pages hold."""

import re
import shlex
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import reporting as report
from analysis import summarize
from analysis.frames import runs
from analysis.page import figures
from analysis.page.tables import Table
from analysis.themes import answers, asked, brief, comparison, space, training
from analysis.wording import texts as wording
from study.sweeps import definition as search
from study.system.errors import UserError
from tests.test_analysis import EPOCHS, make_run
from tests.test_training import line, section

FLAT = line(0.5, 0.0)
RATES = [(lr, decay) for lr in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1) for decay in (0.0, 0.001)]
LUCK = (0.0, 0.002, -0.001, 0.001, -0.002)


def settings(**levels):
    """Make curves of five seeds that end at these accuracies, with other luck in every setting."""
    rolled = {name: np.roll(LUCK, place) for place, name in enumerate(levels)}
    return {name: [(line(level + luck, 0.0), FLAT) for luck in rolled[name]] for name, level in levels.items()}


def made(levels, asks=(), gaps=None, **columns):
    """Make a section of settings with these accuracies, and gaps between training and validation at the end."""
    found = section(settings(**levels), **columns)
    runs = found.runs
    gap = runs.setting.map(gaps or dict.fromkeys(levels, 0.1))
    noise = np.tile((0.001, -0.001, 0.0005, 0.0, -0.0005), len(levels))
    runs = runs.assign(**{"last/train_acc": runs["last/val_acc"] + gap + noise})
    return replace(found, runs=runs, asks=tuple(asks))


def test_what_is_clearly_more_accurate_is_recommended_with_its_margin():
    said = brief.recommendation(None, made({"high": 0.8, "low": 0.7, "mid": 0.78}))
    assert "Use **high**" in said and re.search(r"2\.00 ± \d", said), "from the closest"


def test_what_is_asked_beside_accuracy_decides_between_settings_that_are_as_accurate():
    levels = {"first": 0.8, "second": 0.7995}
    gaps = {"first": 0.2, "second": 0.1}
    params = {"params": {"first": 2000.0, "second": 1000.0}}
    for asks, why in (
        (["accuracy", "overfitting"], "10.0 ±"),
        (["size"], "first has 2.0 times as many"),
        (["accuracy"], ""),
    ):
        said = brief.recommendation(None, made(levels, asks, gaps, **params))
        assert ("Use **second**" in said and why in said) if why else "**first** has the highest mean" in said
    assert "Use **first**" in brief.recommendation(None, made(levels, ["overfitting"], {"first": 0.1, "second": 0.2}))
    far = made({"first": 0.8, "second": 0.7}, ["overfitting"], gaps)
    assert "Use **first**" in brief.recommendation(None, far), "a smaller gap is no reason to lose ten points"


def test_nothing_is_recommended_by_luck_or_against_the_test_images():
    single = section({name: seeds[:1] for name, seeds in settings(a=0.8, b=0.7).items()})
    assert "may be luck" in brief.recommendation(None, single)
    against = made({"a": 0.8, "b": 0.79})
    test = against.runs["best/val_acc"].where(against.runs.setting == "b", 0.5 + np.tile(LUCK, 2))
    against = replace(against, runs=against.runs.assign(**{"test/acc": test}))
    assert "No recommendation" in brief.recommendation(None, against)


def test_a_setting_with_a_single_seed_is_not_passed_over():
    """What is far above the recommended setting, but cannot be compared, is said first."""
    curves = settings(top=0.9, high=0.8, low=0.7)
    curves["top"] = curves["top"][:1]
    said = brief.recommendation(None, section(curves))
    assert "Train more seeds of **top** first: its runs that learned are 10." in said and "Use" not in said
    curves["top"] = [(line(0.8001, 0.0), FLAT)]
    said = brief.recommendation(None, section(curves))
    assert "Use **high**" in said and "the only setting that can be compared" in said, "top is not far above"


def test_runs_of_the_recommended_setting_that_diverged_are_said():
    found = made({"high": 0.8, "low": 0.7})
    points = pd.concat([found.points, found.points.head(1).assign(fingerprint="lost", state="diverged")])
    assert brief.recommendation(None, replace(found, points=points)).endswith(
        "1 of the 6 runs of high diverged or failed."
    )
    lost = found.points.head(1).assign(fingerprint="lost", state="failed")
    said = brief.recommendation(None, replace(found, points=pd.concat([found.points, *[lost] * 5])))
    assert "No recommendation" in said and "5 of its 10 runs" in said


def test_what_may_lose_much_accuracy_is_not_chosen_for_its_size():
    """Not to be shown worse is not enough: the interval must exclude a large loss, and so must the test images."""
    curves = {
        "big": [(line(level, 0.0), FLAT) for level in (0.80, 0.86)],
        "small": [(line(level, 0.0), FLAT) for level in (0.85, 0.80)],
    }
    params = {"params": {"big": 2000.0, "small": 1000.0}}
    assert "Use" not in brief.recommendation(None, replace(section(curves, **params), asks=("size",)))
    close = made({"big": 0.8, "small": 0.7995}, ["size"], params={"big": 2000.0, "small": 1000.0})
    assert "Use **small**" in brief.recommendation(None, close)
    worse = close.runs["test/acc"] - 0.05 * (close.runs.setting == "small")
    assert "Use" not in brief.recommendation(None, replace(close, runs=close.runs.assign(**{"test/acc": worse})))


def test_a_mean_over_other_seeds_is_no_lead():
    """The highest mean is no reason to use a setting that is worse with every seed that both have."""
    curves = {
        "a": [(line(level, 0.0), FLAT) for level in (0.7, 0.701, 0.702, 0.95, 0.95, 0.95)],
        "b": [(line(level, 0.0), FLAT) for level in (0.71, 0.7112, 0.7121)],
    }
    found = section(curves)
    assert "No recommendation" in brief.recommendation(None, found)
    said = answers.headline(None, found)
    assert "by more than noise" not in said and "it is clearly less accurate than b" in said


def test_gaps_of_trainings_that_did_not_learn_are_left_out():
    found = made({"a": 0.8, "b": 0.7, "c": 0.1}, ["overfitting"])
    dead = found.runs.setting == "c"
    history = found.history.assign(**{"train/acc": found.history["train/acc"].where(found.history.setting != "c", 0.1)})
    found = replace(
        found,
        history=history,
        runs=found.runs.assign(**{"last/train_acc": found.runs["last/train_acc"].where(~dead, 0.1)}),
    )
    (said,) = asked.lines(None, found)
    assert "a: " in said and "b: " in said and "c" not in said.split("points:")[1].replace("clearly", "")


def test_each_thing_asked_has_a_line_in_the_order_of_the_sweep(tmp_path):
    levels = {"a": 0.8, "b": 0.7}
    for asks in (["size", "accuracy", "speed"], ["overfitting", "epochs"]):
        lines = asked.lines(None, made(levels, asks))
        assert [text.split("**")[1].rstrip(".").lower() for text in lines] == asks
    with wording.language("es"):
        assert asked.lines(None, made(levels, ["size"]))[0].startswith("**Tamaño.**")


def test_a_comparison_of_times_says_who_has_none():
    found = made({"a": 0.8, "b": 0.7, "c": 0.6}, ["speed"])
    shared = found.runs.device_shared_by.where(found.runs.setting != "c", 2)
    (said,) = asked.lines(None, replace(found, runs=found.runs.assign(device_shared_by=shared)))
    assert re.search(r"Without a time.*: c\.", said) and "a: 2 s" in said
    nobody = replace(found, runs=found.runs.assign(device_shared_by=2))
    (said,) = asked.lines(None, nobody)
    assert "`python -m analysis.summarize alone`" in said


def test_times_are_measured_by_the_sweep_with_the_values_that_the_reader_gave(tmp_path, sweep_file):
    make_run(tmp_path / "runs", 0.7, model="mlp", dropout=0.5, shared_by=2)
    path = sweep_file({"epochs": {"value": 9}}).rename(tmp_path / "my sweep.yaml")
    values = {"epochs": EPOCHS, "seed": 0}
    (found,) = summarize.sections(runs.load(tmp_path / "runs"), path, values)
    (said,) = asked.lines(None, replace(found, asks=["speed"]))
    commands = [shlex.split(words)[2:] for words in said.split("`") if words.startswith("python -m")]
    given = ["--set", f"epochs={EPOCHS}", "seed=0"]
    assert commands == [
        ["study.sweep", "run", str(path), *given, "--per-device", "1", "--runs-dir", "alone"],
        ["analysis.summarize", "alone", "--sweep", str(path), *given],
    ]


def test_settings_that_share_what_counts_are_named_by_it():
    """Networks with the same number of parameters are named by what they have in common."""
    from study.config.setting import Setting

    kinds = {(model, p): Setting((("model", model), ("dropout", p))) for model in ("mlp", "cnn") for p in (0.0, 0.5)}
    curves = {setting: [(line(0.7 + luck, 0.0), FLAT) for luck in LUCK] for setting in kinds.values()}
    params = {setting: 1000.0 if model == "mlp" else 2000.0 for (model, _), setting in kinds.items()}
    (said,) = asked.lines(None, replace(section(curves, params=params), asks=("size",)))
    assert "mlp: 1,000" in said and "cnn: 2,000" in said and "dropout" not in said


def test_the_table_of_many_settings_is_short():
    many = section({f"s{place:02}": [(line(0.5 + place / 100, 0.0), FLAT)] * 2 for place in range(14)})
    table = brief.table(None, many)
    assert isinstance(table, Table) and len(table.frame) == brief.ROWS and "4 more" in table.notes[-1]
    assert list(table.frame.setting)[:2] == ["s13", "s12"]


DESCRIBED = """
method: grid
description: {description}
parameters: {{dropout: {{values: [0.0, 0.5]}}}}
"""


@pytest.mark.parametrize(
    ("description", "question", "asks"),
    [
        ('"Which one? Asks: speed, accuracy."', "Which one?", ("speed", "accuracy")),
        (">-\n  Which one?\n  Asks: size", "Which one?", ("size",)),
        ('"He asks a lot."', "He asks a lot.", ()),
        ('"The lab asks: does it help?"', "The lab asks: does it help?", ()),
        ('""', "", ()),
    ],
)
def test_a_description_ends_with_what_its_question_asks(tmp_path, description, question, asks):
    (tmp_path / "one.yaml").write_text(DESCRIBED.format(description=description), encoding="utf-8")
    sweep = search.read(tmp_path / "one.yaml")
    assert (sweep.description, sweep.asks) == (question, asks)


def test_something_unknown_that_is_asked_is_an_error_with_its_line(tmp_path):
    (tmp_path / "one.yaml").write_text(DESCRIBED.format(description='"Asks: overfiting"'), encoding="utf-8")
    with pytest.raises(UserError, match=r"yaml:3.*'overfiting'.*'overfitting'"):
        search.read(tmp_path / "one.yaml")


def test_the_short_form_is_what_a_reader_hands_in(call, tmp_path, monkeypatch):
    """`report.md` has an answer for each section, `--full` everything; the page has both, the rest folded."""
    (tmp_path / "two.yaml").write_text(
        "name: two\nmethod: grid\ndescription: Does it help? Asks size.\nparameters:\n"
        "  {dataset: {value: digits}, model: {value: mlp}, epochs: {value: 2}, dropout: {values: [0.0, 0.5]}}\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(report, "THEMES", (training.blocks,))  # test_names.py makes a report of all
    call("study.sweep", "run", "two.yaml", "--wandb", "disabled", "--device", "cpu")
    call("analysis.summarize", "--sweep", "two.yaml")
    short = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    call("analysis.summarize", "--sweep", "two.yaml", "--full", "--out", "whole")
    whole = (tmp_path / "whole" / "report.md").read_text(encoding="utf-8")
    assert short.count("](figures/") == 1 and whole.count("](figures/") == 2
    assert len(short.split()) < 900 and len(short.split()) + 100 < len(whole.split())
    headings = re.findall(r"^## (.*)$", short, re.M)
    assert headings[0] == "Does it help? Asks size." and set(headings) <= set(re.findall(r"^## (.*)$", whole, re.M))
    folded = page.index('<details class="more">')
    assert page.index("</table>") < folded < page.index("Learning curves: two")
    assert '<details class="more" open>' in (tmp_path / "whole" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("axes", [("lr",), ("lr", "weight_decay")])
def test_the_picture_of_many_settings_is_drawn_once(tmp_path, monkeypatch, axes):
    values = [dict(zip(axes, pair, strict=False)) for pair in RATES]
    for place, options in enumerate({repr(options): options for options in values}.values()):
        make_run(tmp_path / "runs", 0.5 + place / 100, model="mlp", **options)
    drawn = []
    for module, name in ((comparison, "ranking"), (space, "heat_map")):
        draw = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, name=name, draw=draw, **b: drawn.append(name) or draw(*a, **b))
    frames = runs.load(tmp_path / "runs")
    (found,) = summarize.sections(frames)
    looks = report.looks_of([found])[0]
    report.short(frames, found, looks)
    assert drawn == ["ranking" if len(axes) == 1 else "heat_map"]
    report.section_blocks(frames, found, looks)
    assert sorted(drawn) == (["ranking"] if len(axes) == 1 else ["heat_map", "ranking"])


def test_the_points_of_a_sweep_are_listed_once(tmp_path, monkeypatch, sweep_file):
    make_run(tmp_path / "runs", 0.7, model="mlp", dropout=0.5)
    (tmp_path / "sweeps").mkdir()
    sweep_file({"epochs": {"value": EPOCHS}}).rename(tmp_path / "sweeps" / "small.yaml")
    monkeypatch.chdir(tmp_path)
    listed = []
    points = search.Sweep.points
    monkeypatch.setattr(search.Sweep, "points", lambda sweep, **given: listed.append(sweep) or points(sweep, **given))
    (found,) = summarize.sections(runs.load("runs"))
    assert len(found.runs) == 1 and len(listed) == 1


def test_the_best_of_a_tie_is_not_said_to_be_alone():
    levels = {"first": 0.8, "second": 0.8, "third": 0.7}
    lucky = {name: [(line(level + luck, 0.0), FLAT) for luck in LUCK] for name, level in levels.items()}
    said = " ".join(answers.sentences(None, section(lucky)))
    assert re.search(r"\*\*(first|second)\*\* has the highest validation accuracy, together with (first|second),", said)


def test_the_caption_names_what_makes_training_harder_only_if_a_run_has_it():

    for dropout, augment, words in ((0.0, (), ()), (0.5, (), ("dropout",)), (None, ("flip",), ("augmented",))):
        found = section({"a": [(line(0.7, 0.0), FLAT)]})
        runs_ = found.runs.assign(dropout=dropout, augment=[augment])
        caption = brief.picture(replace(found, runs=runs_), figures.looks_of(["a"])).caption
        assert [word for word in ("dropout", "augmented") if word in caption] == list(words)
