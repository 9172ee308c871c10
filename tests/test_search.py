"""Points of sweeps: parameters in W&B's vocabulary, random and Bayesian searches, Hyperband's rule."""

import argparse
import itertools
import json
import math
import re
import time
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from study.config import Config
from study.config.argv import parser, read_argv, read_config
from study.local import status
from study.local.plan import Plan
from study.record.directory import RunDirectory
from study.sweeps import adaptive, grid, random
from study.sweeps import definition as search
from study.sweeps import distributions as space
from study.sweeps.file import METHODS
from study.sweeps.hyperband import Hyperband
from study.sweeps.method import Method
from study.sweeps.standing import Runs
from study.system.errors import UserError

RANGES = ("int_uniform", "uniform", "log_uniform_values", "inv_log_uniform_values", "q_uniform", "q_log_uniform_values")
DRAWN = {"dropout": {"min": 0.0, "max": 0.6}, "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.5}}


@st.composite
def parameters(draw):
    """Draw what a sweep file may say of a parameter that is a number."""
    numbers = st.floats(0.01, 50, allow_subnormal=False).map(lambda number: round(number, 3))
    distribution = draw(st.sampled_from([name for name in space.DISTRIBUTIONS if not name.startswith("c")]))
    keys = space.DISTRIBUTIONS[distribution]
    given = {"distribution": distribution} | {
        key: draw(numbers) for key in keys if key in ("q", "a", "b", "mu", "sigma")
    }
    if "min" in keys:
        low, high = sorted(draw(st.sets(st.integers(1, 60), min_size=2, max_size=2)))
        given |= {"min": low, "max": high}
    return given


@given(parameters(), st.floats(0, 1, exclude_max=True, allow_subnormal=False))
def test_a_value_leads_to_a_quantile_that_leads_to_the_value(given, quantile):
    parameter = space.read("lr", given)
    value = parameter.value(quantile)
    back = parameter.quantile(value)
    assert back is not None and 0 <= back <= 1
    assert math.isclose(parameter.value(back), value, rel_tol=1e-4, abs_tol=1e-12)
    if given["distribution"] in RANGES:
        slack = given.get("q", 0) / 2 + 1e-9
        assert given["min"] * (1 - 1e-6) - slack <= value <= given["max"] * (1 + 1e-6) + slack
        assert parameter.quantile(given["max"] * 2 + 1000) is None


@given(
    parameters(),
    st.floats(0, 1, exclude_max=True, allow_subnormal=False),
    st.floats(0, 1, exclude_max=True, allow_subnormal=False),
)
def test_a_greater_quantile_is_no_smaller_value(given, one, other):
    parameter = space.read("lr", given)
    low, high = sorted([one, other])
    assert parameter.value(low) <= parameter.value(high)


@pytest.mark.parametrize(
    ("given", "quantiles"),  # the quantiles 0.1, 0.5 and 0.9, as the package `sweeps` 0.3.0 gives them
    [
        ({"min": 1, "max": 5}, [1, 3, 5]),
        ({"min": 0.1, "max": 0.7}, [0.16, 0.4, 0.64]),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1}, [0.000199526, 0.00316228, 0.0501187]),
        ({"distribution": "log_uniform", "min": -5, "max": 0}, [0.011109, 0.082085, 0.606531]),
        ({"distribution": "inv_log_uniform", "min": 1, "max": 4}, [0.0247235, 0.082085, 0.272532]),
        ({"distribution": "inv_log_uniform_values", "min": 0.01, "max": 4.0}, [0.0182056, 0.2, 2.19712]),
        ({"distribution": "q_uniform", "min": 16, "max": 128, "q": 16}, [32, 64, 112]),
        ({"distribution": "q_log_uniform_values", "min": 16, "max": 256, "q": 16}, [16, 64, 192]),
        ({"distribution": "normal", "mu": 2, "sigma": 0.5}, [1.35922, 2.0, 2.64078]),
        ({"distribution": "q_normal", "mu": 3, "sigma": 2}, [0.0, 3.0, 6.0]),
        ({"distribution": "log_normal", "mu": -2, "sigma": 0.5}, [0.0713059, 0.135335, 0.25686]),
        ({"distribution": "beta", "a": 2, "b": 5}, [0.0925953, 0.26445, 0.510316]),
        ({"values": ["a", "b", "c"], "probabilities": [0.2, 0.5, 0.3]}, ["a", "b", "c"]),
        ({"values": [1, 2, 3]}, [1, 2, 3]),
        ({"value": 7}, [7, 7, 7]),
    ],
)
def test_distributions_mean_what_they_mean_in_wandb(given, quantiles):
    parameter = space.read("lr", given)
    assert [parameter.value(quantile) for quantile in (0.1, 0.5, 0.9)] == quantiles


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min": "small", "max": 0.1}, "min must be a number, not 'small'"),
        ({"min": 0.1}, "distribution uniform needs 'max'"),
        ({"min": 0, "max": 0.5}, "W&B takes min 0 and max 0.5 together only with a `distribution`"),
        ({"min": 0.5, "max": 0.1}, "min must be less than max, not 0.5 and 0.1"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "must be greater than 0, not 0"),
        ({"distribution": "log_uniform", "min": 16, "max": 512}, "are exponents of e; log_uniform_values takes"),
        ({"distribution": "unifrom", "min": 0, "max": 1}, "unknown distribution 'unifrom'; did you mean 'uniform'?"),
        ({"min": 0.1, "max": 0.2, "mx": 1}, "has no key 'mx'; did you mean 'max'?"),
        ({"values": [1, 2], "probabilities": [0.5]}, "must be one per value and sum to 1, not [0.5]"),
        ({"values": [1, 2], "probabilities": [0.5, 0.4]}, "must be one per value and sum to 1"),
        ({"distribution": "normal", "sigma": -1}, "sigma must be at least 0, not -1"),
        (0.1, "needs `value: …`, `values: […]` or `min: …` and `max: …`, not 0.1"),
    ],
)
def test_a_mistake_in_a_parameter_is_one_sentence(given, message):
    with pytest.raises(UserError) as caught:
        space.read("lr", given)
    assert message in str(caught.value)


