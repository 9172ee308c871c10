"""Train one run after another for the engine, in a process that loads torch and the data once.

    from study.local.worker import Order, work    # the engine starts `work` in a process and sends it orders

The worker sends messages (kind, value): `ready` when its device works, then for each run `begin`, `say`, `epoch` and
`end` with the state and a short text. Its last message is `unfit` if its device does not work, or `spoilt` if a run
failed in a way that may affect the next one.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from study.config import Config
from study.data.memory import Memory
from study.record.display import Display, RunDisplay, result
from study.remote.sink import Sinks, WandbSink
from study.system import devices
from study.system.errors import STOP, Busy, Interrupted, UserError, is_device_failure, one_line
from study.system.process import Signals, ends_blocked, leave_garbage, temporary_folders
from study.training.run import Outcome, train

GRACE_SECONDS = 30.0
"""Seconds that a worker has to write a checkpoint before it is killed."""

# Workers are forked from a server that has imported once what a training needs, and uses no device
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["study.training.trainer", "study.training.svm", "torch._dynamo"])


@dataclass(frozen=True)
class Order:
    """A run to train, with its name in W&B and the names of its sweeps.

    With `asks`, the worker asks the engine after each epoch whether to stop it.
    """

    config: Config
    force: bool = False
    asks: bool = False
    title: str = ""
    sweeps: Sequence[str] = ()


class _Messages(Display):
    """Sends the progress of a training to the engine, and its lines to the run's log in W&B."""

    def __init__(self, connection: Connection):
        self.connection = connection
        self.sink: WandbSink | None = None
        self.lines: list[str] | None = []  # those before the run has a sink, if it gets one
        self.log = RunDisplay(self._write)

    def connect(self, sinks: Sinks, order: Order, *run: Any) -> WandbSink | None:
        """Make the sink of the run, and send it the lines before."""
        self.sink = sinks.connect(*run, name=order.title, sweeps=order.sweeps)
        lines, self.lines = self.lines, None
        for line in lines or ():
            self._write(line)
        return self.sink

    def say(self, text: str) -> None:
        self._send("say", text)
        self.log.say(text)

    def start(self, config: Config, data: str, epoch: float) -> None:
        self._send("begin", None)
        self.log.start(config, data, epoch)

    def epoch(self, row: dict[str, float]) -> None:
        self._send("epoch", row)
        self.log.epoch(row)

    def _write(self, line: str) -> None:
        if self.sink:
            self.sink.write(line)
        elif self.lines is not None:
            self.lines.append(line)

    def _send(self, kind: str, value: Any) -> None:
        with suppress(OSError):  # if the engine is gone, SIGTERM follows, and the run writes a checkpoint
            self.connection.send((kind, value))


def start(target: Callable[..., None], *arguments: Any) -> tuple[Any, Connection]:
    """Start a worker, which runs `target(connection, *arguments)`; return its process and our end of the connection."""
    with _without_main():
        return _started(target, *arguments)


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep multiprocessing from importing the script of this process into workers, which need nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _started(target: Callable[..., None], *arguments: Any) -> tuple[Any, Connection]:
    """Start a worker, and the server of workers before the first one."""
    # The server of workers inherits blocked signals: none disturbs its imports or a worker without handlers. Nor does a
    # signal to all processes of a command end it, or this process could not wait for its workers any more
    resource_tracker.ensure_running()  # by itself, because it unblocks signals
    with ends_blocked():
        forkserver.ensure_running()

    # Start the worker
    ours, its = _processes.Pipe()
    process = _processes.Process(target=target, args=(its, *arguments), daemon=False)
    process.start()
    its.close()
    return process, ours


def work(
    connection: Connection, device: str, threads: int, device_shared_by: int, environment: Mapping[str, str]
) -> None:
    """Train the ordered runs until the connection closes, or an error may have left the device unusable.

    `environment` is the engine's: the server that forked this process has that of its own start.
    """
    os.environ.clear()
    os.environ.update(environment)

    with suppress(Interrupted):  # from a signal before there is a run, or after the last one
        # Leave SIGINT and SIGHUP to the engine, which ends its workers; end if the engine dies
        signals = Signals()
        for signum in (signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        end_with_parent(signal.SIGTERM)

        # Try the device, then train run after run, which share the data and what is known of W&B
        inherited = temporary_folders()
        try:
            sinks = Sinks()
            shared = {"device_shared_by": device_shared_by, "memory": Memory()}
            train_here = partial(train, signals=signals, **shared)
            unfit = devices.trouble(device)
            connection.send(("unfit", unfit) if unfit else ("ready", None))
            while not unfit and not signals.received:
                order = connection.recv()
                if not isinstance(order, Order):  # a late answer for a run that was stopped
                    continue
                kind, value = _train(order, connection, signals, device, threads, sinks, train_here)
                connection.send((kind, value))
                if kind != "end":
                    return
                devices.release(device)
        except (EOFError, ConnectionError):
            pass
        finally:
            end_worker(signals, inherited)


def end_worker(signals: Signals, inherited: Sequence[TemporaryDirectory]) -> None:
    """End a worker, whatever signals come meanwhile, and remove its temporary folders, but none that it inherited.

    W&B's client keeps its tables there. Python removes such folders by itself only at the end of processes that
    multiprocessing did not start.
    """
    signals.ignore()
    for folder in temporary_folders():
        if folder not in inherited:
            with suppress(OSError, AttributeError):  # the latter if the folder could not be made
                folder.cleanup()
    leave_garbage()


def _train(
    order: Order,
    connection: Connection,
    signals: Signals,
    device: str,
    threads: int,
    sinks: Sinks,
    train_here: Callable[..., Outcome],
) -> tuple[str, Any]:
    """Train a run, and return the message about its end."""

    def is_given_up(row: dict[str, float]) -> bool:
        """Wait for the engine's answer whether to stop the run."""
        with suppress(EOFError, ConnectionError):
            while not signals.received:
                if connection.poll(0.1):
                    return connection.recv()
        return False

    # Train on this worker's device and threads, and report how it ended; an unexpected error ends the worker
    config = order.config.model_copy(update={"device": device, "threads": order.config.threads or threads})
    try:
        gives_up = is_given_up if order.asks else None
        display = _Messages(connection)
        connect = partial(display.connect, sinks, order)
        outcome = train_here(config, display, force=order.force, gives_up=gives_up, connect=connect)
    except Busy as error:
        return "end", ("busy", one_line(error))
    except Interrupted as error:
        if error.signum != STOP:
            raise
        return "end", ("interrupted", one_line(error))
    except UserError as error:
        return "end", ("failed", one_line(error))
    except Exception as error:
        return "unfit" if is_device_failure(error) else "spoilt", one_line(error)
    finally:
        if signals.received == STOP:  # that was for this run
            signals.received = 0
    return "end", (outcome.state, result(outcome.summary, config.metric))


def end_with_parent(signum: int, grace_seconds: float = GRACE_SECONDS) -> None:
    """End this process after its parent has ended in any way: by a signal, later by SIGKILL."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os.kill(os.getpid(), signum)
        time.sleep(grace_seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
