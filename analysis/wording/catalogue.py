"""The language of a report, and the catalogue that translates its texts.

    python -c "from analysis.wording.catalogue import language, translated
    with language('es'): print(translated('Validation accuracy'))"

English stands in the code. `es.po` is a gettext catalogue: each English text with its Spanish. `make messages` adds
the texts that are new in the code, and tests/test_messages.py finds those that have no Spanish yet.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "es")

_language: ContextVar[str] = ContextVar("language", default="en")
_metric: ContextVar[str] = ContextVar("metric", default="val/acc")


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


@contextmanager
def ranked_by(metric: str) -> Iterator[None]:
    """Write every text inside the `with` block for settings that are ranked by this metric of the validation images."""
    token = _metric.set(metric)
    try:
        yield
    finally:
        _metric.reset(token)


def ranking() -> str:
    """Return the metric by which settings are ranked."""
    return _metric.get()


def mark(english: str, context: str = "") -> str:
    """Return an English text as it is, so that `make messages` finds it; it is translated later, where it is shown."""
    return english


def translated(english: str, context: str = "") -> str:
    """Return a text in the current language, or in English if it has no translation."""
    if spoken() == "en":
        return english
    return next(filter(None, _catalogue(spoken()).get((context, english), ())), english)


def translated_plural(singular: str, plural: str, n: float) -> str:
    """Return the text that suits a number in the current language, or in English if it has no translation."""
    if spoken() == "en":
        return singular if n == 1 else plural
    words = _catalogue(spoken()).get(("", singular), ())
    return words[n != 1] if len(words) > 1 and all(words) else singular if n == 1 else plural


@cache
def _catalogue(name: str) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Read the translations of a language, by context and English; a text with a plural has two."""
    from babel.messages.pofile import read_po

    catalogue = {}
    with Path(__file__).with_name(f"{name}.po").open("rb") as file:
        for message in filter(lambda message: message.id, read_po(file)):
            english, words = (message.id[0], message.string) if message.pluralizable else (message.id, [message.string])
            catalogue[message.context or "", english] = tuple(words)
    return catalogue
