"""Reports over several sources, and runs that a forgotten `--set` hides."""

import shutil
import signal

import pandas as pd
import pytest

from analysis.frames import forgotten, runs
from study.local import forecast
from study.local.plan import Plan
from study.sweeps import definition as search
from study.sweeps import standing
from tests.test_analysis import SWEEP, make_run
from tests.test_engine import wait_for


@pytest.fixture
def labs(tmp_path):
    """Make the runs of two labs: one has three seeds, the other two more and a copy of one of the first."""
    for seed in range(5):
        for dropout in (0.0, 0.5):
            lab = "ours" if seed < 3 else "theirs"
            make_run(tmp_path / lab, 0.7 + dropout / 10 + seed / 100, seed=seed, dropout=dropout)
    copied = next((tmp_path / "ours").iterdir())
    shutil.copytree(copied, tmp_path / "theirs" / copied.name)
    return tmp_path


@pytest.mark.usefixtures("undrawn")
def test_a_report_of_several_sources_has_the_runs_of_all_once(labs, call):
    frames = runs.load([str(labs / "ours"), str(labs / "theirs")])
    assert len(frames.runs) == 10 and frames.runs.source.value_counts().to_list() == [6, 4]
    assert len(frames.problems) == 1 and "it is the same run as" in frames.problems[0]
    said = call("analysis.summarize", "ours", "theirs").stdout
    assert said.startswith("ours, theirs: 10 finished, 1 left out") and "| 5 |" in said
    (path,) = (labs / "report" / "tables").glob("*-runs.csv")
    assert set(pd.read_csv(path).source) == {"ours", "theirs"}
    (path,) = (labs / "report" / "tables").glob("*-sources.csv")
    of_sources = pd.read_csv(path)
    assert of_sources.groupby("source").n.sum().to_dict() == {"ours": 6, "theirs": 4}
    machines = pd.read_csv(labs / "report" / "tables" / "protocol-machines.csv")
    assert sorted(machines.source) == ["ours", "theirs"]


def test_a_source_that_is_not_there_is_named(labs, call):
    assert "there is no directory other" in call("analysis.summarize", "ours", "other", code=2).stderr


@pytest.mark.usefixtures("undrawn")
def test_runs_of_a_directory_are_chosen_by_tag(labs, call):
    for seed in (7, 8):
        make_run(labs / "ours", 0.7, seed=seed, tags="exam, retry")
    assert list(runs.load(labs / "ours", only=runs.pull.Only(tags=["retry", "other"])).runs.seed) == [7, 8]
    assert call("analysis.summarize", "ours", "--tag", "exam").stdout.startswith("ours: 2 finished")
    assert "--tag" in call("analysis.summarize", "ours", "--tag", "no", code=2).stderr

    # the name of a sweep is a tag, as in W&B: in the list of tags or, of older runs, where W&B's place or a search is
    for seed, known in enumerate(
        ({"tags": ["grid"]}, {"wandb": {"project": "p", "sweeps": ["grid"]}}, {"sweeps": ["grid", "search"]}, {}), 20
    ):
        directory = make_run(labs / "ours", 0.7, seed=seed)
        directory.write_info(directory.info() | known)
    assert list(runs.load(labs / "ours", only=runs.pull.Only(tags=["grid"])).runs.seed) == [20, 21, 22]
    assert "ours is a directory" in call("analysis.summarize", "ours", "--author", "ana", code=2).stderr


def test_a_source_without_runs_is_named(labs):
    (labs / "empty").mkdir()
    frames = runs.load([labs / "ours", labs / "empty"])
    assert frames.left_out == 0 and any("empty holds no run" in problem for problem in frames.problems)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_forgotten_set_is_recognised(labs, call):
    """Runs that differ from every point of a sweep in the same options were trained with a `--set`."""
    sweep = SWEEP.replace("value: 3", "value: 30")
    assert sweep != SWEEP
    (labs / "dropout.yaml").write_text(sweep, encoding="utf-8")
    frames = runs.load(labs / "ours")
    values, count = forgotten.values(frames, [search.read(labs / "dropout.yaml")])
    assert values == {"epochs": 3} and count == 6
    said = call("analysis.summarize", "ours", "--sweep", "dropout.yaml", code=2).stderr
    assert "`--set epochs=3`" in said
    call("analysis.summarize", "ours", "--sweep", "dropout.yaml", "--set", "epochs=3")

    # a report of some of them says which others differ in seed or epochs alone, and replaces the files of the last one
    (labs / "report" / "tables" / "mine.csv").write_text("kept", encoding="utf-8")
    said = call("analysis.summarize", "ours", "--sweep", "dropout.yaml", "--set", "epochs=3", "seed=0").stderr
    assert "4 finished runs are left out" in said and "seed 1, 2" in said
    assert "4 finished runs are left out" in (labs / "report" / "report.md").read_text(encoding="utf-8")
    call("analysis.summarize", "ours", "--lang", "es")
    names = {path.name for path in (labs / "report" / "tables").iterdir()}
    assert "mine.csv" in names and not [name for name in names if name.startswith("dropout-")]
    assert "takes one value" in call("analysis.summarize", "ours", "--set", "seed=0", "seed=1", code=2).stderr
    call("analysis.summarize", "ours", "--sweep", "dropout.yaml", "--set", "epochs=4", code=2)
    few = search.read(labs / "dropout.yaml", {"seed": "0"})
    for values in ({}, {"batch_size": 16}, {"batch_size": 16, "dropout": 0.0}):
        make_run(labs / "few", 0.7, **{"seed": 0, "dropout": 0.5, **values})
    most = {"batch_size": 16, "epochs": 3}, 2
    assert forgotten.values(runs.load(labs / "few"), [few]) == most, "the values that most points have"
    strange = SWEEP.replace("dropout: {values: [0.5, 0.0]}", "batch_size: {values: [16, 32]}")
    (labs / "strange.yaml").write_text(strange, encoding="utf-8")
    assert forgotten.values(frames, [search.read(labs / "strange.yaml")]) == ({}, 0)


