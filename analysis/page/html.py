"""Writes the parts of a report as a self-contained HTML page, as Markdown, and as files of all tables and figures.

python -c "from analysis.page import html; help(html.write)"
"""

import base64
import io
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from analysis.page import compact, kept, live, tables
from analysis.page.attempt import attempted
from analysis.page.blocks import Block, Data, Gallery, Heading, Items, Paragraph, Picture, Terms
from analysis.page.characters import Plot, advice
from analysis.page.tables import Table
from analysis.wording.texts import MARKUP, restored, spoken, text
from study.system.errors import UserError
from study.system.files import replace_bytes
from study.system.forks import Forks

TEMPLATE = Path(__file__).with_name("report.html")
SCRIPT = Path(__file__).with_name("report.js")
PIXELS = 115
"""Pixels of an inch of a figure on the page."""

PICTURES = ("svg", "png", "pdf")
"""Formats of the figures of the short form; the others are written as SVG alone, unless everything is asked for."""

DPI = 160


@dataclass(frozen=True)
class Part:
    """A section of the page; the names of its files start with `name`.

    `blocks` are the short form, or a function that makes them; the page folds what is `more`, and the short report
    leaves it out. `more` are functions that make blocks, called in other processes; those at the places of `longest`
    have one each and begin first.
    """

    name: str
    title: str
    blocks: Sequence[Block] | Callable[[], Sequence[Block]]
    more: Sequence[Callable[[], Iterable[Block]]] = ()
    longest: Sequence[int] = ()


@dataclass(frozen=True)
class Drawn:
    """A figure after writing: the stem and formats of its files, its width in pixels, and its SVG as a data URL.

    `readings` and `sheets` are those of `live`, for the script of the page. `undrawn` are the characters of its texts
    that no font has.
    """

    stem: str
    width: int
    title: str
    caption: str
    photo: bool
    svg: str
    readings: dict[str, Any]
    sheets: dict[str, bytes]
    formats: Sequence[str]
    undrawn: frozenset[str]


def reload_tag(seconds: int) -> str:
    """Return the element with which a page reloads itself, where it is read, after some seconds."""
    return f'<meta http-equiv="refresh" content="{seconds}">'


