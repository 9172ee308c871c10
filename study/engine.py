"""Trains the points of a sweep on this machine, several at a time, in warm workers.

    outcomes = Engine(devices=["cuda:0", "cuda:1"], per_device=2).run(configs)

A worker is a process that loads torch and the data once and trains one run after the other. One that dies
takes only its run with it. Workers end with the process that started them.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from study.config import Config
from study.devices import cores
from study.errors import Busy, Interrupted, UserError, one_line
from study.progress import Display, SweepDisplay, result

GRACE_SECONDS = 30.0
_spawn = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Outcome:
    """How a point ended: a state of the run, or `busy` where another process trains it, and in a few words why.

    `spoilt` says that its worker has ended with it.
    """

    config: Config
    state: str
    text: str
    spoilt: bool = False


@dataclass
class _Worker:
    """A worker process on one slot of a device, and the run that it trains."""

    device: str
    process: Any
    connection: Connection
    config: Config | None = None


class Engine:
    """A number of slots on each of some devices, each with a worker."""

    def __init__(self, devices: Sequence[str], per_device: int):
        self.slots = [device for _ in range(per_device) for device in devices]
        self.per_device = per_device

    def run(self, configs: Sequence[Config], display: SweepDisplay, force: bool = False) -> list[Outcome]:
        """Train configs in the order given, and return how each ended."""
        pending, outcomes = deque(configs), []
        slots = self.slots[: len(configs)]
        threads = max(1, cores() // len(slots)) if slots else 1
        workers = [self._start(device, threads, force) for device in slots]
        try:
            for worker in workers:
                self._assign(worker, pending, display)
            while any(worker.config for worker in workers):
                busy = {worker.connection: worker for worker in workers if worker.config}
                for connection in wait(busy):
                    worker = busy[connection]
                    outcome = self._receive(worker, display)
                    if outcome is None:
                        continue
                    outcomes.append(outcome)
                    display.end(outcome.config.run_name, outcome.state, outcome.text)
                    if outcome.spoilt:
                        worker.process.join()
                        worker.config = None
                        if pending:
                            workers[workers.index(worker)] = worker = self._start(worker.device, threads, force)
                    self._assign(worker, pending, display)
        finally:
            self._end(workers)
        return outcomes

    def _start(self, device: str, threads: int, force: bool) -> _Worker:
        ours, theirs = _spawn.Pipe()
        process = _spawn.Process(target=_work, args=(theirs, device, threads, self.per_device, force), daemon=False)
        process.start()
        theirs.close()
        return _Worker(device, process, ours)

    def _assign(self, worker: _Worker, pending: deque[Config], display: SweepDisplay) -> None:
        worker.config = pending.popleft() if pending and worker.process.is_alive() else None
        if worker.config:
            worker.connection.send(worker.config.model_dump())
            display.begin(worker.config.run_name, worker.config.epochs)

    def _receive(self, worker: _Worker, display: SweepDisplay) -> Outcome | None:
        """Take one message of a worker; return an outcome if its run has ended."""
        try:
            kind, value = worker.connection.recv()
        except (EOFError, ConnectionError):
            worker.process.join()
            return Outcome(worker.config, "failed", f"its worker {_death(worker.process.exitcode)}", spoilt=True)
        match kind:
            case "epoch":
                display.epoch(worker.config.run_name, value)
            case "say":
                display.say(f"          {value}")
            case "end":
                return Outcome(worker.config, *value)
        return None

    def _end(self, workers: list[_Worker]) -> None:
        """End all workers: idle ones at once, others when they have written a checkpoint."""
        for worker in workers:
            if worker.config and worker.process.is_alive():
                worker.process.terminate()
            else:
                worker.connection.close()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _death(exitcode: int) -> str:
    return f"was ended by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"ended with exit code {exitcode}"


class _Messages(Display):
    """Sends what a training tells to the process that started the worker."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def say(self, text: str) -> None:
        self._send("say", text)

    def epoch(self, row: dict[str, float]) -> None:
        self._send("epoch", row)

    def _send(self, kind: str, value: Any) -> None:
        with suppress(OSError):  # that nobody listens any more is told by SIGTERM, which leaves a checkpoint
            self.connection.send((kind, value))


def _work(connection: Connection, device: str, threads: int, device_shared_by: int, force: bool) -> None:
    """Train one config after the other, as they come, until the connection closes."""
    from study.train import Signals, train

    signals = Signals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    messages = _Messages(connection)
    try:
        while not signals.received:
            values = connection.recv()
            config = Config.recorded(values)
            config = config.model_copy(
                update={"device": device, "threads": config.threads or threads, "setting": values["setting"]}
            )
            try:
                outcome = train(config, messages, signals, force, device_shared_by)
                ended = (outcome.state, result(outcome.summary), False)
            except Busy as error:
                ended = ("busy", one_line(error), False)
            except UserError as error:
                ended = ("failed", one_line(error), False)
            except Exception as error:  # it may have spoilt the device for what comes next: a fresh process goes on
                ended = ("failed", one_line(error), True)
            connection.send(("end", ended))
            if ended[-1]:
                return
    except (EOFError, ConnectionError, Interrupted):
        pass


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
