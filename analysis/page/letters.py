"""Text in figures: it is never markup, is drawn in fonts that have its letters, and fits.

    python -c "from analysis.page.letters import shortened; print(shortened('a name that is too long', 12))"

Every figure is a `Plot`. matplotlib would take what stands between two `$` for a formula, and draws empty boxes for
letters that its own font lacks, such as Chinese or Indic ones; a `Plot` draws plain text, and looks for an installed
font that has these letters.
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
"""Width of a column on average, as a share of the size of letters; bold ones are a little wider."""

SHORTEST_LINE = 20
"""Columns of a title's lines, where the axes stand at the edge of a figure."""

BREAKS = re.compile(r".*[,;/_-]", re.DOTALL)
"""The part of a long word that may end a line."""

JOINERS = "\u200c\u200d"
VIRAMA = 9
"""Unicode's combining class of the sign that joins two Indic consonants."""


class Plot(Figure):
    """A figure whose texts are plain text, in fonts that have their letters as far as such are installed."""

    undrawn: frozenset[str] = frozenset()
    """Letters of its texts that no installed font has, once it has been drawn."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure; letters that no font has become boxes, without a warning for each."""
        with plain(), _quiet():
            texts = self._texts()
            fonts, self.undrawn = fonts_for("".join(text.get_text() for text in texts))
            for text in texts:
                text.set_parse_math(False)
                text.set_text(restored(text.get_text()))
                text.set_fontfamily(list(dict.fromkeys([*text.get_fontfamily(), *fonts])))
            self._break_titles(renderer)
            super().draw(renderer)

    def _break_titles(self, renderer: RendererBase) -> None:
        """Break the titles of axes that would be cut off at the edge of the figure into lines."""
        width = self.get_figwidth()
        titles = [(axes, axes.title) for axes in self.axes]
        wide = [(axes, title) for axes, title in titles if inches([title.get_text()], title.get_fontsize()) > width / 2]
        if wide and self.get_layout_engine():
            self.get_layout_engine().execute(self)  # which says where the axes are
        for axes, title in wide:
            place = axes.get_position()
            middle = (place.x0 + place.x1) / 2
            room = 2 * min(middle, 1 - middle) * self.bbox.width
            whole, limit = title.get_text(), columns([title.get_text()])
            while title.get_window_extent(renderer).width > room and limit > SHORTEST_LINE:
                limit -= 2
                title.set_text("\n".join(in_lines(line, limit) for line in whole.split("\n")))

    def _texts(self) -> list[Text]:
        """Return all texts, those of the axes' numbers too, which are otherwise made only while drawing."""
        for axes in self.axes:
            axes.get_xticklabels()
            axes.get_yticklabels()
        return self.findobj(Text)


@contextmanager
def plain() -> Iterator[None]:
    """Let every text that is made inside be plain text."""
    with matplotlib.rc_context({"text.parse_math": False}):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what matplotlib says of each letter that no font has, and of fonts that have no bold letters."""
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
    letters: frozenset[int]


def fonts_for(text: str) -> tuple[list[str], frozenset[str]]:
    """Return the families to use beside the usual one for the letters of a text, and the letters that none has."""
    missing = {letter for letter in text if category(letter)[0] not in "CZ"} - _usual()
    families = []
    while missing:
        # the family that has the most of what is missing, of equal ones the first
        best = max(_installed(), key=lambda font: sum(ord(letter) in font.letters for letter in missing), default=None)
        found = {letter for letter in missing if best and ord(letter) in best.letters}
        if not found:
            break
        if best.family not in font_manager.get_font_names():  # installed after matplotlib made its list
            for font in _installed():
                if font.family == best.family:  # in all weights
                    font_manager.fontManager.addfont(font.path)
        families.append(best.family)
        missing -= found
    return families, frozenset(missing)


@cache
def _usual() -> frozenset[str]:
    """Return the letters of the font that matplotlib uses unless told otherwise."""
    return frozenset(map(chr, FT2Font(font_manager.findfont(font_manager.FontProperties())).get_charmap()))


@cache
def _installed() -> tuple[_Font, ...]:
    """Read which letters the installed fonts have: those that are usual in running text first, then by name."""
    fonts = []
    for path in font_manager.findSystemFonts():
        try:
            font = FT2Font(os.fspath(path))
            if font.scalable:  # which pictures of emoji are not
                fonts.append(_Font(font.family_name, font.style_name, path, frozenset(font.get_charmap())))
        except (OSError, RuntimeError, ValueError):  # a damaged file
            continue
    return tuple(sorted(fonts, key=_order))


def _order(font: _Font) -> tuple[bool, bool, bool, str, str]:
    is_plain = font.style in ("Regular", "Book", "Roman", "Normal")
    return not font.family.startswith("Noto Sans"), "Mono" in font.family, not is_plain, font.family, font.path


def shortened(name: object, limit: int) -> str:
    """Return a name in at most so many columns: one that is longer as its beginning, `…` and its end.

    A Chinese letter takes two columns; no letter is parted from its accents and vowel signs.
    """
    text = printable(name)
    if cell_len(text) <= limit:
        return text
    parts = _letters(text)
    head, tail, room = "", "", limit - 1
    while len(parts) > 1:
        at_end = cell_len(tail) < cell_len(head)
        part = parts[-1] if at_end else parts[0]
        if cell_len(part) > room:
            break
        room -= cell_len(part)
        parts = parts[:-1] if at_end else parts[1:]
        head, tail = (head, part + tail) if at_end else (head + part, tail)
    return f"{head.rstrip()}…{tail.lstrip()}"


def short_names(names: Sequence[object], limit: int) -> list[str]:
    """Shorten names; those that would then be the same are numbered by their places."""
    short = [shortened(name, limit) for name in names]
    times = Counter(short)
    return [
        text if times[text] == 1 else f"{shortened(name, limit - 2 - len(str(place)))} {place}"
        for place, (name, text) in enumerate(zip(names, short, strict=True), 1)
    ]


def columns(texts: Iterable[str]) -> int:
    """Return how many columns the longest line of texts takes."""
    return max((cell_len(line) for text in texts for line in text.split("\n")), default=0)


def inches(texts: Iterable[str], size: float) -> float:
    """Return about how wide the longest of texts is, in letters of that size in points."""
    lines = (line for text in texts for line in text.split("\n"))
    return max((sum(map(_advance, line)) for line in lines), default=0.0) * size / 72


@cache
def _advance(letter: str) -> float:
    """Return the width of a letter as a share of its size, estimated where matplotlib's own font lacks it."""
    if letter not in _usual():
        return NARROW * cell_len(letter)
    font = FT2Font(font_manager.findfont(font_manager.FontProperties()))
    font.set_size(100, 72)
    return font.load_char(ord(letter)).linearHoriAdvance / 65536 / 100


