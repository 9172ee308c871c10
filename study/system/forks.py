"""Runs functions in forked processes, one per core, while this process goes on.

python -c "from study.system.forks import Forks; print(Forks().start(lambda: 6 * 7)())"
"""

import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from study.system.devices import cores

MOST = 8
"""At most this many processes at a time, because each needs memory."""


CHUNK = 200
"""Items that one process computes; of fewer, this process computes all."""


def each(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Yield the result of a function for each item, in order; of many items, computed in several processes."""
    if len(items) <= CHUNK:
        yield from map(function, items)
        return
    forks = Forks()
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    for results in [forks.start(partial(list, map(function, chunk))) for chunk in chunks]:
        yield from results()


class Forks:
    """Processes that compute one result each; only on Linux, where forking is safe, and with several cores."""

    def __init__(self):
        can_fork = sys.platform == "linux" and not current_process().daemon
        self.most = min(cores(), MOST) if can_fork else 1
        self.running: list[_Result] = []

    def start(self, make: Callable[[], Any]) -> Callable[[], Any]:
        """Start computing `make()` and return a function that waits for the result, or raises its exception.

        What `make` does beside returning a value that can be pickled must be outside of this process, such as files.
        """
        if self.most < 2:
            return _here(make)

        # wait until one of the processes has finished
        self.running = [result for result in self.running if not result.receiver.closed]
        while len(self.running) >= self.most:
            ready = wait([result.receiver for result in self.running])
            for result in [result for result in self.running if result.receiver in ready]:
                result.receive()
                self.running.remove(result)
        result = _Result(make)
        self.running.append(result)
        return result


def _here(make: Callable[[], Any]) -> Callable[[], Any]:
    """Compute a result in this process; an exception is raised when the result is asked for."""
    try:
        value = make()
    except Exception as raised:
        error = raised
    else:
        return lambda: value

    def fail() -> None:
        raise error

    return fail


class _Result:
    """The result of a forked process."""

    def __init__(self, make: Callable[[], Any]):
        self.make: Callable[[], Any] | None = make
        self.value: Any = None
        processes = get_context("fork")
        self.receiver, sender = processes.Pipe(duplex=False)
        self.process = processes.Process(target=_compute, args=(make, sender), daemon=True)
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of BLAS, which no figure uses
            self.process.start()
        sender.close()

    def receive(self) -> None:
        """Wait for the process and keep its result; one that ended without a result leaves it to this process."""
        try:
            self.value = self.receiver.recv()
            self.make = None  # its figure is no longer needed
        except (EOFError, OSError):  # it was killed, perhaps while sending
            pass
        self.receiver.close()
        self.process.join()
        self.process.close()

    def __call__(self) -> Any:
        """Return the result; compute it here if the process failed, which raises its exception here."""
        if not self.receiver.closed:
            self.receive()
        return self.make() if self.make else self.value


def _compute(make: Callable[[], Any], sender: Connection) -> None:
    """Send the result of `make`, or end without one if it fails."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.disable()  # it would copy the memory that is shared with the parent
    try:
        sender.send(make())
    except Exception:
        pass
    finally:
        sender.close()
        os._exit(0)