def write(
    parts: Iterable[Part],
    title: str,
    source: str,
    provenance: Callable[[], str],
    out: Path,
    full: bool = False,
    reload: int = 0,
    pictures: Sequence[str] = PICTURES,
) -> Path:
    """Write `index.html`, `report.md`, `tables/` and `figures/` into a folder, and return the path of the page.

    The page has everything, with what is more than the short form folded. `report.md`, and the page when it is printed,
    have the short form; if `full`, everything. The page reloads itself every `reload` seconds, unless 0. `pictures` are
    the formats of the figures of the short form.
    """
    # create the folders before anything is drawn
    try:
        for folder in (out / "tables", out / "figures"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the report cannot be written to {out}: {error.strerror}") from None

    # write the files of each part, in several processes; they send what the page shows of it
    anchors = _Names()
    _load_backends()
    forks = Forks()
    formats = pictures if full else PICTURES[:1]
    shown: list[dict[str, Any]] = []
    for part in parts:
        anchor = anchors.unused(part.name, longest=60)
        makes = [partial(_places_written, part.more, group, anchor, out, formats) for group in _groups(part)]
        begun = [forks.start(make) for make in makes[: forks.most]]  # while the short form is made here
        in_short = part.blocks() if callable(part.blocks) else part.blocks
        blocks = forks.start(partial(_written, partial(list, in_short), anchor, out, pictures))
        begun += [forks.start(make) for make in makes[forks.most :]]
        shown.append({"anchor": anchor, "title": part.title, "blocks": blocks, "more": begun})

    # wait for them, and give each heading its anchor
    content = {"title": title, "source": source, "parts": shown, "provenance": provenance(), "full": full}
    for part in shown:
        part["blocks"] = _with_anchors(part["blocks"](), part["anchor"], anchors)
        written = {place: made for result in part["more"] for place, made in result().items()}
        more = [block for place in sorted(written) for block in written[place]]
        part["more"] = _with_anchors(more, part["anchor"], anchors)

    # write the page and the same as Markdown
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(text=text, language=spoken(), script=Markup(SCRIPT.read_text(encoding="utf-8")))
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.filters["strong"] = _strong
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    content["reload"] = Markup(reload_tag(reload)) if reload else ""
    figures = _figures(shown)
    content["notes"] = _undrawn(figures)
    sheets = {name: sheet for figure in figures for name, sheet in figure.sheets.items()}
    content["sheets"] = {name: _address("image/jpeg", sheet) for name, sheet in sheets.items()}
    kept.remove_older(out, _files_of(shown, figures))
    kept.replace(out, "index.html", _encoded(template.render(content)))
    kept.replace(out, "report.md", _encoded(_markdown(content)))
    return out / "index.html"


def _files_of(parts: Iterable[dict[str, Any]], figures: Iterable[Drawn]) -> set[str]:
    """Return the names of the tables and figures of a report, in its folder."""
    suffixes = {"table": tables.FORMATS, "data": ("csv",)}
    blocks = [block for part in parts for block in part["blocks"] + part["more"]]
    names = {f"figures/{figure.stem}.{suffix}" for figure in figures for suffix in figure.formats}
    return names | {
        f"tables/{block['stem']}.{suffix}" for block in blocks for suffix in suffixes.get(block["kind"], ())
    }


class _Names:
    """Names of files or anchors, each used only once."""

    def __init__(self):
        self.used: set[str] = set()

    def unused(self, text: str, longest: int = 150) -> str:
        """Make an ASCII name of at most `longest` characters from a text; add a number if it has been used before.

        It has no underscore, unlike the ids that the page has by itself.
        """
        name = re.sub(r"[^a-z0-9.]+", "-", text.lower())[:longest].strip("-.") or "section"
        name = next(
            word for n in range(1, len(self.used) + 2) if (word := name if n == 1 else f"{name}-{n}") not in self.used
        )
        self.used.add(name)
        return name


def _figures(parts: Iterable[dict]) -> list[Drawn]:
    """List the figures of all parts."""
    blocks = [block for part in parts for block in part["blocks"] + part["more"]]
    figures = [block["picture"] for block in blocks if block["kind"] == "picture"]
    return figures + [figure for block in blocks if block["kind"] == "gallery" for figure in block["pictures"]]


def _undrawn(figures: Iterable[Drawn]) -> list[str]:
    """Report the characters that no installed font has and the fonts to install, on the page and on stderr."""
    characters = frozenset[str]().union(*(figure.undrawn for figure in figures))
    if not characters:
        return []
    shown, fonts = advice(characters)
    message = text(
        "The figures show boxes in place of {characters}, because no installed font has these characters: install "
        "{fonts}.",
        characters=shown,
        fonts=fonts,
    )
    print(f"warning: {restored(message)}", file=sys.stderr)
    return [message]


def _groups(part: Part) -> list[list[int]]:
    """Return the places of what is more than the short form in groups, each for one process, in the order of starts.

    Those that take longest have a process each; the others share one, which begins before the last of these.
    """
    alone = [[place] for place in part.longest]
    rest = [place for place in range(len(part.more)) if place not in part.longest]
    return [*alone[:-1], *([rest] if rest else []), *alone[-1:]]


def _places_written(
    makes: Sequence[Callable[[], Iterable[Block]]], places: Iterable[int], *where: Any
) -> dict[int, list[dict]]:
    """Return what `_written` returns of the functions at some places."""
    return {place: _written(makes[place], *where) for place in places}


def _written(make: Callable[[], Iterable[Block]], anchor: str, out: Path, formats: Sequence[str]) -> list[dict]:
    """Make blocks, write their files, and return the values that the page and the Markdown show.

    An error message replaces a block that fails.
    """
    files = _Names()
    shown = []
    for block in make():
        what = getattr(block, "title", "") or getattr(block, "name", "") or text("Figures")
        result = attempted(restored(what), partial(_files, block, anchor, files, out, formats))
        shown.append(_paragraph(result) if isinstance(result, Paragraph) else result)
    return shown


def _files(block: Block, anchor: str, files: _Names, out: Path, formats: Sequence[str]) -> dict:
    """Write the files of a block, and return the values that are shown."""
    match block:
        # texts
        case Heading(text):
            return {"kind": "heading", "text": text}
        case Paragraph():
            return _paragraph(block)
        case Items(texts, soft):
            return {"kind": "items", "texts": texts, "soft": soft}
        case Terms(entries):
            return {"kind": "terms", "entries": entries}
        # tables and numbers, as files
        case Table():
            stem = files.unused(f"{anchor}-{block.name}")
            texts = {suffix: write(block) for suffix, write in tables.FORMATS.items()}
            for suffix, content in texts.items():
                save(out / "tables" / f"{stem}.{suffix}", content)
            shown = {"title": block.title, "notes": block.notes, "header": block.header, "rows": block.rows}
            is_text = [column.digits is None for column in block.columns]
            return {"kind": "table", "stem": stem, **shown, "is_text": is_text, "markdown": tables.markdown(block)}
        case Data(name, text, frame):
            stem = files.unused(f"{anchor}-{name}")
            save(out / "tables" / f"{stem}.csv", tables.harmless(frame).to_csv(index=False, float_format="%.10g"))
            return {"kind": "data", "text": text, "stem": stem}
        # figures, as files
        case Picture():
            return {"kind": "picture", "picture": _draw(block, anchor, files, out, formats)}
        case Gallery(pictures, caption):
            return _gallery(pictures, caption, partial(_draw, anchor=anchor, files=files, out=out, formats=formats))


def _paragraph(block: Paragraph) -> dict:
    return {"kind": "paragraph", "text": block.text, "soft": block.soft}


def _gallery(pictures: Sequence[Picture], caption: str, draw: Callable[[Picture], Drawn]) -> dict:
    """Draw the figures of a gallery; an error message in the caption replaces one that fails."""
    results = [attempted(restored(picture.title), partial(draw, picture)) for picture in pictures]
    messages = [item.text for item in results if isinstance(item, Paragraph)]
    return {
        "kind": "gallery",
        "pictures": [item for item in results if isinstance(item, Drawn)],
        "caption": " ".join([caption, *messages]).strip(),
    }


def _draw(picture: Picture, anchor: str, files: _Names, out: Path, formats: Sequence[str]) -> Drawn:
    """Write a figure in some formats."""
    stem = files.unused(f"{anchor}-{picture.name}")
    live.give_ids(picture.figure)
    contents = {suffix: drawn(picture.figure, suffix, stem) for suffix in formats}
    for suffix, content in contents.items():
        save(out / "figures" / f"{stem}.{suffix}", content)
    svg = _address("image/svg+xml", compact.svg(contents["svg"], picture.photo))
    width = round(PIXELS * picture.figure.get_figwidth())
    lacking = getattr(picture.figure, "undrawn", frozenset())
    shown = live.readings(picture.figure), live.sheets(picture.figure)
    return Drawn(stem, width, picture.title, picture.caption, picture.photo, svg, *shown, formats, lacking)


def _address(kind: str, content: bytes) -> str:
    """Return the content of a file as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _with_anchors(blocks: Iterable[dict], part: str, anchors: _Names) -> list[dict]:
    """Give each heading among the blocks of a part its anchor."""
    return [
        {**block, "anchor": anchors.unused(f"{part}-{block['text']}")} if block["kind"] == "heading" else block
        for block in blocks
    ]


def drawn(figure: Figure, suffix: str, stem: str) -> bytes:
    """Draw a figure in the format of a suffix; the bytes depend only on the figure and the stem, not on the time."""
    buffer = io.BytesIO()
    figure.dpi = DPI
    with matplotlib.rc_context({"svg.hashsalt": stem}):
        match suffix:
            case "png":
                FigureCanvasAgg(figure).print_png(buffer)
            case "svg":
                FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
            case "pdf":
                FigureCanvasPdf(figure).print_pdf(buffer, metadata={"CreationDate": None})
    return buffer.getvalue()


def _load_backends() -> None:
    """Draw a small figure in every format, so that the processes that draw inherit the libraries and fonts."""
    figure = Plot()
    figure.text(0, 0, "a")
    for suffix in PICTURES:
        drawn(figure, suffix, "")


def _strong(text: str) -> Markup:
    """Escape a text for HTML; `**words**` become bold and words in backticks code, except in `protected` names."""
    bold = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", str(escape(text)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", bold))


def _markdown(content: dict) -> str:
    """Write the page as Markdown, with its tables, and links to its figures: the short form, or everything."""
    lines = [f"# {content['title']}", plain(content["source"]), *map(plain, content["notes"])]
    for part in content["parts"]:
        blocks = [*part["blocks"], *(part["more"] if content["full"] else [])]
        if blocks:
            lines.append(f"## {plain(part['title'])}")
        for block in blocks:
            lines += _markdown_of(block)
    return "\n\n".join(line for line in [*lines, plain(content["provenance"])] if line) + "\n"


def _markdown_of(block: dict) -> list[str]:
    """Write a block as paragraphs of Markdown."""
    match block["kind"]:
        # texts and tables
        case "heading":
            return [f"### {plain(block['text'])}"]
        case "paragraph":
            return [plain(block["text"])]
        case "items":
            return ["\n".join(f"- {plain(text)}" for text in block["texts"])]
        case "terms":
            return ["\n".join(_markdown_term(*entry) for entry in block["entries"])]
        case "table":
            return [f"**{plain(block['title'])}**", block["markdown"].rstrip(), plain(" ".join(block["notes"]))]
        case "data":
            return [f"{plain(block['text'])} [csv](tables/{block['stem']}.csv)"]
        # figures, as links
        case "picture":
            return _markdown_picture(block["picture"])
        case _:
            pictures = [line for picture in block["pictures"] for line in _markdown_picture(picture)]
            return [*pictures, plain(block["caption"])]


def _markdown_term(term: str, words: str, link: str) -> str:
    """Write a term and its definition as an item of a list."""
    name = f"[{plain(term)}]({link})" if link else plain(term)
    return f"- **{name}**: {plain(words)}"


def _markdown_picture(picture: Drawn) -> list[str]:
    suffix = "png" if "png" in picture.formats else "svg"
    return [f"![{plain(picture.title)}](figures/{picture.stem}.{suffix})", plain(picture.caption)]


def plain(text: str) -> str:
    """Escape the markup of Markdown in a text, except bold and code, in which nothing needs it."""
    parts = re.split(r"(`[^`]*`)", tables.in_one_line(text))
    return "".join(restored(part) if place % 2 else _escaped(part) for place, part in enumerate(parts))


def _escaped(text: str) -> str:
    marked = {mark: f"\\{character}" for character, mark in MARKUP.items()}
    text = re.sub(r"([\\_<\[\]$~]|&(?=#?\w+;))", r"\\\1", text)
    return "".join(marked.get(character, character) for character in text)


def save(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, then rename it."""
    replace_bytes(path, _encoded(content) if isinstance(content, str) else content)


def _encoded(content: str) -> bytes:
    return restored(content).encode("utf-8", "backslashreplace")
