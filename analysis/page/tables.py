"""Tables: frames of numbers, written as Markdown, LaTeX and CSV or shown in a terminal.

    python -c "from analysis.frames import runs, sections; from analysis.page import tables; \\
        from analysis.themes import comparison; \\
        print(tables.markdown(comparison.table(sections.by_dataset(runs.load('runs'))[0])))"
"""

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype
from rich.cells import cell_len
from rich.table import Table as Grid

from analysis.wording.texts import heading, number, ranked_by, ranking, shown, text
from study.config.setting import Setting
from study.record.metrics import METRICS
from study.system.console import console

WIDTH = 200
"""Characters in a line if the output is not a terminal; a wider table gets more."""

SIGNIFICANT = -1
"""Value of `digits` with which the smallest value of a column has two significant digits."""


@dataclass(frozen=True)
class Column:
    """A column of a table: the column of the frame that it shows, and the format of its cells.

    `key` is the column of the frame and, unless there is a `header`, the key of its name in `words.HEADINGS`. A column
    with `digits` holds numbers, others hold text; NaN and None are empty cells. With a column `<key>_ci95` in the
    frame, numbers are written as `mean ± half-width`, with `<key>_low` and `<key>_high` as `value [low, high]`; whole
    numbers without `<key>_ci95` have no decimals. `bold` is a column of booleans. `text` returns the text of the cell
    of a row, or None for the default format. A column that `wraps` may take several lines in a narrow terminal. Where
    the interval of a column that `is_percentage` goes beyond 0 or 100, its ends are written, cut off there.
    """

    key: str
    digits: int | None = None
    bold: str = ""
    header: str = ""
    text: Callable[[dict], str | None] = lambda row: None
    wraps: bool = False
    is_percentage: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its text, the value to sort by, and whether it is bold."""

    text: str
    value: float | str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """A table: the name of its files, title, frame of numbers, the columns to show, and notes below it.

    The CSV file holds the whole frame. Columns of scores are named by the `metric` that settings are ranked by.
    """

    name: str
    title: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    notes: Sequence[str] = ()
    metric: str = field(default_factory=ranking)

    @property
    def header(self) -> list[str]:
        """Return the headers of the columns."""
        with ranked_by(self.metric):
            return [column.header or heading(column.key) for column in self.columns]

    @property
    def rows(self) -> list[list[Cell]]:
        """Return the cells of all rows."""
        digits = [self._digits(column) for column in self.columns]
        return [
            [_cell(column, places, row) for column, places in zip(self.columns, digits, strict=True)]
            for row in self.frame.to_dict("records")
        ]

    def _digits(self, column: Column) -> int:
        """Return the number of decimals of a column."""
        if column.digits is None:
            return 0
        values = self.frame[column.key].dropna().abs()
        if f"{column.key}_ci95" not in self.frame and (values % 1 == 0).all():
            return 0
        if column.digits == SIGNIFICANT:
            return min(6, max(0, 1 - math.floor(math.log10(values[values > 0].min())))) if (values > 0).any() else 0
        return column.digits


def _cell(column: Column, digits: int, row: dict) -> Cell:
    """Write the cell of a row."""
    value = row[column.key]
    bold = bool(column.bold and row[column.bold])

    # the column's own text, empty cells, text
    own = column.text(row)
    if own is not None:
        return Cell(own, "" if value is None or value != value else value, bold)
    if value is None or value != value:
        return Cell("", "")
    if column.digits is None:
        return Cell(shown(value) if isinstance(value, Setting) else str(value), str(value), bold)

    # numbers with their interval
    spec = f",.{digits}f"
    written = number(value, spec)
    half_width = row.get(f"{column.key}_ci95", math.nan)
    low, high = (row.get(f"{column.key}_{bound}", math.nan) for bound in ("low", "high"))
    if not math.isnan(half_width):
        is_cut = column.is_percentage and not is_within(value, half_width)
        low, high = bounded(value, half_width) if is_cut else (math.nan, math.nan)
        written += "" if is_cut else f" ± {number(half_width, spec)}"
    if not math.isnan(low):
        written += f" [{number(low, spec)}{text(',')} {number(high, spec)}]"
    return Cell(written, float(value), bold)


def is_within(percentage: float, half_width: float) -> bool:
    """Return whether an interval lies within 0 and 100 %."""
    return half_width <= percentage <= 100 - half_width


def bounded(percentage: float, half_width: float) -> tuple[float, float]:
    """Return the ends of an interval, cut off at 0 and 100 %."""
    return max(0.0, percentage - half_width), min(100.0, percentage + half_width)


def p_value(p: float) -> str:
    """Write a p value with three decimals; NaN is empty."""
    if p != p:
        return ""
    return f"< {number(0.001, '.3f')}" if p < 0.001 else number(p, ".3f")


def p_column(key: str, header: str = "p_holm") -> Column:
    """Return a column of p values; `header` is the key of its name."""
    return Column(key, 3, header=heading(header), text=lambda row: p_value(row[key]))


def p_words(p: float) -> str:
    """Write a p value for a sentence: `p = 0.012`, `p < 0.001`."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def markdown(table: Table) -> str:
    """Write a table as Markdown."""
    header, rows = _texts(table, bold="**{}**", escape=escape_markdown)
    aligned = [":---" if column.digits is None else "---:" for column in table.columns]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, aligned, *rows]) + "\n"


