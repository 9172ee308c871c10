"""Read the states of runs from the log of their `wandb agent`, which does not record how they ended.

log = AgentLog(Path("runs/wandb/agents/ID/host-gpu-0-1.log"), sweep.label)
for run in log.read(): print(run.label, run.state, run.text)
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.record.directory import DONE, CorruptRun, RunDirectory

_AGENT = re.compile(r"(?:[\d-]{10} [\d:,]+ - wandb\.\w+ - [A-Z]+ - |wandb: |Error: )(.*)|\t.*")
_WORDS = re.compile(r'"[^"]*"|\S+')
_NO_REASON = ("ERROR Find detailed error logs", "ERROR Stopping agent")
_PLACE = "everything is in "
_STARTS = re.compile(r"About to run command: .*\bstudy\.train ?(.*)")


@dataclass
class Run:
    """A run of an agent.

    Its state is `running`, one of DONE, `failed`, `ended` (by a signal) or `killed` (stopped in W&B). `text` is its
    result or the last line that it printed.
    """

    label: str
    state: str = "running"
    text: str = ""
    directory: str = ""
    is_stopped: bool = False

    @property
    def is_sent(self) -> bool:
        """Return whether W&B has the complete run, according to its run.json."""
        with suppress(CorruptRun):
            return not (self.directory and RunDirectory(self.directory).info().get("wandb_missing"))
        return True

    @property
    def outcome(self) -> str:
        """Return the run's text, and whether W&B lacks the run."""
        return self.text if self.is_sent else f"{self.text}, not in W&B"

    def take(self, line: str) -> None:
        """Update the state from a line that the run printed."""
        # Read the directory, the result or the error; of any other line, keep the last
        word, _, rest = line.partition(": ")
        if line.startswith(_PLACE):
            self.directory = line.removeprefix(_PLACE)
        elif self.state != "running":
            return
        elif word in DONE:
            self.state = word
            self.text = rest
        elif word == "error":
            self.state = "ended" if rest.startswith("ended by SIG") else "failed"
            self.text = rest
            self._mark_stopped()
        elif line:
            self.text = line

    def _mark_stopped(self) -> None:
        """Replace a failure by `killed` if W&B stopped the run."""
        if self.is_stopped:
            self.state = "killed"
            self.text = "stopped at W&B, by a person or by early_terminate"

    def conclude(self) -> None:
        """Set the state of a run that is over; one that printed no result has died."""
        if self.text == "KeyboardInterrupt":
            self.state = "ended"
        elif self.state == "running":
            self.state = "failed"
            self.text = f"died; its last line: {self.text}" if self.text else "died in silence"
            self._mark_stopped()


class AgentLog:
    """Reads a growing log; `label` returns the label of a run from its values."""

    def __init__(self, path: Path, label: Callable[[Mapping[str, Any]], str]):
        self.path = path
        self.label = label
        self.offset = 0
        self.runs: list[Run] = []
        self.last_words = ""

    @property
    def current(self) -> Run | None:
        """Return the run that is being trained."""
        return self.runs[-1] if self.runs and self.runs[-1].state == "running" else None

    def read(self, agent_has_ended: bool = False) -> list[Run]:
        """Read the new lines, and return the runs that ended in them."""
        # Read the rest of the file, up to its last complete line
        known = len(self.runs) - bool(self.current)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        if not agent_has_ended:
            text = text[: text.rfind(b"\n") + 1]
        self.offset += len(text)

        # Update the runs line by line
        for line in text.decode(errors="replace").splitlines():
            self._take(line.rstrip())
        if agent_has_ended and self.current:
            self.current.conclude()
        return [run for run in self.runs[known:] if run.state != "running"]

    def _take(self, line: str) -> None:
        """Update the runs from a line of the agent or of its current run."""
        # A line of the run
        by_agent = _AGENT.fullmatch(line)
        if not by_agent:
            if self.runs:
                self.runs[-1].take(line)
            return

        # A line of the agent: the current run ends
        if by_agent[1] and not by_agent[1].startswith(_NO_REASON):
            self.last_words = by_agent[1]
        starts = _STARTS.fullmatch(by_agent[1] or "")
        if self.current and self.last_words.startswith(("Stop: ", "Kill: ")):
            self.current.is_stopped = True
        if self.current and (starts or self.last_words.startswith("Cleaning up finished run")):
            self.current.conclude()

        # Another run starts
        if starts:
            words = [word.strip('"').removeprefix("--").partition("=") for word in _WORDS.findall(starts[1])]
            self.runs.append(Run(self.label({key.replace("-", "_"): value for key, _, value in words})))
