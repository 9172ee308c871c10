"""Publish a report in its project at W&B: what a W&B Report says of each section, as data.

python -m analysis.summarize ENTITY/PROJECT[/SWEEP_ID] --publish
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.frames import contrasts
from analysis.frames.runs import IDENTITY, Frames
from analysis.frames.sections import LOOKED_AT, Section, best_readable
from analysis.page import tables
from analysis.page.attempt import attempted
from analysis.page.blocks import Paragraph
from analysis.themes import answers, comparison, confusion
from analysis.wording.texts import restored, text
from study.remote import api as wandb_api
from study.remote import publish as wandb_publish
from study.remote.publish import Chapter
from study.system.errors import UserError
from study.system.progress import Say

CURVES = ("val/acc", "val/loss", "train/loss")
"""The metrics whose curves a report at W&B shows."""

MOST_CLASSES = 20
"""Most classes of a confusion matrix that is also written as a table."""


def place(sources: Sequence[str]) -> tuple[str, str]:
    """Return the entity and project of the runs; raise UserError unless they are all of one project of W&B."""
    known = {None if Path(source).is_dir() else (wandb_api.path(source) or ())[:2] for source in sources}
    names = known.pop() if len(known) == 1 else None
    if not names:
        raise UserError(
            "--publish needs the runs in W&B: give ENTITY/PROJECT or ENTITY/PROJECT/SWEEP_ID, not "
            + ", ".join(map(str, sources))
        )
    return names[0], names[1]


def send(place: tuple[str, str], source: str, frames: Frames, sections: Sequence[Section], page: Path, say: Say) -> str:
    """Publish a report that was written as a page, and return a sentence with what was made and its URL."""
    chapters = [chapter(frames, section) for section in sections if not section.runs.empty]
    title = restored(f"{text('Image classifiers compared')}: {source}")
    return wandb_publish.publish(place, title, chapters, page, say)


def chapter(frames: Frames, section: Section) -> Chapter:
    """Return what a W&B Report says of a section: the answer, the table, and what its charts show."""
    # the answer and the comparison
    said = attempted(text("The answer"), lambda: answers.sentences(frames, section))
    sentences = [said.text] if isinstance(said, Paragraph) else said
    table = attempted(
        text("The comparison of the settings"),
        lambda: comparison.table(section, contrasts.with_images(frames, section)),
    )
    parts = ["\n".join(f"- {sentence}" for sentence in sentences)]
    parts.append(table.text if isinstance(table, Paragraph) else tables.markdown(table))

    # the confusion matrices: the best setting's as a table, and those of the best runs as charts
    best = best_readable(frames, section, LOOKED_AT)[0].head(LOOKED_AT)
    titles = {}
    if known := confusion.of_best(frames, section):
        first, counts, repeats = known
        if len(counts) <= MOST_CLASSES:
            parts.append(f"{confusion.matrix_title(first, repeats)}\n\n{_as_markdown(counts)}")
        for run in best.index:
            words = confusion.words_of(best.loc[run])
            titles[restored(text("{setting} (seed {seed})", **words))] = frames.directories[run].path.name

    # the charts that W&B draws from the runs
    return Chapter(
        title=restored(section.title),
        text=restored("\n\n".join(parts)),
        runs=[frames.directories[run].path.name for run in section.runs.index],
        curves=CURVES,
        options=[name for name in IDENTITY if name != "seed" and section.runs[name].map(repr).nunique() > 1],
        result=f"best/{section.metric.replace('/', '_')}",
        matrices=titles,
        headings=(
            restored(text("The learning curves")),
            restored(text("What the options do")),
            restored(text("What the networks confuse")),
        ),
    )


def _as_markdown(counts: pd.DataFrame) -> str:
    """Write a confusion matrix as Markdown, a row for each true class."""
    keys = [f"class {n}" for n in range(len(counts))]
    frame = counts.set_axis(keys, axis=1).assign(target=counts.index)
    headers = zip(keys, counts.columns, strict=True)
    columns = [tables.Column("target"), *(tables.Column(key, 0, header=str(name)) for key, name in headers)]
    return tables.markdown(tables.Table("confusion", "", frame, columns))