def in_one_line(text: str) -> str:
    """Put a text into one line; no-break spaces within numbers stay."""
    return re.sub(r"[\r\n\t\v\f\x85\u2028\u2029]+", " ", text)


def escape_markdown(text: str) -> str:
    """Escape a text for the cell of a Markdown table; `_` within a word needs no escape."""
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
    """Write the whole frame of a table as CSV, with empty cells for missing values."""
    return harmless(by_metric(table.frame, table.metric)).to_csv(index=False, float_format="%.6g")


def by_metric(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Name the columns of scores by the metric that they hold: `score` is `val_acc` or, of a loss, `val_likelihood`."""
    name = "likelihood" if METRICS[metric].goal == "minimize" else metric.removeprefix("val/")
    return frame.rename(columns=lambda key: SCORE.sub(lambda found: f"{found[1] or 'val_'}{name}", str(key)))


SCORE = re.compile("^(test_)?score(?=_|$)")
"""The column of a frame with what settings are ranked by, of the validation or of the test images."""


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a text begins with if a spreadsheet would compute it."""


def harmless(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame for a CSV file, with ' before each text that a spreadsheet would take for a formula.

    Numbers stay as they are, negative ones too.
    """
    named = frame.rename(columns=_harmless)
    if named.empty:
        return named
    return named.apply(lambda column: column if is_numeric_dtype(column) else column.map(_harmless))


def _harmless(value: Any) -> Any:
    """Return ' and the text for a text that begins like a formula and is no number, anything else as it is."""
    if not isinstance(value, str | Setting) or not str(value).startswith(FORMULA):
        return value
    with suppress(ValueError):
        float(str(value))
        return value
    return f"'{value}"


def _texts(table: Table, bold: str, escape: Callable[[str], str]) -> tuple[list[str], list[list[str]]]:
    """Return the escaped texts of the header and of all rows."""

    def text(cell: Cell) -> str:
        return bold.format(escape(cell.text)) if cell.bold and cell.text else escape(cell.text)

    return list(map(escape, table.header)), [list(map(text, row)) for row in table.rows]


MARKDOWN = re.compile(r"[\\|*`$~]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|\](?=[(\[])")
"""Characters that are markup in the cell of a Markdown table."""

LATEX = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "²": "$^2$",
    "⁶": "$^6$", "≥": r"$\ge$", "≤": r"$\le$", "<": "$<$", ">": "$>$", "→": r"$\to$", "\u202f": r"\,", "\xa0": "~",
    "–": "--", "…": r"\dots{}", "·": r"$\cdot$", "“": "``", "”": "''", "[": "{[}", "]": "{]}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", "*": "{*}",
}  # fmt: skip


def _escape_latex(text: str) -> str:
    parts = re.split("(?<=-)(?=-)", in_one_line(text))  # between hyphens, which LaTeX would join to a dash
    return "{}".join("".join(LATEX.get(character, character) for character in part) for part in parts)


def show(table: Table, spared: Sequence[str]) -> None:
    """Print a table; if the terminal is too narrow, leave out columns in the order of `spared`."""
    # leave out columns until the table fits
    terminal = console()
    left_out: list[str] = []
    room = terminal.width if terminal.is_terminal else max(WIDTH, _width(table))
    for key in spared:
        if _width(table) > room:
            left_out += [column.header or heading(column.key) for column in table.columns if column.key == key]
            table = replace(table, columns=[column for column in table.columns if column.key != key])

    # fill a grid of rich with the texts
    notes = [*table.notes]
    if left_out:
        notes.append(
            text(
                "Left out because the terminal is too narrow: {columns}. A wider terminal, --format md or --format csv "
                "shows them.",
                columns=", ".join(left_out),
            )
        )
    grid = Grid(title=table.title, title_justify="left", caption="\n".join(notes), caption_justify="left")
    for column, header in zip(table.columns, table.header, strict=True):
        justify = "left" if column.digits is None else "right"
        grid.add_column(header.replace(" ", "\n"), justify=justify, no_wrap=not column.wraps)
    for row in table.rows:
        grid.add_row(*(cell.text for cell in row), style="bold" if row[0].bold else None)

    # never cut off numbers: the terminal breaks lines that are too long
    terminal.width = max(room, _width(table, wrapped=True))
    terminal.print(grid)


def _width(table: Table, wrapped: bool = False) -> int:
    """Return the width of a table in characters, with headers as narrow as their longest word.

    If `wrapped`, columns that wrap are as narrow as their longest word too.
    """
    width = 1
    for column, header, *cells in zip(table.columns, table.header, *table.rows, strict=True):
        texts = [cell.text for cell in cells]
        words = " ".join(texts).split() if wrapped and column.wraps else texts
        width += 3 + max(map(cell_len, [*header.split(), *words]))
    return width


FORMATS = {"md": markdown, "tex": latex, "csv": csv}
