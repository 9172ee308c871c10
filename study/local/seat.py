"""One slot of a machine that trains runs of a W&B sweep: an agent that W&B knows, and its worker.

seat = Seat(slot, sweep, folders, grace_seconds=60)
while not seat.is_over: seat.step(print)
"""

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from study.local import worker
from study.local.server import STOPPED, Ended, Order, serve
from study.local.slots import Slot, environment_of, new_log
from study.record.directory import DONE
from study.record.display import describe, duration
from study.remote import queue
from study.remote.sweep import WandbSweep
from study.system.process import how_ended, kill_all
from study.system.progress import Say

BEAT_SECONDS = 5.0
"""Seconds between two questions to W&B while a run is trained, or while there is none to train."""

KILL_SECONDS = 5.0

STOP_SECONDS = 30.0
"""A run that is stopped at W&B is killed after this time; WANDB_AGENT_KILL_DELAY changes it."""

PATIENCE = 600.0
"""Seconds without an answer after which a slot gives up."""

LONGEST_PAUSE = 60.0
"""The pause before W&B is asked again after no answer doubles from BEAT_SECONDS to this."""

FAILURES_IN_A_ROW = 5
"""A slot ends after this many failed runs in a row: probably its device is faulty. Other slots get its points."""


@dataclass
class HandedRun:
    """A run that W&B handed out; its state is `running` until it has an `end`."""

    id: str
    label: str
    epochs: int | None = None
    row: Mapping[str, Any] = field(default_factory=dict)
    is_connected: bool = False
    stopped_at: float | None = None
    end: Ended | None = None

    @property
    def state(self) -> str:
        """Return `running`, one of DONE, `failed`, `ended` or `killed`."""
        return self.end.state if self.end else "running"

    @property
    def text(self) -> str:
        """Return its last epoch, its result and whether W&B lacks it, or why it has none."""
        if self.end:
            return self.end.text if self.end.is_sent else f"{self.end.text}, not in W&B"
        if not self.row:
            return ""
        place = f"epoch {self.row['epoch']}/{self.epochs}"
        with suppress(TypeError):  # a loss of a run that diverges has no value
            return f"{place}  {describe(self.row)}"
        return place


