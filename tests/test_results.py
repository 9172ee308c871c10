"""The results page: it is what its command writes from the runs in the repository."""

import json
import re
import shutil

import numpy as np
import pytest

from analysis import results
from analysis.frames import runs, sections
from analysis.themes import asked, sources
from analysis.wording import messages
from tests.conftest import ROOT

VALUES = {"dataset": "folder:cifar10-jpeg"}
STUDY = ROOT / "docs" / "study"


@pytest.fixture(scope="module")
def found():
    """Return the section of each sweep with a result of a source, by the name of the sweep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return {entry.sweep: section for entry, section in results.sections(runs.load(str(STUDY)), VALUES)}


def best_accuracies(folders) -> dict[int, float]:
    """Read the best validation accuracy of runs in percent, by their seed, from their files."""
    return {
        read(folder, "run.json")["config"]["seed"]: 100 * read(folder, "summary.json")["best/val_acc"]
        for folder in folders
    }


def read(folder, name):
    return json.loads((STUDY / folder / name).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_results_are_those_of_the_runs_in_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    named = set()
    for path in results.write("docs/study", VALUES, tmp_path):
        written = path.read_text(encoding="utf-8")
        assert written == (ROOT / "docs" / path.name).read_text(encoding="utf-8"), "run analysis.results again"
        named |= set(re.findall(r"\(figures/(.*?)\)", written))

        # each question in the table at the top leads to its answer
        headings = re.findall(r"^## (.*)$", written, re.MULTILINE)
        links = re.findall(r"^\| \[(.*?)\]\(#(\S+)\)", written, re.MULTILINE)
        assert [question for question, _ in links] == headings[: len(links)] and len(links) == len(sources.FOUND)
        assert all(
            re.findall(r"\w+", place) == re.findall(r"\w+", title.lower().replace("×", "")) for title, place in links
        )
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert figures == named and figures <= {path.name for path in (ROOT / "docs" / "figures").iterdir()}


def test_every_result_of_a_source_has_its_sweep():
    """Each result belongs to a sweep of the repository, and only sweeps without a source have none."""
    named = [entry.sweep for entry in sources.FOUND]
    present = {path.stem for path in messages.sweeps()}
    assert len(set(named)) == len(named) and set(named) <= present
    assert present - set(named) == {"quickstart", "recipes", "resnet-search", "speedrun"}


def test_runs_without_any_sweep_are_an_error(call, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "sweeps").symlink_to(ROOT / "sweeps")
    assert "no finished run" in call("analysis.results", "runs", code=2).stderr


def test_the_part_of_a_network_has_its_runs_and_the_points_that_lack_one(found):
    for name, section in found.items():
        parts = sections.by_network(section)
        has_networks = {"model"} & {pair for setting in section.points.setting for pair, _ in setting.pairs}
        assert bool(parts) == bool(has_networks), name
        if parts:
            assert sum(len(part.runs) for part in parts.values()) == len(section.runs)
            assert sum(len(part.points) for part in parts.values()) == len(section.points)
        for network, part in parts.items():
            assert set(part.runs.model) <= {network} and part.states.get("finished", 0) == len(part.runs)
            assert set(part.history.run) == set(part.runs.index)
            assert len(part.absent) == len(part.points) - len(part.runs)


def test_changes_are_those_between_the_runs_files(found):
    """ELU instead of ReLU has opposite effects in the two networks, which their mean would hide."""
    changes = {}
    for network, part in sections.by_network(found["activations"]).items():
        said = asked.changes(part)
        assert f"{network}, activation relu" in said
        changes[network] = float(re.search(r"activation elu ([+−]\d+\.\d+)", said)[1].replace("−", "-"))
        settings = part.runs.setting.map(str)
        base, other = (
            best_accuracies(part.runs.index[settings == f"{network}, activation {name}"]) for name in ("relu", "elu")
        )
        shared = base.keys() & other.keys()
        assert changes[network] == pytest.approx(np.mean([other[seed] - base[seed] for seed in shared]), abs=0.006)
    assert changes["netconv"] > 5 and changes["net"] < -1


def test_training_times_leave_the_validation_out():
    """The short trainings have fewer images than their validation, so an epoch of theirs tells little."""
    page = (ROOT / "docs" / results.FILES["en"]).read_text(encoding="utf-8")
    said = {setting: float(seconds.replace(",", "")) for setting, seconds in
            re.findall(r"(resnet18|vgg\d+|googlenet)(?:, batch norm True)?: ([\d,.]+) s", page)}  # fmt: skip
    measured = {}
    for folder in filter(lambda path: path.is_dir(), STUDY.iterdir()):
        config = read(folder, "run.json")["config"]
        if config.get("train_images") == 1000 and config["epochs"] == 3:
            rows = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()[1:]
            measured[config["model"]] = 40_000 / np.mean([json.loads(row)["time/images_per_second"] for row in rows])
    assert set(said) == {"resnet18", "vgg16", "vgg19", "googlenet"}
    assert said == pytest.approx({name: measured[name] for name in said}, abs=0.06)
    assert next(iter(said)) == "resnet18", "the fastest of the deep networks comes first"


def test_a_question_is_answered_only_if_most_of_its_settings_have_a_result(found):
    entries = {entry.sweep: entry for entry in sources.FOUND}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        rows = results.overview([(entries[name], section) for name, section in found.items()]).splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    best: list[list[str]] = []
    for question, setting, *_ in cells:
        if question:
            best.append([])
        best[-1].append(setting)
    for (name, section), settings in zip(found.items(), best, strict=True):
        parts = list(sections.by_network(section).values()) if entries[name].by_network else [section]
        done = [len(part.ranked) for part in parts if 2 * len(part.ranked) > part.points.setting.nunique()]
        assert len(settings) == max(1, len(done))
        assert (settings == ["not answered yet"]) == (not done)


def test_a_study_of_one_network_or_without_speeds_has_its_answer(tmp_path, monkeypatch):
    """Here `net` alone has activations, and the short trainings have one epoch, whose time does not count."""
    monkeypatch.chdir(ROOT)
    for folder in filter(lambda path: path.is_dir(), STUDY.iterdir()):
        config = read(folder, "run.json")["config"]
        is_short = config.get("train_images") == 1000 and config["epochs"] == 3
        if is_short or (config["model"] == "net" and config["optimizer"] == "sgd"):
            shutil.copytree(folder, tmp_path / "runs" / folder.name)
        if is_short:
            history = tmp_path / "runs" / folder.name / "history.jsonl"
            history.write_text(history.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    results.write(str(tmp_path / "runs"), VALUES | {"model": "net"}, tmp_path)
    page = (tmp_path / results.FILES["en"]).read_text(encoding="utf-8")
    assert re.search(r"^\| \[Which activation.*\| activation relu \|", page, re.MULTILINE)
    assert "Training on all images once" not in page
