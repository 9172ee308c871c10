"""`summarize ENTITY/PROJECT --publish`: a W&B Report, or the page in a run, as the stand-in server gets them."""

import importlib.util
import json
import os

import numpy as np
import pytest
import yaml

from study.record.directory import RunDirectory
from tests.conftest import SMALL
from tests.wandb_server import Server

PROJECT = "somebody/image-classifier-study"
SUMMARIZE = """
from analysis import summarize
from analysis.page import html
from study.system.process import run_command
html.drawn = lambda figure, suffix, stem: b""  # drawing takes the most time, and the words are what is published
run_command(summarize.main)
"""
HAS_REPORTS = importlib.util.find_spec("wandb_workspaces") is not None
needs_reports = pytest.mark.skipif(not HAS_REPORTS, reason="wandb_workspaces is not installed")


def account(server: Server) -> dict[str, str]:
    return {"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": server.url, "WANDB_ERROR_REPORTING": "false",
            "WANDB_X_GRAPHQL_RETRY_MAX": "1", "WANDB_X_GRAPHQL_RETRY_WAIT_MIN_SECONDS": "0.1"}  # fmt: skip


@pytest.fixture(scope="module")
def sent(tmp_path_factory, run_python):
    """Return a server that has a trained sweep, and the folder with its runs."""
    folder = tmp_path_factory.mktemp("sent")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    with Server() as server:
        environment = os.environ | account(server) | {"HOME": str(folder)}
        run_python(["-m", "study.sweep", "run", "small.yaml", "--per-device=1"], folder, environment)
        yield server, folder / "runs"


@pytest.fixture
def there(sent, monkeypatch):
    """Set the environment to that server and return it with the folder; nothing is published there."""
    server, folder = sent
    for name, value in account(server).items():
        monkeypatch.setenv(name, value)
    server.reports.clear()
    server.failures.clear()
    yield server, folder
    for name in [name for name, run in server.runs.items() if run.fields.get("jobType") == "study-report"]:
        del server.runs[name]
    assert not server.unknown


@pytest.fixture
def without_reports(tmp_path):
    """Hide wandb_workspaces from the commands of a test."""
    (tmp_path / "wandb_workspaces.py").write_text("raise ImportError", encoding="utf-8")


def counted(folder, names) -> np.ndarray:
    """Return the confusion matrix of runs, summed."""
    counts = np.zeros((10, 10), dtype=int)
    for name in names:
        arrays = RunDirectory(folder / name).evaluation()
        np.add.at(counts, (arrays["test_targets"], arrays["test_predictions"]), 1)
    return counts


@pytest.mark.slow
def test_without_reports_a_run_has_the_page(command, there, without_reports, tmp_path):
    server, _ = there
    trained = set(server.runs)
    told = command("-c", SUMMARIZE, PROJECT, "--publish").stdout.splitlines()
    (name,) = set(server.runs) - trained
    run = server.runs[name]
    assert told[-1].startswith("W&B: the page") and run.name in told[-1] and "'.[publish]'" in told[-1]
    assert run.state == "finished" and run.fields["jobType"] == "study-report" and PROJECT in run.fields["displayName"]

    # The panel and the artifact
    page = (tmp_path / "report" / "index.html").read_bytes()
    assert run.summary["report"]["_type"] == "html-file"
    body = page.partition(b"<head>")[2]
    assert run.files[run.summary["report"]["path"]].endswith(body), "the client adds to its head alone"
    (made,) = [made for made in run.artifacts if made["type"] == "report"]
    assert server.blobs[made["files"]["index.html"].removeprefix(server.url)] == page
    assert any(name.startswith("tables/") and name.endswith(".csv") for name in made["files"])

    # It is no run of the study
    again = command("-c", SUMMARIZE, PROJECT)
    assert f"{PROJECT}: 4 finished\n" in again.stdout and "left out" not in again.stderr


