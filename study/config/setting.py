"""Options and their values as data: lists, and the setting that tells runs of a sweep apart.

    python -c "from study.config.setting import Setting; print(Setting((('model', 'mlp'), ('dropout', 0.5))))"

A setting stays data from the sweep file to the last figure. `str` writes it in English; `analysis.wording` in the
language of a report.
"""

import csv
import io
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

WITHOUT_NAME = ("model", "")
"""Options that a setting names by their value alone; the empty name is that of a setting with a name of its own."""

ALL_BY_DEFAULT = ("classes", "train_images")
"""Options whose empty value means all classes or all images."""


class Listed(tuple):
    """A list of names or numbers, as a comma list writes it; a name that has a comma is quoted."""

    __slots__ = ()

    def __str__(self) -> str:
        text = io.StringIO()
        csv.writer(text).writerow(self)
        return text.getvalue().removesuffix("\r\n") if self else ""


def read_list(value: Any) -> list[str]:
    """Read a comma list, or take the items of a list, without spaces around them; raise ValueError if it is neither."""
    if not isinstance(value, str):
        return [str(item).strip() for item in (value if isinstance(value, list | tuple) else [value])]
    try:
        return [word.strip() for row in csv.reader([value], skipinitialspace=True) for word in row]
    except csv.Error as error:
        raise ValueError(f"must be a list separated by commas, not {value!r} ({error})") from None


@dataclass(frozen=True)
class Setting:
    """Options with their values, (option, value) pairs; hashable, and ordered by its text."""

    pairs: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return ", ".join(_in_words(name, value) for name, value in self.pairs)

    def __lt__(self, other: "Setting") -> bool:
        return str(self) < str(other)

    def plus(self, name: str, value: Any) -> "Setting":
        """Return the setting with one more pair."""
        return Setting((*self.pairs, (name, value)))

    def without(self, names: Collection[str]) -> "Setting":
        """Return the setting without some options."""
        return Setting(tuple(pair for pair in self.pairs if pair[0] not in names))


def setting_of(values: Mapping[str, Any], names: Iterable[str]) -> Setting:
    """Return the setting of some options."""
    return Setting(tuple((name, values[name]) for name in names))


def _in_words(name: str, value: Any) -> str:
    """Return a pair in English, such as `batch size 64`; of some options the value alone."""
    if value in (None, "", ()):
        value = "all" if name in ALL_BY_DEFAULT else "none"
    return f"{value}" if name in WITHOUT_NAME else f"{name.replace('_', ' ')} {value}"


def read_pairs(text: str) -> dict[str, str]:
    """Read `key=value` pairs separated by spaces; a value that contains a space is quoted."""
    return dict(read_pair(word) for word in shlex.split(str(text)))


def read_pair(word: str) -> tuple[str, str]:
    """Read one `key=value` pair; raise ValueError if it is none."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ValueError(f"setting takes key=value pairs, such as model=mlp epochs=50, not {word!r}")
    if key.replace("-", "_") == "setting":
        raise ValueError("setting cannot hold another setting")
    return key.replace("-", "_"), value


def written(values: Mapping[str, Any]) -> str:
    """Return values as a text of `key=value` pairs, which `read_pairs` reads."""
    return " ".join(f"{name}={shlex.quote(str(value))}" for name, value in values.items())
