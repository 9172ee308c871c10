"""A process that trains one run after the other for the engine: torch and the data are loaded once.

    from study.worker import Order, work    # the engine starts `work` in a process and sends it orders

It tells (kind, value): `ready` when its device works, then of each run `begin`, `say`, `epoch` and at last `end` with
the state and a few words. Its own last words are `unfit`, when its device does not work, or `spoilt`, when a run failed
in a way that the next one might suffer from.
"""

import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from study.config import Config
from study.record.display import Display, result
from study.remote import sink
from study.system import devices
from study.system.errors import Busy, Interrupted, UserError, is_device_failure, one_line
from study.system.process import Signals, leave_garbage
from study.training.run import train

GRACE_SECONDS = 30.0
"""How long a worker that is to end has for its checkpoint."""


@dataclass(frozen=True)
class Order:
    """A run to be trained. `asks` says that the engine is asked after each epoch whether the run is to end there."""

    config: Config
    force: bool = False
    asks: bool = False


class _Messages(Display):
    """Sends what a training tells to the engine."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def say(self, text: str) -> None:
        self._send("say", text)

    def start(self, config: Config, data: str, epoch: int) -> None:
        self._send("begin", None)

    def epoch(self, row: dict[str, float]) -> None:
        self._send("epoch", row)

    def _send(self, kind: str, value: Any) -> None:
        with suppress(OSError):  # that nobody listens any more is told by SIGTERM, which leaves a checkpoint
            self.connection.send((kind, value))


def work(connection: Connection, device: str, threads: int, device_shared_by: int) -> None:
    """Train what is ordered, until the connection closes or something goes wrong that may have spoilt the device."""
    signals = Signals()
    for signum in (signal.SIGINT, signal.SIGHUP):  # the engine, which gets them too, ends its workers
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        unfit = devices.trouble(device)
        connection.send(("unfit", unfit) if unfit else ("ready", None))
        while not unfit and not signals.received:
            order = connection.recv()
            kind, value = _train(order, connection, signals, device, threads, device_shared_by)
            connection.send((kind, value))
            if kind != "end":
                return
            devices.release(device)
    except (EOFError, ConnectionError, Interrupted):
        pass
    finally:
        leave_garbage()


def _train(
    order: Order, connection: Connection, signals: Signals, device: str, threads: int, device_shared_by: int
) -> tuple[str, Any]:
    """Train a run, and return the message of its end."""

    def is_given_up(row: dict[str, float]) -> bool:
        with suppress(EOFError, ConnectionError):
            while not signals.received:
                if connection.poll(0.1):
                    return connection.recv()
        return False

    config = order.config.model_copy(update={"device": device, "threads": order.config.threads or threads})
    try:
        outcome = train(
            config,
            _Messages(connection),
            signals,
            order.force,
            device_shared_by,
            is_given_up if order.asks else None,
            sink.connect,
        )
    except Busy as error:
        return "end", ("busy", one_line(error))
    except UserError as error:
        return "end", ("failed", one_line(error))
    except Exception as error:
        return "unfit" if is_device_failure(error) else "spoilt", one_line(error)
    return "end", (outcome.state, result(outcome.summary))


def _end_with_parent() -> None:
    """End this process some time after the one that started it, however that one ended."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
