"""`python -m study.sweep`: files in W&B's format, run by real workers."""

import os
import shutil
import signal
import sys

import pytest
import yaml

from analysis import reporting as report
from analysis.themes import comparison
from analysis.wording import messages
from study.config import RESULTS_VERSION
from study.record.directory import RunDirectory
from study.record.display import Display
from study.sweeps import definition as search
from study.system import devices
from study.system.errors import UserError
from study.system.process import Signals
from study.training.run import train
from tests.conftest import SMALL, states
from tests.test_analysis import make_run


def test_a_sweep_is_trained_once_and_completed_later(command, call, sweep_file, tmp_path, monkeypatch):
    path = sweep_file()
    listed = call("study.sweep", "run", path, "--dry-run")
    assert listed.stdout.count("python -m study.train") == 4
    assert not (tmp_path / "runs").exists()

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    shared = devices.threads(2)
    out = command(
        "study.sweep", "run", path, "--set", "seed=0", "--wandb=disabled", "--devices=cpu", "--per-device=2"
    ).stdout
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "2 finished" in out
    first = states(tmp_path / "runs")
    assert {RunDirectory(tmp_path / "runs" / name).info()["device_shared_by"] for name in first} == {2}
    assert {RunDirectory(tmp_path / "runs" / name).info()["threads"] for name in first} == {shared}, "3 shared by 2"
    assert list(first.values()) == ["finished"] * 2
    assert "2 of 4 runs would be trained" in call("study.sweep", "run", path, "--dry-run").stderr

    out = command("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu").stdout
    assert f"4 runs, 2 to train, {min(2, devices.cores())} at a time" in out, "OMP_NUM_THREADS is the threads of a run"
    assert "[2/2" in out
    everything = states(tmp_path / "runs")
    assert set(first) < set(everything)
    assert list(everything.values()) == ["finished"] * 4
    times = {name: (tmp_path / "runs" / name / "run.json").stat().st_mtime_ns for name in everything}
    assert "nothing to do" in call("study.sweep", "run", path).stdout
    assert times == {name: (tmp_path / "runs" / name / "run.json").stat().st_mtime_ns for name in everything}

    told = call("study.sweep", "status", path).stdout
    assert "4 finished" in told
    assert all(name in told for name in everything)
    assert "dropout 0.5, seed 1" in told
    assert "4 missing" in call("study.sweep", "status", path, "--set", "epochs=3").stdout


def test_the_project_of_a_sweep_on_wandb_is_no_value_of_its_runs(call, sweep_file):
    told = call("study.sweep", "create", sweep_file(), "--set", "project=mine", "seed=0", code=2).stderr
    assert "give --project mine" in told


def train_all(call, *words):
    """Train the points of a sweep, each by the command that the sweep would run."""
    for line in call("study.sweep", "run", *words, "--dry-run", "--wandb=disabled").stdout.splitlines():
        call("study.train", *line.split()[3:])


def test_a_damaged_run_is_found_and_trained_anew(command, call, sweep_file, tmp_path):
    path = sweep_file({"seed": {"value": 0}, "epochs": {"value": 1}})
    train_all(call, path)
    one, other = (tmp_path / "runs" / name for name in sorted(states(tmp_path / "runs")))
    (one / "summary.json").unlink()
    (other / "run.json").write_text('{"config": ', encoding="utf-8")
    assert "2 corrupt" in call("study.sweep", "status", path).stdout
    assert "2 to train" in command("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu").stdout
    assert set(states(tmp_path / "runs").values()) == {"finished"}


