"""Train the runs that W&B hands out, one after another, in a process that loads torch and the data once.

    process, connection = worker.start(serve, slot, log, environment, grace_seconds)
    connection.send(Order(run_id, values, words, name))

The worker sends messages (kind, value): `ready` when its device works, then for each run `connected` when W&B has it or
it is trained without W&B, `epoch`, and `end` with an Ended. After `unfit` or `spoilt`, it takes no further run.
"""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from study.config import Config
from study.data.memory import Memory
from study.local.slots import Slot
from study.local.worker import end_with_parent, end_worker
from study.record.directory import RunDirectory
from study.record.display import RunDisplay, result
from study.remote import handed
from study.remote.sink import Sinks
from study.system import devices
from study.system.errors import Busy, Interrupted, UserError, is_device_failure
from study.system.process import Signals, print_error, temporary_folders

STOPPED = "stopped at W&B, by a person or by early_terminate"


@dataclass(frozen=True)
class Order:
    """A run that W&B hands out: its id, values and name there, and the command line that its agent would give it."""

    run_id: str
    values: Mapping[str, Any]
    words: list[str]
    name: str


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Its state is one of DONE, `failed`, `ended` (by a signal) or `killed` (stopped at W&B); the text is its result or
    why it has none. `directory` is its path, if it has one; `is_sent` is False if it has a result that W&B lacks.
    """

    state: str
    text: str
    directory: Path | None = None
    is_sent: bool = True


class _Log(RunDisplay):
    """Prints a run's progress, which goes to the log, and sends its epochs to the process that started this one."""

    def __init__(self, connection: Connection):
        super().__init__()
        self.connection = connection

    def start(self, config: Config, data: str, epoch: float) -> None:
        super().start(config, data, epoch)
        self.send("begin", config.epochs)

    def epoch(self, row: dict[str, float]) -> None:
        super().epoch(row)
        self.send("epoch", row)

    def send(self, kind: str, value: Any) -> None:
        """Send a message; if nobody is there to read it, a signal follows."""
        with suppress(OSError):
            self.connection.send((kind, value))


def serve(connection: Connection, slot: Slot, log: Path, environment: Mapping[str, str], grace_seconds: float) -> None:
    """Train the ordered runs until the connection closes, a signal comes, or an error may have spoilt this process.

    SIGINT returns the run to W&B's queue, SIGTERM does not. If the starting process dies, SIGINT comes, and SIGKILL
    `grace_seconds` later.
    """
    # Leave the terminal, whose Ctrl-C is for the process that started this one, and write to the log
    os.setsid()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _set_environment(environment)

    with suppress(Interrupted):  # from a signal before there is a run, or after the last one
        # Take signals, also where SIGINT was ignored; return the run to the queue if the starting process dies
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signals = Signals()
        end_with_parent(signal.SIGINT, grace_seconds)

        # Try the device, then train run after run, which share the data and what is known of W&B
        inherited = temporary_folders()
        try:
            shared = {"signals": signals, "device_shared_by": slot.shared_by, "memory": Memory()}
            device = "cuda:0" if slot.environment.get("CUDA_VISIBLE_DEVICES") else "cpu"
            sinks = Sinks()
            handed.leave()  # imports the client, while nothing waits for it
            unfit = devices.trouble(device)
            connection.send(("unfit", unfit) if unfit else ("ready", None))
            while not unfit and not signals.received:
                order = connection.recv()
                _set_environment(environment)
                kind, ended = _train(order, _Log(connection), sinks, shared)
                connection.send((kind, ended))
                if kind != "end":
                    return
                devices.release(device)
        except (EOFError, ConnectionError):
            handed.leave()
        finally:
            end_worker(signals, inherited)


def _set_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _train(order: Order, display: _Log, sinks: Sinks, shared: Mapping[str, Any]) -> tuple[str, Ended]:
    """Train a run, and return the message about its end."""

    def connect(*run: Any) -> Any:
        """Make the sink of the run, and report that it has one or does without."""
        made = sinks.connect(*run)
        display.send("connected", None)
        return made

    # Train it, and name its state if there is no result
    kind = "end"
    state = "failed"
    directory = None
    is_sent = True
    try:
        handed.take(order.run_id, order.values, order.name)
        display.say(f"run {order.run_id}: {' '.join(order.words)}")
        command = handed.read(order.words)
        directory = RunDirectory.of(command.config)
        outcome = handed.train_command(command, display, connect=connect, **shared)
        state = outcome.state
        text = result(outcome.summary, command.config.metric)
        is_sent = directory.is_sent()
        if not is_sent or shared["signals"].received:  # the client may still be trying to send it; a signal ends this
            kind = "spoilt"
    except Interrupted as error:
        text = print_error(error)
        state = "killed" if error.signum == signal.SIGTERM else "ended"
        kind = "spoilt"
    except (UserError, Busy) as error:
        text = print_error(error)
    except Exception as error:
        text = print_error(error)
        kind = "unfit" if is_device_failure(error) else "spoilt"
    return kind, Ended(state, STOPPED if state == "killed" else text, directory and directory.path, is_sent)