@pytest.mark.slow
@pytest.mark.parametrize("complete", [True, False])
def test_a_watched_report_is_renewed_until_ctrl_c(labs, start, complete):
    """The page reloads itself while it is watched, and has the short form until all runs are there or it ends."""
    (labs / "theirs").rename(labs / "later")
    (labs / "theirs").mkdir()
    (labs / "dropout.yaml").write_text(SWEEP.replace("[0, 1, 2, 3]", "[0, 1, 2, 3, 4]"), encoding="utf-8")
    page = labs / "report" / "index.html"
    watch = start("analysis.summarize", "ours", "theirs", "--sweep", "dropout.yaml", "--watch")
    reload, whole = '<meta http-equiv="refresh" content="10">', '<details class="more"'
    wait_for(lambda: page.exists() and "6 finished runs" in page.read_text(encoding="utf-8"))
    assert reload in page.read_text(encoding="utf-8") and whole not in page.read_text(encoding="utf-8")
    known = {run.name for run in (labs / "ours").iterdir()}
    new = sorted(run for run in (labs / "later").iterdir() if run.name not in known)[not complete :]
    for run in new:
        shutil.move(run, labs / "theirs" / run.name)
    wait_for(lambda: f"{6 + len(new)} finished runs" in page.read_text(encoding="utf-8"))
    assert (whole in page.read_text(encoding="utf-8")) == complete
    watch.send_signal(signal.SIGINT)
    assert watch.wait(timeout=300) == 0
    written = page.read_text(encoding="utf-8")
    assert reload not in written and written.rstrip().endswith("</html>") and whole in written


def test_what_has_not_changed_is_not_read_again(labs, monkeypatch):
    known: runs.Known = {}
    first = runs.load([str(labs / "ours")], known=known)
    read = []
    monkeypatch.setattr(
        runs, "_read", lambda directory, read_run=runs._read: read.append(directory) or read_run(directory)
    )
    changed = labs / "ours" / first.runs.index[0] / "summary.json"
    changed.write_text(
        changed.read_text(encoding="utf-8").replace('"test/acc": 0.', '"test/acc": 0.0'), encoding="utf-8"
    )
    second = runs.load([str(labs / "ours")], known=known)
    assert [directory.path.name for directory in read] == [first.runs.index[0]]
    pd.testing.assert_frame_equal(second.runs.drop(first.runs.index[0]), first.runs.drop(first.runs.index[0]))
    assert second.runs["test/acc"].iloc[0] < first.runs["test/acc"].iloc[0] / 5
    pd.testing.assert_frame_equal(second.history, first.history)


def test_the_hours_that_are_left_are_those_of_similar_runs(labs):
    """Runs take the epochs' time of the same network on the same kind of device; without such a run it is not known."""
    (labs / "longer.yaml").write_text(SWEEP.replace("epochs: {value: 3}", "epochs: {value: 30}"), encoding="utf-8")
    other = SWEEP.replace("name: dropout", "name: other").replace("dropout: {", "model: {value: mlp}\n  dropout: {")
    (labs / "other.yaml").write_text(other, encoding="utf-8")
    sweeps = [search.read(labs / name) for name in ("longer.yaml", "other.yaml")]
    plan = Plan(sweeps, {"runs_dir": str(labs / "ours")}, standing.Runs(labs / "ours"))
    here = standing.Runs(labs / "ours")
    found = forecast.seconds(plan.todo(), here, on_gpu=False)
    known, unknown = found[:8], found[8:]
    assert known == [pytest.approx(30 * 2)] * 8  # the first epoch of a run, of 10 s, does not count
    assert unknown == [None] * 8
    assert set(forecast.seconds(plan.todo(), here, on_gpu=True)) == {None}


def test_sweeps_of_one_name_have_rows_of_their_own(labs, capsys):
    for name, epochs in (("one", 30), ("two", 40)):
        text = SWEEP.replace("epochs: {value: 3}", f"epochs: {{value: {epochs}}}")
        (labs / f"{name}.yaml").write_text(
            text.replace("seed: {", f"batch_size: {{value: {epochs}}}\n  seed: {{"), encoding="utf-8"
        )
    sweeps = [search.read(labs / f"{name}.yaml") for name in ("one", "two")]
    assert sweeps[0].name == sweeps[1].name
    here = standing.Runs(labs / "ours")
    plan = Plan(sweeps, {"runs_dir": str(labs / "ours")}, here)
    forecast.show(plan, here, on_gpu=False, at_a_time=1)
    rows = [line.split("│")[1:] for line in capsys.readouterr().out.splitlines() if line.count("│") > 3]
    counts = {cells[0].strip(): (int(cells[1]), int(cells[2])) for cells in rows}
    assert sorted(counts.values()) == [(8, 8), (8, 8), (16, 16)]
    assert all(any(f"{name}.yaml" in key for key in counts) for name in ("one", "two"))
