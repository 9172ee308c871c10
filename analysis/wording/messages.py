"""Collect every text of a report, and bring the catalogues up to date with them.

    python -m analysis.wording.messages      # or `make messages`, in a checkout

Texts are found in the calls of `text`, `plural` and `mark` in `analysis/`, in the template of the page, and in the
descriptions of the study's own sweeps. A new text gets an empty translation; one that is gone is removed.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from babel.messages import Catalog
from babel.messages.pofile import read_po, write_po
from jinja2 import Environment
from jinja2.ext import extract_from_ast

from analysis.wording.catalogue import LANGUAGES
from study.sweeps import definition

ROOT = Path(__file__).parents[2]

CALLS = {"text": 1, "mark": 1, "plural": 2}
"""Functions that take texts, with how many of them."""

HEADER = """# The texts of a report: their English, as it stands in the code, and its translation.
# `make messages` adds what is new and removes what is gone; tests/test_messages.py finds what is not translated.
msgid ""
msgstr ""
"Language: {language}\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\\n"

"""


class Message(NamedTuple):
    """An English text, with its plural and its context if it has them."""

    text: str
    plural: str = ""
    context: str = ""

    @property
    def id(self) -> str | tuple[str, str]:
        """Return what gettext calls its id."""
        return (self.text, self.plural) if self.plural else self.text


def messages() -> dict[Message, list[str]]:
    """Return every text with the files that have it."""
    found: dict[Message, list[str]] = {}
    for path in sorted((ROOT / "analysis").rglob("*.py")):
        for message in of_code(path.read_text(encoding="utf-8"), str(path)):
            found.setdefault(message, []).append(path.relative_to(ROOT).as_posix())
    for path in sorted((ROOT / "analysis").rglob("*.html")):
        for message in of_template(path.read_text(encoding="utf-8")):
            found.setdefault(message, []).append(path.relative_to(ROOT).as_posix())
    for path in sweeps():
        if description := definition.read(path, {}).description:
            found.setdefault(Message(description), []).append(path.relative_to(ROOT).as_posix())
    return found


def sweeps() -> list[Path]:
    """List the study's own sweeps, `quickstart` and those that `make study` trains; sweeps/ may hold others too."""
    (names,) = re.findall(r"^STUDY := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return sorted(ROOT / "sweeps" / f"{name}.yaml" for name in ["quickstart", *names.replace("\\", " ").split()])


def of_code(code: str, name: str = "") -> Iterator[Message]:
    """Yield the texts of Python code; raise ValueError for one that is put together at run time."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        count = CALLS.get(call.func.id if isinstance(call.func, ast.Name) else "")
        if count is None or not call.args:
            continue
        texts = call.args[:count]
        for node in texts:
            if isinstance(node, ast.JoinedStr | ast.BinOp | ast.IfExp | ast.BoolOp):
                raise ValueError(f"{name}:{node.lineno}: a text is a constant, not {ast.unparse(node)}")
        if all(isinstance(node, ast.Constant) for node in texts):
            context = next((word.value.value for word in call.keywords if word.arg == "context"), "")
            yield Message(texts[0].value, texts[1].value if count > 1 else "", context)


def of_template(template: str) -> Iterator[Message]:
    """Yield the texts of a Jinja template."""
    for _, _, words in extract_from_ast(Environment(autoescape=True).parse(template), ("text",), babel_style=False):
        yield Message(words[0])


def catalogue(language: str) -> Catalog:
    """Read the catalogue of a language."""
    with path_of(language).open("rb") as file:
        return read_po(file)


def path_of(language: str) -> Path:
    """Return the file of a catalogue."""
    return Path(__file__).with_name(f"{language}.po")


def update(language: str) -> None:
    """Write a catalogue with exactly the texts of the code, and the translations that it had.

    It is sorted by file and text, so that code can move without a change here.
    """
    known = catalogue(language)
    updated = Catalog()
    for message, files in sorted(messages().items(), key=lambda item: (item[1][0], item[0])):
        before = known.get(message.text, message.context or None)
        kept = before.string if before and before.id == message.id else ""
        locations = [(file, 0) for file in dict.fromkeys(files)]
        written = updated.add(message.id, kept, locations=locations, context=message.context or None)
        written.flags.clear()
    with path_of(language).open("wb") as file:
        file.write(HEADER.format(language=language).encode())
        write_po(file, updated, width=120, omit_header=True, include_lineno=False)


if __name__ == "__main__":
    for name in LANGUAGES[1:]:
        update(name)
        rest = [message.id for message in catalogue(name) if not all(message.string) or not message.string]
        print(f"{path_of(name)}: {len(rest)} texts without a translation", *rest, sep="\n")
