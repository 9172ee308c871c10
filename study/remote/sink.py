"""Joins a training to W&B: its rows and its result go there as long as that works; the run's directory has it all.

    train(config, display, signals, connect=sink.connect)

`wandb` is imported only where a run is recorded there.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from study.config import Config
from study.record.directory import RunDirectory, Say
from study.remote.api import handed_out, trouble
from study.system.errors import UserError, one_line

if TYPE_CHECKING:
    from study.remote.run import WandbRun


def connect(
    directory: RunDirectory, config: Config, run_id: str, resumes: bool, say: Say, note: Callable[..., None]
) -> "WandbSink | None":
    """Begin a run in W&B, unless it is disabled; where that fails, say so and train without.

    `resumes` says that the rows which W&B may have are its own. `note` adds to run.json. UserError where W&B's settings
    are wrong.
    """
    if is_disabled(config):
        return None
    from study.remote.run import WandbRun, place_of

    run_id = handed_out() or run_id
    note(wandb_id=run_id, wandb=place_of(config))
    try:
        run = WandbRun(directory, config, run_id, say, resumes)
    except UserError:
        raise
    except Exception as error:
        why = f"{trouble(error)}; the run continues without it; to send it when it has a result: {_again(directory)}"
        say(why)
        note(wandb_missing=why)
        return None
    note(wandb_id=run.run_id, wandb=run.place)
    if run.went_offline:
        note(wandb_missing=f"{run.went_offline}; it is in an offline log")
    return WandbSink(run, directory, say)


def is_disabled(config: Config) -> bool:
    """Tell whether a run is not to be recorded in W&B."""
    return config.wandb == "disabled" or os.environ.get("WANDB_MODE") == "disabled"


def send_again(directory: RunDirectory, config: Config, say: Say) -> None:
    """Send a run that was trained before to W&B, where one of its agents asks for it."""
    if handed_out() and config.wandb != "disabled":
        from study.remote.run import replay

        replay(directory, config, say)


class WandbSink:
    """A run in W&B that gives up, with a line, where W&B does not take something."""

    def __init__(self, run: "WandbRun", directory: RunDirectory, say: Say):
        self.run: WandbRun | None = run
        self.directory, self.say = directory, say

    def log(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send the row of an epoch."""
        return self._attempt(lambda run: run.log(row))

    def finish(self, code: int, summary: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send the result and end the run."""
        report = self._attempt(lambda run: run.finish(code, summary))
        self.run = None
        return report

    def _attempt(self, what: "Callable[[WandbRun], list[str] | None]") -> Mapping[str, Any]:
        """Do something with the run; return what run.json is to say where W&B did not take it, or not all of it."""
        if self.run is None:
            return {}
        try:
            lost = what(self.run)
        except Exception as error:
            self.run = None
            why = f"W&B did not take the run ({one_line(error)}); to send it when it has a result: "
        else:
            if not lost:
                return {}
            why = f"W&B has the run without its {' and '.join(lost)}; to send them: "
        why += _again(self.directory)
        self.say(why)
        return {"wandb_missing": why}


def _again(directory: RunDirectory) -> str:
    return f"python -m study.sync {directory.path}"