RATES = """
method: random
parameters:
  dataset: {value: digits}
  model: {value: mlp}
  lr: {min: 1e-5, max: 0.1}
  dropout: {distribution: q_uniform, min: 0, max: 5e-1, q: 1e-2}
  batch_size: {values: [1e2, 64]}
"""


def test_random_points_follow_from_the_file_and_the_index(sweep_file):
    def points(run_cap=20, **changed):
        return search.read(sweep_file(DRAWN | changed, method="random", run_cap=run_cap)).points()

    first = points()
    assert len(first) == 20
    assert [point.config for point in points()] == [point.config for point in first]
    assert [point.config for point in points(run_cap=30)][:20] == [point.config for point in first]
    other = points(epochs={"value": 3}, dropout={"min": 0.2, "max": 0.3})
    assert [point.config.lr for point in other] == [point.config.lr for point in first]
    assert all(0.2 <= point.config.dropout <= 0.3 for point in other)
    rates = sorted(math.log10(point.config.lr) for point in points(run_cap=400))
    assert rates[200] == pytest.approx((-4 + math.log10(0.5)) / 2, abs=0.2), "the median of a log-uniform draw"


def test_a_grid_takes_ranges_of_whole_numbers_and_steps_and_a_cap(sweep_file):
    counted = {"dropout": {"distribution": "q_uniform", "min": 0.0, "max": 0.5, "q": 0.2}, "seed": {"min": 0, "max": 2}}
    points = search.read(sweep_file(counted)).points()
    assert [(point.config.dropout, point.config.seed) for point in points] == [
        (dropout, seed) for dropout in (0.0, 0.2, 0.4) for seed in (0, 1, 2)
    ]
    assert len(search.read(sweep_file(counted, run_cap=4)).points()) == 4


@pytest.mark.parametrize(
    ("parameters", "cap", "points"),  # as grid_search_next_runs of the package `sweeps` 0.3.0 gives them
    [
        ({"seed": {"values": [1, 0]}, "dropout": {"values": [0.5, 0]}}, None, [(0.5, 1), (0.5, 0), (0, 1), (0, 0)]),
        ({"seed": {"values": [1, 1.0, 0]}, "dropout": {"values": [0, 0.0, 0.5]}}, 3, [(0, 1), (0, 0), (0.5, 1)]),
        ({"seed": {"values": [1, "1"]}, "dropout": {"value": 0.5}}, None, [(0.5, 1), (0.5, "1")]),
        ({"seed": {"value": 0}, "dropout": {"distribution": "q_uniform", "min": 0.1, "max": 0.5, "q": 0.1}}, None,
         [(0.1, 0), (0.2, 0), (0.30000000000000004, 0), (0.4, 0)]),
    ],
)  # fmt: skip
def test_the_points_of_a_grid_are_those_of_wandb_in_its_order(parameters, cap, points):
    read = {name: space.read(name, content) for name, content in parameters.items()}
    assert [(values["dropout"], values["seed"]) for values in grid.points(read, cap)] == points
    assert grid.size(read, cap) == len(points)


CHOICES = {
    "model": ["mlp", "cnn", "resnet18"], "optimizer": ["sgd", "adam"], "momentum": [0.9, 0.5, "none"],
    "lr": [0.1, "0.01", "none"], "weight_decay": [0, 0.0, 1e-4], "augment": ["", "flip", "flip,crop"],
    "crop_share": [0.1, 0.125], "schedule": ["none", "step"], "step_epochs": [2, 5.0], "seed": [0, 1, "1"],
    "hidden": [100, [100], "64,32"], "setting": ["optimizer=adam", "batch_size=32 seed=3"], "threads": [1, 2],
    "pretrained": [True, False], "finetune": ["head", "svm"], "epochs": [1, 2], "warmup_epochs": [0, 1, 2],
    "nesterov": [True, False], "filters": ["8,8,8", "8,8"], "image_size": [4, 16], "batch_statistics": [True, False],
}  # fmt: skip


