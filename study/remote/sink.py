"""Connect a training to W&B, which gets its rows and its result; errors of W&B do not stop the training.

    train(config, display, signals, connect=sink.Sinks().connect)

`wandb` is imported only if the run is recorded there.
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from study.config import Config
from study.record.directory import RunDirectory
from study.remote import columns
from study.remote.api import handed_out, trouble
from study.system.errors import UserError, one_line
from study.system.progress import Say

if TYPE_CHECKING:
    from study.remote.run import WandbRun


class Sinks:
    """Makes the sinks of a process's runs; once W&B has not answered, further runs are recorded offline at once."""

    def __init__(self) -> None:
        self.no_answer = ""

    def connect(
        self,
        directory: RunDirectory,
        config: Config,
        run_id: str,
        resumes: bool,
        say: Say,
        note: Callable[..., None],
        name: str = "",
        sweeps: Sequence[str] = (),
    ) -> "WandbSink | None":
        """Start a run in W&B unless it is disabled; if that fails, print why and return None.

        If it `resumes`, rows that W&B has are not sent again. `note` adds values to run.json. A run of
        `study.sweep run` has a `name` that says what varies, and is tagged with the names of its sweeps. Raises
        UserError if W&B's settings are wrong.
        """
        if tags := columns.tags(config, sweeps):
            note(tags=tags)
        if is_disabled(config):
            return None
        from study.remote import run as wandb_run

        # Start the run
        name = os.environ.get("WANDB_NAME") or name
        given = {"name": name, "sweeps": [*sweeps]}
        place = {**wandb_run.place_of(config), **{key: value for key, value in given.items() if value}}
        note(wandb_id=handed_out() or run_id, wandb=place)
        try:
            run = wandb_run.connect(directory, config, run_id, say, resumes, place, self.no_answer)
        except UserError:
            raise
        except Exception as error:
            remedy = f"to send it when it has a result: {sync_command(directory)}"
            message = f"{trouble(error)}; the run continues without it; {remedy}"
            say(message)
            note(wandb_missing=message)
            return None

        # Record where it is
        note(wandb_id=run.run_id, wandb=run.place)
        if run.no_answer:
            self.no_answer = run.no_answer
            note(wandb_missing=f"{run.no_answer}; it is in an offline log")
        return WandbSink(run, directory, say)


def is_disabled(config: Config) -> bool:
    """Return whether a run is not recorded in W&B."""
    return config.wandb == "disabled" or os.environ.get("WANDB_MODE") == "disabled"


def send_again(directory: RunDirectory, config: Config, say: Say) -> None:
    """Send a run that was trained before to W&B, if one of W&B's agents started this process."""
    if handed_out() and config.wandb != "disabled":
        from study.remote.replay import replay

        replay(directory, config, say)


class WandbSink:
    """Sends a run to W&B; at the first error, prints a line and stops sending."""

    def __init__(self, run: "WandbRun", directory: RunDirectory, say: Say):
        self.run: WandbRun | None = run
        self.directory = directory
        self.say = say

    def write(self, text: str) -> None:
        """Add a line to the run's log in W&B."""
        if self.run:
            with suppress(Exception):  # a client without this method: only the log is missing
                self.run.write(text)

    def watch(self, model: Any) -> None:
        """Send histograms of a network with each row from now on, if the config asks for them."""
        if self.run and "watch" in self.run.config.wandb_extras:
            self.run.model = model

    def log(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send the row of an epoch."""
        return self._attempt(lambda run: run.log(row))

    def lacking(self) -> Mapping[str, Any]:
        """Return what run.json says of a result until it is sent."""
        if self.run is None:
            return {}
        return {"wandb_missing": f"W&B was not given the result; to send it: {sync_command(self.directory)}"}

    def finish(self, code: int, summary: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send the result and end the run."""
        report = self._attempt(lambda run: run.finish(code, summary), has_result=code == 0)
        self.run = None
        return report

    def _attempt(self, send: "Callable[[WandbRun], list[str] | None]", has_result: bool = False) -> Mapping[str, Any]:
        """Send something; return values to add to run.json if W&B did not take all of it."""
        # Send it, and stop sending after an error
        if self.run is None:
            return {}
        try:
            lost = send(self.run)
        except Exception as error:
            self.run = None
            later = "" if has_result else " when it has a result"
            message = f"W&B did not take the run ({one_line(error)}); to send it{later}: "
        else:
            if not lost:
                return {}
            message = f"W&B has the run without its {' and '.join(lost)}; to send them: "

        # Report what is missing, and how to send it later
        message += sync_command(self.directory)
        self.say(message)
        return {"wandb_missing": message}


def sync_command(*directories: RunDirectory) -> str:
    """Return the command that sends runs to W&B."""
    return f"python -m study.sync {shlex.join(str(directory.path) for directory in directories)}"
