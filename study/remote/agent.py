"""Start a `wandb agent` in a slot of this machine, which trains one run at a time.

for slot in slots(gpus=None, per_gpu=1, cpus=2):
    agent = Agent(slot, "ENTITY/PROJECT/ID", {"runs_dir": "runs", "data_dir": "data"}, label, grace_seconds=60)
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from study.config.argv import VARIABLES
from study.record.directory import Say, make
from study.record.display import duration
from study.remote import events
from study.remote.outcomes import AgentRun, AgentRuns, Processes
from study.system import devices
from study.system.errors import UserError
from study.system.files import tail
from study.system.process import how_ended

WANDB_AGENT = (sys.executable, "-m", "wandb", "agent")

WITH_US = (
    sys.executable,
    "-Ic",
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 2)\n"  # PR_SET_PDEATHSIG, SIGINT
    "os.execv(sys.argv[1], sys.argv[1:])",
)
"""Starts a command to which Linux sends SIGINT when this process ends; SIGINT gives its run back to W&B."""

KILL_SECONDS = 5.0

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 60.0
"""Seconds before a failed agent is started again; the pause doubles each time, from the first to the longest."""

PATIENCE = 600.0
"""Seconds of failures after which an agent is not started again."""

CLIENT_STATE = ("WANDB_SERVICE", "WANDB_ENTITY", "WANDB_PROJECT")

FAILURES_IN_A_ROW = 5
"""An agent ends after this many failed runs in a row: probably its device is faulty. Other agents get its points."""

FINISH_SHARE = 2 / 3
"""Share of the grace in which W&B must take the end of a run; the rest is for the checkpoint."""

LAST_BYTES = 4_096
"""The last line of an agent's log is looked for in this number of bytes."""


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time: its name, and the environment that binds processes to its device."""

    name: str
    environment: dict[str, str]


def slots(gpus: str | None, per_gpu: int, cpus: int | None) -> list[Slot]:
    """List the slots of this machine: `per_gpu` on each GPU, or `cpus` on the CPU; each gets its share of the cores.

    `gpus` is a comma list of torch's indices, by default all. Raises UserError if this machine lacks one of them.
    """
    places = [(f"cpu {index}", "") for index in range(cpus)] if cpus else _gpu_places(gpus, per_gpu)
    threads = str(max(1, devices.cores() // len(places)))
    return [Slot(name, {"CUDA_VISIBLE_DEVICES": gpu, "OMP_NUM_THREADS": threads}) for name, gpu in places]


def _gpu_places(gpus: str | None, per_gpu: int) -> list[tuple[str, str]]:
    """List the name and the CUDA_VISIBLE_DEVICES of each slot on a GPU."""
    # Map torch's indices to the identifiers of the GPUs
    number = sum(name.startswith("cuda") for name in devices.names())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    identifiers = visible.split(",")[:number] if visible else [str(index) for index in range(number)]
    available = {str(index): identifier for index, identifier in enumerate(identifiers)}
    if not available:
        raise UserError("this machine has no CUDA device; --cpus N starts N agents on its CPU")

    # Choose GPUs, and fill the first slot of each before the second of any
    chosen = list(dict.fromkeys(gpus.split(","))) if gpus else list(available)
    for index in chosen:
        if index not in available:
            raise UserError(f"GPU {index!r} is not there; this machine has {', '.join(available)}")
    places = [(place, index) for place in range(per_gpu) for index in chosen]
    return [(f"gpu {index}" + (f" #{place}" if per_gpu > 1 else ""), available[index]) for place, index in places]


class Agent:
    """Runs a `wandb agent`, in a process session that also holds its runs.

    Its runs are killed `grace_seconds` after they were asked to end, so W&B's client gets less time than that to send
    them.
    `folders` are the runs_dir and the data_dir, which apply unless the sweep sets them. `log` is the file with the
    output of the agent and its runs, beside the file with the events of the runs.
    """

    def __init__(
        self,
        slot: Slot,
        sweep: str,
        folders: Mapping[str, str],
        label: Callable[[Mapping[str, Any]], str],
        grace_seconds: float,
    ):
        self.finish_seconds = FINISH_SHARE * grace_seconds
        self.slot = slot
        self.sweep = sweep
        self.folders = folders
        self.log = _new_log(Path(folders["runs_dir"]), sweep.split("/")[-1], slot)
        self.events = self.log.with_suffix(".jsonl")
        self.events.touch()
        self.runs = AgentRuns(self.events, label)
        self.is_over = self.is_asked = False
        self.pause = FIRST_PAUSE
        self.failing_since = time.monotonic()
        self._start()

    def _start(self) -> None:
        """Start the process of the agent."""
        self.started = time.monotonic()
        self.starts_again = None
        self.runs_before = len(self.runs.started)
        self.log_before = self.log.stat().st_size

        # Set its environment: this `python` for its runs, without the state of our own W&B client
        inherited = {name: value for name, value in os.environ.items() if name not in CLIENT_STATE}
        environment = {
            "WANDB_AGENT_DISABLE_FLAPPING": "true",
            "WANDB_DIR": str(Path(self.folders["runs_dir"]).resolve()),
            "WANDB_FINISH_TIMEOUT": f"{self.finish_seconds:.1f}",
            **inherited,
            "PYTHONUNBUFFERED": "1",
            **self.slot.environment,
            **{VARIABLES[name]: folder for name, folder in self.folders.items()},
            events.VARIABLE: str(self.events.resolve()),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        }

        # Start it in a session of its own, with its output in the log
        command = [
            *(WITH_US if sys.platform == "linux" else ()),
            *WANDB_AGENT,
            "--forward-signals",
            f"--max-consecutive-failed-runs={FAILURES_IN_A_ROW}",
            self.sweep,
        ]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self) -> Processes:
        """List the processes of the agent's session: the agent and its runs, even if the agent is gone."""
        living = set()
        children = set()
        for pid in psutil.pids() if not (self.is_over or self.starts_again) else ():
            with suppress(OSError, psutil.Error):
                if os.getsid(pid) != self.process.pid:
                    continue
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    living.add(pid)
                if process.ppid() == self.process.pid and os.getpgid(pid) == pid:
                    children.add(pid)
        return Processes(frozenset(living), frozenset(children))

    def look(self, say: Say) -> list[AgentRun]:
        """Update the agent's state; return the runs that ended since the last call.

        An agent has ended when no process of its session is left; a failed agent is started again.
        """
        # Start a failed agent again when its pause is over, unless it was asked to end
        if self.starts_again:
            if self.is_asked:
                self.is_over = True
                self.starts_again = None
            elif time.monotonic() >= self.starts_again:
                self._start()
            return []
        if self.is_over:
            return []

        # Look at the runs of a running one; if it has ended, a second time for those that started since the first
        is_gone = self.process.poll() is not None
        processes = self.processes()
        ended = self.runs.update(processes, self.is_asked)
        if is_gone and not processes.living:
            ended += self.runs.update(processes, self.is_asked)
            self._conclude(say)
        return ended

    def _conclude(self, say: Say) -> None:
        """Note that the agent is over, or if it failed, perhaps because there is no server, when it starts again."""
        # Start counting failures anew after a run, or after a long time
        now = time.monotonic()
        if len(self.runs.started) > self.runs_before or now - self.started > PATIENCE:
            self.pause = FIRST_PAUSE
            self.failing_since = now

        # Give up an agent that ended as it should, or that failed for too long
        is_too_late = now + self.pause > self.failing_since + PATIENCE
        if self.process.returncode == 0 or self.is_asked or is_too_late:
            self.is_over = True
            return

        # Start any other again, after a longer pause each time
        say(f"{self.slot.name}: the agent {self.reason()}; it is started again in {duration(self.pause)}")
        self.starts_again = now + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    def reason(self) -> str:
        """Return in a few words how and why the agent ended."""
        code = self.process.returncode
        if code is None or code < 0:
            return how_ended(code)
        if self.is_asked:
            return "asked to"
        if code == 0:
            last = [run.state for run in self.runs.started[-FAILURES_IN_A_ROW:]]
            is_faulty = last == ["failed"] * FAILURES_IN_A_ROW
            return f"{FAILURES_IN_A_ROW} runs failed in a row" if is_faulty else "no point was left"
        last_line = self._last_line()
        return f"{how_ended(code)}: {last_line}" if last_line else how_ended(code)

    def _last_line(self) -> str:
        """Return the last line that the agent or its run has written into the log since the agent's start."""
        lines = tail(self.log, LAST_BYTES, self.log_before).decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def send(self, signum: int) -> None:
        """Send a signal to the agent, which passes it on to its run; if the agent is gone, to the run itself."""
        self.is_asked |= not self.is_over
        receivers = [self.process.pid] if self.process.poll() is None else self.processes().living
        for pid in receivers:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)

    def kill(self) -> None:
        """Kill the agent, its runs and their W&B services."""
        self.is_asked |= not self.is_over
        processes = []
        for pid in self.processes().living:
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                processes += [process, *process.children(recursive=True)]
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=KILL_SECONDS)
        with suppress(subprocess.TimeoutExpired):  # a driver can keep a process forever
            self.process.wait(KILL_SECONDS)


def _new_log(runs_dir: Path, sweep_id: str, slot: Slot) -> Path:
    """Create a new log file, which no other process uses, and return its path."""
    folder = runs_dir / "wandb" / "agents" / sweep_id
    make(folder)
    name = f"{socket.gethostname()}-{slot.name.replace(' ', '-').replace('#', '')}"
    numbers = count(1)
    while True:
        path = folder / f"{name}-{next(numbers)}.log"
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