@given(
    st.lists(st.sampled_from(sorted(CHOICES)), unique=True, max_size=6).flatmap(
        lambda names: st.fixed_dictionaries({name: st.sets(st.sampled_from(range(len(CHOICES[name]))), min_size=1)
                                             for name in names})
    ),
    st.one_of(st.none(), st.integers(1, 60)),
)  # fmt: skip
def test_points_have_the_configs_of_their_values(chosen, cap):
    """What does not apply to a point is left out of its values, and nothing else changes; a mistake is no point."""
    parameters = {name: {"values": [CHOICES[name][place] for place in places]} for name, places in chosen.items()}
    content = {"method": "grid", "parameters": {"dataset": {"value": "digits"}} | parameters}
    sweep = search.parse("small", content | ({"run_cap": cap} if cap else {}))
    try:
        points = sweep.points()
    except UserError:
        with pytest.raises(UserError):
            sweep.count()
        return
    assert all(Config.parse(point.values) == point.config for point in points)
    assert sweep.count() == len({point.config.fingerprint for point in points}) == len(points)


def test_a_large_grid_is_counted_at_once(sweep_file):
    """By one point after the other, this takes hours. A wrong value is found all the same."""
    large = {
        "epochs": {"min": 1, "max": 100}, "seed": {"min": 0, "max": 999}, "model": {"values": ["mlp", "cnn"]},
        "momentum": {"distribution": "q_uniform", "min": 0.1, "max": 0.9, "q": 0.01}, "dropout": {"value": 0.5},
        "optimizer": {"values": ["sgd", "adam"]},
    }  # fmt: skip
    begun = time.monotonic()
    assert search.read(sweep_file(large)).count() == 2 * 2 * 100 * 1000 * 80
    assert time.monotonic() - begun < 20
    with pytest.raises(UserError, match="cubic"):
        search.read(sweep_file(large | {"schedule": {"values": ["none", "cubic"]}})).count()


def test_a_combination_that_no_run_can_have_is_found_before_any_is_trained(call, sweep_file):
    """The weights of a run can only be sent to W&B if they are kept."""
    path = sweep_file({"wandb_extras": {"values": ["", "model"]}, "keep_weights": {"values": [True, False]}})
    assert "keep_weights" in call("study.sweep", "check", path, code=2).stderr


CONDITIONAL = {"optimizer": {"values": ["sgd", "adam"]}, "momentum": {"values": [0.5, 0.9]}}


def test_options_that_do_not_apply_to_a_point_are_left_out(sweep_file):
    """A grid may combine options of which one decides whether another applies."""
    sweep = search.read(sweep_file(CONDITIONAL | {"seed": {"value": 0}, "dropout": {"value": 0}}))
    points = sweep.points()
    assert [(point.config.optimizer, point.config.momentum) for point in points] == [
        ("sgd", 0.5), ("adam", None), ("sgd", 0.9)]  # fmt: skip
    fixed = {"dataset": "digits", "model": "mlp", "epochs": 2}
    assert points[1].config == Config.parse(fixed | {"optimizer": "adam"})
    assert "momentum" not in points[1].values and points[0].values["momentum"] == 0.5
    assert [sweep.locate(point.config.model_dump()).values for point in points] == [point.values for point in points]
    recorded = points[1].config.model_dump() | {"momentum": 0.9}
    assert Config.recorded(recorded) == points[1].config, "W&B keeps the value of its sweep"


def test_an_option_that_applies_to_no_point_is_a_mistake(sweep_file):
    for changed in ({"optimizer": {"values": ["adam", "timm:lion"]}}, {"setting": {"values": ["optimizer=adam"]}},
                    {"setting": {"values": ["optimizer=sgd", "optimizer=adam momentum=0.3"]}}):  # fmt: skip
        with pytest.raises(UserError, match=r"optimizer .* has no momentum; only sgd has it"):
            search.read(sweep_file(CONDITIONAL | changed)).points()


def test_a_rare_choice_is_no_reason_to_refuse_the_option_that_it_has(sweep_file):
    rare = {"optimizer": {"values": ["sgd", "adam"], "probabilities": [0.00001, 0.99999]}}
    assert len(search.read(sweep_file(CONDITIONAL | rare, method="random", run_cap=5)).points()) > 0


def test_a_network_without_pretraining_is_not_finetuned(sweep_file):
    parameters = {"model": {"values": ["mlp", "resnet18"]}, "pretrained": {"value": True},
                  "finetune": {"values": ["svm", "all"]}, "epochs": {"value": 5}}  # fmt: skip
    points = search.read(sweep_file(parameters | {"seed": {"value": 0}, "dropout": {"value": 0.0}})).points()
    assert [(point.config.model, point.config.finetune, point.config.epochs) for point in points] == [
        ("mlp", None, 5), ("resnet18", "svm", 1), ("resnet18", "all", 5)]  # fmt: skip


def test_a_bayesian_search_of_lists_has_as_many_points_as_different_configs(sweep_file):
    """Momentum does not apply to adam: three of the four combinations are different."""
    parameters = {"optimizer": {"values": ["sgd", "adam"]}, "momentum": {"values": [0.5, 0.9]}}
    parameters |= {"dropout": {"value": 0.0}, "seed": {"value": 0}}
    grid, bayes = (search.read(sweep_file(parameters, method=method, run_cap=20)) for method in ("grid", "bayes"))
    points = grid.points()
    assert grid.count() == bayes.count() == len(points) == 3
    assert (bayes.open_points(points[:1]), bayes.open_points(points)) == (2, 0)
    assert search.read(sweep_file(parameters, method="bayes", run_cap=2)).open_points(points[:1]) == 1