def in_lines(text: str, limit: int) -> str:
    """Break a text into lines of at most so many columns, within a word only where that alone is longer."""
    lines = [""]
    for word in printable(text).split(" "):
        if cell_len(lines[-1]) + 1 + cell_len(word) <= limit or not lines[-1]:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
        else:
            lines.append(word)
        while cell_len(lines[-1]) > limit:
            parts, head = _letters(lines[-1]), ""
            while parts and (not head or cell_len(head + parts[0]) <= limit):
                head += parts.pop(0)
            if not parts:
                break
            if found := BREAKS.match(head):
                head = found[0]
            lines[-1:] = [head, lines[-1][len(head) :]]
    return "\n".join(lines)


def titled(text: str, width: float, size: float = 12) -> str:
    """Break a title in bold letters of that size in points into lines of so many inches."""
    return in_lines(text, max(20, int(width * 72 / (1.1 * NARROW * size))))


def _letters(text: str) -> list[str]:
    """Part a text into what a reader takes for a letter: with its accents, vowel signs and joined consonants."""
    parts: list[str] = []
    for letter in text:
        joins = category(letter)[0] == "M" or letter in JOINERS
        if parts and (joins or parts[-1][-1] in JOINERS or combining(parts[-1][-1]) == VIRAMA):
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts


def advice(letters: Iterable[str], limit: int = 10) -> tuple[str, str]:
    """Return some of the letters that no font has, and the names of their scripts' fonts among the Noto fonts."""
    found = sorted(letters)
    shown = " ".join(found[:limit]) + (" …" if len(found) > limit else "")
    return shown, ", ".join(dict.fromkeys(map(_noto, found)))


NOTO = (
    (0x0590, "Hebrew"), (0x0600, "Arabic"), (0x0900, "Devanagari"), (0x0980, "Bengali"), (0x0A00, "Gurmukhi"),
    (0x0A80, "Gujarati"), (0x0B00, "Oriya"), (0x0B80, "Tamil"), (0x0C00, "Telugu"), (0x0C80, "Kannada"),
    (0x0D00, "Malayalam"), (0x0D80, "Sinhala"), (0x0E00, "Thai"), (0x0E80, "Lao"), (0x0F00, "Tibetan"),
    (0x1000, "Myanmar"), (0x10A0, "Georgian"), (0x1100, "CJK"), (0x1200, "Ethiopic"), (0x13A0, ""),
    (0x1780, "Khmer"), (0x1800, ""), (0x2E80, "CJK"), (0xA000, ""), (0xAC00, "CJK"), (0xD7B0, ""), (0xF900, "CJK"),
    (0xFB00, ""), (0xFF00, "CJK"), (0xFFF0, ""), (0x1F000, "Emoji (the one without colours)"), (0x1FB00, ""),
    (0x20000, "CJK"), (0x323B0, ""),
)  # fmt: skip
"""Where in Unicode the letters of a Noto font begin; one without a name ends the one before it."""


def _noto(letter: str) -> str:
    name = [name for start, name in ((0, ""), *NOTO) if start <= ord(letter)][-1]
    return f"Noto {name}" if name.startswith("Emoji") else f"Noto Sans {name}".rstrip()