def test_status_names_copies_and_clean_removes_what_has_no_result(command, call, sweep_file, tmp_path, monkeypatch):
    path = sweep_file({"setting": {"values": ["model=cnn train_images=5000", "model=mlp"]}, "seed": {"value": 0},
                       "epochs": {"value": 1}, "dropout": {"values": [0.0, 0.1]}})  # fmt: skip
    command("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu", "--per-device=1", code=1)
    runs = {state: RunDirectory(tmp_path / "runs" / name) for name, state in states(tmp_path / "runs").items()}
    shutil.copytree(runs["finished"].path, tmp_path / "runs" / "copy")
    (tmp_path / "runs" / "copy.txt").touch()
    told = call("study.sweep", "status", path).stdout
    assert f"duplicated: runs/copy holds the same run as runs/{runs['finished'].path.name}" in told
    assert told.count("duplicated") == 1

    assert "--yes removes without asking" in call("study.sweep", "clean", path, code=2).stderr
    for answer, said in (("\n", "nothing is removed"), ("y\n", "1 removed, 1 in use again")):
        terminal, ours = os.openpty()
        os.write(terminal, answer.encode())
        with os.fdopen(ours, encoding="utf-8") as stdin, runs["failed"].locked():
            monkeypatch.setattr(sys, "stdin", stdin)
            out = call("study.sweep", "clean", path).stdout
        assert out.count("failed: runs/cnn-") == 2 and "train_images must be at most 1,151" in out
        assert said in out
    assert sorted(states(tmp_path / "runs").values()) == ["failed", "finished", "finished", "finished"]
    assert "1 removed" in call("study.sweep", "clean", path, "--yes").stdout
    assert "nothing to remove" in call("study.sweep", "clean", path).stdout
    assert not list((tmp_path / "runs").glob(".*")), "nothing is left of them"


def test_the_hint_at_the_report_works_as_it_is_printed(command, call, sweep_file, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "THEMES", (comparison.blocks,))
    settings = {"values": ["model=mlp epochs=1", "model=two-block epochs=2"]}
    path = sweep_file({"setting": settings, "dropout": {"value": 0.0}})
    out = command("study.sweep", "run", "--set", "seed=0", path, "--wandb=disabled", "--devices=cpu").stdout
    line = next(line for line in out.splitlines() if line.startswith("report: "))
    page = call(*line.split()[3:]).stdout
    assert "| two-block, epochs 2 | 1 |" in page


def test_a_folder_of_runs_that_is_set_is_the_one_that_is_read(call, sweep_file, tmp_path):
    path = sweep_file({"setting": {"value": "model=mlp epochs=1"}, "seed": {"value": 0}})
    train_all(call, path, "--set", "runs_dir=other")
    assert "2 finished" in call("study.sweep", "status", path, "--set", "runs_dir=other").stdout


def test_a_command_of_the_dry_run_trains_that_point(command, call, sweep_file, tmp_path):
    path = sweep_file({"dropout": {"value": 0.5}, "seed": {"value": 3}, "epochs": {"value": 1}})
    line = call("study.sweep", "run", path, "--dry-run", "--wandb=disabled").stdout.strip()
    assert "--dropout=0.5" in line and "--model=mlp" in line
    call("study.train", *line.split()[3:])
    assert "nothing to do" in call("study.sweep", "run", path).stdout


def test_a_failing_run_is_reported_and_stops_no_other(command, call, sweep_file, tmp_path):
    settings = {"values": ["model=cnn train_images=5000", "model=mlp"]}
    path = sweep_file({"setting": settings, "seed": {"value": 0}, "epochs": {"value": 1}})
    result = command("study.sweep", "run", path, "--wandb=disabled", "--devices=cpu", "--per-device=1", code=1)
    assert result.stderr.count("train_images must be at most 1,151") == 2
    assert sorted(states(tmp_path / "runs").values()) == ["failed", "failed", "finished", "finished"]
    told = call("study.sweep", "status", path).stdout
    assert "2 failed" in told
    assert "at most 1,151" in told