def test_a_metric_that_no_run_would_log_is_an_error_wherever_it_is_given(sweep_file):
    path = sweep_file(method="bayes", run_cap=5, metric={"name": "val/macro_f1", "goal": "maximize"})
    assert search.read(path, {"metric": "val/macro_f1"}).size == 5
    with pytest.raises(UserError, match="--set metric=val/loss: only runs with --metric val/macro_f1 log"):
        search.read(path, {"metric": "val/loss"})
    setting = {"setting": {"values": ["lr=0.1", "lr=0.2 metric=val/loss"]}}
    with pytest.raises(UserError, match="only runs with --metric val/macro_f1 log"):
        search.read(sweep_file(setting, metric={"name": "val/macro_f1", "goal": "maximize"}))


def test_a_bayesian_search_over_options_that_do_not_always_apply(sweep_file, tmp_path):
    parameters = CONDITIONAL | {"momentum": {"min": 0.1, "max": 0.9}, "seed": {"value": 0}, "dropout": {"value": 0}}
    sweep = search.read(sweep_file(parameters, method="bayes", run_cap=8))
    base, runs = {"runs_dir": str(tmp_path / "runs")}, Runs(tmp_path / "runs")
    found = list(adaptive.choose(sweep, base, runs, set()))
    assert {point.config.optimizer for point in found} == {"sgd", "adam"}
    assert len(runs.points(sweep, base)) == len(found) > 2


WRONG = """
method: random
metric: {name: validation_loss, gaol: minimize}
run_cap: some
parameters:
  learning_rate: {min: 0.1, max: 0.2}
  dropout:
    values: [0.1, 1.5,
             2]
  optimizer:
    parameters:
      lr: {value: 1}
      name: {value: adam}
  batch_size: {min: 16, max: 8, distribution: int_uniform}
  setting:
    values:
      - model=mlp
      - modle=cnn epochs=-1
  classes: {values: [[no, yes]]}
  tags: {value: TAG}
project: a/b
comand: [python]
""".replace("TAG", "x" * 65)


def test_all_mistakes_of_a_file_are_reported_at_once_with_their_lines(tmp_path, call):
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG.lstrip(), encoding="utf-8")
    lines = call("study.sweep", "check", path, code=2).stderr.removeprefix("error: ").splitlines()
    found = [line.removeprefix(f"{path}:").split(": ", 1) for line in lines]
    expected = [
        (2, "val/loss"), (2, "'goal'"), (3, "run_cap must"), (5, "'lr'"), (7, "not 1.5"), (8, "not 2"),
        (11, "optimizer.lr"), (12, "optimizer.name"), (13, "min must be less"), (17, "'model'"), (17, "epochs must"),
        (18, "quote names"), (19, "at most 64"), (20, "project must"), (21, "'command'"),
    ]  # fmt: skip
    assert [int(number) for number, _ in found] == [number for number, _ in expected]
    assert all(any(part in text for number, text in found if int(number) == line) for line, part in expected)


def test_numbers_are_numbers_however_yaml_reads_them(tmp_path):
    """YAML 1.1 reads a number with an exponent but without a point as text."""
    path = tmp_path / "rates.yaml"
    path.write_text(RATES, encoding="utf-8")
    assert yaml.safe_load(RATES)["parameters"]["lr"]["min"] == "1e-5", "the reason for this test"
    sweep = search.read(path, {"run_cap": "20"})
    assert sweep.parameters["lr"].keys == {"min": 1e-5, "max": 0.1}
    assert sweep.parameters["dropout"].keys["q"] == 0.01
    configs = [point.config for point in sweep.points()]
    assert len(configs) == 20 and {config.batch_size for config in configs} == {100, 64}
    drawn = [config.model_copy(update={"dropout": 0.0}).fingerprint for config in configs]
    path.write_text(RATES.replace("1e-5", "0.00001").replace("1e-2", "0.01"), encoding="utf-8")
    points = search.read(path, {"run_cap": "20"}).points()
    assert [point.config.model_copy(update={"dropout": 0.0}).fingerprint for point in points] == drawn


def test_a_metric_is_only_needed_where_results_choose(sweep_file):
    for method, metric in (("grid", None), ("random", {"name": "val/acc"})):
        sweep = search.read(sweep_file(metric=metric, method=method), {"run_cap": "2"})
        assert len(sweep.points()) == 2 and sweep.maximize
    assert not search.read(sweep_file(metric={"name": "val/loss"}, method="bayes", run_cap=2)).maximize


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_the_end_of_a_range_may_be_no_value(sweep_file, method):
    open_end = {"lr": {"distribution": "uniform", "min": 0, "max": 0.1}}
    sweep = search.read(sweep_file(open_end, method=method, run_cap=5))
    assert all(point.config.lr > 0 for point in sweep.points())


