"""Text in figures: plain, in fonts that have its characters, and short enough to fit.

    python -c "from analysis.page.characters import shortened; print(shortened('a name that is too long', 12))"

Every figure is a `Plot`. matplotlib reads the text between two `$` as a formula, and draws empty boxes for characters
that its own font lacks, such as Chinese or Indic ones. A `Plot` draws plain text, and uses an installed font that has
these characters.
"""

import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from unicodedata import category, combining

import matplotlib
from matplotlib import font_manager
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from rich.cells import cell_len

from analysis.wording.texts import restored
from study.system.errors import printable

NARROW = 0.62
"""Average width of a column as a share of the font size; bold characters are a little wider."""

SHORTEST_LINE = 20
"""Fewest columns of a line of a title, for axes at the edge of a figure."""

BREAKS = re.compile(r".*[,;/_-]", re.DOTALL)
"""The part of a long word after which a line may break."""

JOINERS = "\u200c\u200d"
VIRAMA = 9
"""Unicode's combining class of the sign that joins two Indic consonants."""


class Plot(Figure):
    """A figure whose texts are plain text, in installed fonts that have their characters.

    Its layout is computed when it is first drawn, and kept in other formats.
    """

    undrawn: frozenset[str] = frozenset()
    """Characters of its texts that no installed font has; known after drawing."""

    is_laid_out = False

    def lay_out_again(self) -> None:
        """Compute the layout anew at the next drawing, because something was added to the figure."""
        self.set_layout_engine("constrained")
        self.is_laid_out = False

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure; characters that no font has become boxes, without a warning for each."""
        with plain(), _quiet():
            # add the fonts that the texts need
            texts = self._texts()
            fonts, self.undrawn = fonts_for("".join(text.get_text() for text in texts))
            for text in texts:
                text.set_parse_math(False)
                text.set_text(restored(text.get_text()))
                text.set_fontfamily(list(dict.fromkeys([*text.get_fontfamily(), *fonts])))

            # compute the layout, once
            if not self.is_laid_out:
                if self._break_titles(renderer) and self.get_layout_engine():
                    self.get_layout_engine().execute(self)
                self.set_layout_engine("none")
                self.is_laid_out = True
            super().draw(renderer)

    def _break_titles(self, renderer: RendererBase) -> bool:
        """Break titles of axes into lines if they would be cut off, and return whether the layout is to be computed."""
        # find titles that are wider than half the figure
        width = self.get_figwidth()
        titles = [(axes, axes.title) for axes in self.axes]
        wide = [(axes, title) for axes, title in titles if inches([title.get_text()], title.get_fontsize()) > width / 2]
        if wide and self.get_layout_engine():
            self.get_layout_engine().execute(self)  # computes the positions of the axes

        # shorten the lines until each title fits between the edges
        is_changed = not wide
        for axes, title in wide:
            place = axes.get_position()
            middle = (place.x0 + place.x1) / 2
            room = 2 * min(middle, 1 - middle) * self.bbox.width
            whole = title.get_text()
            limit = columns([whole])
            while title.get_window_extent(renderer).width > room and limit > SHORTEST_LINE:
                limit -= 2
                title.set_text("\n".join(in_lines(line, limit) for line in whole.split("\n")))
                is_changed = True
        return is_changed

    def _texts(self) -> list[Text]:
        """Return all texts, including the tick labels, which matplotlib otherwise creates only when drawing."""
        for axes in self.axes:
            axes.get_xticklabels()
            axes.get_yticklabels()
        return self.findobj(Text)


@contextmanager
def plain() -> Iterator[None]:
    """Create every text inside the `with` block as plain text."""
    with matplotlib.rc_context({"text.parse_math": False}):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings of matplotlib about missing characters and missing bold fonts."""
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
            yield
    finally:
        log.setLevel(level)


@dataclass(frozen=True)
class _Font:
    family: str
    style: str
    path: str
    characters: frozenset[int]


def fonts_for(text: str) -> tuple[list[str], frozenset[str]]:
    """Return the font families that a text needs beside the default one, and the characters that no font has."""
    missing = {character for character in text if category(character)[0] not in "CZ"} - _usual()
    families = []
    while missing:
        # choose the font with most of the missing characters; of equal ones the first
        best = max(
            _installed(), key=lambda font: sum(ord(character) in font.characters for character in missing), default=None
        )
        covered = {character for character in missing if best and ord(character) in best.characters}
        if not covered:
            break

        # register all weights of a family that was installed after matplotlib made its list
        if best.family not in font_manager.get_font_names():
            for font in _installed():
                if font.family == best.family:
                    font_manager.fontManager.addfont(font.path)
        families.append(best.family)
        missing -= covered
    return families, frozenset(missing)


@cache
def _usual() -> frozenset[str]:
    """Return the characters of the default font of matplotlib."""
    return frozenset(map(chr, FT2Font(font_manager.findfont(font_manager.FontProperties())).get_charmap()))


@cache
def _installed() -> tuple[_Font, ...]:
    """List the installed fonts with their characters: those usual for running text first, then by name."""
    fonts = []
    for path in font_manager.findSystemFonts():
        try:
            font = FT2Font(os.fspath(path))
            if font.scalable:  # bitmap fonts, such as coloured emoji, are not
                fonts.append(_Font(font.family_name, font.style_name, path, frozenset(font.get_charmap())))
        except (OSError, RuntimeError, ValueError):  # a damaged file
            continue
    return tuple(sorted(fonts, key=_order))


