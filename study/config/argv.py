"""Build and read the command line of a run, which has every option of `Config`.

python -m study.train --help
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from study.config import Config, is_identity
from study.config.checks import FALSE, NONE, is_true, meant, user_path
from study.config.choices import AUGMENTATIONS, EARLY_STOPPING, NETWORKS, SCHEDULES, TRANSFER
from study.system.errors import UserError
from study.system.files import written_text
from study.system.process import Parser, is_value

VARIABLES = {"runs_dir": "STUDY_RUNS_DIR", "data_dir": "STUDY_DATA_DIR"}
"""Environment variables by which `agents` passes these options to runs whose command does not set them."""


class OptionParser(Parser):
    """A parser of a run's options, whose values `Config` checks later, and of others."""

    def __init__(self, prog: str, usage: str, description: str):
        super().__init__(
            prog,
            f"{prog} {usage}",
            description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def format_help(self) -> str:
        """Return the help with `VALUE` for `[VALUE]`: argparse lets it be missing only so that `Config` can object."""
        return super().format_help().replace("[VALUE]", "VALUE").replace("[TRUE|FALSE]", "True|False")


def parser(prog: str, description: str) -> OptionParser:
    """Return a parser with every option of a run, in groups; pass what it parses to `Config.parse`."""
    result = OptionParser(prog, "[--option VALUE | --option=VALUE]…", description)
    groups: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        group = field.json_schema_extra["group"]
        groups.setdefault(group, result.add_argument_group(group) if group not in groups else None)
        add_option(groups[group], name)
    return result


def add_option(to: Any, name: str, is_shown: bool = True) -> None:
    """Add an option of a run to a parser or to a group of it; `is_shown` False hides it from --help."""
    field = Config.model_fields[name]
    default = "" if field.default in (None, "") else f" (default: {field.default})"
    description = field.description + (default or _own_default(name))
    to.add_argument(
        f"--{name.replace('_', '-')}",
        nargs="?",
        const=True,
        default=os.environ.get(VARIABLES.get(name, ""), argparse.SUPPRESS),
        metavar="TRUE|FALSE" if field.annotation in (bool, bool | None) else "VALUE",
        help=description.replace("%", "%%") if is_shown else argparse.SUPPRESS,
    )


def _own_default(option: str) -> str:
    """Return the help's note on a default that depends on other options: the only one, or that it is the network's."""
    tables = (NETWORKS, TRANSFER, SCHEDULES, AUGMENTATIONS, EARLY_STOPPING)
    defaults = {
        repr(options[option]): options[option] for table in tables for options in table.values() if option in options
    }
    values = [value for value in defaults.values() if value is not None]
    if len(values) == 1:
        return f" (default: {values[0]})"
    return " (default: the network's)" if values and any(option in options for options in NETWORKS.values()) else ""


def read_argv(options: argparse.ArgumentParser, argv: list[str]) -> dict[str, Any]:
    """Read argv as a mapping; accept --k=v, --k v, a bare --k for True, and _ for -, as `wandb agent` writes it."""
    # Write every option with hyphens, and drop those that W&B adds
    words = []
    for word in argv:
        if word.startswith("--_wandb"):
            continue
        key, equals, value = word.partition("=")
        words.append(key.replace("_", "-") + equals + value if word.startswith("--") else word)

    # Report the unknown words, with the options that were probably meant; the value of an unknown option is none
    values, unknown = options.parse_known_args(words)
    mistakes = []
    for before, word in pairwise(["", *unknown]):
        if word.startswith("--"):
            name = word[2:].partition("=")[0].replace("-", "_")
            known = [
                action.dest
                for action in options._actions
                if action.option_strings and action.help != argparse.SUPPRESS and action.dest != "help"
            ]
            fields = {option: field for option, field in Config.model_fields.items() if option in known}
            hint = meant(name, fields, known, _as_typed, options.prog)
            mistakes.append(f"unknown option {_as_typed(name)!r}; {hint}")
        elif not is_value(word, before):
            mistakes.append(
                f"unexpected word {word!r}; options are written --name=value or --name value, lists with commas"
            )
    if mistakes:
        raise UserError("; ".join(mistakes))
    return vars(values)


def _as_typed(name: str) -> str:
    """Return an option as it is typed."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Command:
    """What the command line of `study.train` asks for: a config, trained again with `force`, or a `sheet` of images.

    With `dry_run`, its data are looked at, and nothing is trained.

    `dropped` are options that were given but do not apply to the names chosen by the others.
    """

    config: Config
    force: bool = False
    sheet: str | None = None
    dry_run: bool = False
    dropped: tuple[str, ...] = ()


def read_command(argv: list[str], description: str = "", drop_unused: bool = False) -> Command:
    """Read the command line of `study.train`; raise UserError for a mistake.

    With `drop_unused`, for a sweep, an option that does not apply to the names chosen by the others is no mistake.
    """
    options = parser("python -m study.train", description)
    commands = options.add_argument_group("command")
    commands.add_argument(
        "--config", type=user_path, metavar="FILE", help="start from the config of a run.json; options override it"
    )
    commands.add_argument(
        "--show-augment",
        type=user_path,
        metavar="FILE",
        help="draw an image and augmented copies of it (--augment), and exit",
    )
    commands.add_argument(
        "--dry-run",
        nargs="?",
        const="True",
        metavar="TRUE|FALSE",
        help="read the data, print what was found and the images of each class in each split, and exit",
    )
    commands.add_argument(
        "--force", nargs="?", const="True", metavar="TRUE|FALSE", help="train again a run that has a result"
    )
    values = read_argv(options, argv)
    file = values.pop("config", None)
    sheet = values.pop("show_augment", None)
    force, dry_run = (_switch(name, values.pop(name, None)) for name in ("force", "dry_run"))
    config = Config.parse((read_config(file) if file else {}) | values, drop_unused)
    dropped = [name for name, value in values.items() if value not in NONE and not config.uses(name)]
    return Command(config, force, sheet, dry_run, tuple(dropped) if drop_unused else ())


def _switch(name: str, value: str | None) -> bool:
    """Read the value of a switch, None if it was not given; raise UserError if it is neither true nor false."""
    if value is not None and not is_true(value) and value.lower() not in FALSE:
        raise UserError(f"{name} must be True or False, not {value!r}")
    return is_true(value)


def parse_words(parser: Parser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse a command line whose `--set` takes pairs; return what was parsed, and words that follow options.

    `--set epochs=2 seed=0 FILE` is read as `--set=epochs=2 --set=seed=0 FILE`, so that a file after the pairs stays a
    file.
    """
    # Write each pair as an option of its own
    words: list[str] = []
    follows = False
    for place, word in enumerate(argv):
        starts = word == "--set" and any(map(_is_pair, argv[place + 1 : place + 2]))
        is_value = follows and _is_pair(word)
        if not starts:
            words.append(f"--set={word}" if is_value else word)
        follows = starts or is_value

    # Parse; argparse leaves over words that follow other words and then options
    args, rest = parser.parse_known_args(words)
    unknown = [word for word in rest if word.startswith("-")]
    if unknown:
        parser.refuse(unknown)
    return args, rest


def _is_pair(word: str) -> bool:
    return "=" in word and not word.startswith("-")


def read_config(path: str) -> dict[str, Any]:
    """Read the options of a run from its folder or run.json, without device and threads, or those in a JSON file.

    Raises UserError if the file cannot be read or holds no options.
    """
    # Read the file
    file = Path(path) / "run.json" if Path(path).is_dir() else Path(path)
    try:
        values = json.loads(written_text(file))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no mapping of options")
    if "config" not in values:
        return values

    # Of a run, keep the options that were chosen, not those that follow from them
    config = Config.recorded(values["config"])
    chosen = config.model_dump(exclude_defaults=True, exclude={"device", "threads"})
    return {name: value for name, value in chosen.items() if not is_identity(name)} | config.identity()