@pytest.mark.parametrize("cap", ["0", "-1", "2.5", "many"])
def test_a_number_of_runs_that_is_none_is_a_mistake(sweep_file, cap):
    with pytest.raises(UserError, match="run_cap must be a whole number from 1"):
        search.read(sweep_file(), {"run_cap": cap})


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("accuracy", "val/acc"), ("val_acc", "val/acc"), ("validation_accuracy", "val/acc"), ("eval/acc", "val/acc"),
        ("epoch/val_loss", "val/loss"), ("validation_loss", "val/loss"), ("loss", "val/loss"),
        ("test_accuracy", "test/acc"), ("training.loss", "train/loss"), ("best_val_accuracy", "best/val_acc"),
        ("val/acuracy", "val/acc"),
    ],
)  # fmt: skip
def test_a_metric_of_another_name_is_understood(sweep_file, name, known):
    with pytest.raises(UserError, match=f"unknown metric '{name}'; did you mean '{known}'"):
        search.read(sweep_file(metric={"name": name}))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("learning_rate", "lr"), ("learn-rate", "lr"), ("optimizer.lr", "lr"), ("bs", "batch_size"),
        ("wd", "weight_decay"), ("arch", "model"), ("patience", "early_stopping"), ("grad_clip", "clip_norm"),
        ("num_epochs", "epochs"), ("optim", "optimizer"), ("step_size", "step_epochs"), ("gamma", "step_factor"),
        ("dropuot", "dropout"), ("fc_layer_size", "hidden"), ("data_augmentation", "augment"),
        ("betas", None), ("beta1", None), ("kernel", None), ("keep_prob", None),
    ],
)  # fmt: skip
def test_an_option_of_another_name_is_understood_and_nothing_else_suggested(sweep_file, name, known):
    with pytest.raises(UserError) as caught:
        search.read(sweep_file({name: {"value": 1}})).points()
    message = str(caught.value)
    assert f"did you mean '{known}'" in message if known else "did you mean" not in message


PYTHON = ["${env}", "${interpreter}"]


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ([*PYTHON, "-m", "study.train", "--model=mlp", "--epochs", "3", "--lr=1", "${args}"], ""),
        ([*PYTHON, "-m", "study.train", "${args}", "--lr=0.3", "--batch_size", "16"], ""),
        ([*PYTHON, "${program}", "--model=mlp", "${args_no_equals}"], "study/train.py"),
        ([*PYTHON, "-m", "${program}", "${args}"], "study.train"),
        (["uv", "run", "python3.12", "./study/train.py", "--model=mlp", "${args_no_boolean_flags}", "--nesterov"], ""),
        ([*PYTHON, "-m", "study.train", "--epochs=3", "--config", "${args_json_file}"], ""),
        (None, "study/train.py"),
        (None, ""),
    ],
)
def test_a_point_is_what_wandb_agent_would_start(sweep_file, tmp_path, monkeypatch, command, program):
    """The client's own functions make the command line."""
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    varied = {"lr": {"values": [0.1, 0.01]}, "softmax_output": {"values": [True]}, "momentum": {"value": 0.9}}
    chosen = {"command": command} if command else {}
    sweep = search.read(sweep_file(varied, **chosen, program=program))
    points = {point.config.fingerprint for point in sweep.points()}
    started = set()
    for values in itertools.product([0.1, 0.01], [0.0, 0.5], [0, 1]):
        given = dict(zip(("lr", "dropout", "seed"), values, strict=True))
        given |= {"dataset": "digits", "model": "mlp", "epochs": 2, "softmax_output": True, "momentum": 0.9}
        made = create_sweep_command_args({"args": {name: {"value": value} for name, value in given.items()}})
        file = tmp_path / "args.json"
        file.write_text(made["args_json"][0], encoding="utf-8")
        words = []
        for word in create_sweep_command(list(command or ["${env}", "${interpreter}", "${program}", "${args}"])):
            words += [str(file)] if word == "${args_json_file}" else made.get(word[2:-1], [word])
        words = words[next(place for place, word in enumerate(words) if "train" in word or word == "${program}") + 1 :]
        options = parser("study.train", "")
        options.add_argument("--config", default=argparse.SUPPRESS)
        read = read_argv(options, words)
        start = read_config(read.pop("config")) if "config" in read else {}
        started.add(Config.parse(start | read).fingerprint)
    assert points == started


