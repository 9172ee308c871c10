"""Records one run as it is trained: in its directory, and the same rows in W&B.

tracker = Tracker(directory, config, data_digest=…)
tracker.log(row)
"""

import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from study.config import Config
from study.errors import UserError, is_device_failure, is_out_of_memory, one_line
from study.run_directory import RunDirectory, Say, described
from study.wandb_api import handed_out, trouble


class Tracker:
    """Records one run, in its directory and in W&B; the directory's lock is held by whoever makes it."""

    def __init__(self, directory: RunDirectory, config: Config, say: Say, data_digest: str, **info: Any):
        self.directory = directory
        self.info = {
            **described(config, data_digest),
            "started": _now(),
            "host": socket.gethostname(),
            "versions": _versions(),
            "git_commit": _git_commit(),
            **info,
        }
        directory.write_info(self.info)
        self.say, self.wandb = say, None

    def start_wandb(self, config: Config, goes_on: bool) -> None:
        """Begin the run in W&B, unless it is disabled; `goes_on` says that the rows which W&B may have are its own."""
        if config.wandb == "disabled" or os.environ.get("WANDB_MODE") == "disabled":
            return
        from study.wandb_run import WandbRun, place_of

        self.note(wandb_id=handed_out() or self.info["wandb_id"], wandb=place_of(config))
        try:
            self.wandb = WandbRun(self.directory, config, self.info["wandb_id"], self.say, goes_on)
            self.note(wandb_id=self.wandb.run_id, wandb=self.wandb.place)
        except UserError:
            raise
        except Exception as error:
            why = f"{trouble(error)}; the run goes on without; to send it when it has a result: {self._again}"
            self.say(why)
            self.note(wandb_missing=why)

    def note(self, **values: Any) -> None:
        """Add to run.json."""
        self.info |= values
        self.directory.write_info(self.info)

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Go on after these rows: others are dropped, and W&B gets those that it lacks."""
        self.directory.write_history(rows)
        for row in rows:
            self._tell_wandb("log", row)

    def log(self, row: Mapping[str, Any]) -> None:
        """Record the row of one epoch."""
        self.directory.append(row)
        self._tell_wandb("log", row)

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a file of tensors into the run's directory."""
        import torch

        self.directory.write(name, lambda path: torch.save(state, path))

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write what a training needs to go on; if that cannot be done, say so and keep what was written before."""
        try:
            self.save("last.pt", state)
        except (OSError, RuntimeError) as error:  # where the disk is full, torch raises the latter
            if is_device_failure(error) or is_out_of_memory(error):
                raise
            self.say(f"no checkpoint could be written ({one_line(error)}): there is that of before, if any")

    def finish(self, state: str, summary: Mapping[str, Any], keep_weights: bool = True, **notes: Any) -> None:
        """Record a result; run.json says so when all else is in place, and before W&B is waited for."""
        self.directory.write_summary(summary)
        if not keep_weights:
            (self.directory.path / "best.pt").unlink(missing_ok=True)
        self.note(state=state, ended=_now(), **notes)
        (self.directory.path / "last.pt").unlink(missing_ok=True)
        self._tell_wandb("finish", 0, {**summary, "state": state})

    def fail(self, code: int, state: str | None = None, error: str | None = None) -> None:
        """Record that a run ended without a result: a state `failed` with its error, or no state if it may go on."""
        if "state" not in self.info:
            self.note(ended=_now(), **({"state": state, "error": error} if state else {}))
        self._tell_wandb("finish", code, {})

    def _tell_wandb(self, what: str, *words: Any) -> None:
        """Do something in W&B; if it cannot be done, say so and go on without: the run's directory has it all."""
        if self.wandb is None:
            return
        try:
            lost = getattr(self.wandb, what)(*words)
            why = f"W&B has the run without its {' and '.join(lost)}; to send them: {self._again}" if lost else ""
        except Exception as error:
            why = f"W&B did not take the run ({one_line(error)}); to send it when it has a result: {self._again}"
            self.wandb = None
        if why:
            self.say(why)
            self.note(wandb_missing=why)
        if what == "finish":
            self.wandb = None

    @property
    def _again(self) -> str:
        return f"python -m study.wandb_run {self.directory.path}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "timm", "wandb", "numpy", "scikit-learn")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


@cache
def _git_commit() -> str | None:
    """Return the commit of this code, with a + where files differ from it; None outside a checkout."""
    git = ("git", "-C", str(Path(__file__).parent))
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", timeout=5)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "."], capture_output=True, encoding="utf-8", timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "") if commit.returncode == 0 else None
