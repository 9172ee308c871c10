"""Tables: a frame of numbers, and the same written as Markdown, LaTeX and CSV, or shown in a terminal.

    python -c "from analysis.frames import runs, sections; from analysis.page import tables; \\
        from analysis.themes import comparison; \\
        print(tables.markdown(comparison.table(sections.by_dataset(runs.load('runs'))[0])))"
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from rich.cells import cell_len
from rich.table import Table as Grid

from analysis.wording.texts import label, number, sentence, shown
from study.system.console import console

WIDTH = 200
"""Letters in a line where there is no terminal, unless a table needs more."""

SIGNIFICANT = -1
"""As `digits` of a column: so many that the smallest of its values shows two digits that count."""


@dataclass(frozen=True)
class Column:
    """A column of a table: where its values stand in the frame and how they are written.

    `key` names the frame's column and, unless `header` is given, the label. A column with `digits` holds numbers: with
    `<key>_ci95` beside it in the frame they are written `mean ± half-width`, with `<key>_low` and `<key>_high`
    `value [low, high]`, and without digits where all are whole and no spread is given. Others hold text. NaN and None
    are empty cells. `bold` names a column of booleans. `text` writes a row's cell itself; it may leave that to the rule
    by returning None. What `wraps` goes on in the next line where a terminal is too narrow.
    """

    key: str
    digits: int | None = None
    bold: str = ""
    header: str = ""
    text: Callable[[dict], str | None] = lambda row: None
    wraps: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what it is sorted by, whether it is bold."""

    text: str
    value: float | str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """A table: the name of its files, its title, the numbers, which of them are shown and how, and what must be said.

    The CSV file holds the whole frame.
    """

    name: str
    title: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    notes: Sequence[str] = ()

    @property
    def header(self) -> list[str]:
        """Return what stands above each column."""
        return [column.header or label(column.key) for column in self.columns]

    @property
    def rows(self) -> list[list[Cell]]:
        """Return the cells of each row."""
        digits = [self._digits(column) for column in self.columns]
        return [
            [_cell(column, places, row) for column, places in zip(self.columns, digits, strict=True)]
            for row in self.frame.to_dict("records")
        ]

    def _digits(self, column: Column) -> int:
        """Return how many digits follow the decimal point."""
        if column.digits is None:
            return 0
        values = self.frame[column.key].dropna().abs()
        if f"{column.key}_ci95" not in self.frame and (values % 1 == 0).all():
            return 0
        if column.digits == SIGNIFICANT:
            return min(6, max(0, 1 - math.floor(math.log10(values[values > 0].min())))) if (values > 0).any() else 0
        return column.digits


def _cell(column: Column, digits: int, row: dict) -> Cell:
    value, bold, text = row[column.key], bool(column.bold and row[column.bold]), column.text(row)
    if text is not None:
        return Cell(text, "" if value is None or value != value else value, bold)
    if value is None or value != value:
        return Cell("", "")
    if column.digits is None:
        return Cell(shown(str(value)), str(value), bold)
    spec = f",.{digits}f"
    text = number(value, spec)
    half_width = row.get(f"{column.key}_ci95", math.nan)
    low, high = (row.get(f"{column.key}_{bound}", math.nan) for bound in ("low", "high"))
    if not math.isnan(half_width):
        text += f" ± {number(half_width, spec)}"
    elif not math.isnan(low):
        text += f" [{number(low, spec)}{label('between')} {number(high, spec)}]"
    return Cell(text, float(value), bold)


def p_value(p: float) -> str:
    """Write a p value, three digits of it; empty where there is none."""
    return "" if p != p else f"< {number(0.001, '.3f')}" if p < 0.001 else number(p, ".3f")


def p_column(key: str, header: str = "p_holm") -> Column:
    """Make the column of a p value; `header` is the key of its label."""
    return Column(key, 3, header=label(header), text=lambda row: p_value(row[key]))