def test_setting_varies_what_is_no_product(sweep_file):
    path = sweep_file(
        {"dropout": {"value": 0.0}, "setting": {"values": ["model=mlp epochs=50", "model=cnn epochs=30"]}}
    )
    sweep = search.read(path)
    assert [(p.config.model, p.config.epochs, p.config.seed) for p in sweep.points()] == [
        ("mlp", 50, 0), ("cnn", 30, 0), ("mlp", 50, 1), ("cnn", 30, 1),
    ]  # fmt: skip
    assert sweep.varied == ["setting"]
    short = sweep.replaced({"epochs": "1", "seed": "7"})
    assert [(p.config.model, p.config.epochs, p.config.seed) for p in short.points()] == [("mlp", 1, 7), ("cnn", 1, 7)]


def test_values_may_hold_spaces_and_apostrophes(sweep_file):
    settings = ["model=mlp classes='a cat,a dog'", 'model=cnn classes="a cat,it\'s"']
    sweep = search.read(sweep_file({"setting": {"values": settings}, "dropout": {"value": 0}, "seed": {"value": 0}}))
    replaced = sweep.replaced(search.assignments(["dataset=folder:my cats", "notes=don't"]))
    assert [point.config.classes for point in replaced.points()] == [("a cat", "a dog"), ("a cat", "it's")]
    assert {(p.config.dataset, p.config.notes) for p in replaced.points()} == {("folder:my cats", "don't")}
    with pytest.raises(UserError, match="--set takes key=value pairs"):
        search.assignments(["epochs"])


def test_points_that_compute_the_same_are_one(sweep_file, call):
    path = sweep_file({"augment": {"values": ["flip,crop", "crop,flip"]}})
    assert len(search.read(path).points()) == 4
    assert "4 runs (4 more points compute the same" in call("study.sweep", "check", path).stdout


def test_names_that_timm_lacks_are_found_before_any_run_is_trained(call, sweep_file, tmp_path):
    path = sweep_file(
        {
            "model": {"values": ["mlp", "timm:resnet18x", "timm:efficientnet_lite"]},
            "setting": {"values": ["epochs=1", "epochs=2 optimizer=timm:lambb"]},
        }
    )
    line = next(n for n, words in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if "resnet18x" in words)
    for words in (["check"], ["run", "--wandb=disabled"], ["create"]):
        said = call("study.sweep", words[0], path, *words[1:], code=2).stderr
        assert f"{path}:{line}: " in said and all(
            name in said for name in ("'resnet18'", "efficientnet_lite0", "'lamb'")
        )
    assert not list(tmp_path.glob("runs/*/run.json"))
    said = call("study.sweep", "check", path, "--set", "model=mlp", "optimizer=timm:lionn", code=2).stderr
    assert "'lion'" in said and f"{path}:" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("method: grid\nmethod: grid", ":2: 'method' appears twice, first in line 1"),
        ({"method": None}, "`method` is missing; it must be one of grid, random, bayes"),
        ("a: [1, 2", ":1: not valid YAML: expected"),
        ("just words", "must hold a mapping"),
        ({"parameters": None}, "`parameters` is missing; it must be a mapping such as"),
        ({"parameters": {}}, "parameters must be a mapping such as {dropout: {values: [0.0, 0.5]}}, not {}"),
        (
            {"metric": {"name": "val_acc", "goal": "maximize"}},
            "unknown metric 'val_acc'; did you mean 'val/acc'?",
        ),
        (
            {"metric": {"name": "val/acc", "goal": "minimize"}},
            "the goal of metric val/acc must be maximize, not minimize",
        ),
        ({"metric": {"name": "flops", "goal": "least"}}, "metric: goal must be minimize or maximize, not 'least'"),
        ({"metric": "val/acc"}, "metric must be {name: val/acc, goal: maximize}, not 'val/acc'"),
        ({"methd": "grid"}, "unknown key 'methd'; did you mean 'method'?"),
        ({"method": "gird"}, "unknown method 'gird'; did you mean 'grid'?"),
        ({"method": "bayesian"}, "unknown method 'bayesian'; did you mean 'bayes'?"),
        ({"method": "optuna"}, "unknown method 'optuna'; did you mean 'bayes'?"),
        ({"parameters": {"dropuot": {"value": 1}}}, "unknown option 'dropuot'; did you mean 'dropout'?"),
        (
            {"parameters": {"dropout": {"values": [0.5, 1.5]}}},
            ":16: dropout must be less than 1.0, not 1.5",
        ),
        ({"parameters": {"dropout": {"values": []}}}, "must be a list that is not empty"),
        ({"parameters": {"dropout": 0.5}}, "parameter dropout needs `value: …`, `values: […]`"),
        ({"parameters": {"dropout": {"valeus": [0.5]}}}, "parameter dropout needs `value: …`, `values: […]`"),
        ({"parameters": {"model": {"value": "mlp"}, "filters": {"value": "8,8,8"}}}, "mlp has no filters"),
        (
            {"parameters": {"warmup_epochs": {"values": [0, 3]}, "epochs": {"value": 2}}},
            "warmup_epochs must be at most epochs, 2, not 3 (at warmup_epochs=3",
        ),
        ({"project": "a/b"}, "project must have no /"),
        ({"method": "bayes", "run_cap": 2, "parameters": {"lr": {"value": 0.1}}}, "needs a parameter that varies"),
        ({"parameters": {"dataset": {"value": "digitz"}}}, "unknown data set 'digitz'; did you mean 'digits'?"),
    ],
)
def test_a_mistake_in_a_sweep_file_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "sweep.yaml"
    if not isinstance(content, str):
        whole = {key: value for key, value in {**SMALL, **content}.items() if value is not None}
        content = yaml.safe_dump(whole)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        search.read(path).points()
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_check_names_every_wrong_file_and_ends_in_2(call, sweep_file, tmp_path):
    good = sweep_file()
    bad = tmp_path / "bad.yaml"
    bad.write_text("method: grid", encoding="utf-8")
    result = call("study.sweep", "check", good, bad, "missing.yaml", code=2)
    assert f"{good}: 4 runs" in result.stdout
    assert len(result.stderr.strip().splitlines()) == 2
    assert "`parameters` is missing" in call("study.sweep", "run", bad, code=2).stderr
    assert "this machine has" in call("study.sweep", "run", good, "--devices=cuda:7", code=2).stderr


