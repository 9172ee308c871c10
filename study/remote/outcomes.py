"""What became of the runs of a `wandb agent`, from their events, their directories and the table of processes.

runs = AgentRuns(path, sweep.label)
for run in runs.update(Processes(living, children), is_asked=False): print(run.label, run.state, run.outcome)
"""

import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.record.directory import DONE, CorruptRun, RunDirectory
from study.record.display import describe, result
from study.remote.events import EventFile
from study.system.process import ENDS, how_ended

STOPPED = "stopped at W&B, by a person or by early_terminate"


@dataclass(frozen=True)
class Processes:
    """Process ids of an agent's session: the living processes, and the children that the agent started for its runs.

    A child is listed until the agent has noticed its end, which takes up to five seconds.
    """

    living: frozenset[int]
    children: frozenset[int]


@dataclass
class AgentRun:
    """A run that an agent started.

    Its state is `running`, one of DONE, `failed`, `ended` (by a signal) or `killed` (stopped at W&B). `child` is the
    agent's child process to which its process `pid` belongs. `error` is the reason why it has no result.
    """

    pid: int
    child: int
    label: str
    directory: RunDirectory | None = None
    is_connected: bool = False
    state: str = "running"
    error: str = ""

    @property
    def text(self) -> str:
        """Return its last epoch, its result, or why it has none."""
        if self.state in DONE:
            return result(self._read(RunDirectory.summary))
        if self.state != "running":
            return self.error
        row = self._last_row()
        if not row:
            return ""
        config = self._read(RunDirectory.info).get("config", {})
        place = f"epoch {row['epoch']}/{config.get('epochs')}"
        with suppress(KeyError, TypeError):  # a loss of a run that diverges has no value
            return f"{place}  {describe(row)}"
        return place

    @property
    def is_sent(self) -> bool:
        """Return False if the run has a result that W&B lacks, according to its run.json."""
        return self.state not in DONE or not self._read(RunDirectory.info).get("wandb_missing")

    @property
    def outcome(self) -> str:
        """Return the run's text, and whether W&B lacks the run."""
        return self.text if self.is_sent else f"{self.text}, not in W&B"

    def end(self, code: int, error: str, is_asked: bool) -> None:
        """Set the state of a run whose process ended with this exit code; `is_asked` if `agents` asked it to end."""
        info = self._read(RunDirectory.info)
        if code == 0 and info.get("state") in DONE:
            self.state = info["state"]
        elif code == 128 + signal.SIGTERM and not is_asked:
            self.state = "killed"
            self.error = STOPPED
        elif code - 128 in ENDS:
            self.state = "ended"
            self.error = error or how_ended(128 - code)
        else:
            self.state = "failed"
            recorded = info.get("error") if self.is_connected else ""
            self.error = recorded or error or how_ended(code)

    def die(self) -> None:
        """Set the state of a run whose process is gone without an exit code."""
        epoch = self._last_row().get("epoch")
        self.state = "failed"
        self.error = f"died after epoch {epoch}" if epoch else "died before its first epoch"

    def _last_row(self) -> dict[str, Any]:
        """Read the row of the last epoch; return {} before the run has replaced the rows of earlier starts."""
        return self._read(RunDirectory.last_row) if self.is_connected else {}

    def _read(self, read: Callable[[RunDirectory], dict[str, Any]]) -> dict[str, Any]:
        """Read something in the run's directory; return {} if it is missing or broken."""
        with suppress(CorruptRun):
            return read(self.directory) if self.directory else {}
        return {}


class AgentRuns:
    """The runs of one agent, in the order in which they started; `label` returns the label of a run from its values."""

    def __init__(self, path: Path, label: Callable[[Mapping[str, Any]], str]):
        self.events = EventFile(path)
        self.label = label
        self.started: list[AgentRun] = []
        self.silent: set[int] = set()

    @property
    def current(self) -> AgentRun | None:
        """Return the run that is being trained."""
        return self.started[-1] if self.started and self.started[-1].state == "running" else None

    @property
    def is_starting(self) -> bool:
        """Return whether a run has started, but W&B does not have it yet."""
        return bool(self.silent) or (self.current is not None and not self.current.is_connected)

    def update(self, processes: Processes, is_asked: bool) -> list[AgentRun]:
        """Read the new events, and return the runs that ended since the last call.

        `processes` must have been listed before the call: a process that was gone by then has written all its events.
        """
        # Take the events; a known run whose process is gone without an `end` has died
        running = [run for run in self.started if run.state == "running"]
        known = len(self.started)
        for event in self.events.read():
            self._take(event, is_asked)
        for run in running:
            if run.state == "running" and run.pid not in processes.living:
                run.die()

        # A child of the agent that ended without a `start` has died too
        self.silent = (self.silent | processes.children) - {run.child for run in self.started}
        for child in self.silent - processes.living:
            error = "died before it could report anything: see the log"
            self.started.append(AgentRun(child, child, "unknown run", state="failed", error=error))
        self.silent &= processes.living
        return [run for run in (*running, *self.started[known:]) if run.state != "running"]

    def _take(self, event: Mapping[str, Any], is_asked: bool) -> None:
        """Update the runs from an event."""
        # A run starts
        pid = event["pid"]
        if event["event"] == "start":
            self.started.append(AgentRun(pid, event["group"], self.label(event["values"])))
            return

        # The last run of this process goes on or ends
        for run in [run for run in self.started if run.pid == pid][-1:]:
            match event["event"]:
                case "directory":
                    run.directory = RunDirectory(event["path"])
                case "connected":
                    run.is_connected = True
                case "end":
                    run.end(event["code"], event["error"], is_asked)