def p_words(p: float) -> str:
    """Write a p value as in a sentence: `p = 0.012`, `p < 0.001`."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def markdown(table: Table) -> str:
    """Write a table as Markdown."""
    header, rows = _texts(table, bold="**{}**", escape=escape_markdown)
    aligned = [":---" if column.digits is None else "---:" for column in table.columns]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, aligned, *rows]) + "\n"


def in_one_line(text: str) -> str:
    """Put a text into one line; spaces that hold a number together stay."""
    return re.sub(r"[\r\n\t\v\f\x85\u2028\u2029]+", " ", text)


def escape_markdown(text: str) -> str:
    """Write a text such that Markdown shows it as it is in the cell of a table; `_` within a word is none of markup."""
    return MARKDOWN.sub(r"\\\g<0>", in_one_line(text))


def latex(table: Table) -> str:
    """Write a table as a LaTeX tabular for the booktabs package."""
    header, rows = _texts(table, bold=r"\textbf{{{}}}", escape=_escape_latex)
    lines = [
        r"\begin{tabular}{" + "".join("l" if column.digits is None else "r" for column in table.columns) + "}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(cells) + r" \\" for cells in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def csv(table: Table) -> str:
    """Write the numbers of a table as CSV, in full, empty where there is none."""
    return table.frame.to_csv(index=False, float_format="%.6g")


def _texts(table: Table, bold: str, escape: Callable[[str], str]) -> tuple[list[str], list[list[str]]]:
    def text(cell: Cell) -> str:
        return bold.format(escape(cell.text)) if cell.bold and cell.text else escape(cell.text)

    return list(map(escape, table.header)), [list(map(text, row)) for row in table.rows]


MARKDOWN = re.compile(r"[\\|*`$~]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|\](?=[(\[])")
"""What Markdown would take for markup in the cell of a table."""

LATEX = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "²": "$^2$",
    "⁶": "$^6$", "≥": r"$\ge$", "≤": r"$\le$", "<": "$<$", ">": "$>$", "→": r"$\to$", "\u202f": r"\,", "\xa0": "~",
    "–": "--", "…": r"\dots{}", "·": r"$\cdot$", "“": "``", "”": "''", "[": "{[}", "]": "{]}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}",
}  # fmt: skip


def _escape_latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in in_one_line(text))


def show(table: Table, spared: Sequence[str]) -> None:
    """Print a table; of the columns that can be spared, without the first ones where the terminal is too narrow."""
    shown_on, left_out = console(), []
    room = shown_on.width if shown_on.is_terminal else max(WIDTH, _width(table))
    for key in spared:
        if _width(table) > room:
            left_out += [column.header or label(column.key) for column in table.columns if column.key == key]
            table = replace(table, columns=[column for column in table.columns if column.key != key])
    notes = [*table.notes, *([sentence("left_out_columns", columns=", ".join(left_out))] if left_out else [])]
    grid = Grid(title=table.title, title_justify="left", caption="\n".join(notes), caption_justify="left")
    for column, header in zip(table.columns, table.header, strict=True):
        justify = "left" if column.digits is None else "right"
        grid.add_column(header.replace(" ", "\n"), justify=justify, no_wrap=not column.wraps)
    for row in table.rows:
        grid.add_row(*(cell.text for cell in row), style="bold" if row[0].bold else None)
    shown_on.width = max(
        room, _width(table, wrapped=True)
    )  # rather lines that the terminal breaks than numbers cut off
    shown_on.print(grid)


def _width(table: Table, wrapped: bool = False) -> int:
    """Return how many letters wide a table is in a terminal, its headers and, if asked for, what wraps a word wide."""
    width = 1
    for column, header, *cells in zip(table.columns, table.header, *table.rows, strict=True):
        texts = [cell.text for cell in cells]
        words = " ".join(texts).split() if wrapped and column.wraps else texts
        width += 3 + max(map(cell_len, [*header.split(), *words]))
    return width


FORMATS = {"md": markdown, "tex": latex, "csv": csv}
