"""What a run's config in W&B holds: what it computes, but not where it is recorded.

    options_of(run.config)    # the options of a run that W&B's client read

W&B shows each key of a config as a column. Options that only say where a run and its data lie, or how W&B shows it, are
therefore no keys of their own, but lie below `info`, unless the run's sweep sets them. Older runs have all options as
keys.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from study.config import Config
from study.config.checks import LONGEST_TAG
from study.record.directory import RunDirectory, tags_of

RECORDS = "records"
"""Key below `info`: the options that are no columns, if they differ from their defaults."""

DIRECTORY = "directory"
"""Key below `info`: the path of the run's directory, on the machine that trained it."""

REPLACED = "replaced"
"""Key of a config: the options whose values the command of the run's sweep replaces, with those of the run."""

NO_COLUMNS = {"data_dir"} | {
    name for name, field in Config.model_fields.items() if field.json_schema_extra["group"] == "records"
} - {"setting"}


def columns(config: Config, sweep_keys: Collection[str]) -> dict[str, Any]:
    """Return the options of a run that are columns; W&B keeps the values of its sweep that do not apply to the run."""
    values = config.model_dump()
    if not config.setting:
        del values["setting"]
    return {
        name: value
        for name, value in values.items()
        if (config.uses(name) if name in sweep_keys else name not in NO_COLUMNS)
    }


def tags(config: Config, sweeps: Sequence[str]) -> list[str]:
    """Return the tags of a run: its own or those of WANDB_TAGS, and the names of its sweeps."""
    own = tags_of(config) or [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]
    return list(dict.fromkeys([*own, *(name[:LONGEST_TAG] for name in sweeps)]))


def info(directory: RunDirectory) -> dict[str, Any]:
    """Return run.json as `info` holds it, so that the run in W&B is as complete as its directory.

    The names of images and subjects are left out, because they may identify patients. What a run prints, which W&B's
    client sends too, has a few of them; WANDB_CONSOLE=off keeps it here.
    """
    content = directory.info()
    if data := {name: value for name, value in (content.get("data") or {}).items() if name != "examples"}:
        if "unreadable" in data:
            data["unreadable"] = ["…" for _ in data["unreadable"]]  # how many there are
        content["data"] = data
    content.pop("wandb_missing", None)  # W&B is about to get the result
    config = content.pop("config", {})
    records = {
        name: config[name]
        for name in sorted(NO_COLUMNS & config.keys())
        if config[name] != Config.model_fields[name].default
    }
    return content | {DIRECTORY: str(directory.path)} | ({RECORDS: records} if records else {})


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run from its config in W&B, also those below `info` and those of REPLACED."""
    below = (config.get("info") or {}).get(RECORDS) or {}
    options = {name: value for name, value in config.items() if name in Config.model_fields}
    return below | options | (config.get(REPLACED) or {})


def read_info(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return run.json without its config, from the `info` of a run in W&B."""
    return {name: value for name, value in config["info"].items() if name not in (RECORDS, DIRECTORY)}
