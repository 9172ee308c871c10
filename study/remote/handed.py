"""What W&B's agent gives a run: the options of its sweep, also when the run returns from W&B's queue.

    argv = handed.own_words(argv)    # before `wandb` is imported

W&B starts a run that was queued again with its whole former config (wandb issues 4237, 9143): on the command line, and
in the file that WANDB_SWEEP_PARAM_PATH names, whose values the client locks. A run therefore records the keys of its
sweep in its config, and takes only these when it returns. W&B's server is not asked.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from study.config import Config
from study.system.files import replace_text

VARIABLE = "WANDB_SWEEP_PARAM_PATH"

SWEEP_KEYS = "sweep_keys"
"""Key of a run's config in W&B: the keys of its sweep, with commas."""

PLACES = ("runs_dir", "data_dir", "device", "threads")
"""Options of one machine; a run that did not record the keys of its sweep takes all others when it returns."""


def sweep_keys() -> list[str]:
    """List the keys that the agent gave this run; none without an agent."""
    return list(_values())


def own_words(argv: Sequence[str]) -> list[str]:
    """Return the command line with only the options of the sweep, also for a run that returns from the queue.

    The others are also removed from the file that the agent wrote, or the client would lock their values.
    """
    # Find the keys of the sweep; a run that starts for the first time has no fingerprint
    values = _values()
    if "fingerprint" not in values:
        return list(argv)
    recorded = values.get(SWEEP_KEYS)
    known = str(recorded).split(",") if recorded else Config.model_fields.keys() - set(PLACES)

    # Remove the others from the command line: once each, since the command of a sweep may set them too
    words = list(argv)
    for key in values.keys() - set(known):
        places = [place for place, word in enumerate(words) if word.startswith(f"--{key}=")]
        if places:
            del words[max(places, key=lambda place: (words[place] == f"--{key}={values[key]}", place))]

    # Remove them from the file
    kept = {key: {"value": value} for key, value in values.items() if key in known}
    replace_text(Path(os.environ[VARIABLE]), yaml.safe_dump({"wandb_version": 1} | kept, sort_keys=False))
    return words


def _values() -> dict[str, Any]:
    """Read the values in the agent's file; return {} without one."""
    content = None
    with suppress(OSError, ValueError, yaml.YAMLError):
        path = os.environ.get(VARIABLE)
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) if path else None
    entries = content.items() if isinstance(content, dict) else ()
    return {key: entry["value"] for key, entry in entries if isinstance(entry, dict) and "value" in entry}