@pytest.mark.slow
@needs_reports
def test_a_report_has_the_answer_and_the_charts_of_its_runs(command, there, tmp_path):
    server, folder = there
    told = command("-c", SUMMARIZE, PROJECT, "--publish").stdout.splitlines()
    assert told[-1].startswith("W&B: a report, ") and told[-1].endswith("--report1")
    (made,) = server.reports
    assert f"{made['entityName']}/{made['projectName']}" == PROJECT and PROJECT in made["displayName"]
    assert not [run for run in server.runs.values() if run.fields.get("jobType") == "study-report"]

    # The answer, the table of the page, and the confusion matrix of the best setting, summed over its seeds
    (text,) = [block["content"] for block in made["spec"]["blocks"] if block["type"] == "markdown-block"]
    (table,) = (tmp_path / "report" / "tables").glob("*comparison*.md")
    assert text.startswith("- ") and table.read_text(encoding="utf-8").split("\n\n")[0].splitlines()[-1] in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")][-10:]
    matrix = np.array([[int(cell) for cell in row[1:]] for row in rows])
    runs = {path.name: RunDirectory(path) for path in folder.glob("mlp-*")}
    settings = {value: [n for n, run in runs.items() if run.info()["config"]["dropout"] == value] for value in (0, 0.5)}
    assert any(np.array_equal(matrix, counted(folder, names)) for names in settings.values())

    # The curves, what the options do, and the matrices of the best run of each setting
    panels = [panel | {"runs": chosen(grid)} for grid in made["spec"]["blocks"] if grid["type"] == "panel-grid"
              for panel in grid["metadata"]["panelBankSectionConfig"]["panels"]]  # fmt: skip
    curves = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert [(curve["metrics"], curve["xAxis"]) for curve in curves] == [
        ([metric], "epoch") for metric in ("val/acc", "val/loss", "train/loss")
    ]
    (parallel,) = [panel for panel in panels if panel["viewType"] == "Parallel Coordinates Plot"]
    columns = [column["accessor"] for column in parallel["config"]["columns"]]
    assert columns == ["config:dropout.value", "summary:best/val_acc"]
    assert all(panel["runs"] == set(runs) for panel in panels if "Vega" not in panel["viewType"])
    matrices = [panel for panel in panels if panel["viewType"] == "Vega2"]
    assert len(matrices) == 2
    for panel, names in zip(matrices, sorted(settings.values(), key=lambda names: best(runs, names)), strict=True):
        (name,) = panel["runs"]
        assert name in names and "test/confusion_table" in json.dumps(panel["config"]["userQuery"])
        assert "test/confusion_table" in server.runs[name].summary, "the run has the table of its chart"


def best(runs, names) -> float:
    """Return minus the mean validation accuracy of some runs, by which settings are ranked."""
    return -np.mean([runs[name].summary()["best/val_acc"] for name in names])


def chosen(grid: dict) -> set[str]:
    """Return the ids of the runs of a panel grid."""
    (runset,) = grid["metadata"]["runSets"]
    (found,) = lists(runset["filters"])
    return set(found)


def lists(value) -> list[list[str]]:
    """Return the lists of texts in nested input."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [found for part in parts for found in lists(part)]


@needs_reports
@pytest.mark.slow
def test_a_report_that_is_refused_becomes_the_page(command, there):
    server, _ = there
    server.fail("upsertView", 400)
    told = command("-c", SUMMARIZE, PROJECT, "--publish").stdout.splitlines()
    assert told[-1].startswith("W&B: the page") and "did not take a report" in told[-1]


@pytest.mark.slow
def test_a_server_that_takes_neither_is_one_sentence(command, there, without_reports):
    server, _ = there
    server.fail("UpsertBucket", *[400] * 50)
    told = command("-c", SUMMARIZE, PROJECT, "--publish", code=1).stderr.splitlines()
    assert told[-1].startswith("error: the report cannot be published: W&B")
    assert not any("Traceback" in line for line in told)


def test_a_directory_cannot_be_published(call, tmp_path):
    (tmp_path / "runs").mkdir()
    assert "ENTITY/PROJECT" in call("analysis.summarize", "runs", "--publish", code=2).stderr
