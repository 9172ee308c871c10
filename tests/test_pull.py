"""Runs in W&B read back by the real client, against a stand-in server."""

import copy
import json
import os

import pytest
import yaml

from tests.wandb_server import Run, Server, Sweep

PROJECT = "somebody/image-classifier-study"

COMPARE = """
import sys
import pandas as pd
from analysis import summarize
from analysis.frames import runs
from analysis.page import html
sources = sys.argv[1:]
here, there = map(runs.load, sources)
pd.testing.assert_frame_equal(*(frames.runs.drop(columns=["source", "author"]) for frames in (here, there)))
pd.testing.assert_frame_equal(here.history, there.history)
pd.testing.assert_frame_equal(here.predictions, there.predictions)
assert not here.problems and not there.problems, there.problems
for run in here.runs.index:
    assert here.data(run) == there.data(run), (here.data(run), there.data(run))
html.drawn = lambda figure, suffix, stem: b""  # drawing takes the most time, and tables are what is compared
for source, out in zip(sources, ("here", "there")):
    summarize.main([source, "--out", out])
runs.load(sources[1], refresh=True)
"""

LOAD = """
import sys
from analysis import summarize
from analysis.frames import runs
frames = runs.load(sys.argv[1])
(section,) = summarize.sections(frames, [sys.argv[1]], {})
finished = frames.runs[frames.runs.state == "finished"].index
print(*(f"{n} {state}" for state, n in sorted(frames.runs.state.value_counts().items())), end=", ")
print(frames.directories[finished[0]].path.name, "counts in", section.name, len(section.runs), len(section.missing))
print(*frames.problems, sep="\\n")
"""

PULL = """
import sys
from analysis.frames import pull
directories, problems = pull.pull(sys.argv[1])
assert not problems, problems
print(*(f"{directory.path.name} {len(directory.history())}" for directory in directories), sep="\\n")
"""

SWEEP = """
name: pulled
method: grid
metric: {name: val/acc, goal: maximize}
parameters:
  dataset: {value: digits}
  model: {value: mlp}
  epochs: {value: 2}
  setting: {values: ["lr=0.01", "lr=1e6"]}
  seed: {values: [0, 1, 2, 3]}
"""


