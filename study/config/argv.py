"""The command line of a run: an option for every knob of `Config`, grouped and explained.

python -m study.train --help
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from study.config import Config, is_identity
from study.config.checks import meant
from study.config.choices import AUGMENTATIONS, EARLY_STOPPING, NETWORKS, SCHEDULES, TRANSFER
from study.system.errors import UserError
from study.system.process import Parser

VARIABLES = {"runs_dir": "STUDY_RUNS_DIR", "data_dir": "STUDY_DATA_DIR"}
"""Variables of the environment by which `agents` says where runs are to be that do not name these knobs."""


class KnobParser(Parser):
    """A parser of options that are knobs of `Config`, which refuses what is wrong in them, and of others."""

    def __init__(self, prog: str, usage: str, description: str):
        super().__init__(
            prog, f"{prog} {usage}", description, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip

    def format_help(self) -> str:
        """Write options as people type them: every value is optional to argparse only so that `Config` can refuse."""
        return super().format_help().replace("[VALUE]", "VALUE").replace("[TRUE|FALSE]", "True|False")


def parser(prog: str, description: str) -> KnobParser:
    """Make a parser with an option for every knob, grouped and explained; what it parses goes to `Config.parse`."""
    result = KnobParser(prog, "[--option VALUE | --option=VALUE]…", description)
    groups: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        group = field.json_schema_extra["group"]
        groups.setdefault(group, result.add_argument_group(group) if group not in groups else None)
        add_knob(groups[group], name)
    return result


def add_knob(to: Any, name: str, is_told: bool = True) -> None:
    """Add the option of a knob to a parser or a group of it; the help need not tell of it."""
    field = Config.model_fields[name]
    default = "" if field.default in (None, "") else f" (default: {field.default})"
    told = field.description + (default or _own_default(name))
    to.add_argument(
        f"--{name.replace('_', '-')}",
        nargs="?",
        const=True,
        default=os.environ.get(VARIABLES.get(name, ""), argparse.SUPPRESS),
        metavar="TRUE|FALSE" if field.annotation in (bool, bool | None) else "VALUE",
        help=told.replace("%", "%%") if is_told else argparse.SUPPRESS,
    )


def _own_default(knob: str) -> str:
    """Say what a knob is by default where it belongs to names that are chosen: the one value, or that it depends."""
    tables = (NETWORKS, TRANSFER, SCHEDULES, AUGMENTATIONS, EARLY_STOPPING)
    found = {repr(knobs[knob]): knobs[knob] for table in tables for knobs in table.values() if knob in knobs}
    values = [value for value in found.values() if value is not None]
    if len(values) == 1:
        return f" (default: {values[0]})"
    return " (default: the network's)" if values and any(knob in knobs for knobs in NETWORKS.values()) else ""


def read_argv(options: argparse.ArgumentParser, argv: list[str]) -> dict[str, Any]:
    """Turn argv, also as `wandb agent` writes it, into a mapping: --k=v, --k v, a bare --k is True, - or _ alike."""
    words = []
    for word in argv:
        if word.startswith("--_wandb"):
            continue
        key, equals, value = word.partition("=")
        words.append(key.replace("_", "-") + equals + value if word.startswith("--") else word)
    given, unknown = options.parse_known_args(words)
    for word in unknown:
        if word.startswith("--"):
            name = word[2:].partition("=")[0].replace("-", "_")
            told = [action for action in options._actions if action.option_strings and action.help != argparse.SUPPRESS]
            known = [action.dest for action in told if action.dest != "help"]
            fields = {one: field for one, field in Config.model_fields.items() if one in known}
            raise UserError(f"unknown option {name!r}; {meant(name, fields, known)}")
        raise UserError(f"unexpected word {word!r}; options are written --name=value, lists with commas")
    return vars(given)


def read_config(path: str) -> dict[str, Any]:
    """Read the config in a run.json: what was chosen for the run, not what followed or where it was computed."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no mapping of options")
    if "config" not in values:
        return values
    config = Config.recorded(values["config"])
    chosen = config.model_dump(exclude_defaults=True, exclude={"device", "threads"})
    return {name: value for name, value in chosen.items() if not is_identity(name)} | config.identity()
