"""A slot of this machine for one run at a time, and the `wandb agent` that trains in it.

for slot in slots(gpus=None, per_gpu=1, cpus=2):
    agent = Agent(slot, "ENTITY/PROJECT/ID", {"runs_dir": "runs", "data_dir": "data"}, label)
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
from study.remote.log import AgentLog, Run
from study.system import devices
from study.system.errors import UserError
from study.system.process import how_ended

WANDB_AGENT = (sys.executable, "-m", "wandb", "agent")
WITH_US = (sys.executable, "-Ic", "import ctypes, os, sys\n"
           "ctypes.CDLL(None).prctl(1, 2)\n"  # PR_SET_PDEATHSIG, SIGINT
           "os.execv(sys.argv[1], sys.argv[1:])")  # fmt: skip
"""Has Linux send SIGINT, which gives a run back to W&B, to the command that follows when this process is gone."""
KILL_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE, PATIENCE = 5.0, 60.0, 600.0
"""Seconds before an agent that has failed is started again, each time twice as many, and after which that is vain."""
CLIENT_STATE = ("WANDB_SERVICE", "WANDB_SILENT", "WANDB_ENTITY", "WANDB_PROJECT")
FAILURES_IN_A_ROW = 5
"""After so many an agent ends: its device is taken to be at fault, and the points go to the other agents."""


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time: its name, and the environment that ties processes to it."""

    name: str
    environment: dict[str, str]


