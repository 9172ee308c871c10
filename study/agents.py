"""Trains a W&B sweep on this machine: a `wandb agent` for each slot, on a GPU or a share of the cores of its own.

    python -m study.sweep agents ENTITY/PROJECT/ID --gpus 0,1,2,3 [--per-gpu 2]

W&B's server hands out the points, so the same command on other machines shares the work. When it is asked to end,
runs write a checkpoint and go back into the sweep's queue, and no process stays behind.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from study import devices
from study.agent_log import AgentLog, Run
from study.errors import Interrupted, UserError
from study.progress import duration

STAGGER_SECONDS = 1.0
POLL_SECONDS = 0.25
KILL_SECONDS = 5.0
LINE_SECONDS = 300.0
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
    count = sum(name.startswith("cuda") for name in devices.names())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    identifiers = visible.split(",")[:count] if visible else [str(index) for index in range(count)]
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
    """A `wandb agent` in a session of its own, to which its runs belong, and its log."""

    def __init__(self, slot: Slot, sweep: str, folder: Path, label: Callable[[Mapping[str, Any]], str]):
        self.slot = slot
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{socket.gethostname()}-{slot.name.replace(' ', '-').replace('#', '')}.log"
        self.log = AgentLog(path, label)
        # `python`, with which W&B starts a run, is to be this one; the client's state in our environment is not its
        inherited = {name: value for name, value in os.environ.items() if name not in CLIENT_STATE}
        bin_folder = str(Path(sys.executable).parent)
        with path.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "wandb", "agent", "--forward-signals",
                 f"--max-consecutive-failed-runs={FAILURES_IN_A_ROW}", sweep],
                env={"WANDB_AGENT_DISABLE_FLAPPING": "true", **inherited, "PYTHONUNBUFFERED": "1", **slot.environment,
                     "PATH": os.pathsep.join([bin_folder, os.environ.get("PATH", "")])},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.is_over = False

    def members(self) -> list[psutil.Process]:
        """List what lives in the agent's session: itself and its runs, even if it has left them orphans."""
        found = []
        for process in psutil.process_iter(["status"]) if not self.is_over else ():
            with suppress(OSError):
                if os.getsid(process.pid) == self.process.pid and process.info["status"] != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def look(self) -> list[Run]:
        """Look how things stand; return the runs that have ended since the last look.

        An agent is over when nothing is left of its session; its number may then become another process's.
        """
        if self.is_over:
            return []
        over = self.process.poll() is not None and not self.members()
        ended = self.log.read(over)
        self.is_over = over
        return ended

    def send(self, signum: int) -> None:
        """Send a signal to the agent, which passes it on to its run; where it is gone, to the run itself."""
        receivers = [self.process] if self.process.poll() is None else self.members()
        for process in receivers:
            with suppress(psutil.Error, ProcessLookupError):
                process.send_signal(signum)

    def kill(self) -> None:
        """Kill the agent, its runs and their W&B services at once."""
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


class _Signals:
    """Takes note of the signals that ask a program to end."""

    def __init__(self) -> None:
        self.received: list[int] = []
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, lambda signum, frame: self.received.append(signum))
            elif signum == signal.SIGINT:  # in the background of a script; agents would go on ignoring it
                signal.signal(signum, lambda signum, frame: None)

    def pause(self, seconds: float, patience: int = 0) -> None:
        """Wait, but no longer than until more signals than `patience` have been received."""
        deadline = time.monotonic() + seconds
        while len(self.received) <= patience and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(0.1, left))


