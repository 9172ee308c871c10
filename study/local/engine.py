"""Trains the points of a sweep on this machine, several at a time, in warm workers.

    outcomes = Engine(["cuda:0", "cuda:1"], per_device=2, display=display).run(jobs, count)

A worker that dies takes only its run with it, which is tried once more in a fresh one. A device that fails
again and again is dropped, and its runs go to the others. A run that another process trains is waited for.
Workers end with the process that started them.
"""

import multiprocessing
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from study.config import Config
from study.data import folder
from study.local.worker import GRACE_SECONDS, Order, work
from study.record.directory import RunDirectory
from study.record.display import SweepDisplay, result
from study.system.devices import cores
from study.system.errors import Busy, UserError, one_line
from study.system.process import how_ended

TRIES = 2
"""Trainings of a run whose worker dies or whose device fails."""

STRIKES = 3
"""Failures in a row that drop a device."""

POLL_SECONDS = 0.5
_spawn = multiprocessing.get_context("spawn")


@dataclass
class Job:
    """A run to be trained, even if it has been where `force` is set; `is_given_up` tells whether its sweep ends it."""

    config: Config
    label: str
    is_given_up: Callable[[], bool] | None = None
    force: bool = False
    tries: int = 0
    failed_on: str = ""

    @property
    def directory(self) -> RunDirectory:
        """Return the directory of the run."""
        return RunDirectory.of(self.config)

    @property
    def is_done(self) -> bool:
        """Tell whether the run has the result that its sweep wants."""
        return self.directory.is_done(may_be_stopped=self.is_given_up is not None)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its state, and in a few words why."""

    config: Config
    state: str
    text: str


@dataclass
class _Worker:
    """A worker process on one slot of a device, and the run that it trains."""

    device: str
    process: Any
    connection: Connection
    job: Job | None = None
    is_ready: bool = False


class Engine:
    """A number of slots on each of some devices, each with a worker as soon as there is a run for it."""

    def __init__(self, devices: Iterable[str], per_device: int, display: SweepDisplay):
        self.slots = [device for _ in range(per_device) for device in devices]
        self.display = display
        self.workers: list[_Worker] = []
        self.again: deque[Job] = deque()
        self.elsewhere: list[Job] = []
        self.outcomes: list[Outcome] = []
        self.strikes: Counter[str] = Counter()
        self.told: set[str] = set()

    def run(self, jobs: Iterable[Job], count: int) -> list[Outcome]:
        """Train jobs, about `count` of them, in the order given, and return how each ended.

        A job is taken when a worker is free for it, no sooner. Those that no device is left for are not among the ends.
        """
        self.jobs = iter(jobs)
        used = self.slots[:count]
        self.free = used + [device for device in dict.fromkeys(self.slots) if device not in used]  # where others fail
        self.shared_by = Counter(used)
        self.threads = max(1, cores() // max(1, len(used)))
        try:
            while True:
                self._hand_out()
                busy = {worker.connection: worker for worker in self.workers if worker.job}
                if not busy and self.again and not all(map(self._is_dropped, self.slots)):
                    continue
                if not busy and not self.elsewhere:
                    return self.outcomes
                if not busy:
                    self._tell_elsewhere()
                for connection in wait(busy, POLL_SECONDS if self.elsewhere else None):
                    self._receive(busy[connection])
                self._look_elsewhere()
        finally:
            self._end_workers()

    def _hand_out(self) -> None:
        """Give a run to every worker that has none, and to new workers on free slots, as long as there are runs."""
        for worker in [worker for worker in self.workers if not worker.job]:
            if self._is_dropped(worker.device):
                self._discard(worker)
            elif job := self._next_job(worker.device):
                self._assign(worker, job)
        for device in [device for device in self.free if not self._is_dropped(device)]:
            if job := self._next_job(device):
                self.free.remove(device)
                self._assign(self._start(device), job)

    def _next_job(self, device: str) -> Job | None:
        """Return the next run for a device that nobody trains; what another process has, or has done, is set apart."""
        while job := self._next_again(device) or next(self.jobs, None):
            if not job.force and job.is_done:
                self._end(job, job.directory.state(), result(job.directory.summary()))
            elif job.directory.is_locked():
                self.elsewhere.append(job)
            else:
                return job
        return None

    def _next_again(self, device: str) -> Job | None:
        """Return a run to be tried again, on another device than the one that failed with it, if there is another."""
        alone = len({other for other in self.slots if not self._is_dropped(other)}) == 1
        for job in self.again:
            if job.failed_on != device or alone:
                self.again.remove(job)
                return job
        return None

    def _tell_elsewhere(self) -> None:
        names = [name for job in self.elsewhere if (name := job.config.run_name) not in self.told]
        if names:
            self.told.update(names)
            self.display.say(f"waiting for what other processes train: {', '.join(names)}")

    def _look_elsewhere(self) -> None:
        """Take over the results of other processes, and the runs that they left without one."""
        for job in [job for job in self.elsewhere if not job.directory.is_locked()]:
            self.elsewhere.remove(job)
            state = job.directory.state()
            if job.is_done:
                self._end(job, state, result(job.directory.summary()))
            elif state == "failed":
                self._end(job, state, job.directory.info().get("error", ""))
            else:
                self.again.append(job)

    def _start(self, device: str) -> _Worker:
        ours, theirs = _spawn.Pipe()
        process = _spawn.Process(
            target=work, args=(theirs, device, self.threads, max(1, self.shared_by[device])), daemon=False
        )
        process.start()
        theirs.close()
        self.workers.append(_Worker(device, process, ours))
        return self.workers[-1]

    def _assign(self, worker: _Worker, job: Job) -> None:
        worker.job = job
        forced_anew = job.force and (job.tries == 0 or job.is_done)  # a second try goes on from a checkpoint
        try:
            worker.connection.send(Order(job.config, forced_anew, asks=job.is_given_up is not None))
        except OSError:  # it has died since its last run, or at once
            self.strikes[worker.device] += not worker.is_ready
            self._discard(worker)
            self.again.appendleft(job)

    def _receive(self, worker: _Worker) -> None:
        """Take one message of a worker."""
        job = worker.job
        try:
            kind, value = worker.connection.recv()
        except (EOFError, ConnectionError):
            worker.process.join()
            kind, value = "dead", f"its worker {how_ended(worker.process.exitcode)}"
        match kind:
            case "ready":
                worker.is_ready = True
            case "begin":
                self.display.begin(job.config.run_name, job.label, job.config.epochs)
            case "say":
                self.display.say(f"          {value}")
            case "epoch":
                self.display.epoch(job.config.run_name, value)
                if job.is_given_up and value["epoch"] < job.config.epochs:
                    with suppress(OSError):  # its death is read next
                        worker.connection.send(job.is_given_up())
            case "end" if value[0] == "busy":
                worker.job = None
                self.elsewhere.append(job)
            case "end":
                self.strikes[worker.device] = 0
                worker.job = None
                self._end(job, *value)
            case "spoilt":
                self._discard(worker)
                self._end(job, "failed", value)
            case "unfit" | "dead":
                self._fail(worker, value, is_unfit=kind == "unfit" or not worker.is_ready)

    def _fail(self, worker: _Worker, why: str, is_unfit: bool) -> None:
        """See to a run whose worker died or whose device failed, by no fault of the run if it had not begun."""
        job = worker.job
        self._discard(worker)
        job.tries += worker.is_ready
        if is_unfit:
            job.failed_on = worker.device
            self.strikes[worker.device] += 1
            if self.strikes[worker.device] == STRIKES:
                self.display.say(f"{worker.device} is dropped after {STRIKES} failures in a row: {why}")
        if job.tries < TRIES:
            if worker.is_ready:
                self.display.say(f"          {job.label}: {why}; it is tried once more")
            self.again.appendleft(job)
            return
        try:
            job.directory.record_failure(job.config, folder.digest(job.config), why)
        except Busy:
            self.elsewhere.append(job)
            return
        except (OSError, UserError) as error:
            why += f" (which could not be noted: {one_line(error)})"
        self._end(job, "failed", why)

    def _end(self, job: Job, state: str, text: str) -> None:
        self.outcomes.append(Outcome(job.config, state, text))
        self.display.end(job.config.run_name, job.label, state, text)

    def _is_dropped(self, device: str) -> bool:
        return self.strikes[device] >= STRIKES

    def _discard(self, worker: _Worker) -> None:
        """Let a worker go; when it has ended, its slot is free for another."""
        worker.connection.close()
        self.workers.remove(worker)
        _join(worker, GRACE_SECONDS)
        self.free.append(worker.device)

    def _end_workers(self) -> None:
        """End all workers: idle ones at once, others when they have written a checkpoint."""
        for worker in self.workers:
            if worker.job and worker.process.is_alive():
                worker.process.terminate()
            else:
                worker.connection.close()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self.workers:
            _join(worker, deadline - time.monotonic())


def _join(worker: _Worker, seconds: float) -> None:
    """Wait for the end of a worker's process, and then make an end of it."""
    worker.process.join(max(0.0, seconds))
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
