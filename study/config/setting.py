"""Options and their values as data: lists, and the setting that distinguishes the runs of a sweep.

    python -c "from study.config.setting import Setting; print(Setting((('model', 'mlp'), ('dropout', 0.5))))"

A setting stays data from the sweep file to the last figure. `str` writes it in English; `analysis.wording` in the
language of a report.
"""

import ast
import csv
import io
import shlex
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

WITHOUT_NAME = ("model",)
"""Options of which a setting gives the value alone."""

LONGEST_TITLE = 120
"""Most characters of a setting in the name of a run; W&B's names have at most 128."""

EMPTY = {"classes": "all", "train_images": "all", "image_size": "original"}
"""What it means that an option has no value, where it does not mean none."""


class Listed(tuple):
    """A list of names or numbers, as a comma list writes it; a name that has a comma is quoted."""

    __slots__ = ()

    def __str__(self) -> str:
        text = _row(self, csv.QUOTE_MINIMAL) if self else ""
        return _row(self, csv.QUOTE_ALL) if _is_bracketed(text) else text


def as_word(value: Any) -> str:
    """Write the value of an option as a command line takes it."""
    return str(Listed(value)) if isinstance(value, list | tuple) else str(value)


def _row(items: Iterable[Any], quoting: int) -> str:
    """Return a row of a CSV file, without its line end."""
    text = io.StringIO()
    csv.writer(text, quoting=quoting).writerow(items)
    return text.getvalue().removesuffix("\r\n")


def _is_bracketed(text: str) -> bool:
    return text.startswith("[") and text.endswith("]")


def read_list(value: Any) -> list[str]:
    """Read a comma list, or take the items of a list, without spaces around them; raise ValueError if it is neither.

    `wandb agent` passes a list of a sweep's values as `[32, 64]`. A name such as no, which YAML reads as false, is
    refused.
    """
    if isinstance(value, str) and _is_bracketed(value):
        with suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
    if not isinstance(value, str):
        items = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, bool) for item in items):
            raise ValueError(f"must not have true or false, as YAML reads yes, no, on, off: quote names, not {value!r}")
        return [str(item).strip() for item in items]
    try:
        return [word.strip() for row in csv.reader([value], skipinitialspace=True) for word in row]
    except csv.Error:
        raise ValueError(f"must be a list separated by commas, not {value!r}") from None


@dataclass(frozen=True)
class Setting:
    """Options with their values, (option, value) pairs; hashable, and ordered by its text.

    A setting with a `name` of its own, such as that of a sweep that varies nothing, is shown by that name.
    """

    pairs: tuple[tuple[str, Any], ...]
    name: str = ""

    @cached_property
    def _text(self) -> str:
        return self.name or ", ".join(_in_words(name, value) for name, value in self.pairs)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Setting({self})"

    def __lt__(self, other: "Setting") -> bool:
        return str(self) < str(other)

    def plus(self, name: str, value: Any) -> "Setting":
        """Return the setting with one more pair."""
        if self.name:
            return Setting((), f"{self.name}, {_in_words(name, value)}")
        return Setting((*self.pairs, (name, value)))

    def without(self, names: Collection[str]) -> "Setting":
        """Return the setting without some options."""
        return replace(self, pairs=tuple(pair for pair in self.pairs if pair[0] not in names))


def setting_of(values: Mapping[str, Any], names: Iterable[str]) -> Setting:
    """Return the setting of some options."""
    return Setting(tuple((name, values[name]) for name in names))


def run_title(setting: Setting | str, seed: Any) -> str:
    """Return the name in W&B of a run of a sweep: what varies, and a seed that sorts, such as `dropout 0.5, s02`."""
    text = str(setting)
    text = text if len(text) <= LONGEST_TITLE else f"{text[: LONGEST_TITLE - 1]}…"
    return f"{text}, s{seed:02d}" if isinstance(seed, int) else f"{text}, s{seed}"


def _in_words(name: str, value: Any) -> str:
    """Return a pair in English, such as `batch size 64`; of some options the value alone."""
    if value in (None, "", ()):
        value = EMPTY.get(name, "none")
    return f"{value}" if name in WITHOUT_NAME else f"{name.replace('_', ' ')} {value}"


def read_pairs(text: str) -> dict[str, str]:
    """Read `key=value` pairs separated by spaces; a value that contains a space is quoted."""
    return dict(read_pair(word) for word in shlex.split(str(text)))


def read_pair(word: str, option: str = "setting") -> tuple[str, str]:
    """Read one `key=value` pair of an option; raise ValueError if it is not a pair."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ValueError(f"{option} takes key=value pairs, such as model=mlp epochs=50, not {word!r}")
    if key.replace("-", "_") == "setting":
        raise ValueError(f"{option} cannot hold a setting: name its options")
    return key.replace("-", "_"), value


def written(values: Mapping[str, Any]) -> str:
    """Return values as a text of `key=value` pairs, which `read_pairs` reads."""
    return " ".join(f"{name}={shlex.quote(str(value))}" for name, value in values.items())
