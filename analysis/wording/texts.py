"""Every label and sentence that a reader of tables, figures and the report sees, in English and Spanish.

    python -c "from analysis.wording.texts import label, language
    with language('es'): print(label('val/acc'))"

`wording.yaml` holds the texts: under each key an English and a Spanish one. Code never holds a text that a reader
sees; it asks for it by its key:

- `label("epoch")` for a word or a heading: of an axis, a table's column, a state of a run;
- `sentence("trained", options=…)` for a text with values in it; `{count:,}` writes a number as the language does, and
  `{count:run|runs}` chooses the first word for 1, else the second;
- `number(0.5, ".1f")` for a number alone; `shown("dropout 0.5, augment none")` for the name of a setting, which inside
  of the analysis is always the same.

CSV files are data: they are the same in every language.
"""

import numbers
import re
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import yaml

LANGUAGES = ("en", "es")

NAMED = 4
"""So many settings are named in a sentence; the others are counted."""

PAIR = re.compile(r"""\b(\w+)=('[^']*'|"[^"]*"|[^\s=,'"]+(?:,[^\s=,]+)*)( |(?=,|$))""")
"""A key and its value, and whether another follows."""

WHOLE = ("classes", "train_images")
"""Options that mean all of them where they say nothing."""

OPTION = "option "
"""Begins the keys of the options' names, such as `option batch_size`."""

_language: ContextVar[str] = ContextVar("language", default="en")


MARKUP = {"*": "\ufdd0", "`": "\ufdd1"}
"""What a text of `wording.yaml` marks bold and code with, and what stands for it in the values that are filled in."""

_PROTECTED = str.maketrans(MARKUP)
_RESTORED = str.maketrans({mark: letter for letter, mark in MARKUP.items()})


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
    return yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf-8"))


def label(key: str) -> str:
    """Return a word or heading."""
    return texts()[key][spoken()]


def sentence(key: str, **values: object) -> str:
    """Return a text with its values filled in; these are text, also where they look like `**bold**`."""
    return _Formatter().format(texts()[key][spoken()], **values)


def protected(text: str) -> str:
    """Return a name such that it is text beside what a sentence marks as bold or code; `restored` turns it back."""
    return text.translate(_PROTECTED)


def restored(text: str) -> str:
    """Return a text as a reader is to see it, with the letters that `protected` has replaced."""
    return text.translate(_RESTORED)


def number(value: float, spec: str = "", lang: str | None = None) -> str:
    """Write a number as the language does: 1,234.5 in English, 1 234,5 in Spanish; no zero is negative."""
    text = re.sub(r"^-(?=[0.,]*$)", "", format(value, spec)).replace("-", "−")
    return text.translate({ord(","): "\u202f", ord("."): ","}) if (lang or spoken()) == "es" else text


def named(names: Sequence[str], limit: int = NAMED) -> str:
    """Join names; beyond a limit, count the others."""
    rest = [sentence("more", count=len(names) - limit)] if len(names) > limit else []
    return "; ".join([*names[:limit], *rest])


def settings_named(settings: Sequence[str], total: int) -> str:
    """Name some of so many settings, or say that it is every one."""
    return label("every") if len(settings) == total > 1 else named([shown(one) for one in settings])


def shown(text: str) -> str:
    """Return the name of a setting or of a point, such as `dropout 0.5, seed 1`, as the language writes it.

    Pairs such as `model=cnn epochs=30` become words too. Where numbers have commas, options are parted by a dot.
    """
    return (", " if spoken() == "en" else " · ").join(map(_shown_part, PAIR.sub(_pair_in_words, text).split(", ")))


def _pair_in_words(pair: re.Match) -> str:
    name, value, end = pair.groups()
    value = value.strip("'\"") or "none"
    return (value if name == "model" else f"{name.replace('_', ' ')} {value}") + ("," if end == " " else "") + end


def option(name: str) -> str:
    """Return the name of an option, such as `batch_size`, as settings are named by it."""
    known = texts().get(OPTION + name)
    return known[spoken()] if known else name.replace("_", " ")


def option_value(name: str, value: str) -> str:
    """Return a value of an option with its name, such as `dropout 0.5`; key=value pairs have names of their own."""
    return shown(value) if name == "pairs" else f"{option(name)} {shown_value(value, name)}"


def shown_value(value: str, name: str = "") -> str:
    """Return the value of an option, of that name, as the language writes it."""
    if name == "pairs":
        return shown(value)
    if name in WHOLE and value in ("", "all", "none", "None"):
        return label(f"all {name}")
    if spoken() != "en" and re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value):
        return value.replace(".", ",")
    return label(value or "none") if value in ("", "none", "None", "True", "False") else value


def _shown_part(part: str) -> str:
    name, _, value = part.rpartition(" ")
    key = name.replace(" ", "_")
    if not part or spoken() == "en" or (name and OPTION + key not in texts()):
        return part
    return f"{option(key)} {shown_value(value, key)}" if name else shown_value(value)


class _Formatter(string.Formatter):
    """Writes numbers as the language does, and chooses between singular and plural."""

    def format_field(self, value: object, spec: str) -> str:
        if "|" in spec:
            return spec.split("|")[value != 1]
        return number(value, spec) if isinstance(value, numbers.Real) else protected(format(value, spec))