def run_agents(
    sweep: str,
    places: Sequence[Slot],
    folder: Path,
    label: Callable[[Mapping[str, Any]], str],
    left: int | None,
    grace_seconds: float,
) -> int:
    """Start an agent in each slot, stay until all have ended, and return 0 if none of their runs failed.

    Logs go to `folder`, `label` names a run by its values, `left` is how many points are there to be handed out.
    Raises Interrupted after SIGINT, SIGTERM or SIGHUP, when all has ended: by itself, or after `grace_seconds`, or at
    a second signal, killed.
    """
    signals, agents = _Signals(), []
    with _Display(left) as display:
        try:
            for slot in places:
                if not signals.received:
                    agents.append(Agent(slot, sweep, folder, label))
                    display.show(agents)
                    signals.pause(STAGGER_SECONDS if slot is not places[-1] else 0)
            while not signals.received and not all(agent.is_over for agent in agents):
                display.show(agents)
                signals.pause(POLL_SECONDS)
            if signals.received:
                display.say(f"ending: runs write a checkpoint and are ended within {duration(grace_seconds)}")
                _interrupt(agents, display, signals, grace_seconds)
        finally:
            for agent in agents:
                agent.kill()
            display.show(agents)
    display.exits(agents, bool(signals.received))
    if signals.received:
        raise Interrupted(signals.received[0])
    failed = [run for agent in agents for run in agent.log.runs if run.state == "failed"]
    return 1 if failed or any(agent.process.returncode != 0 for agent in agents) else 0


def _interrupt(agents: Sequence[Agent], display: "_Display", signals: _Signals, grace_seconds: float) -> None:
    """Ask all agents to end as Ctrl-C does, which puts their runs back into the queue, and wait for it.

    A run that has not said a word yet could not tell W&B that it is to be handed out again: it is asked when it has.
    """
    unasked, deadline = list(agents), time.monotonic() + grace_seconds
    while time.monotonic() < deadline and len(signals.received) < 2 and not all(agent.is_over for agent in agents):
        display.show(agents)
        for agent in [agent for agent in unasked if not agent.log.current or agent.log.current.text]:
            agent.send(signal.SIGINT)
            unasked.remove(agent)
        signals.pause(POLL_SECONDS, patience=1)


class _Display:
    """A table of what each agent does on a terminal, and a line for every run that ends."""

    def __init__(self, left: int | None):
        self.console = Console(highlight=False, soft_wrap=True)
        self.left, self.ended, self.started = left, 0, time.monotonic()
        self.told = self.started
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "_Display":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def say(self, text: str) -> None:
        """Tell a line, above the table."""
        self.console.print(text, markup=False)

    def show(self, agents: Sequence[Agent]) -> None:
        """Tell what is new."""
        for agent in agents:
            for run in agent.look():
                self.ended += run.state != "ended"
                self.say(f"{run.state:<9} {agent.slot.name}  {run.label}  {run.text}  {self._progress()}")
        if self.console.is_terminal:
            self.live.update(self._table(agents))
        elif time.monotonic() - self.told > LINE_SECONDS:
            self.told = time.monotonic()
            for agent in agents:
                if run := agent.log.current:
                    self.say(f"{run.state:<9} {agent.slot.name}  {run.label}  {run.text}")

    def _progress(self) -> str:
        if not (self.left and self.ended):
            return f"[{self.ended}]"
        left = max(0, self.left - self.ended)
        eta = (time.monotonic() - self.started) / self.ended * left
        return f"[{self.ended} of at most {self.left}, ETA {duration(eta)}]"

    def _table(self, agents: Sequence[Agent]) -> Table:
        table = Table("agent", "ended", "failed", "trains", "", box=None)
        for agent in agents:
            counts, run = _counts(agent), agent.log.current
            now = (escape(run.label), escape(run.text)) if run else ("has ended" if agent.is_over else "waits", "")
            table.add_row(agent.slot.name, str(counts.total()), str(counts["failed"]), *now)
        for column in table.columns:
            column.no_wrap = True
        return table

    def exits(self, agents: Sequence[Agent], asked: bool) -> None:
        """Tell how each agent and its runs ended."""
        table = Table("agent", "exit code", "runs", "ended because", "log")
        for agent in agents:
            runs = ", ".join(f"{count} {state}" for state, count in _counts(agent).most_common()) or "none"
            said = agent.log.agent_said
            why = "asked to" if asked else "no point was left" if said.startswith("Received exit command") else said
            table.add_row(agent.slot.name, _exit(agent.process.returncode), runs, escape(why), str(agent.log.path))
        console = self.console if self.console.is_terminal else Console(width=200)
        console.print(table, markup=False)


def _exit(code: int | None) -> str:
    if code is None:
        return "cannot be killed"
    return signal.Signals(-code).name if code < 0 else str(code)


def _counts(agent: Agent) -> Counter:
    return Counter(run.state for run in agent.log.runs if run.state != "running")
