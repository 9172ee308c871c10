"""Record a run while it is trained, in its directory and in a sink such as W&B.

tracker = Tracker(directory, config, data_digest=…)
tracker.log(row)
"""

import platform
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from study.config import Config
from study.record.directory import ROOM_BYTES, RunDirectory, described
from study.system import devices, version
from study.system.errors import is_device_failure, is_out_of_memory, one_line
from study.system.progress import Say


class Sink(Protocol):
    """Receives the rows and the result of a run in addition to its directory; it never raises.

    Each method returns values to add to run.json, such as what could not be sent.
    """

    def lacking(self) -> Mapping[str, Any]:
        """Return what run.json says of a result until it is sent, also if the process dies before that."""

    def watch(self, model: Any) -> None:
        """Take the network that is trained, to describe it with each row from now on."""

    def log(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the row of an epoch, unless it was already taken."""

    def finish(self, code: int, summary: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the exit code and the summary, which is empty without a result; nothing follows."""


Connect = Callable[[RunDirectory, Config, str, bool, Say, Callable[..., None]], Sink | None]
"""Makes the sink of a run, or None.

Its arguments are the run's directory, config and id, whether it resumes, a function that prints a line, and one that
adds values to run.json.
"""


class Tracker:
    """Records one run in its directory and in a sink; the caller holds the directory's lock."""

    def __init__(self, directory: RunDirectory, config: Config, say: Say, data_digest: str, **info: Any):
        self.directory = directory
        self.info = {
            **described(config, data_digest),
            "started": _now(),
            "host": socket.gethostname(),
            "cpu": devices.cpu(),
            "cores": devices.cores(),
            "versions": _versions(),
            "git_commit": version.commit(),
            **info,
        }
        directory.write_info(self.info)
        self.say = say
        self.sink: Sink | None = None
        self.is_saved = False
        """Whether the last checkpoint could be written."""

    def note(self, **values: Any) -> None:
        """Add values to run.json."""
        self.info |= values
        self.directory.write_info(self.info)

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Continue after these rows: drop any others, and send the sink the rows that it lacks."""
        self.directory.write_history(rows)
        for row in rows:
            self._pass_on(lambda sink, row=row: sink.log(row))

    def watch(self, model: Any) -> None:
        """Let the sink describe a network with each row from now on."""
        if self.sink:
            self.sink.watch(model)

    def log(self, row: Mapping[str, Any]) -> None:
        """Record the row of one epoch."""
        self.directory.append(row)
        self._pass_on(lambda sink: sink.log(row))

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write tensors into a file of the run's directory."""
        self.directory.write(name, lambda path: _save(state, path))

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint; if that fails, print why and keep the previous checkpoint."""
        self.is_saved = False
        try:
            self.save("last.pt", state)
            self.is_saved = True
        except (OSError, RuntimeError) as error:  # torch raises the latter if the disk is full
            if is_device_failure(error) or is_out_of_memory(error):
                raise
            self.say(f"no checkpoint could be written ({one_line(error)}): the previous one, if any, is kept")

    def finish(self, state: str, summary: Mapping[str, Any], keep_weights: bool = True, **notes: Any) -> None:
        """Record a result: run.json after all other files; `send_result` follows."""
        self.directory.write_summary(summary)
        if not keep_weights:
            (self.directory.path / "best.pt").unlink(missing_ok=True)
        self.info |= {"state": state, "ended": _now(), **notes}
        lacking = self.sink.lacking() if self.sink else {}
        self.directory.write_info({**lacking, **self.info})
        (self.directory.path / "last.pt").unlink(missing_ok=True)

    def send_result(self, state: str, summary: Mapping[str, Any]) -> None:
        """Send the sink a result that was recorded; then run.json no longer says that the sink lacks it."""
        if self.sink:
            self.note(**self.sink.finish(0, {**summary, "state": state}))

    def fail(self, code: int, state: str | None = None, error: str | None = None) -> None:
        """Record that a run ended without a result; without a `state` it can be resumed."""
        if "state" not in self.info:
            try:
                self.note(ended=_now(), **({"state": state, "error": error} if state else {}))
            except OSError as full:
                self.say(f"run.json does not say how the run ended: {one_line(full)}")
        self._pass_on(lambda sink: sink.finish(code, {}))

    def _pass_on(self, call: Callable[[Sink], Mapping[str, Any]]) -> None:
        """Call a method of the sink, if there is one, and add what it reports to run.json."""
        if self.sink and (report := call(self.sink)):
            self.note(**report)


def _save(state: Mapping[str, Any], path: Path) -> None:
    """Write tensors into a file; raise OSError if the system refuses it, which torch reports as RuntimeError."""
    import torch

    try:
        torch.save(state, path)
    except RuntimeError:
        with path.open("ab") as file:  # the system says why
            file.write(bytes(ROOM_BYTES))
        raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed; training needs no wandb."""
    versions = {"python": platform.python_version()}
    for name in (version.PACKAGE, "torch", "torchvision", "timm", "wandb", "numpy", "scikit-learn"):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
