"""Train the points of a sweep on this machine, several at a time, in warm worker processes.

    outcomes = Engine(["cuda:0", "cuda:1"], per_device=2, display=display).run(jobs, count)

If a worker dies, only its run is affected, and it is tried once more in a new worker. A device that fails several times
in a row is dropped, and its runs go to the other devices. The engine waits for runs that other processes train. Workers
end with the process that started them.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from study.config import Config
from study.data import folder
from study.local import worker as worker_process
from study.local.worker import GRACE_SECONDS, Order
from study.record.directory import RunDirectory, tags_of
from study.record.display import SweepDisplay, result
from study.system.devices import threads
from study.system.errors import Busy, UserError, one_line
from study.system.process import ends_blocked, how_ended

TRIES = 2
"""Number of attempts for a run whose worker dies or whose device fails."""

STRIKES = 3
"""Number of failures in a row after which a device is dropped."""

POLL_SECONDS = 0.5


@dataclass
class Job:
    """A run to train, with `force` even if it has a result; `is_given_up` returns whether its sweep stops it.

    In W&B, it has the name `title` and the names of its sweeps.
    """

    config: Config
    label: str
    is_given_up: Callable[[], bool] | None = None
    force: bool = False
    title: str = ""
    sweeps: list[str] = field(default_factory=list)
    tries: int = 0
    failed_on: str = ""

    @property
    def directory(self) -> RunDirectory:
        """Return the directory of the run."""
        return RunDirectory.of(self.config)

    @property
    def is_done(self) -> bool:
        """Return whether the run has the result that its sweep needs."""
        return self.directory.is_done(may_be_stopped=self.is_given_up is not None)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its state, and its result or error as text."""

    config: Config
    state: str
    text: str


@dataclass
class _Worker:
    """A worker process on one slot of a device, and the job that it trains."""

    device: str
    process: Any
    connection: Connection
    job: Job | None = None
    is_ready: bool = False


