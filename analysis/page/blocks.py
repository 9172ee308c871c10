"""Blocks: the elements of a section, from which the page, `report.md` and all files are written.

    python -c "from analysis.page import blocks; help(blocks)"

A theme of the report is a function `blocks(frames, section, looks) -> list[Block]`, listed in `reporting.THEMES`. It
returns the blocks about the runs of a section, or an empty list if it does not apply:

    def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
        counts = …                                                       # a tidy frame
        title = text("Pairs of classes in {name}", name=section.name)
        return [
            Heading(text("Pairs")),
            Paragraph(text("Most often confused: {first}.", first=…)),
            Table("pairs", title, counts, [Column("target"), Column("predicted"), Column("count", 0)]),
            Picture("pairs", title, figures.pairs(counts, title), text("Darker is more frequent.")),
        ]

Nothing else is needed: the page names the files, writes every table as .md .tex .csv and every figure as .svg .png
.pdf, and lists the contents. Every text goes through `text` or `plural` of `wording.texts`, and the headers of columns
stand in `wording.words`; `looks` maps each setting to its colour. The frame of a table holds numbers; its columns
(`tables.Column`) define how they are written. What an artist of a figure says to `live.about` is shown beside the
pointer, and hidden with its setting.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analysis.page.tables import Table


@dataclass(frozen=True)
class Heading:
    """A heading within a section; it appears in the list of contents."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Sentences; `**words**` are bold, words in backticks code. `soft` is small print, for captions and notes."""

    text: str
    soft: bool = False


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    texts: Sequence[str]
    soft: bool = False


@dataclass(frozen=True)
class Terms:
    """Terms with their definitions, and the address of a page that says more, or an empty text."""

    entries: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Picture:
    """A figure with the name of its files; the colours of a `photo` are not inverted on a dark page."""

    name: str
    title: str
    figure: Figure
    caption: str = ""
    photo: bool = False


@dataclass(frozen=True)
class Gallery:
    """Several figures of one kind, side by side."""

    pictures: Sequence[Picture]
    caption: str = ""


@dataclass(frozen=True)
class Data:
    """Numbers that the page only links to, as a CSV file: its name, the text before the link, and the numbers."""

    name: str
    text: str
    frame: pd.DataFrame


Block = Heading | Paragraph | Items | Terms | Table | Picture | Gallery | Data
