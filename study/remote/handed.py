"""What W&B's agent gives a run: the options of its sweep, also when the run returns from W&B's queue.

    command = handed.read(argv)    # before `wandb` is imported

A process that trains one run after another first takes on each: `take(run_id, values, name)`.

W&B starts a run that was queued again with its whole former config (wandb issues 4237, 9143): on the command line, and
in the file that WANDB_SWEEP_PARAM_PATH names, whose values the client locks. A run therefore records the keys of its
sweep in its config, and takes only these when it returns. W&B's server is not asked.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from study.config import Config, check_value
from study.config.argv import Command, read_command
from study.record.directory import RunDirectory, make, tags_of
from study.record.display import Display
from study.remote import api, sink
from study.system.errors import UserError, one_line
from study.system.files import replace_text
from study.system.process import Signals
from study.system.progress import Say
from study.training.run import Outcome, train

VARIABLE = "WANDB_SWEEP_PARAM_PATH"

SWEEP_KEYS = "sweep_keys"
"""Key of a run's config in W&B: the keys of its sweep, with commas."""

REPORT_SECONDS = 30
"""Longest wait for W&B to take a run that has failed before it began."""

PLACES = ("runs_dir", "data_dir", "device", "threads")
"""Options of one machine; a run that did not record the keys of its sweep takes all others when it returns."""


def sweep_keys() -> list[str]:
    """List the keys that the agent gave this run; none without an agent."""
    return list(_values())


def replaced(config: Config) -> dict[str, Any]:
    """Return the options whose values in W&B's sweep are not those of the run, with the run's."""
    recorded = config.model_dump()
    result = {}
    for name, value in _values().items():
        if name in recorded and config.uses(name):
            with suppress(UserError):
                if check_value(name, value) != getattr(config, name):
                    result[name] = recorded[name]
    return result


def read(argv: Sequence[str], description: str = "") -> Command:
    """Read the command line of `study.train`, also as W&B's agent gives it; raise UserError for a mistake.

    A sweep may hold options that do not apply to each of its points, such as the momentum of adam.
    """
    return read_command(_own_words(argv), description, drop_unused=bool(api.handed_out()))


def _own_words(argv: Sequence[str]) -> list[str]:
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


def take(run_id: str, values: Mapping[str, Any], name: str) -> None:
    """Make this process what W&B's agent makes of a run's process: its id and the file of its values are set.

    `values` are W&B's, `{key: {"value": …}}`, and `name` is the run's unless WANDB_NAME is set. WANDB_DIR and
    WANDB_SWEEP_ID must be set.
    """
    leave()

    # Write the values
    path = Path(os.environ["WANDB_DIR"], "wandb", f"sweep-{os.environ['WANDB_SWEEP_ID']}", f"config-{run_id}.yaml")
    make(path.parent)
    replace_text(path, yaml.safe_dump({"wandb_version": 1, **values}, sort_keys=False))
    os.environ |= {"WANDB_RUN_ID": run_id, VARIABLE: str(path)}
    os.environ.setdefault("WANDB_NAME", name)


def leave() -> None:
    """Let W&B's client forget the run of this process, whose id and connection it keeps."""
    import wandb

    wandb.teardown()
    api.connect.cache_clear()


def train_command(
    command: Command, display: Display, signals: Signals, connect: Callable[..., Any], **options: Any
) -> Outcome:
    """Train the config of a command line by `study.training.run.train`, which describes the `options`.

    For an agent, a run that another process trains is waited for, and an earlier result is sent to W&B.
    """
    if command.dropped:
        display.say(f"not used by this run: {', '.join(command.dropped)}")

    # Get the checkpoint of a run that another machine began
    directory = RunDirectory.of(command.config)
    if api.handed_out() and "checkpoint" in command.config.wandb_extras and not directory.path.exists():
        _fetch_checkpoint(directory, command.config, display)

    # Train; a mistake leaves no run behind here, and at W&B a failed one
    is_new = not directory.path.exists()
    waits = bool(api.handed_out())
    begun: list[Any] = []

    def noted(*run: Any, **values: Any) -> Any:
        begun.append(run)
        return connect(*run, **values)

    try:
        outcome = train(command.config, display, signals, command.force, waits=waits, connect=noted, **options)
    except UserError as error:
        if is_new and directory.path.exists() and not directory.history():
            directory.remove()
        if waits and not begun and not sink.is_disabled(command.config):
            _report(error, display.say)
        raise
    finally:
        display.close()

    # Add tags to an earlier result, and send it
    if outcome.already:
        _add_tags(directory, command.config, display.say)
        sink.send_again(directory, command.config, display.say)
        display.say(f"{directory.path} was trained before; --force (in Python, force=True) trains it again")
        display.finish(outcome.state, outcome.summary, command.config.metric)
    return outcome


def _report(error: UserError, say: Say) -> None:
    """Let W&B know that the run that it handed out has failed before it began there, and why."""
    import wandb

    settings = wandb.Settings(silent=True, disable_code=True, init_timeout=REPORT_SECONDS)
    try:
        run = wandb.init(config={"info": {"state": "failed", "error": one_line(error)}}, settings=settings)
        run.finish(exit_code=1)
    except Exception as reason:
        say(f"W&B does not know that this run has failed: {api.trouble(reason)}")


def _add_tags(directory: RunDirectory, config: Config, say: Say) -> None:
    """Add the tags of a config to a run that has a result."""
    try:
        new = directory.add_tags(tags_of(config))
    except (OSError, UserError) as error:
        say(f"tags not added: {one_line(error)}")
        return
    if new:
        is_sent = directory.info().get("wandb") and not api.handed_out()
        rest = "; its tags at W&B stay as they are" if is_sent else ""
        say(f"added to the tags in {directory.path / 'run.json'}: {', '.join(new)}{rest}")


def _fetch_checkpoint(directory: RunDirectory, config: Config, display: Display) -> None:
    """Make the directory of an agent's run from its checkpoint in W&B, if it has one."""
    if not sink.is_disabled(config):
        from study.remote import artifacts

        place = f"{os.environ['WANDB_ENTITY']}/{os.environ['WANDB_PROJECT']}"
        artifacts.fetch_checkpoint(directory, config, place, api.handed_out(), display.say)


def _values() -> dict[str, Any]:
    """Read the values in the agent's file; return {} without one."""
    content = None
    with suppress(OSError, ValueError, yaml.YAMLError):
        path = os.environ.get(VARIABLE)
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) if path else None
    entries = content.items() if isinstance(content, dict) else ()
    return {key: entry["value"] for key, entry in entries if isinstance(entry, dict) and "value" in entry}
