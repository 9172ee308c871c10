"""The results page: it is what its command writes from the runs in the repository."""

import re

import pytest

from analysis import results
from analysis.themes import sources
from analysis.wording import messages
from tests.conftest import ROOT

VALUES = {"dataset": "folder:cifar10-jpeg"}


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
