"""Train a W&B sweep on this machine, with a `wandb agent` for each GPU or share of the CPU cores.

    python -m study.sweep agents ENTITY/PROJECT/ID --gpus 0,1,2,3 [--per-gpu 2]

W&B's server distributes the runs, so the same command on other machines shares the work. When the command is
interrupted, its runs write a checkpoint and return to the sweep's queue, and no process stays behind.
"""

import math
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.live import Live
from rich.table import Table

from study.record.display import duration
from study.remote.agent import Agent, Slot
from study.remote.sink import sync_command
from study.remote.sweep import WandbSweep
from study.system.console import console
from study.system.errors import Interrupted
from study.system.process import handle_ends

STAGGER_SECONDS = 1.0
POLL_SECONDS = 0.25
AT_ONCE_SECONDS = 0.5
LINE_SECONDS = 300.0

START_SECONDS = 15.0
"""Longest wait for a run to be in W&B before it gets the signal to end; it may be waiting for another process."""


class EndSignals:
    """Records the signals that ask a program to end; signals at the same time, to a job and its script, count once."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.last = -math.inf
        handle_ends(self._receive)

    def _receive(self, signum: int, frame: object) -> None:
        if time.monotonic() - self.last > AT_ONCE_SECONDS:
            self.received.append(signum)
        self.last = time.monotonic()

    def pause(self, seconds: float, patience: int = 0) -> None:
        """Wait until the time is over or more than `patience` signals have been received."""
        deadline = time.monotonic() + seconds
        while len(self.received) <= patience and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(0.1, left))


def run_agents(sweep: WandbSweep, places: Sequence[Slot], folders: Mapping[str, str], grace_seconds: float) -> int:
    """Start an agent in each slot, wait until all have ended, and return 0 if W&B has a result of each run, else 1.

    `folders` are the runs_dir, which also holds the agents' logs, and the data_dir.
    Raises Interrupted after SIGINT, SIGTERM or SIGHUP, once all processes have ended; they are killed after
    `grace_seconds` or at a second signal.
    """
    signals = EndSignals()
    agents = []
    with Display(sweep.left) as display:
        try:
            # Start the agents one after the other
            for slot in places:
                if not signals.received:
                    agents.append(Agent(slot, sweep.path, folders, sweep.label, grace_seconds))
                    display.show(agents)
                    signals.pause(STAGGER_SECONDS if slot is not places[-1] else 0)

            # Wait for their end, or for a signal
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

    # Report how they ended
    display.exits(agents)
    display.advise(agents, sweep)
    if signals.received:
        raise Interrupted(signals.received[0])
    are_sent = all(run.is_sent for agent in agents for run in agent.runs.started)
    return 1 if any(_counts(agent)["failed"] or agent.process.returncode for agent in agents) or not are_sent else 0


def _interrupt(agents: Sequence[Agent], display: "Display", signals: EndSignals, grace_seconds: float) -> None:
    """Send all agents SIGINT, which returns their runs to the queue, and wait for their end.

    A run that W&B does not have yet cannot return itself to the queue, so it gets the signal later.
    """
    unasked = list(agents)
    asked = time.monotonic()
    latest = asked + min(START_SECONDS, grace_seconds / 2)
    for agent in agents:
        agent.is_asked |= not agent.is_over
    while (
        time.monotonic() < asked + grace_seconds
        and len(signals.received) < 2
        and not all(agent.is_over for agent in agents)
    ):
        display.show(agents)
        for agent in list(unasked):
            if not agent.runs.is_starting or time.monotonic() > latest:
                agent.send(signal.SIGINT)
                unasked.remove(agent)
        signals.pause(POLL_SECONDS, patience=1)


class Display:
    """Shows a table of the agents on a terminal, and a line for every run that ends."""

    def __init__(self, left: int | None):
        self.console = console(soft_wrap=True)
        self.left = left
        self.ended = 0
        self.started = time.monotonic()
        self.reported = self.started
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self.console.print(text)

    def show(self, agents: Sequence[Agent]) -> None:
        """Show the runs that ended since the last call, and what the agents do now."""
        # Print a line for every run that ended
        for agent in agents:
            for run in agent.look(self.say):
                self.ended += run.state != "ended"
                self.say(f"{run.state:<9} {agent.slot.name}  {run.label}  {run.outcome}  {self._progress()}".rstrip())

        # Update the table; without a terminal, print the running runs now and then
        if self.console.is_terminal:
            self.live.update(self.table(agents))
        elif time.monotonic() - self.reported > LINE_SECONDS:
            self.reported = time.monotonic()
            for agent in agents:
                if run := agent.runs.current:
                    self.say(f"{run.state:<9} {agent.slot.name}  {run.label}  {run.outcome}")

    def _progress(self) -> str:
        if not (self.left and self.ended):
            return f"[{self.ended} so far]" if self.ended else ""
        left = max(0, self.left - self.ended)
        eta = (time.monotonic() - self.started) / self.ended * left
        return f"[{self.ended} of at most {self.left}, ETA {duration(eta)}]"

    def table(self, agents: Sequence[Agent]) -> Table:
        """Return a table of what the agents do; on a narrow terminal its last column is cut."""
        # Make the columns
        table = Table(box=None, expand=True)
        label = {"max_width": max(16, self.console.width // 2 - 8)}
        for name, options in {"agent": {}, "ended": {}, "failed": {}, "trains": label, "": {"ratio": 1}}.items():
            table.add_column(name, no_wrap=True, **options)

        # Add a row for each agent
        for agent in agents:
            counts = _counts(agent)
            run = agent.runs.current
            idle = "has ended" if agent.is_over else "starts again" if agent.starts_again else "waits"
            activity = (run.label, run.text) if run else (idle, "")
            table.add_row(agent.slot.name, str(counts.total()), str(counts["failed"]), *activity)
        return table

    def exits(self, agents: Sequence[Agent]) -> None:
        """Print how each agent and its runs ended, and where its log is."""
        # Print a table of the agents
        table = Table()
        for name in ("agent", "runs", "how it ended"):
            table.add_column(name, no_wrap=name == "agent")
        for agent in agents:
            counts = _counts(agent)
            counts["not in W&B"] = sum(not run.is_sent for run in agent.runs.started)
            runs = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"
            table.add_row(agent.slot.name, runs, agent.reason())
        console(width=self.console.width if self.console.is_terminal else 200).print(table)

        # Name the logs
        for agent in agents:
            self.say(f"log of {agent.slot.name}: {agent.log}")

    def advise(self, agents: Sequence[Agent], sweep: WandbSweep) -> None:
        """Print the commands for what is left to do."""
        runs = [run for agent in agents for run in agent.runs.started]
        unsent = {run.directory.path: run.directory for run in runs if not run.is_sent}
        if unsent:
            self.say(f"what W&B lacks: {sync_command(*unsent.values())}")
        if any(agent.is_asked or agent.process.returncode for agent in agents):
            self.say("the same command resumes from here")
        if not sweep.sweep.is_search and any(run.state in ("failed", "killed") for run in runs):
            self.say(
                f"to train again what failed, once all have ended: python -m study.sweep create --missing {sweep.path}"
            )


def _counts(agent: Agent) -> Counter:
    return Counter(run.state for run in agent.runs.started if run.state != "running")