class Seat:
    """Trains on a slot the runs that W&B hands out for a sweep, until W&B has no more.

    `folders` are the runs_dir and the data_dir, which apply unless the sweep sets them. Runs are killed `grace_seconds`
    after they were asked to end, so W&B's client gets less time than that to send them.
    `reason` says why the slot is over, and `has_failed` whether it should have gone on.
    """

    def __init__(self, slot: Slot, sweep: WandbSweep, folders: Mapping[str, str], grace_seconds: float):
        self.slot = slot
        self.sweep = sweep
        self.log = new_log(Path(folders["runs_dir"]), sweep.id, slot)
        self.environment = environment_of(slot, sweep, folders, grace_seconds)
        self.grace_seconds = grace_seconds
        self.queue = queue.Queue((sweep.entity, sweep.project, sweep.id))
        self.runs: list[HandedRun] = []
        self.run: HandedRun | None = None
        self.is_over = self.is_asked = self.has_failed = self.is_ending = False
        self.reason = ""
        self.next_question = 0.0
        self.silent_since: float | None = None
        self.pause = BEAT_SECONDS
        self.failures = 0
        self._start()

    def _start(self) -> None:
        """Start a worker."""
        self.is_ready = False
        self.process, self.connection = worker.start(serve, self.slot, self.log, self.environment, self.grace_seconds)

    @property
    def connections(self) -> list[Connection]:
        """List what to wait for: messages of the worker, and an answer of W&B."""
        return [] if self.is_over else [self.connection, self.queue.answers]

    def step(self, say: Say) -> None:
        """Take the messages of the worker and the answer of W&B, and ask W&B if it is time."""
        while not self.is_over and self.connection.poll():
            self._receive()
        if self.queue.answers.poll():
            self._obey(self.queue.take(), say)
        if self.is_over:
            return

        # End, when nothing is left to do
        if self.is_ending and not self.run and not self.queue.is_asking:
            self._end(self.reason)
            return
        is_due = time.monotonic() >= self.next_question
        if self.is_ready and is_due and not (self.queue.is_asking or self.is_ending):
            self.next_question = time.monotonic() + BEAT_SECONDS
            self.queue.ask(self.run.id if self.run else None)

    def _receive(self) -> None:
        """Take one message of the worker; a closed connection means that it has died."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):  # OSError if it died while it sent a message
            self.process.join(KILL_SECONDS)
            kind = "dead"
            value = f"its process {how_ended(self.process.exitcode)}"
        match kind:
            case "ready":
                self.is_ready = True
            case "begin":
                self.run.epochs = value
            case "connected":
                self.run.is_connected = True
            case "epoch":
                self.run.row = value
            case "end":
                self._conclude(value)
            case "spoilt":
                self._conclude(value)
                self._renew()
            case "unfit" if self.run:
                self._conclude(value)
                self._renew()
            case "dead" if self.run:
                epoch = self.run.row.get("epoch")
                place = f"after epoch {epoch}" if epoch else "before its first epoch"
                self._conclude(Ended("failed", f"died {place}: {value}"))
                self._renew()
            case "dead" if self.is_ready:
                self._renew()
            case "unfit" | "dead":
                self.has_failed = True
                self._end(f"its device does not work: {value}" if kind == "unfit" else f"{value}: see the log")

    def _renew(self) -> None:
        """Start another worker, unless the slot is to end."""
        self.kill()
        if self.is_ending:
            self._end(self.reason)
        else:
            self._start()

    def _conclude(self, end: Ended) -> None:
        """Record how the run ended, and ask for the next at once."""
        # Distinguish a stop at W&B from other ends by a signal
        run = self.run
        if run.stopped_at and end.state == "failed":
            end = Ended("killed", STOPPED, end.directory)
        elif self.is_asked and not run.stopped_at and end.state == "killed":
            end = Ended("ended", "ended by SIGTERM", end.directory)
        run.end = end
        self.run = None
        self.next_question = 0.0

        # Count failures in a row
        self.failures = self.failures + 1 if end.state == "failed" else 0
        if self.failures == FAILURES_IN_A_ROW and not self.is_ending:
            self.is_ending = True
            self.reason = f"{FAILURES_IN_A_ROW} runs failed in a row"

    def _obey(self, answer: queue.Answer, say: Say) -> None:
        """Do what W&B answered."""
        # Without an answer, a run goes on, and a slot without one asks again, after a longer pause each time
        if answer.is_unknown:
            self.is_ending = self.has_failed = True
            self.reason = "W&B does not know the sweep any more: it was deleted"
            return
        if answer.is_final:
            self.is_ending = self.has_failed = True
            self.reason = answer.error
            return
        if answer.error:
            self._wait(answer.error, say)
            return
        self.silent_since = None
        self.pause = BEAT_SECONDS

        # Start, stop or end runs
        for command in answer.commands:
            match command.get("type"):
                case "run" | "resume":
                    self._train(command)
                case "stop" if self.run and command.get("run_id") == self.run.id:
                    self._stop()
                case "exit":
                    self.is_ending = True
                    is_early = answer.sweep_state.upper() in ("CANCELED", "CANCELLED", "STOPPED")
                    self.reason = "the sweep was cancelled at W&B" if is_early else "no point was left"
                    if self.run:
                        self._stop()

    def _wait(self, error: str, say: Say) -> None:
        """Note that W&B did not answer, and give up after a while."""
        now = time.monotonic()
        if self.silent_since is None:
            self.silent_since = now
        if now + self.pause > self.silent_since + PATIENCE:
            self.is_ending = self.has_failed = True
            self.reason = error
            return
        say(f"{self.slot.name}: {error}; it is asked again in {duration(self.pause)}")
        self.next_question = now + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    def _train(self, command: Mapping[str, Any]) -> None:
        """Let the worker train the run of a command."""
        parameters = self.sweep.sweep.parameters.keys() | {"seed"}
        values = {name: entry["value"] for name, entry in command["args"].items() if name in parameters}
        texts = {name: str(value) for name, value in values.items()}
        self.run = HandedRun(command["run_id"], self.sweep.label(texts))
        self.runs.append(self.run)
        with suppress(OSError):  # the worker has died, as the next message reports
            words = queue.words(self.sweep.content, command)
            self.connection.send(Order(self.run.id, command["args"], words, self.sweep.title(texts)))

    def _stop(self) -> None:
        """Stop the run by SIGTERM, so that it does not return to the queue; kill it if that takes too long."""
        now = time.monotonic()
        if self.run.stopped_at is None:
            self.run.stopped_at = now
            self._signal(signal.SIGTERM)
        elif now > self.run.stopped_at + float(os.environ.get("WANDB_AGENT_KILL_DELAY", STOP_SECONDS)):
            self.kill()

    def ask_to_end(self) -> None:
        """Ask W&B for no more runs; `interrupt` ends the one that is trained."""
        if not self.is_over:
            self.is_asked = self.is_ending = True
            self.reason = self.reason or "on request"

    @property
    def can_requeue(self) -> bool:
        """Return whether SIGINT returns the run to W&B's queue, which needs a run that W&B has."""
        return not self.queue.is_asking and (not self.run or self.run.is_connected)

    def interrupt(self) -> None:
        """End the run by SIGINT, or a slot without one."""
        if self.run:
            self._signal(signal.SIGINT)
        elif not self.is_over:
            self._end(self.reason)

    def _signal(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signum)

    def _end(self, reason: str) -> None:
        """End the slot and its worker, which has no run."""
        self.is_over = True
        self.reason = reason
        self.connection.close()
        self.process.join(KILL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill the worker and its processes; a run that it trains has failed."""
        if self.process.is_alive():  # else another process may have its number by now
            kill_all([self.process.pid], KILL_SECONDS)

    def close(self) -> None:
        """End the slot in any case, without any process left."""
        self.kill()
        if self.run:
            self._conclude(Ended("failed", f"died after epoch {self.run.row.get('epoch', 0)}: it was killed"))
        self.is_over = True

    @property
    def unsent(self) -> list[HandedRun]:
        """List the runs with a result that W&B lacks."""
        return [run for run in self.runs if run.state in DONE and not run.end.is_sent]