def test_words_that_resemble_commands_options_and_files_are_understood(call, sweep_file, tmp_path):
    (tmp_path / "sweeps").mkdir()
    for name in ("quickstart", "dropout"):
        sweep_file().rename(tmp_path / "sweeps" / f"{name}.yaml")
    for module, words, meant in (
        ("study.sweep", ["runn", "x.yaml"], "'run'"),
        ("study.sweep", ["run", "x.yaml", "--perdevice", "1"], "'--per-device'"),
        ("study.sweep", ["check", "quickstart"], "sweeps/quickstart.yaml"),
        ("study.sweep", ["check", "quikstart.yaml"], "sweeps/quickstart.yaml"),
        ("study.sweep", ["run", "sweeps/dropuot.yaml"], "sweeps/dropout.yaml"),
        ("analysis.summarize", ["runs", "--sweeps", "x.yaml"], "'--sweep'"),
        ("analysis.summarize", ["runs", "--lang", "spanish"], "known are: en, es"),
        ("study.predict", ["--topp", "3", "run", "image"], "'--top'"),
    ):
        said = call(module, *words, code=2).stderr
        assert meant in said and len(said.splitlines()) == 1 and "unexpected" not in said, said
    make_run(tmp_path / "runs", 0.8)
    assert "did you mean sweeps/dropout.yaml?" in call("analysis.summarize", "--sweep", "dropuot", code=2).stderr


FILES = messages.sweeps()
NETWORK = ("model", "filters", "hidden", "activation", "batch_norm", "softmax_output")


