"""Every label and sentence that a reader of tables, figures and the report sees, in English and Spanish.

    python -c "from analysis.wording import label, language
    with language('es'): print(label('val/acc'))"

`wording.yaml` holds the texts: under each key an English and a Spanish one. Code never holds a text that a reader
sees; it asks for it by its key:

- `label("epoch")` for a word or a heading: of an axis, a table's column, a state of a run;
- `sentence("missing", points=…)` for a text with values in it; `{count:,}` writes a number as the language does, and
  `{count:run|runs}` chooses the first word for 1, else the second;
- `number(0.5, ".1f")` for a number alone; `shown("dropout 0.5, augment none")` for the name of a setting, which inside
  of the analysis is always the same.

CSV files are data: they are the same in every language.
"""

import re
import string
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import yaml

LANGUAGES = ("en", "es")

OPTION = "option "
"""Begins the keys of the options' names, such as `option batch_size`."""

_language: ContextVar[str] = ContextVar("language", default="en")


@contextmanager
def language(name: str) -> Iterator[None]:
    """Let every text that is made inside be in this language, one of LANGUAGES."""
    token = _language.set(name)
    try:
        yield
    finally:
        _language.reset(token)


def spoken() -> str:
    """Return the language that texts are made in now."""
    return _language.get()


@cache
def texts() -> dict[str, dict[str, str]]:
    """Read all texts: by key, then by language."""
    return yaml.safe_load(Path(__file__).with_name("wording.yaml").read_text(encoding="utf-8"))


def label(key: str) -> str:
    """Return a word or heading; a key without one says itself."""
    return texts()[key][spoken()] if key in texts() else key.replace("_", " ")


def sentence(key: str, **values: object) -> str:
    """Return a text with its values filled in."""
    return _Formatter().format(texts()[key][spoken()], **values)


def number(value: float, spec: str = "", lang: str | None = None) -> str:
    """Write a number as the language does: 1,234.5 in English, 1 234,5 in Spanish."""
    text = format(value, spec).replace("-", "−")
    return text.translate({ord(","): "\u202f", ord("."): ","}) if (lang or spoken()) == "es" else text


def shown(text: str) -> str:
    """Return the name of a setting or of a point, such as `dropout 0.5, seed 1`, as the language writes it."""
    return text if spoken() == "en" else ", ".join(map(_shown_part, text.split(", ")))


def _shown_part(part: str) -> str:
    name, _, value = part.rpartition(" ")
    known = texts().get(OPTION + name.replace(" ", "_"))
    if name and not known:
        return part
    if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value):
        value = value.replace(".", ",")
    words = [known[spoken()]] if known else []
    return " ".join([*words, label(value) if value in ("none", "True", "False") else value])


class _Formatter(string.Formatter):
    """Writes numbers as the language does, and chooses between singular and plural."""

    def format_field(self, value: object, spec: str) -> str:
        if "|" in spec:
            return spec.split("|")[value != 1]
        return number(value, spec) if isinstance(value, int | float) else format(value, spec)
