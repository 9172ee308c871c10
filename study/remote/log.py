"""What the log of a `wandb agent` tells of its runs: the agent itself keeps no account of how they ended.

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
    """A run of an agent: `running`, a result, `failed`, `ended` by a signal, or `killed`, which is W&B's word for one
    that was stopped there; its last words, its directory, and whether W&B has it whole.
    """

    label: str
    state: str = "running"
    text: str = ""
    directory: str = ""
    is_stopped: bool = False

    @property
    def is_sent(self) -> bool:
        """Tell whether W&B has the run whole, as its run.json says."""
        with suppress(CorruptRun):
            return not (self.directory and RunDirectory(self.directory).info().get("wandb_missing"))
        return True

    @property
    def outcome(self) -> str:
        """Return the run's last words, and whether W&B lacks it."""
        return self.text if self.is_sent else f"{self.text}, not in W&B"

    def take(self, line: str) -> None:
        """Take a line that the run has printed."""
        word, _, rest = line.partition(": ")
        if line.startswith(_PLACE):
            self.directory = line.removeprefix(_PLACE)
        elif self.state != "running":
            return
        elif word in DONE:
            self.state, self.text = word, rest
        elif word == "error":
            self.state, self.text = "ended" if rest.startswith("ended by SIG") else "failed", rest
            self._excuse()
        elif line:
            self.text = line

    def _excuse(self) -> None:
        if self.is_stopped:
            self.state, self.text = "killed", "stopped at W&B, by a person or by early_terminate"

    def conclude(self) -> None:
        """Take note that the run is over: one that has not said how has died."""
        if self.text == "KeyboardInterrupt":
            self.state = "ended"
        elif self.state == "running":
            self.state, self.text = "failed", f"died; its last line: {self.text}" if self.text else "died in silence"
            self._excuse()


class AgentLog:
    """A log that grows; `label` names a run by its values."""

    def __init__(self, path: Path, label: Callable[[Mapping[str, Any]], str]):
        self.path, self.label = path, label
        self.offset = 0
        self.runs: list[Run] = []
        self.agent_said = ""

    @property
    def current(self) -> Run | None:
        """Return the run that is being trained."""
        return self.runs[-1] if self.runs and self.runs[-1].state == "running" else None

    def read(self, agent_has_ended: bool = False) -> list[Run]:
        """Read what is new; return the runs that have ended with it."""
        known = len(self.runs) - bool(self.current)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        if not agent_has_ended:
            text = text[: text.rfind(b"\n") + 1]
        self.offset += len(text)
        for line in text.decode(errors="replace").splitlines():
            self._take(line.rstrip())
        if agent_has_ended and self.current:
            self.current.conclude()
        return [run for run in self.runs[known:] if run.state != "running"]

    def _take(self, line: str) -> None:
        by_agent = _AGENT.fullmatch(line)
        if not by_agent:
            if self.runs:
                self.runs[-1].take(line)
            return
        if by_agent[1] and not by_agent[1].startswith(_NO_REASON):
            self.agent_said = by_agent[1]
        starts = _STARTS.fullmatch(by_agent[1] or "")
        if self.current and self.agent_said.startswith(("Stop: ", "Kill: ")):
            self.current.is_stopped = True
        if self.current and (starts or self.agent_said.startswith("Cleaning up finished run")):
            self.current.conclude()
        if starts:
            words = [word.strip('"').removeprefix("--").partition("=") for word in _WORDS.findall(starts[1])]
            self.runs.append(Run(self.label({key.replace("-", "_"): value for key, _, value in words})))
