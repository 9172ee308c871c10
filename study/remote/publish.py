"""Publish a report in a project of W&B: as a W&B Report, or as the page itself in a run of the project.

python -m analysis.summarize ENTITY/PROJECT --publish
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from sys import stderr
from typing import Any

from study.remote.api import QUIET, RUN_PATIENCE, announced, connect, failure, is_denied, unless_set
from study.system.errors import one_line
from study.system.progress import Say

JOB_TYPE = "study-report"
"""Job type of the run that holds a page; `contents.listed` leaves such runs out."""

LONGEST_TITLE = 128
"""Most characters of a report's title at W&B."""


@dataclass(frozen=True)
class Chapter:
    """What a W&B Report says of one question, in the reader's language.

    `text` is Markdown. The charts are of the `runs`, ids in W&B: curves of the metrics `curves`, and parallel
    coordinates of the `options` and of the metric `result`. `matrices` maps the title of a confusion matrix to the id
    of its run. `headings` are those of the curves, of the options and of the matrices.
    """

    title: str
    text: str
    runs: Sequence[str]
    curves: Sequence[str]
    options: Sequence[str]
    result: str
    matrices: Mapping[str, str]
    headings: tuple[str, str, str]


def publish(place: Sequence[str], title: str, chapters: Sequence[Chapter], page: Path, say: Say) -> str:
    """Publish a report in the project `place` (entity, project), and return a sentence with what was made and its URL.

    It is a W&B Report if wandb_workspaces is installed and W&B takes it, else the page in a run. Raises UserError or
    ServerError if W&B takes neither.
    """
    connect()
    with announced(QUIET, say, "W&B has not answered yet"):
        try:
            return f"W&B: a report, {_report(place, title, chapters)}"
        except ImportError:
            why = "wandb_workspaces is not installed: pip install -e '.[publish]' makes it a W&B Report"
        except Exception as error:  # the client's errors have no common class
            if is_denied(error):
                raise failure(error, "the report cannot be published: ") from None
            why = f"W&B did not take a report: {one_line(error)}"
        try:
            url = _page(place, title, page)
        except Exception as error:
            raise failure(error, "the report cannot be published: ") from None
        return f"W&B: the page, in a run and as an artifact of it, {url} ({why})"


def _report(place: Sequence[str], title: str, chapters: Sequence[Chapter]) -> str:
    """Save a W&B Report, and return its URL."""
    import wandb_workspaces.reports.v2 as wr

    entity, project = place
    blocks: list[Any] = [wr.TableOfContents()] if len(chapters) > 1 else []
    for chapter in chapters:
        blocks += [wr.H1(chapter.title), wr.MarkdownBlock(chapter.text), *_charts(wr, place, chapter)]
    report = wr.Report(entity=entity, project=project, title=title[:LONGEST_TITLE], blocks=blocks, width="fluid")
    with redirect_stdout(stderr):
        return report.save().url


def _charts(wr: Any, place: Sequence[str], chapter: Chapter) -> list[Any]:
    """Return the charts of a chapter: W&B draws them from the runs."""

    def runs(names: Sequence[str]) -> list[Any]:
        chosen = f"Metric('ID') in {json.dumps(list(names))}"
        return [wr.Runset(entity=place[0], project=place[1], name=chapter.title, filters=chosen)]

    # Curves, a line for each setting: the seeds of one are a group
    curves = [
        wr.LinePlot(
            title=metric, x="epoch", y=[metric], groupby="Group", groupby_aggfunc="mean", groupby_rangefunc="stderr"
        )
        for metric in chapter.curves
    ]
    blocks = [wr.H2(chapter.headings[0]), wr.PanelGrid(runsets=runs(chapter.runs), panels=curves)]

    # What the options do
    if chapter.options:
        columns = [
            *(wr.ParallelCoordinatesPlotColumn(wr.Config(name), display_name=name) for name in chapter.options),
            wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(chapter.result), display_name=chapter.result),
        ]
        panel = wr.ParallelCoordinatesPlot(columns=columns, layout=wr.Layout(w=24, h=10))
        blocks += [wr.H2(chapter.headings[1]), wr.PanelGrid(runsets=runs(chapter.runs), panels=[panel])]

    # Confusion matrices, each of one run, as it sent its table
    if chapter.matrices:
        blocks.append(wr.H2(chapter.headings[2]))
    for name, run in chapter.matrices.items():
        blocks.append(wr.PanelGrid(runsets=runs([run]), panels=[_matrix(wr, name)], hide_run_sets=True))
    return blocks


def _matrix(wr: Any, title: str) -> Any:
    """Return the chart of the confusion matrix that a run sent."""
    from study.remote import charts

    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{charts.CONFUSION}_table"}},
        chart_name=charts.MATRIX,
        chart_fields={name: name for name in charts.MATRIX_COLUMNS},
        chart_strings={"title": title},
        layout=wr.Layout(w=24, h=14),
    )


def _page(place: Sequence[str], title: str, page: Path) -> str:
    """Send a page as an HTML panel of a run, and with its tables as an artifact; return the URL of the run."""
    import wandb

    entity, project = place
    with tempfile.TemporaryDirectory(prefix="wandb-", ignore_cleanup_errors=True) as folder:
        settings = wandb.Settings(silent=True, disable_code=True, x_disable_stats=True, **unless_set(RUN_PATIENCE))
        run = wandb.init(
            entity=entity,
            project=project,
            name=title[:LONGEST_TITLE],
            job_type=JOB_TYPE,
            dir=folder,
            mode="online",
            settings=settings,
        )
        try:
            run.log({"report": wandb.Html(str(page))})
            artifact = wandb.Artifact("report", type="report")
            artifact.add_file(str(page))
            with suppress(ValueError):  # there is none
                artifact.add_dir(str(page.parent / "tables"), name="tables")
            run.log_artifact(artifact)
        finally:
            run.finish()
        return run.url
