"""Texts that a reader of tables, figures and the report sees, in English and Spanish.

    python -c "from analysis.wording.texts import language, plural, text
    with language('es'): print(text('Validation accuracy'), plural('{n:,} other', '{n:,} others', 1200))"

English stands in the code that shows it, Spanish in the catalogue `es.po`, which `make messages` keeps complete:

- `text("Epoch")` for a word or a heading, `text("{setting} by {points:.2f} points", setting=…, points=…)` for a text
  with values in it; numbers are written in the format of the language;
- `plural("{n} run", "{n:,} runs", n)` for a text that depends on a number;
- `mark("would help")` for a text in a table of words; `text(VERDICTS[verdict])` translates it where it is shown;
- `number(0.5, ".1f")` for a number alone;
- `shown(setting)` for the name of a setting, `option_value(name, value)` for an option with its value;
- `heading(key)` for the name of a column or an axis; `words.py` holds words that several themes need.

CSV files hold data and are the same in every language.
"""

import numbers
import re
import string
from collections.abc import Sequence
from typing import Any

from analysis.wording.catalogue import (
    LANGUAGES,
    language,
    mark,
    ranked_by,
    ranking,
    spoken,
    translated,
    translated_plural,
)
from analysis.wording.ranked import METRICS, RANKED
from analysis.wording.words import AUGMENTATIONS, HEADINGS, NO_VALUE, OPTIONS, PHRASES
from study.config.setting import EMPTY, WITHOUT_NAME, Setting

__all__ = [
    "LANGUAGES", "MARKUP", "NAMED", "heading", "language", "mark", "named", "number", "option", "option_value",
    "plural", "protected", "ranked_by", "ranking", "ranking_axis", "ranking_name", "restored", "settings_named",
    "shown", "shown_value", "spoken", "text",
]  # fmt: skip

NAMED = 4
"""At most this many settings are named in a sentence; the others are counted."""

MARKUP = {"*": "\ufdd0", "`": "\ufdd1"}
"""The marks for bold and code in texts, and what replaces these characters in the values that are filled in."""

BY_ACCURACY = "val/acc"
"""The usual metric, whose name stands in the texts."""

_PROTECTED = str.maketrans(MARKUP)
_RESTORED = str.maketrans({sign: character for character, sign in MARKUP.items()})


def text(english: str, /, *, context: str = "", **values: object) -> str:
    """Return a text in the current language, with its values filled in.

    A value that looks like `**bold**` stays plain text. Without values, braces are braces. A `context` distinguishes
    two meanings of the same English. Where settings are not ranked by accuracy, texts of RANKED are replaced.
    """
    if ranking() != BY_ACCURACY and english in RANKED:
        return _filled(translated(RANKED[english]), {"metric": ranking_name(), **values})
    words = translated(english, context)
    return _filled(words, values) if values else words


def plural(one: str, several: str, n: float, /, **values: object) -> str:
    """Return the text that suits the number `n` in the current language, with its values and `n` filled in."""
    english = one if n == 1 else several
    if ranking() != BY_ACCURACY and english in RANKED:
        return text(english, n=n, **values)
    return _filled(translated_plural(one, several, n), {"n": n, **values})


def ranking_name() -> str:
    """Return the name of what settings are ranked by, such as `validation accuracy`."""
    return text(METRICS.get(ranking(), ranking()))


def ranking_axis() -> str:
    """Return the label of an axis of what settings are ranked by, in percent."""
    name = ranking_name()
    return text("{what} (%)", what=name[0].upper() + name[1:])


def heading(key: str) -> str:
    """Return the name of a column or axis, one of HEADINGS."""
    return text(HEADINGS[key])


def protected(name: str) -> str:
    """Replace the characters of a name that would mark bold or code; `restored` puts them back."""
    return name.translate(_PROTECTED)


def restored(words: str) -> str:
    """Put back the characters that `protected` has replaced."""
    return words.translate(_RESTORED)


def number(value: float, spec: str = "", lang: str | None = None) -> str:
    """Format a number: 1,234.5 in English, 1 234,5 in Spanish; a zero has no sign."""
    digits = re.sub(r"^-(?=[0.,]*$)", "", format(value, spec)).replace("-", "−")
    return digits.translate({ord(","): "\u202f", ord("."): ","}) if (lang or spoken()) == "es" else digits


def named(names: Sequence[str], limit: int = NAMED) -> str:
    """Join names; those beyond a limit are counted, if they are more than one."""
    if len(names) <= limit + 1:
        return "; ".join(names)
    return "; ".join([*names[:limit], plural("{n:,} other", "{n:,} others", len(names) - limit)])


def settings_named(settings: Sequence[Setting], total: int) -> str:
    """Name the settings, or write `every setting` if they are all of a total of several."""
    if len(settings) == total > 1:
        return text("every setting")
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
    return text(OPTIONS.get(name, name.replace("_", " ")))


def option_value(name: str, value: Any) -> str:
    """Return an option with its value, such as `dropout 0.5`; a setting already contains the names.

    Some pairs have words of their own, such as `sin aumento de datos`.
    """
    if isinstance(value, Setting):
        return shown(value)
    phrase = PHRASES.get((name, "none" if _is_empty(value) else str(value)))
    if phrase:
        return text(phrase)
    words = shown_value(name, value)
    if name == "augment" and spoken() != "en":
        return text("augment {value}", value=words)
    return f"{option(name)} {words}"


def shown_value(name: str, value: Any) -> str:
    """Return the value of an option in the current language."""
    # values that stand for something else
    if isinstance(value, Setting):
        return shown(value)
    if _is_empty(value):
        return text(NO_VALUE[EMPTY.get(name, "none")])
    if isinstance(value, bool):
        return text("True") if value else text("False")
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
    words = [text(AUGMENTATIONS.get(name, name)) for name in names]
    return text(" and ").join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _filled(words: str, values: dict[str, object]) -> str:
    """Fill values into a text."""
    return _Formatter().vformat(words, (), values)


class _Formatter(string.Formatter):
    """Formats numbers in the current language."""

    def format_field(self, value: object, spec: str) -> str:
        return number(value, spec) if isinstance(value, numbers.Real) else protected(format(value, spec))
