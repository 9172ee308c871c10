"""The command of a sweep file, by which `wandb agent` starts a run: which options it adds to those of a point.

print(read(["${env}", "${interpreter}", "-m", "study.train", "--model=mlp", "${args}"], "").before)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from study.config import Config, check_value, is_identity
from study.config.argv import parser, read_argv
from study.system.errors import Mistakes, UserError, one_line

DEFAULT = ("${env}", "${interpreter}", "${program}", "${args}")
"""W&B's command for a file without one."""

PROGRAM = "study/train.py"
EXAMPLE = '["${env}", "${interpreter}", "-m", "study.train", "${args}"]'
ARGUMENTS = ("${args}", "${args_no_equals}", "${args_no_boolean_flags}", "${args_json_file}")
"""W&B's words for the values of a point that the training can read."""

PYTHON = re.compile(r"python[\d.]*(\.exe)?")


@dataclass(frozen=True)
class AddedOptions:
    """The options that a command adds to a point, as texts, and whether it leaves out options that are False.

    A point overrides those `before` `${args}`; those `after` it override the point.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    omits_false: bool


def read(words: Sequence[Any] | None, program: str) -> AddedOptions:
    """Read a command; raise ValueError if `wandb agent` would not train the points with it.

    Options that are not part of a run's identity, such as its folder, are checked and left out.
    """
    # Find what starts the training
    if not isinstance(words, list | None):
        raise ValueError(f"command must be {EXAMPLE}, not {words!r}")
    written = [str(word) for word in words or DEFAULT]
    before, options = split(written, program)
    if not any(map(_is_python, before)):
        if program and "${program}" in written:
            raise ValueError(f"program {program} does not train here; write `program: {PROGRAM}`")
        raise ValueError(f"command must be {EXAMPLE} or similar; {written!r} does not start study.train")

    # Find the place of the point's values
    places = [place for place, word in enumerate(options) if word.startswith("${args")]
    if len(places) != 1 or options[places[0]] not in ARGUMENTS:
        raise ValueError(f"command needs one of {', '.join(ARGUMENTS)} after study.train, as in {EXAMPLE}")
    (place,) = places
    before, after = options[:place], options[place + 1 :]

    # The values in a file are read by --config, and then every other option replaces them
    if options[place] == "${args_json_file}":
        if before[-1:] != ["--config"]:
            raise ValueError('command needs "--config" before "${args_json_file}"')
        before, after = [], before[:-1] + after
    return AddedOptions(_options(before), _options(after), options[place] == "${args_no_boolean_flags}")


def split(words: Sequence[str], program: str) -> tuple[list[str], list[str]]:
    """Split a command at the training, `-m study.train` or the file of that module, which is in neither part.

    The first part is empty if the command does not train.
    """
    filled = [(program or PROGRAM) if word == "${program}" else word for word in words]
    for place, word in enumerate(filled):
        if word == "study.train" and filled[place - 1 : place] == ["-m"]:
            return filled[: place - 1], filled[place + 1 :]
        if PurePath(word).parts[-2:] == ("study", "train.py"):
            return filled[:place], filled[place + 1 :]
    return [], []


def _is_python(word: str) -> bool:
    return word == "${interpreter}" or bool(PYTHON.fullmatch(PurePath(word).name))


def _options(words: Sequence[str]) -> dict[str, Any]:
    """Read the options among the words of a command; raise ValueError for other words, and for wrong values."""
    if not words:
        return {}
    options = parser("python -m study.train", "")
    options.add_argument("--force", nargs="?")
    try:
        values = read_argv(options, list(words))
    except UserError as error:
        raise ValueError(f"command: {one_line(error)}") from None

    # Check all of them, and keep those that are part of a run's identity
    wrong: list[str] = []
    for name in values.keys() & Config.model_fields.keys():
        try:
            check_value(name, values[name])
        except Mistakes as error:
            wrong += [text for _, text in error.mistakes]
    if wrong:
        raise ValueError(f"command: {'; '.join(sorted(wrong))}")
    return {name: value for name, value in values.items() if name in Config.model_fields and is_identity(name)}
