"""Small copies of runs, from which a report is made as from the runs themselves."""

import pytest

from analysis import reporting as report
from analysis.themes import about, comparison, confusion, per_class
from study.record.directory import RunDirectory


@pytest.mark.usefixtures("undrawn")
def test_a_copy_gives_the_same_tables_and_counts_as_trained(command, call, sweep_file, tmp_path, monkeypatch):
    themes = (comparison.blocks, about.each_run, confusion.blocks, per_class.blocks)
    monkeypatch.setattr(report, "THEMES", themes)  # those whose tables a copy holds
    path = sweep_file({"epochs": {"value": 1}, "seed": {"values": [0]}})
    command("study.sweep", "run", path, "--wandb=disabled", f"--runs-dir={tmp_path / 'runs'}")
    said = call("analysis.export", "runs", "copies").stdout
    assert "2 runs copied" in said
    assert "0 runs copied, 2 were there" in call("analysis.export", "runs", "copies").stdout
    copies = [RunDirectory(folder) for folder in (tmp_path / "copies").iterdir()]
    assert all(sum(file.stat().st_size for file in copy.path.iterdir()) < 10_000 for copy in copies)
    assert all(str(tmp_path) not in (copy.path / "run.json").read_text(encoding="utf-8") for copy in copies)
    for source in ("runs", "copies"):
        call("analysis.summarize", source, "--sweep", path, "--out", f"report-{source}")
    tables = {
        source: {table.name: table.read_bytes() for table in tmp_path.glob(f"report-{source}/tables/*.csv")}
        for source in ("runs", "copies")
    }
    assert tables["copies"] and all(tables["runs"][name] == content for name, content in tables["copies"].items())
    assert {name.partition("-")[2] for name in tables["copies"]} >= {"runs.csv", "confusions.csv"}
    assert "nothing to do" in call("study.sweep", "run", path, "--runs-dir=copies", "--wandb=disabled").stdout


def test_there_must_be_runs(call):
    assert "there is no directory nothing" in call("analysis.export", "nothing", "copies", code=2).stderr
