"""What a section of the report is made of: blocks, from which the page, `report.md` and all files are written.

    python -c "from analysis.page import blocks; help(blocks)"

A theme of the report is one function `blocks(frames, section, looks) -> list[Block]`, named in `report.THEMES`; it
returns what it has to say of a section's runs, and nothing where it has nothing to say:

    def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
        counts = …                                                       # a tidy frame
        title = sentence("pairs_title", name=section.name)
        return [
            Heading(label("pairs")),
            Paragraph(sentence("pairs_answer", first=…)),
            Table("pairs", title, counts, [Column("target"), Column("predicted"), Column("count", 0)]),
            Picture("pairs", title, figures.pairs(counts, title), sentence("pairs_caption")),
        ]

Nothing else is needed: `report` names the files, writes every table as .md .tex .csv and every figure as .png .svg
.pdf, and makes the contents list. All texts come from `wording`; `looks` gives each setting its colour. A table's frame
holds numbers; how they are written is said by its columns (`tables.Column`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analysis.page.tables import Table


@dataclass(frozen=True)
class Heading:
    """A heading within a section; it appears in the contents list."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Sentences; `**words**` are bold, words in backticks code. `soft` ones are small print: captions, notes."""

    text: str
    soft: bool = False


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    texts: Sequence[str]
    soft: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure, with the name of its files; `photo` says that it shows photographs, whose colours stay in the dark."""

    name: str
    title: str
    figure: Figure
    caption: str = ""
    photo: bool = False


@dataclass(frozen=True)
class Gallery:
    """Figures of one kind, side by side."""

    pictures: Sequence[Picture]
    caption: str = ""


@dataclass(frozen=True)
class Data:
    """Numbers that the page does not show, but links to: a CSV file, with its name and the text before the link."""

    name: str
    text: str
    frame: pd.DataFrame


Block = Heading | Paragraph | Items | Table | Picture | Gallery | Data