class Engine:
    """Trains jobs in worker processes, `per_device` of them on each device, started when they are needed."""

    def __init__(self, devices: Iterable[str], per_device: int, display: SweepDisplay):
        self.slots = [device for _ in range(per_device) for device in devices]
        self.display = display
        self.workers: list[_Worker] = []
        self.again: deque[Job] = deque()
        self.elsewhere: list[Job] = []
        self.outcomes: list[Outcome] = []
        self.strikes: Counter[str] = Counter()
        self.reported: set[str] = set()
        self.notes: set[str] = set()

    def run(self, jobs: Iterable[Job], count: int) -> list[Outcome]:
        """Train jobs in their order, about `count` of them, and return how each ended.

        A job is taken from the iterable only when a worker is free for it. Jobs for which no device is left have no
        outcome.
        """
        # Choose the slots; those beyond `count` replace devices that fail
        self.jobs = iter(jobs)
        used = self.slots[:count]
        self.free = used + [device for device in dict.fromkeys(self.slots) if device not in used]
        self.shared_by = Counter(used)
        self.threads = threads(len(used))

        # Hand out jobs and take messages until all have ended
        try:
            while True:
                self._hand_out()
                busy = {worker.connection: worker for worker in self.workers if worker.job}
                if not busy and self.again and not all(map(self._is_dropped, self.slots)):
                    continue
                if not busy and not self.elsewhere:
                    return self.outcomes
                if not busy:
                    self._report_elsewhere()
                for connection in wait(busy, POLL_SECONDS if self.elsewhere else None):
                    self._receive(busy[connection])
                self._look_elsewhere()
        finally:
            self._end_workers()

    def _hand_out(self) -> None:
        """Assign a job to every idle worker, then to new workers on free slots, while there are jobs."""
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
        """Return the next job for a device, skipping those that are done or that another process trains."""
        while job := self._next_again(device) or next(self.jobs, None):
            if not job.force and job.is_done:
                with suppress(OSError, UserError, Busy):  # a directory that cannot be written keeps its tags
                    job.directory.add_tags([*tags_of(job.config), *job.sweeps])
                self._end(job, job.directory.state(), result(job.directory.summary(), job.config.metric))
            elif job.directory.is_locked():
                self.elsewhere.append(job)
            else:
                return job
        return None

    def _next_again(self, device: str) -> Job | None:
        """Return a job to try again, on another device than the one it failed on unless that is the only one left."""
        is_only_device = len({other for other in self.slots if not self._is_dropped(other)}) == 1
        for job in self.again:
            if job.failed_on != device or is_only_device:
                self.again.remove(job)
                return job
        return None

    def _report_elsewhere(self) -> None:
        """Print once which runs of other processes the engine waits for."""
        names = [name for job in self.elsewhere if (name := job.config.run_name) not in self.reported]
        if names:
            self.reported.update(names)
            self.display.say(f"waiting for runs that other processes train: {', '.join(names)}")

    def _look_elsewhere(self) -> None:
        """Take the results of runs that other processes trained, and try again those without a result."""
        for job in [job for job in self.elsewhere if not job.directory.is_locked()]:
            self.elsewhere.remove(job)
            state = job.directory.state()
            if job.is_done:
                self._end(job, state, result(job.directory.summary(), job.config.metric))
            elif state == "failed":
                self._end(job, state, job.directory.info().get("error", ""))
            else:
                self.again.append(job)

    def _start(self, device: str) -> _Worker:
        """Start a worker process on a device."""
        process, connection = worker_process.start(
            worker_process.work, device, self.threads, max(1, self.shared_by[device]), dict(os.environ)
        )
        self.workers.append(_Worker(device, process, connection))
        return self.workers[-1]

    def _assign(self, worker: _Worker, job: Job) -> None:
        """Send a job to a worker; if the worker has died, keep the job for another."""
        worker.job = job
        force = job.force and (job.tries == 0 or job.is_done)  # a second try resumes from a checkpoint
        try:
            worker.connection.send(Order(job.config, force, job.is_given_up is not None, job.title, job.sweeps))
        except OSError:
            self.strikes[worker.device] += not worker.is_ready
            self._discard(worker)
            self.again.appendleft(job)

    def _receive(self, worker: _Worker) -> None:
        """Take one message of a worker."""
        # Read it; a closed connection means that the worker has died
        job = worker.job
        try:
            kind, value = worker.connection.recv()
        except (EOFError, OSError):  # OSError if it died while it sent a message
            worker.process.join()
            kind = "dead"
            value = f"its worker {how_ended(worker.process.exitcode)}"

        # Update the worker, the display and the outcomes
        match kind:
            case "ready":
                worker.is_ready = True
            case "begin":
                self.display.begin(job.config.run_name, job.label, job.config.epochs)
            case "say" if value not in self.notes:
                if value.startswith(f"{job.config.dataset}: "):  # the other workers find the same in the data
                    self.notes.add(value)
                self.display.say(f"          {value}")
            case "epoch":
                self.display.epoch(job.config.run_name, value)
                if job.is_given_up and value["epoch"] < job.config.epochs:
                    with suppress(OSError):  # the worker has died, as the next message reports
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

    def _fail(self, worker: _Worker, reason: str, is_unfit: bool) -> None:
        """Handle a worker that died or whose device failed; its job counts as tried only if the device had worked."""
        # Count the failure of the device
        job = worker.job
        self._discard(worker)
        job.tries += worker.is_ready
        if is_unfit:
            job.failed_on = worker.device
            self.strikes[worker.device] += 1
            if self.strikes[worker.device] == STRIKES:
                self.display.say(f"{worker.device} is dropped after {STRIKES} failures in a row: {reason}")

        # Try the job again, or record that it failed; if it has a result after all, that counts when its turn comes
        has_result = job.is_done and not job.force
        if job.tries < TRIES or has_result:
            if worker.is_ready and not has_result:
                self.display.say(f"          {job.label}: {reason}; it is tried once more")
            self.again.appendleft(job)
            return
        try:
            job.directory.record_failure(job.config, folder.digest(job.config), reason)
        except Busy:
            self.elsewhere.append(job)
            return
        except (OSError, UserError) as error:
            reason += f" (which could not be recorded: {one_line(error)})"
        self._end(job, "failed", reason)

    def _end(self, job: Job, state: str, text: str) -> None:
        self.outcomes.append(Outcome(job.config, state, text))
        self.display.end(job.config.run_name, job.label, state, text)

    def _is_dropped(self, device: str) -> bool:
        return self.strikes[device] >= STRIKES

    def _discard(self, worker: _Worker) -> None:
        """End a worker, and free its slot for another."""
        worker.connection.close()
        self.workers.remove(worker)
        _join(worker, GRACE_SECONDS)
        self.free.append(worker.device)

    def _end_workers(self) -> None:
        """End all workers: idle ones at once, the others after they have written a checkpoint."""
        with ends_blocked():  # a second signal must not leave one out
            for worker in self.workers:
                if worker.job and worker.process.is_alive():
                    worker.process.terminate()
                worker.connection.close()  # also wakes a worker that waits for its message to be read
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self.workers:
            _join(worker, deadline - time.monotonic())


def _join(worker: _Worker, seconds: float) -> None:
    """Wait some seconds for the end of a worker's process, then kill it."""
    worker.process.join(max(0.0, seconds))
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