@pytest.mark.parametrize(
    ("command", "program", "message"),
    [
        (["echo", "study.train", "${args}"], "", "does not start study.train"),
        (["echo", "-m", "study.train", "${args}"], "", "does not start study.train"),
        ([*PYTHON, "${args}", "-m", "study.train"], "", "after study.train"),
        ([*PYTHON, "-m", "study.train"], "", "after study.train"),
        ([*PYTHON, "-m", "study.train", "${args_no_hyphens}"], "", "after study.train"),
        ([*PYTHON, "-m", "study.train", "--modl=mlp", "${args}"], "", "did you mean '--model'"),
        ([*PYTHON, "-m", "study.train", "${args_json_file}"], "", '"--config" before'),
        ([*PYTHON, "-m", "study.train", "${args_no_boolean_flags}"], "", "leaves out decay_norm_bias=False"),
        ("python -m study.train", "", "command must be ["),
        (None, "main.py", ":25: program main.py does not train here; write `program: study/train.py`"),
        ([*PYTHON, "-m", "study.train", "--device=gpuu", "--lr=-3", "${args}"], "", "lr must be greater than 0"),
    ],
)
def test_a_command_that_does_not_train_the_points_is_a_mistake(sweep_file, command, program, message):
    given = {"command": command, "program": program}
    with pytest.raises(UserError, match=re.escape(message)):
        search.read(sweep_file({"decay_norm_bias": {"values": [True, False]}}, **given))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"method": "random"}, "method random needs `run_cap`"),
        ({"method": "bayes", "metric": None}, "method bayes needs `metric`"),
        ({"method": "bayes", "metric": {"name": "val/acc"}}, "without a goal, W&B minimizes it"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1}, "metric": None}, "early_terminate needs `metric`"),
        ({"run_cap": 0}, "run_cap must be a whole number from 1, not 0"),
        ({"parameters": DRAWN}, "parameter dropout: a grid cannot have distribution uniform; give its `values`"),
        ({"metric": {"name": "val/acc", "gaol": "maximize"}}, "metric: unknown key 'gaol'; did you mean 'goal'?"),
        ({"early_terminate": {"type": "median"}}, "early_terminate: type must be hyperband, such as {type:"),
        ({"early_terminate": "hyperband"}, "early_terminate must be {type: hyperband, min_iter: 3}, not 'hyperband'"),
        ({"early_terminate": {"type": "hyperband"}}, "early_terminate needs min_iter, or max_iter and s"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0}}, "min_iter must be a whole number from 1 to 1"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1}}, "eta must be greater than 1 and at most"),
        ({"early_terminate": {"type": "hyperband", "miniter": 1}}, "unknown key 'miniter'; did you mean 'min_iter'?"),
        ({"controller": "local"}, "controller must be {type: cloud} or {type: local}, not 'local'"),
        ({"controller": {"type": "lokal"}}, "controller: type must be cloud or local, not 'lokal'"),
        ({"project": 3}, "project must be a text, not 3"),
        ({"command": ["python", "train.py", "${args}"]}, "command must be [\"${env}\""),
        (
            {"method": "random", "run_cap": 3, "parameters": {"dropout": {"min": 1.5, "max": 2.5}}},
            "dropout must be less than 1.0, not",
        ),
        (
            {"method": "bayes", "run_cap": 3, "parameters": {"dropout": {"min": 0.5, "max": 1.001}}},
            "dropout must be less than 1.0, not 1.00",
        ),
    ],
)  # fmt: skip
def test_check_finds_what_is_wrong_with_a_search(sweep_file, call, keys, message):
    path = sweep_file(**keys)
    result = call("study.sweep", "check", path, code=2)
    assert message in result.stderr and "Traceback" not in result.stderr


def test_a_bayesian_search_learns_from_the_runs_directory(sweep_file, tmp_path):
    path = sweep_file(
        {"lr": DRAWN["lr"], "optimizer": {"values": ["sgd", "adam"]}, "seed": {"value": 0}, "dropout": {"value": 0}},
        method="bayes", run_cap=30,
    )  # fmt: skip
    sweep, runs = search.read(path), Runs(tmp_path / "runs")
    base = {"runs_dir": str(tmp_path / "runs")}

    def train(count):
        """Write `count` runs whose accuracy is best with adam at a learning rate of 0.01."""
        errors = []
        given = {point.config.fingerprint for point in runs.points(sweep, base)}
        for point in itertools.islice(adaptive.choose(sweep, base, Runs(tmp_path / "runs"), given), count):
            config = point.config
            error = abs(math.log10(config.lr) + 2) / 5 + 0.3 * (config.optimizer == "sgd")
            directory = RunDirectory.of(config)
            directory.append({"epoch": 1, "val/acc": 1 - error})
            directory.write_summary({"last/epoch": 1})
            directory.write_info(directory.info() | {"state": "diverged"})  # the state that needs no evaluation
            errors.append(error)
        return errors

    first = train(15)
    assert len(runs.points(sweep, base)) == 15
    assert all(info["sweeps"] == ["small"] for info in runs.infos().values())
    later = train(100)
    assert len(later) == 15, "up to run_cap"
    assert sum(later) < 0.75 * sum(first), "what was learnt is not forgotten"
    assert len(runs.points(sweep, base)) == 30
    assert runs.points(sweep.replaced({"epochs": "3"}), base) == [], "with other options they are no points of it"
    assert train(5) == []


@pytest.mark.parametrize("setting", [None, ["epochs=3 optimizer=sgd", "epochs=4 optimizer=adam"]])
def test_a_recorded_run_is_found_at_its_point(sweep_file, setting):
    """Read back what a run records, in which options may be written in another way than in the file."""
    drawn = DRAWN | {
        "hidden": {"min": 16, "max": 256},
        "batch_size": {"distribution": "q_log_uniform_values", "min": 16, "max": 256, "q": 16},
        "augment": {"values": ["flip,crop", "none", "crop"]},
        "batch_norm": {"values": ["true", "false"]},
        "label_smoothing": {"distribution": "beta", "a": 1, "b": 9},
    }
    sweep = search.read(
        sweep_file(drawn | ({"setting": {"values": setting}} if setting else {}), method="random", run_cap=30)
    )
    for point in sweep.points():
        found = sweep.locate(json.loads(json.dumps(point.config.model_dump())))
        assert found.config.fingerprint == point.config.fingerprint
        assert {name: str(value) for name, value in found.values.items()} == {
            name: str(value) for name, value in point.values.items()
        }
        assert sweep.locate(point.config.model_dump() | {"weight_decay": 0.1}) is None
        assert sweep.locate(point.config.model_dump() | {"lr": 0.9}) is None
        assert sweep.locate(point.config.model_dump() | {"no_such_option": 1}) is None


