"""Every label and sentence that a reader of tables, figures and the report sees, in English and Spanish.

    python -c "from analysis.wording.texts import label, language
    with language('es'): print(label('val/acc'))"

`texts.yaml` holds the texts: an English and a Spanish one under each key. Code contains no text that a reader sees; it
looks it up by its key:

- `label("epoch")` for a word or a heading: an axis, a column of a table, a state of a run;
- `sentence("trained", options=…)` for a text with values in it; `{count:,}` writes a number in the format of the
  language, and `{count:run|runs}` chooses the first word for 1, otherwise the second;
- `number(0.5, ".1f")` for a number alone;
- `shown("dropout 0.5, augment none")` for the name of a setting; inside the analysis the name is always the English
  one.

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

import yaml

LANGUAGES = ("en", "es")

NAMED = 4
"""At most this many settings are named in a sentence; the others are counted."""

PAIR = re.compile(r"""\b(\w+)=('[^']*'|"[^"]*"|[^\s=,'"]+(?:,[^\s=,]+)*)( |(?=,|$))""")
"""A key=value pair, and whether another one follows."""

WHOLE = ("classes", "train_images")
"""Options whose empty value means all classes or all images."""

OPTION = "option "
"""Start of the keys of option names, such as `option batch_size`."""

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


def settings_named(settings: Sequence[str], total: int) -> str:
    """Name the settings, or write `every setting` if they are all of a total of several."""
    if len(settings) == total > 1:
        return label("every")
    return named([shown(setting) for setting in settings])


def shown(text: str) -> str:
    """Return the name of a setting or of a point, such as `dropout 0.5, seed 1`, in the current language.

    Pairs such as `model=cnn epochs=30` are also written in words. In Spanish, which has decimal commas, options are
    separated by a dot.
    """
    parts = PAIR.sub(_pair_in_words, text).split(", ")
    separator = ", " if spoken() == "en" else " · "
    return separator.join(map(_shown_part, parts))


def _pair_in_words(pair: re.Match) -> str:
    """Write a key=value pair as the name of a setting has it: `epochs 30`, and a network without `model`."""
    name, value, end = pair.groups()
    value = value.strip("'\"") or "none"
    words = value if name == "model" else f"{name.replace('_', ' ')} {value}"
    comma = "," if end == " " else ""
    return words + comma + end


def option(name: str) -> str:
    """Return the name of an option, such as `batch size` for `batch_size`."""
    known = texts().get(OPTION + name)
    return known[spoken()] if known else name.replace("_", " ")


def option_value(name: str, value: str) -> str:
    """Return an option with its value, such as `dropout 0.5`; key=value pairs already contain the names."""
    return shown(value) if name == "pairs" else _option_in_words(name, value)


def shown_value(value: str, name: str = "") -> str:
    """Return the value of the option `name` in the current language."""
    # values that stand for something else
    if name == "pairs":
        return shown(value)
    if name in WHOLE and value in ("", "all", "none", "None"):
        return label(f"all {name}")
    if name == "augment" and spoken() != "en" and value not in ("", "none", "None"):
        return _augmentations(value)

    # numbers and words
    if spoken() != "en" and re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value):
        return value.replace(".", ",")
    return label(value or "none") if value in ("", "none", "None", "True", "False") else value


def _augmentations(value: str) -> str:
    """Write a comma list of augmentations in words."""
    words = [texts().get(f"augment {word}", {}).get(spoken(), word) for word in value.split(",")]
    return label("last_join").join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _option_in_words(name: str, value: str) -> str:
    """Return an option with its value; some pairs have words of their own, such as `sin aumento de datos`."""
    phrase = texts().get(f"phrase {name} {value or 'none'}")
    if phrase:
        return phrase[spoken()]
    words = shown_value(value, name)
    if name == "augment" and spoken() != "en":
        return sentence("phrase augment", value=words)
    return f"{option(name)} {words}"


def _shown_part(part: str) -> str:
    """Return one option of the name of a setting, with its value, in the current language."""
    name, _, value = part.rpartition(" ")
    key = name.replace(" ", "_")
    if not part or spoken() == "en" or (name and OPTION + key not in texts()):
        return part
    return _option_in_words(key, value) if name else shown_value(value)


class _Formatter(string.Formatter):
    """Formats numbers in the current language, and chooses between singular and plural."""

    def format_field(self, value: object, spec: str) -> str:
        if "|" in spec:
            return spec.split("|")[value != 1]
        return number(value, spec) if isinstance(value, numbers.Real) else protected(format(value, spec))