FIVE_SEEDS = (
    *("quickstart", "dropout", "depth", "mlp", "augmentation", "all-conv", "simple-cnn", "alexnet"),
    *("activations", "mlp-architectures", "optimizers"),
)
SEEDS = {"resnet-grid": 1, "resnet-search": 1, **dict.fromkeys(FIVE_SEEDS, 5)}
"""Number of seeds of the sweeps that do not have three."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_sweeps_are_right(path):
    sweep = search.read(path)
    points = sweep.points()
    assert sweep.name == path.stem
    assert sweep.description.endswith("?"), "a description states the question"
    assert sweep.varied or path.stem in ("simple-cnn", "alexnet")
    seeds = {point.config.seed for point in points}
    assert seeds == set(range(SEEDS.get(path.stem, 3)))
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content["command"] == ["${env}", "${interpreter}", "-m", "study.train", "${args}"]
    opening = path.read_text(encoding="utf-8").partition("name:")[0]
    assert f"# {len(points)} runs; " in opening, "it opens with how many runs there are, and how long they take"
    assert " on two CPU cores, " in opening and " on one GPU.\n" in opening


def networks():
    """Yield a point for each network that the sweeps train, the first that they name, to be trained in a second."""
    small = {"dataset": "digits", "classes": "0,1", "image_size": "32", "train_images": "16", "batch_size": "16",
             "epochs": "1"}  # fmt: skip
    found = {}
    for path in FILES:
        for point in search.read(path).replaced(small).points({"wandb": "disabled"}):
            network = tuple(getattr(point.config, name) for name in NETWORK)
            found.setdefault(network, pytest.param(point.config, id=f"{path.stem}: {point.label}"))
    return found.values()


@pytest.mark.slow
@pytest.mark.parametrize("config", networks())
def test_every_network_of_the_sweeps_can_be_trained(config, tmp_path):
    if config.stem:  # that for small images makes googlenet and resnet50 take 20 seconds here
        config = config.model_copy(update={"stem": "imagenet"})
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    outcome = train(config.model_copy(update={"runs_dir": str(tmp_path)}), Display(), Signals())
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    assert outcome.state == "finished"
    run = RunDirectory(next(path.parent for path in tmp_path.glob("*/run.json")))
    arrays = run.evaluation()
    hits = arrays["test_predictions"] == arrays["test_targets"]
    assert run.defect() is None and outcome.summary["test/acc"] == pytest.approx(hits.mean())


@pytest.mark.slow
def test_a_sweep_ends_after_some_hours_and_resumes(command, sweep_file, tmp_path):
    path = sweep_file({"epochs": {"value": 100_000}, "seed": {"value": 0}, "dropout": {"value": 0}})
    words = ("run", path, "--wandb=disabled", "--per-device=1")
    assert "the same command resumes" in command("study.sweep", *words, "--hours=0.002").stdout
    (run,) = (RunDirectory(found.parent) for found in (tmp_path / "runs").glob("*/run.json"))
    epochs = len(run.history())
    assert run.state() == "interrupted" and epochs > 0
    command("study.sweep", *words, "--hours=0.002")
    assert len(run.history()) > epochs
    for hours in ("0", "-1", "soon"):
        assert "hours greater than 0" in command("study.sweep", *words, f"--hours={hours}", code=2).stderr


def test_runs_of_another_version_of_the_code_are_counted(call, sweep_file, tmp_path):
    call("study.train", "--dataset=digits", "--model=mlp", "--epochs=2", "--wandb=disabled")
    (path,) = (tmp_path / "runs").glob("*/run.json")
    text = path.read_text(encoding="utf-8").replace(f'"results_version": {RESULTS_VERSION}', '"results_version": 1')
    path.write_text(text, encoding="utf-8")
    said = "of another version of the code"
    assert f"1 runs in runs are {said}" in call("study.sweep", "status", sweep_file()).stdout
    assert f"the results of 1 are {said}" in call("analysis.summarize", "runs", code=2).stderr