def test_points_that_wandb_drew_are_those_of_its_runs(sweep_file):
    path = sweep_file(DRAWN, method="random", run_cap=3)
    ours = search.read(path)
    theirs = replace(ours, run_cap=None, drawn_elsewhere=True)
    recorded = [{"config": ours.point(random.draw(ours.parameters, index)).config.model_dump()} for index in (7, 9)]
    inside = {point.config.fingerprint for point in theirs.points(recorded=recorded)}
    assert inside == {ours.point(random.draw(ours.parameters, index)).config.fingerprint for index in (7, 9)}
    outside = [{"config": recorded[0]["config"] | {"epochs": 77}}]
    assert theirs.points(recorded=outside) == []


def test_a_search_ends_where_there_are_no_more_points(sweep_file, tmp_path):
    sweep = search.read(sweep_file(method="bayes", run_cap=10))
    base = {"runs_dir": str(tmp_path / "runs")}
    assert len(list(adaptive.choose(sweep, base, Runs(tmp_path / "runs"), set()))) == 4


def test_searches_and_grids_that_share_points_are_trained_together(sweep_file, command, tmp_path):
    """A search may choose what a grid beside it has trained; one of values alone is over with its last combination."""
    fixed = {"epochs": {"value": 1}, "dropout": {"value": 0.0}, "seed": {"value": 0}}
    grid_file = sweep_file(fixed | {"lr": {"values": [0.01, 0.05]}}).rename(tmp_path / "grid.yaml")
    keys = {"method": "bayes", "run_cap": 8}
    searches = [
        sweep_file(fixed | {"lr": {"values": [0.01, 0.02, 0.05]}}, name=name, **keys).rename(tmp_path / f"{name}.yaml")
        for name in ("first", "second")
    ]
    words = ("study.sweep", "run", grid_file, *searches, "--wandb=disabled", "--per-device=1", "--devices=cpu")
    assert "first.yaml: 3 runs" in command("study.sweep", "check", searches[0]).stdout
    assert "8 runs, 8 to train" in (said := command(*words).stdout) and " missing" not in said, said
    assert len(list((tmp_path / "runs").glob("*/summary.json"))) == 3
    assert "nothing to do" in command(*words).stdout


def test_a_search_ends_where_a_setting_overrides_what_is_drawn(sweep_file, tmp_path):
    parameters = {
        "setting": {"values": ["lr=0.2 weight_decay=0.5", "lr=0.1"]},
        "weight_decay": {"min": 0.0, "max": 0.1},
    }
    sweep = search.read(sweep_file(parameters, method="bayes", run_cap=6))
    base, runs = {"runs_dir": str(tmp_path / "runs")}, Runs(tmp_path / "runs")
    chosen = list(adaptive.choose(sweep, base, runs, set()))
    assert len(chosen) == 6 == len(runs.points(sweep, base))


def test_a_search_that_cannot_find_its_own_runs_says_so(sweep_file, tmp_path):
    sweep = search.read(sweep_file({"runs_dir": {"value": str(tmp_path / "other")}, "lr": {"min": 0.1, "max": 0.2}},
                                   method="bayes", run_cap=3))  # fmt: skip
    with pytest.raises(UserError, match="cannot have the parameter runs_dir"):
        list(adaptive.choose(sweep, {}, Runs(tmp_path / "runs"), set()))


def test_a_new_method_is_a_line_in_the_table(sweep_file, tmp_path, monkeypatch, capsys):
    """Both kinds: points that are known beforehand, and points that are chosen when they are needed."""

    def ends(parameters, run_cap):
        return ({name: parameter.value(share) for name, parameter in parameters.items()} for share in (0.0, 1.0))

    def next_rates(name, parameters, run_cap, trials):
        assert [trial.state for trial in trials] == ["running"] * len(trials)
        middle = {name: parameter.value(0.5) for name, parameter in parameters.items()}
        return (middle | {"lr": 0.1 * step} for step in itertools.count(1 + len(trials)))

    monkeypatch.setitem(METHODS, "ends", Method(ends))
    monkeypatch.setitem(METHODS, "rates", Method(next=next_rates))
    path = sweep_file(DRAWN | {"seed": {"value": 0}}, method="random", run_cap=2)
    base, runs = {"runs_dir": str(tmp_path / "runs")}, Runs(tmp_path / "runs")
    for method, known in (("ends", 2), ("rates", 0)):
        sweep = replace(search.read(path), method=method)
        plan = Plan([sweep], base, runs)
        assert (len(plan.known), plan.coming) == (known, 2 - known)
        status.show(sweep, runs, base)
        assert "2 missing" in capsys.readouterr().out
    jobs = plan.jobs()
    assert [round(job.config.lr, 4) for job in jobs] == [0.1, 0.2]
    assert len(runs.points(sweep, base)) == 2