def slots(gpus: str | None, per_gpu: int, cpus: int | None) -> list[Slot]:
    """List the slots of this machine: `per_gpu` on each GPU, or `cpus` on none; each gets its share of the cores.

    `gpus` is a comma list of the indices that torch has for them; UserError where one is not there.
    """
    places = [(f"cpu {index}", "") for index in range(cpus)] if cpus else _gpu_places(gpus, per_gpu)
    threads = str(max(1, devices.cores() // len(places)))
    return [Slot(name, {"CUDA_VISIBLE_DEVICES": gpu, "OMP_NUM_THREADS": threads}) for name, gpu in places]


def _gpu_places(gpus: str | None, per_gpu: int) -> list[tuple[str, str]]:
    found = sum(name.startswith("cuda") for name in devices.names())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    identifiers = visible.split(",")[:found] if visible else [str(index) for index in range(found)]
    there = {str(index): identifier for index, identifier in enumerate(identifiers)}
    if not there:
        raise UserError("this machine has no CUDA device; --cpus N starts N agents on its CPU")
    chosen = list(dict.fromkeys(gpus.split(","))) if gpus else list(there)
    for index in chosen:
        if index not in there:
            raise UserError(f"GPU {index!r} is not there; this machine has {', '.join(there)}")
    places = [(place, index) for place in range(per_gpu) for index in chosen]
    return [(f"gpu {index}" + (f" #{place}" if per_gpu > 1 else ""), there[index]) for place, index in places]


class Agent:
    """A `wandb agent` in a session of its own, to which its runs belong, and its log.

    `folders` are the runs_dir and the data_dir of runs whose sweep does not name them.
    """

    def __init__(self, slot: Slot, sweep: str, folders: Mapping[str, str], label: Callable[[Mapping[str, Any]], str]):
        self.slot, self.sweep, self.folders = slot, sweep, folders
        self.log = AgentLog(_new_log(Path(folders["runs_dir"]), sweep.split("/")[-1], slot), label)
        self.is_over = self.is_asked = False
        self.pause, self.failing_since = FIRST_PAUSE, time.monotonic()
        self._start()

    def _start(self) -> None:
        self.started, self.starts_again, self.runs_before = time.monotonic(), None, len(self.log.runs)
        self.log.agent_said = ""
        # `python`, with which W&B starts a run, is to be this one; the client's state in our environment is not its
        inherited = {name: value for name, value in os.environ.items() if name not in CLIENT_STATE}
        environment = {
            "WANDB_AGENT_DISABLE_FLAPPING": "true", "WANDB_DIR": str(Path(self.folders["runs_dir"]).resolve()),
            **inherited, "PYTHONUNBUFFERED": "1", **self.slot.environment,
            **{VARIABLES[name]: folder for name, folder in self.folders.items()},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        }  # fmt: skip
        with self.log.path.open("ab") as output:
            self.process = subprocess.Popen(
                [*(WITH_US if sys.platform == "linux" else ()), *WANDB_AGENT, "--forward-signals",
                 f"--max-consecutive-failed-runs={FAILURES_IN_A_ROW}", self.sweep],
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def members(self) -> list[psutil.Process]:
        """List what lives in the agent's session: itself and its runs, even if it has left them orphans."""
        found = []
        for process in psutil.process_iter(["status"]) if not (self.is_over or self.starts_again) else ():
            with suppress(OSError):
                if os.getsid(process.pid) == self.process.pid and process.info["status"] != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def look(self, say: Say) -> list[Run]:
        """Look how things stand; return the runs that have ended since the last look.

        An agent has ended when nothing is left of its session; its number may then become another process's. One that
        has failed is started again.
        """
        ended: list[Run] = []
        if self.starts_again and not self.is_asked:
            if time.monotonic() >= self.starts_again:
                self._start()
        elif self.starts_again:
            self.is_over, self.starts_again = True, None
        elif not self.is_over:
            has_ended = self.process.poll() is not None and not self.members()
            ended = self.log.read(has_ended)
            if has_ended:
                self._conclude(say)
        return ended

    def _conclude(self, say: Say) -> None:
        """Take note that the agent is over, or, where it failed for want of a server perhaps, when it starts again."""
        now, runs = time.monotonic(), self.log.runs
        if len(runs) > self.runs_before or now - self.started > PATIENCE:
            self.pause, self.failing_since = FIRST_PAUSE, now
        is_at_fault = [run.state for run in runs[-FAILURES_IN_A_ROW:]] == ["failed"] * FAILURES_IN_A_ROW
        is_vain = now + self.pause > self.failing_since + PATIENCE
        if self.process.returncode == 0 or self.is_asked or is_at_fault or is_vain:
            self.is_over = True
            return
        say(f"{self.slot.name}: the agent {self.reason()}; it is started again in {duration(self.pause)}")
        self.starts_again = now + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    def reason(self) -> str:
        """Say how and why the agent has ended."""
        code, said = self.process.returncode, self.log.agent_said.removeprefix("ERROR ")
        if code is None or code < 0:
            return how_ended(code)
        if self.is_asked:
            return "asked to"
        if code == 0:
            return "no point was left" if said.startswith("Received exit command") else said
        return f"{how_ended(code)}: {said}" if said else how_ended(code)

    def send(self, signum: int) -> None:
        """Ask the agent to end, which passes the signal on to its run; where it is gone, the run itself."""
        self.is_asked |= not self.is_over
        receivers = [self.process] if self.process.poll() is None else self.members()
        for process in receivers:
            with suppress(psutil.Error, ProcessLookupError):
                process.send_signal(signum)

    def kill(self) -> None:
        """Kill the agent, its runs and their W&B services at once."""
        self.is_asked |= not self.is_over
        doomed = self.members()
        for process in list(doomed):
            with suppress(psutil.Error):
                doomed += process.children(recursive=True)
        for process in doomed:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(doomed, timeout=KILL_SECONDS)
        with suppress(subprocess.TimeoutExpired):  # a driver can hold on to a process for good
            self.process.wait(KILL_SECONDS)


def _new_log(runs_dir: Path, sweep_id: str, slot: Slot) -> Path:
    """Make a file that nobody else writes to, not even an agent of the same slot in a process beside this one."""
    folder = runs_dir / "wandb" / "agents" / sweep_id
    make(folder)
    name = f"{socket.gethostname()}-{slot.name.replace(' ', '-').replace('#', '')}"
    numbers = count(1)
    while True:
        path = folder / f"{name}-{next(numbers)}.log"
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