@pytest.fixture(scope="module")
def sent(tmp_path_factory, run_python):
    """Return a server that has got a sweep as it was trained, and the folder with its runs; half of them diverged."""
    folder = tmp_path_factory.mktemp("sent")
    (folder / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    with Server() as server:
        environment = os.environ | account(server) | {"HOME": str(folder)}
        run_python(["-m", "study.sweep", "run", "sweep.yaml", "--per-device=1"], folder, environment)
        yield server, folder / "runs"


def account(server):
    return {"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": server.url, "WANDB_ERROR_REPORTING": "false",
            "WANDB_X_GRAPHQL_RETRY_WAIT_MIN_SECONDS": "0.1"}  # fmt: skip


@pytest.fixture
def there(sent, monkeypatch):
    """Set the environment to that server and return it with the folder; its counters and failures begin anew."""
    server, folder = sent
    for name, value in account(server).items():
        monkeypatch.setenv(name, value)
    server.requests.clear()
    server.failures.clear()
    yield server, folder
    for run in server.runs.values():
        run.broken = run.crashed = False
        run.exitcode = 0


@pytest.mark.slow
def test_a_directory_and_wandb_give_equal_frames_and_equal_tables(there, run_python, tmp_path):
    server, folder = there
    out = run_python(["-c", COMPARE, folder, PROJECT], tmp_path).stdout
    assert f"{PROJECT}: 4 finished, 4 diverged" in out
    here, there = ({path.name: path.read_bytes() for path in (tmp_path / name / "tables").iterdir()}
                   for name in ("here", "there"))  # fmt: skip
    assert here == there and len(here) >= 3
    assert server.requests["RunContents"] == 2, "all runs are fetched once, and once more to refresh"
    assert server.requests["GET"] == 2 * 4, "the evaluation of each finished run is downloaded as often"
    assert not {"Run", "HistoryPage", "RunOutputArtifacts"} & server.requests.keys(), "nothing is asked for run by run"
    assert not server.unknown


def test_only_runs_that_have_changed_are_pulled_again(there, run_python, tmp_path):
    server, folder = there
    run_python(["-c", PULL, PROJECT], tmp_path)
    server.requests.clear()
    run_python(["-c", PULL, PROJECT], tmp_path)
    assert server.requests["Runs"] == 1 and not {"RunContents", "GET"} & server.requests.keys()

    # a run that was sent again, and one with more rows than one request returns
    sent, long = (server.runs[path.name] for path in sorted(folder.glob("mlp-*"))[:2])
    lines = dict(long.lines)
    sent.fields["heartbeatAt"] = "2026-02-01T00:00:00"
    long.lines |= {step: json.dumps({"_step": step, "epoch": step + 1, "val/acc": 0.5}) for step in range(9, 2009)}
    epochs = {row["epoch"] for row in long.history}
    out = run_python(["-c", PULL, PROJECT], tmp_path).stdout
    long.lines = lines
    del sent.fields["heartbeatAt"]
    assert server.requests["RunContents"] == 1 and f"{long.name} {len(epochs)}\n" in out and len(epochs) > 2000


def test_runs_are_chosen_by_tag_group_and_author_and_named_by_their_authors(there, run_python, tmp_path):
    server, folder = there
    listed = [server.runs[path.name] for path in sorted(folder.glob("mlp-*"))]
    before = [dict(run.fields) for run in listed]
    for place, run in enumerate(listed):
        run.fields |= {"author": ("ana", "ben")[place % 2], "tags": ["exam", f"part {place // 4}"], "groupName": "g"}
    chosen = {}
    for only in (
        "pull.ALL",
        "pull.Only(tags=['part 0', 'x'])",
        "pull.Only(['exam'], ['g'], ['ben'])",
        "pull.Only(groups=['h'])",
    ):
        words = (
            f"from analysis.frames import pull, runs; print(*runs.load({PROJECT!r}, only={only}).runs.source, sep='|')"
        )
        chosen[only] = run_python(["-c", words], tmp_path).stdout.strip().split("|")
    said = run_python(["-m", "analysis.summarize", PROJECT, "--author", "carl"], tmp_path, code=2).stderr
    for run, fields in zip(listed, before, strict=True):
        run.fields.clear()
        run.fields |= fields
    every, by_tag, by_all, none = chosen.values()
    assert sorted(every) == [f"{PROJECT}, ana"] * 4 + [f"{PROJECT}, ben"] * 4
    assert len(by_tag) == 4 and by_all == [PROJECT] * 4 and none == [""] and "--author" in said


@pytest.mark.slow
def test_runs_without_a_result_and_runs_that_cannot_be_had_are_named(there, run_python, tmp_path):
    server, _ = there
    broken, running, crashed, kept = sorted(name for name in server.runs if server.runs[name].artifacts)
    server.runs[broken].broken = True
    for name, is_crashed in ((running, False), (crashed, True)):
        server.runs[name].exitcode, server.runs[name].crashed = None, is_crashed
        del server.runs[name].config["info"]["value"]["state"]
    server.runs["again"] = copy.deepcopy(server.runs[kept])
    server.runs["again"].name = "again"
    server.runs["again"].config["info"]["value"]["started"] = "2020-01-01T00:00:00+00:00"
    server.runs["another"] = Run("another", {"lr": {"value": 0.1}})
    server.runs["another"].fields["project"] = PROJECT.split("/")[1]
    for name in server.runs:
        server.runs[name].sweep = "one"
    server.runs["elsewhere"] = copy.deepcopy(server.runs[kept])
    server.runs["elsewhere"].name, server.runs["elsewhere"].sweep = "elsewhere", "two"
    server.sweeps["one"] = Sweep("one", PROJECT.split("/")[1], yaml.safe_load(SWEEP))
    server.fail("Runs", 429)
    server.fail("RunContents", "silence", 503)
    told = run_python(["-c", LOAD, f"{PROJECT}/one"], tmp_path).stdout.splitlines()
    assert told[0] == f"1 crashed 4 diverged 1 finished 1 running, {kept} counts in pulled 1 7"
    assert len(told) == 4
    for name, reason in (
        (broken, "CommError"),
        ("another", "no run of this study"),
        ("again", f"it is the same run as {PROJECT}/{kept}"),
    ):
        assert sum(line.startswith(f"{PROJECT}/{name} is left out: {reason}") for line in told[1:]) == 1


def test_a_project_without_runs_may_not_be_there(there, command):
    told = command("analysis.summarize", "https://wandb.ai/somebody/nope", code=2).stderr
    assert "check its name in W&B" in told and "study.sweep run" not in told


def test_without_a_key_or_an_answer_there_is_one_sentence(command, monkeypatch):
    monkeypatch.setenv("WANDB_X_GRAPHQL_RETRY_MAX", "1")
    missing = command("analysis.summarize", PROJECT, code=2).stderr
    assert f"there is no directory {PROJECT}, and as a project of W&B: there is no W&B key" in missing
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    silent = command("analysis.summarize", PROJECT, code=1).stderr
    assert "W&B does not answer" in silent and len(silent.strip().splitlines()) == 1