def _order(font: _Font) -> tuple[bool, bool, bool, str, str]:
    """Return the sort key of fonts: Noto Sans first, then fonts without Mono, then regular weights."""
    is_plain = font.style in ("Regular", "Book", "Roman", "Normal")
    return not font.family.startswith("Noto Sans"), "Mono" in font.family, not is_plain, font.family, font.path


def shortened(name: object, limit: int) -> str:
    """Shorten a name to at most `limit` columns: its beginning, `…` and its end.

    A Chinese character takes two columns. Characters are not separated from their accents and vowel signs.
    """
    text = printable(name)
    if cell_len(text) <= limit:
        return text

    # add characters to the beginning and the end in turn, until the next one does not fit
    parts = _characters(text)
    head = ""
    tail = ""
    room = limit - 1
    while len(parts) > 1:
        at_end = cell_len(tail) < cell_len(head)
        part = parts[-1] if at_end else parts[0]
        if cell_len(part) > room:
            break
        room -= cell_len(part)
        parts = parts[:-1] if at_end else parts[1:]
        if at_end:
            tail = part + tail
        else:
            head += part

    # no space beside the dots
    return f"{head.rstrip()}…{tail.lstrip()}"


def short_names(names: Sequence[object], limit: int) -> list[str]:
    """Shorten names; names that become equal get the number of their position."""
    short = [shortened(name, limit) for name in names]
    times = Counter(short)
    return [
        text if times[text] == 1 else f"{shortened(name, limit - 2 - len(str(place)))} {place}"
        for place, (name, text) in enumerate(zip(names, short, strict=True), 1)
    ]


def columns(texts: Iterable[str]) -> int:
    """Return the number of columns of the longest line of some texts."""
    return max((cell_len(line) for text in texts for line in text.split("\n")), default=0)


def inches(texts: Iterable[str], size: float) -> float:
    """Return the approximate width in inches of the longest line of some texts, in a font size in points."""
    lines = (line for text in texts for line in text.split("\n"))
    return max((sum(map(_advance, line)) for line in lines), default=0.0) * size / 72


@cache
def _advance(character: str) -> float:
    """Return the width of a character as a share of the font size; estimated if the default font lacks it."""
    if character not in _usual():
        return NARROW * cell_len(character)
    font = FT2Font(font_manager.findfont(font_manager.FontProperties()))
    font.set_size(100, 72)
    return font.load_char(ord(character)).linearHoriAdvance / 65536 / 100


def in_lines(text: str, limit: int) -> str:
    """Break a text into lines of at most `limit` columns, within a word only if the word is longer than a line."""
    lines = [""]
    for word in printable(text).split(" "):
        # add the word to the last line if it fits
        if cell_len(lines[-1]) + 1 + cell_len(word) <= limit or not lines[-1]:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
        else:
            lines.append(word)

        # break a word that is longer than a line, after a separator if it has one
        while cell_len(lines[-1]) > limit:
            parts = _characters(lines[-1])
            head = ""
            while parts and (not head or cell_len(head + parts[0]) <= limit):
                head += parts.pop(0)
            if not parts:
                break
            if match := BREAKS.match(head):
                head = match[0]
            lines[-1:] = [head, lines[-1][len(head) :]]
    return "\n".join(lines)


def titled(text: str, width: float, size: float = 12) -> str:
    """Break a bold title of a font size in points into lines of at most `width` inches."""
    return in_lines(text, max(20, int(width * 72 / (1.1 * NARROW * size))))


def _characters(text: str) -> list[str]:
    """Split a text into characters as a reader sees them, with their accents, vowel signs and joined consonants."""
    parts: list[str] = []
    for character in text:
        joins = category(character)[0] == "M" or character in JOINERS
        if parts and (joins or parts[-1][-1] in JOINERS or combining(parts[-1][-1]) == VIRAMA):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def advice(characters: Iterable[str], limit: int = 10) -> tuple[str, str]:
    """Return up to `limit` of the characters that no font has, and the names of the Noto fonts that have them."""
    missing = sorted(characters)
    shown = " ".join(missing[:limit]) + (" …" if len(missing) > limit else "")
    return shown, ", ".join(dict.fromkeys(map(_noto, missing)))


NOTO = (
    (0x0590, "Hebrew"), (0x0600, "Arabic"), (0x0900, "Devanagari"), (0x0980, "Bengali"), (0x0A00, "Gurmukhi"),
    (0x0A80, "Gujarati"), (0x0B00, "Oriya"), (0x0B80, "Tamil"), (0x0C00, "Telugu"), (0x0C80, "Kannada"),
    (0x0D00, "Malayalam"), (0x0D80, "Sinhala"), (0x0E00, "Thai"), (0x0E80, "Lao"), (0x0F00, "Tibetan"),
    (0x1000, "Myanmar"), (0x10A0, "Georgian"), (0x1100, "CJK"), (0x1200, "Ethiopic"), (0x13A0, ""),
    (0x1780, "Khmer"), (0x1800, ""), (0x2E80, "CJK"), (0xA000, ""), (0xAC00, "CJK"), (0xD7B0, ""), (0xF900, "CJK"),
    (0xFB00, ""), (0xFF00, "CJK"), (0xFFF0, ""), (0x1F000, "Emoji (the one without colours)"), (0x1FB00, ""),
    (0x20000, "CJK"), (0x323B0, ""),
)  # fmt: skip
"""First code point of the script of each Noto font; an entry without a name ends the previous one."""


def _noto(character: str) -> str:
    """Return the name of the Noto font that has a character."""
    name = [name for start, name in ((0, ""), *NOTO) if start <= ord(character)][-1]
    return f"Noto {name}" if name.startswith("Emoji") else f"Noto Sans {name}".rstrip()
