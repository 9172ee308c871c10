"""Every label and sentence that a reader of tables, figures and the report sees, in English and Spanish.

    python -c "from analysis.wording.texts import label, language
    with language('es'): print(label('val/acc'))"

`texts.yaml` holds the texts: an English and a Spanish one under each key. Code contains no text that a reader sees; it
looks it up by its key:

- `label("epoch")` for a word or a heading: an axis, a column of a table, a state of a run;
- `sentence("trained", options=…)` for a text with values in it; `{count:,}` writes a number in the format of the
  language, and `{count:run|runs}` chooses the first word for 1, otherwise the second;
- `number(0.5, ".1f")` for a number alone;
- `shown(setting)` for the name of a setting, `option_value(name, value)` for an option with its value.

CSV files hold data and are the same in every language.
"""

import numbers
import re
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from study.config.setting import ALL_BY_DEFAULT, WITHOUT_NAME, Setting

LANGUAGES = ("en", "es")

NAMED = 4
"""At most this many settings are named in a sentence; the others are counted."""

_language: ContextVar[str] = ContextVar("language", default="en")


MARKUP = {"*": "\ufdd0", "`": "\ufdd1"}
"""The marks for bold and code in `texts.yaml`, and what replaces these characters in the values that are filled in."""

_PROTECTED = str.maketrans(MARKUP)
_RESTORED = str.maketrans({mark: character for character, mark in MARKUP.items()})


@contextmanager
def language(name: str) -> Iterator[None]:
    """Write every text inside the `with` block in this language, one of LANGUAGES."""
    token = _language.set(name)
    try:
        yield
    finally:
        _language.reset(token)


def spoken() -> str:
    """Return the current language of texts."""
    return _language.get()


@cache
def texts() -> dict[str, dict[str, str]]:
    """Read all texts, by key and language."""
    return yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf-8"))


def label(key: str) -> str:
    """Return a word or heading in the current language."""
    return texts()[key][spoken()]


def sentence(key: str, **values: object) -> str:
    """Return a text with its values filled in; a value that looks like `**bold**` stays plain text."""
    return _Formatter().format(texts()[key][spoken()], **values)


def protected(text: str) -> str:
    """Replace the characters of a name that would mark bold or code; `restored` puts them back."""
    return text.translate(_PROTECTED)


def restored(text: str) -> str:
    """Put back the characters that `protected` has replaced."""
    return text.translate(_RESTORED)


def number(value: float, spec: str = "", lang: str | None = None) -> str:
    """Format a number: 1,234.5 in English, 1 234,5 in Spanish; a zero has no sign."""
    text = re.sub(r"^-(?=[0.,]*$)", "", format(value, spec)).replace("-", "−")
    return text.translate({ord(","): "\u202f", ord("."): ","}) if (lang or spoken()) == "es" else text


def named(names: Sequence[str], limit: int = NAMED) -> str:
    """Join names; those beyond a limit are counted."""
    rest = [sentence("more", count=len(names) - limit)] if len(names) > limit else []
    return "; ".join([*names[:limit], *rest])


def settings_named(settings: Sequence[Setting], total: int) -> str:
    """Name the settings, or write `every setting` if they are all of a total of several."""
    if len(settings) == total > 1:
        return label("every")
    return named([shown(setting) for setting in settings])


def shown(setting: Setting) -> str:
    """Return the name of a setting, such as `dropout 0.5, seed 1`, in the current language.

    In Spanish, which has decimal commas, options are separated by a dot.
    """
    if spoken() == "en" or setting.name:
        return str(setting)
    return " · ".join(
        shown_value(name, value) if name in WITHOUT_NAME else option_value(name, value) for name, value in setting.pairs
    )


def option(name: str) -> str:
    """Return the name of an option, such as `batch size` for `batch_size`."""
    known = texts().get(f"option {name}")
    return known[spoken()] if known else name.replace("_", " ")


def option_value(name: str, value: Any) -> str:
    """Return an option with its value, such as `dropout 0.5`; a setting already contains the names.

    Some pairs have words of their own, such as `sin aumento de datos`.
    """
    if isinstance(value, Setting):
        return shown(value)
    phrase = texts().get(f"phrase {name} {'none' if _is_empty(value) else value}")
    if phrase:
        return phrase[spoken()]
    words = shown_value(name, value)
    if name == "augment" and spoken() != "en":
        return sentence("phrase augment", value=words)
    return f"{option(name)} {words}"


def shown_value(name: str, value: Any) -> str:
    """Return the value of an option in the current language."""
    # values that stand for something else
    if isinstance(value, Setting):
        return shown(value)
    if _is_empty(value):
        return label(f"all {name}" if name in ALL_BY_DEFAULT else "none")
    if isinstance(value, bool):
        return label(str(value))
    if name == "augment" and spoken() != "en":
        return _augmentations(value)

    # numbers and words
    is_number = isinstance(value, numbers.Real)
    return str(value).replace(".", ",") if is_number and spoken() != "en" else str(value)


def _is_empty(value: Any) -> bool:
    """Return whether an option has no value: none, no text, or an empty list."""
    return value is None or value in ("", "none", ())


def _augmentations(names: Sequence[str]) -> str:
    """Write augmentations in words."""
    words = [texts().get(f"augment {name}", {}).get(spoken(), name) for name in names]
    return label("last_join").join(filter(None, [", ".join(words[:-1]), words[-1]]))


class _Formatter(string.Formatter):
    """Formats numbers in the current language, and chooses between singular and plural."""

    def format_field(self, value: object, spec: str) -> str:
        if "|" in spec:
            return spec.split("|")[value != 1]
        return number(value, spec) if isinstance(value, numbers.Real) else protected(format(value, spec))