MERGED = """
method: grid
metric: {name: val/acc, goal: maximize}
parameters:
  dataset: &common {value: digits}
  model: {<<: *common, value: mlp}
  seed: {values: [0, 1]}
"""


def test_yaml_merges_and_names_that_stand_twice(tmp_path, call):
    (tmp_path / "merged.yaml").write_text(MERGED, encoding="utf-8")
    assert "2 runs" in call("study.sweep", "check", "merged.yaml").stdout
    (tmp_path / "twice.yaml").write_text(
        MERGED + "  batch-size: {value: 3}\n  batch_size: {value: 4}\n", encoding="utf-8"
    )
    mistake = call("study.sweep", "check", "twice.yaml", code=2).stderr
    assert mistake == "error: twice.yaml:9: 'batch_size' appears twice, first in line 8\n"


@pytest.mark.parametrize(
    ("parameters", "keys", "message"),
    [
        ({"setting": {"values": ["tags='a"]}}, {}, "parameter setting: No closing quotation in \"tags='a\""),
        ({"setting": {"values": [["a", "b"]]}}, {}, "needs `values`, texts of key=value pairs"),
        ({"setting": {"values": [None]}}, {}, "needs `values`, texts of key=value pairs"),
        ({"lr": {"distribution": ["uniform"], "min": 1, "max": 2}}, {}, "unknown distribution ['uniform']"),
        ({"lr": {"min": 1, "max": 10**400}}, {"method": "random", "run_cap": 2}, "max must be a whole number, not 10"),
        ({"lr": {"value": {1: 2, "a": 3}}}, {}, "parameter lr: a value must be a text, a number, true or false, not {"),
        ({"lr": {"distribution": "log_normal", "mu": 1000}}, {"method": "bayes", "run_cap": 2}, None),
        ({"lr": {"values": [1, 2], "probabilities": [1, 10**400]}}, {}, "probabilities must be one per value"),
        ({}, {"early_terminate": {"type": "hyperband", "max_iter": 5, "s": 9**40}}, "s must be a whole number"),
        ({}, {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1e300}}, "eta must be greater than 1"),
        ({"lr": {"distribution": "log_uniform", "min": 1e-4, "max": 0.1}}, {"method": "random", "run_cap": 2},
         "min and max of log_uniform are exponents of e; log_uniform_values takes the values themselves"),
    ],
)  # fmt: skip
def test_no_sweep_file_ends_in_a_traceback(sweep_file, call, parameters, keys, message):
    result = call("study.sweep", "check", sweep_file(parameters, **keys), code=2 if message else 0)
    assert (message or "") in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("text", ["!!timestamp a", "!!bool a", "9" * 5000, "0x" + "f" * 5000, "[" * 2000, "2020-13-45"])
def test_no_yaml_ends_in_a_traceback(text, tmp_path, call):
    (tmp_path / "odd.yaml").write_text(f"run_cap: {text}", encoding="utf-8")
    assert "Traceback" not in call("study.sweep", "check", "odd.yaml", code=2).stderr


def test_hyperband_stops_what_wandb_stops():
    """Compare with the example in W&B's own engine (the package `sweeps`, hyperband_stop_runs)."""
    rule = Hyperband(type="hyperband", max_iter=5, eta=2, s=2)
    assert rule.bands == (1, 2)
    losses = {"a": [10, 9], "b": [10, 10], "c": [10, 8, 8], "d": [10, 7, 7], "e": [10, 6, 6]}
    assert [name for name in "bcd" if rule.is_to_stop(losses[name], list(losses.values()))] == ["b"]
    lenient = Hyperband(type="hyperband", min_iter=2, eta=2, strict=False)
    assert lenient.bands[:4] == (2, 4, 8, 16)
    assert not lenient.is_to_stop([5, 10], list(losses.values())), "its best epoch counts"
    assert not rule.is_to_stop([], []), "no band is reached"


@pytest.mark.parametrize("name", ["params", "energy_joules", "val/loss", "time/epoch"])
def test_costs_can_be_what_a_search_minimizes(sweep_file, name):
    assert not search.read(sweep_file(metric={"name": name, "goal": "minimize"})).maximize


def test_the_project_of_a_file_is_that_of_its_runs(sweep_file):
    (point, *_) = search.read(sweep_file(project="mine", entity="us")).points({"wandb": "offline"})
    assert (point.config.project, point.config.entity) == ("mine", "us")


def test_status_is_of_the_folder_that_the_sweep_names(sweep_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep = search.read(sweep_file({name: {"value": value} for name, value in
                                    {"runs_dir": "scratch", "seed": 0, "dropout": 0.0}.items()}))  # fmt: skip
    (point,) = sweep.points()
    elsewhere = RunDirectory(tmp_path / "runs" / point.config.run_name)
    elsewhere.path.mkdir(parents=True)
    elsewhere.write_info({"config": point.config.model_dump(), "fingerprint": point.config.fingerprint,
                          "group": point.config.group, "state": "failed", "error": "of another folder"})  # fmt: skip
    status.show(sweep, Runs("runs"), {})
    out = capsys.readouterr().out
    assert "1 missing" in out and "of another folder" not in out
