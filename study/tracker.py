"""Records one run as it is trained: in its directory, and the same rows in W&B.

tracker = Tracker(directory, config, data_digest=…)
tracker.log(row)
"""

import platform
import socket
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from study.config import RESULTS_VERSION, Config
from study.run_directory import RunDirectory, Say


class Tracker:
    """Records one run, in its directory and in W&B; the directory's lock is held by whoever makes it."""

    def __init__(self, directory: RunDirectory, config: Config, **info: Any):
        self.directory = directory
        self.info = {
            "config": config.model_dump(),
            "fingerprint": config.fingerprint,
            "group": config.group,
            "results_version": RESULTS_VERSION,
            "started": _now(),
            "host": socket.gethostname(),
            "versions": _versions(),
            "git_commit": _git_commit(),
            **info,
        }
        directory.write_info(self.info)
        self.wandb = None

    def start_wandb(self, config: Config, say: Say) -> None:
        """Begin the run in W&B, unless it is disabled."""
        if config.wandb != "disabled":
            from study.wandb_run import WandbRun

            self.wandb = WandbRun(self.directory, config, self.info["wandb_id"], say)

    def note(self, **values: Any) -> None:
        """Add to run.json."""
        self.info |= values
        self.directory.write_info(self.info)

    def resume(self, epochs: int) -> None:
        """Go on after so many epochs: later rows are dropped, and W&B gets those that it lacks."""
        for row in self.directory.keep_history(epochs):
            self._send(row)

    def log(self, row: Mapping[str, Any]) -> None:
        """Record the row of one epoch."""
        self.directory.append(row)
        self._send(row)

    def _send(self, row: Mapping[str, Any]) -> None:
        if self.wandb:
            self.wandb.log(row)

    def finish(self, state: str, summary: Mapping[str, Any], keep_weights: bool = True, **notes: Any) -> None:
        """Record a result; run.json says so when all else is in place."""
        self.directory.write_summary(summary)
        if not keep_weights:
            (self.directory.path / "best.pt").unlink(missing_ok=True)
        if self.wandb:
            self.wandb.finish(0, {**summary, "state": state})
        self.note(state=state, ended=_now(), **notes)
        (self.directory.path / "last.pt").unlink(missing_ok=True)

    def fail(self, code: int, state: str | None = None, error: str | None = None) -> None:
        """Record that a run ended without a result: a state `failed` with its error, or no state if it may go on."""
        if self.wandb:
            self.wandb.finish(code, {})
        self.note(ended=_now(), **({"state": state, "error": error} if state else {}))


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
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        changed = subprocess.run([*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "") if commit.returncode == 0 else None
