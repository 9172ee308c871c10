"""Small copies of runs, from which a report is made as from the runs themselves."""

import numpy as np
import pytest

from analysis import export
from analysis import reporting as report
from analysis.frames import runs, sections
from analysis.themes import about, asked, comparison, confusion, embedding, layers, per_class
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


@pytest.mark.usefixtures("undrawn")
def test_a_copy_keeps_the_features_of_as_many_images_as_wanted(command, call, sweep_file, tmp_path):
    path = sweep_file({"epochs": {"value": 1}, "seed": {"values": [0, 1]}})
    command("study.sweep", "run", path, "--wandb=disabled", f"--runs-dir={tmp_path / 'runs'}")
    call("analysis.export", "runs", "copies")
    assert "4 runs copied, 0 were there" in call("analysis.export", "runs", "copies", "--features", "60").stdout
    assert "0 runs copied, 4 were there" in call("analysis.export", "runs", "copies", "--features", "60").stdout
    for folder in (tmp_path / "copies").iterdir():
        whole, copy = (RunDirectory(tmp_path / name / folder.name).evaluation() for name in ("runs", "copies"))
        places = np.searchsorted(whole["feature_index"], copy["feature_index"])
        assert np.ptp(np.bincount(copy["feature_targets"])) <= 1 and len(places) == 60
        assert all(np.array_equal(whole[name][places], copy[name]) for name in export.FEATURES)

    # What is said of the last features is measured in the layer that the figure shows
    frames = runs.load(tmp_path / "copies")
    (section,) = sections.by_dataset(frames)
    best = sections.best_with_features(frames, section, 2)
    measured = layers.layers_of(best, embedding.see(frames, list(best.index)))
    probes = measured[measured.layer == layers.FEATURES].probe
    assert all(f"{probe:.1f} %" in asked.features(frames, section) for probe in probes) and len(probes) == 2

    # A setting whose best run lacks them is looked at in another run; one without any is named
    for lost in (best.index[0], *section.runs.index[section.runs.setting == best.setting.iloc[1]]):
        directory = frames.directories[lost]
        arrays = {name: array for name, array in directory.evaluation().items() if name not in export.FEATURES}
        directory.write_evaluation(arrays)
    frames = runs.load(tmp_path / "copies")
    (section,) = sections.by_dataset(frames)
    looked_at = sections.best_with_features(frames, section, 2)
    assert list(looked_at.setting) == [best.setting.iloc[0]] and best.index[0] not in looked_at.index
    assert str(best.setting.iloc[1]) in " ".join(layers.lacking(section, looked_at))
    assert "--features" in call("analysis.export", "runs", "copies", "--features", "-1", code=2).stderr
