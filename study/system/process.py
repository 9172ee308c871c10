"""How a command starts and ends: its command line, signals and exit codes.

| code | means                                                     |
|------|-----------------------------------------------------------|
| 0    | done; a run that diverged or was stopped early is a result |
| 1    | anything not named below, such as a server without answer |
| 2    | a user's mistake: one sentence, no traceback              |
| 3    | out of memory                                             |
| 129  | a closed terminal                                         |
| 130  | Ctrl-C, for a shell: the process is ended by SIGINT itself |
| 143  | SIGTERM                                                   |
"""

import argparse
import errno
import gc
import math
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from study.system import start, version
from study.system.errors import (
    OF_PLACES,
    STOP,
    Busy,
    Interrupted,
    ServerError,
    UserError,
    closest,
    is_of_the_machine,
    is_out_of_memory,
    lines,
    nearest,
    one_line,
)

IMPORT_SECONDS = 0.1
"""Time after which a signal that met an import is sent again."""

AT_ONCE_SECONDS = 0.5
"""Signals that follow each other faster than this count as one: those to a job and its script, a held Ctrl-C."""


def handle_ends(handler: Callable[[int, object], None]) -> None:
    """Install a handler for the signals of ENDS.

    Signals that are ignored stay ignored: SIGHUP under nohup, SIGINT for a background job of a script. An ignored
    SIGINT gets a handler that does nothing, because child processes would inherit the ignoring but not the handler.
    A signal that was blocked until now, as in a new worker, arrives at the end.
    """
    for signum in ENDS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, handler)
        elif signum == signal.SIGINT:
            signal.signal(signum, lambda signum, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


@contextmanager
def ends_blocked() -> Iterator[None]:
    """Block the signals of ENDS until the end of a `with` block, also in the processes that are started in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Signals:
    """Turns the signals that end a program into Interrupted.

    It is raised at the first signal, unless `held`, and at a second Ctrl-C. Other signals after the first, which a
    scheduler may send, raise nothing, because the end has begun. `received` is the number of the last signal. If the
    process goes on afterwards, as a notebook does, `spares_imports` waits for the end of an import, because a library
    that was imported in part cannot be used or imported again.
    """

    def __init__(self, spares_imports: bool = False) -> None:
        self.held = False
        self.received = 0
        self.last_ctrl_c = math.inf
        self.imports = _imports(sys._getframe()) if spares_imports else None
        self.again: threading.Timer | None = None
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            handle_ends(self._receive)
            signal.signal(STOP, self._receive)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.imports is not None and _imports(frame) > self.imports:
            if self.again is None:
                self.again = threading.Timer(IMPORT_SECONDS, self._send_again, (signum,))
                self.again.start()
            return
        is_first = not self.received
        is_second_ctrl_c = False
        if signum == signal.SIGINT:
            is_second_ctrl_c = time.monotonic() - self.last_ctrl_c > AT_ONCE_SECONDS
            self.last_ctrl_c = time.monotonic()
        self.received = signum
        if (is_first and not self.held) or is_second_ctrl_c:
            raise Interrupted(signum)

    def _send_again(self, signum: int) -> None:
        """Send a signal to this process, which may meet an import again."""
        self.again = None
        os.kill(os.getpid(), signum)

    @contextmanager
    def hold(self):
        """Delay signals for the length of a `with` block, which checks `received` itself."""
        self.held = True
        try:
            yield
        finally:
            self.held = False

    def check(self) -> None:
        """Raise Interrupted if a signal was received."""
        if self.received:
            raise Interrupted(self.received)

    def ignore(self) -> None:
        """Ignore signals from here on: the program ends anyway."""
        for signum in (*ENDS, STOP):
            signal.signal(signum, signal.SIG_IGN)


def _imports(frame: FrameType | None) -> int:
    """Count the calls of Python's import system in a frame and those that called it."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return count


@contextmanager
def interruptible() -> Iterator[Signals]:
    """Handle signals as a command does for the length of a `with` block, in a notebook for instance.

    After it, the previous handlers are back. Ctrl-C raises KeyboardInterrupt, once a training has written a checkpoint.
    """
    before = {signum: signal.getsignal(signum) for signum in (*ENDS, STOP)}
    ended = None
    signals = None
    try:
        signals = Signals(spares_imports=True)
        yield signals
    except Interrupted as error:
        ended = error
    finally:
        if signals and signals.again:
            signals.again.cancel()
        if threading.current_thread() is threading.main_thread():
            for signum, handler in before.items():
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)
    if ended:
        if ended.signum in ENDS and ended.signum != signal.SIGINT:
            signal.raise_signal(ended.signum)  # does what it would have done without the block
        raise KeyboardInterrupt(str(ended))


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


class _Version(argparse.Action):
    """Prints the version and exits; the commit is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *given: object) -> NoReturn:
        print(version.line())
        parser.exit()


class Parser(argparse.ArgumentParser):
    """A parser that raises UserError instead of printing its usage, and has `--version`."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        if self.add_help:
            self.add_argument(
                "--version", action=_Version, nargs=0, dest=argparse.SUPPRESS, help="print the version, and exit"
            )

    def error(self, message: str) -> NoReturn:
        """Raise a UserError."""
        raise UserError(f"{message}; see {self.prog} --help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:
        """Parse a command line; raise a UserError for words that it does not take."""
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            self.refuse(rest)
        return parsed

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Raise a UserError for words that the command line does not take, with the options that were meant."""
        mistakes = []
        for before, word in pairwise(["", *words]):
            if word.startswith("-"):
                name = word.partition("=")[0]
                guess = closest(name, self._option_names())
                mistakes.append(f"unknown option {name!r}" + (f"; did you mean {guess!r}?" if guess else ""))
            elif not is_value(word, before):
                mistakes.append(f"unexpected word {word!r}")
        self.error("; ".join(mistakes))

    def _option_names(self) -> set[str]:
        """Return the options of this parser and of its commands."""
        commands = [action.choices.values() for action in self._actions if isinstance(action.choices, Mapping)]
        below = (parser._option_names() for parsers in commands for parser in parsers)
        return {*self._option_string_actions}.union(*below)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise a UserError for a value that is none of the choices of an option, or a command that is not there."""
        if action.choices is not None and value not in action.choices:
            what = action.option_strings[0] if action.option_strings else "command"
            raise UserError(f"unknown {what} {value!r}; {nearest(str(value), action.choices)}")


def is_value(word: str, before: str) -> bool:
    """Return whether an unknown word is the value of the unknown option before it, and so no mistake of its own."""
    return before.startswith("--") and "=" not in before and not word.startswith("-")


def exit_code(error: BaseException) -> int:
    """Map an exception to the exit code of the table above."""
    match error:
        case ServerError():
            return 1
        case UserError():
            return 2
        case _ if is_of_the_machine(error, OF_PLACES):
            return 2
        case Interrupted():
            return 128 + (signal.SIGTERM if error.signum == STOP else error.signum)
        case KeyboardInterrupt():
            return start.CTRL_C
        case _ if is_out_of_memory(error):
            return 3
    return 1


def how_ended(code: int | None) -> str:
    """Describe how a process ended, by its exit code: negative for a signal, None if it still runs."""
    if code is None:
        return "cannot be killed"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a program to end: from Ctrl-C, a scheduler, a terminal that closes."""


def kill_all(pids: Iterable[int], seconds: float) -> None:
    """Kill processes with all that they have started, and wait at most some seconds for their end."""
    import psutil

    processes = []
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            processes += [process, *process.children(recursive=True)]
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=seconds)


class TerminalStream:
    """A stream to a terminal that may close: what is written afterwards is dropped, without an error.

    The program is ended by the signal of the closed terminal, or continues if it ignores that signal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, if the terminal is there."""
        with self._unless_closed():
            self._stream.write(text)
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        """Write texts, if the terminal is there."""
        self.write("".join(texts))

    def flush(self) -> None:
        """Write what is buffered, if the terminal is there."""
        with self._unless_closed():
            self._stream.flush()

    @contextmanager
    def _unless_closed(self) -> Iterator[None]:
        """Write to the null device from the first write that the terminal does not take."""
        try:
            yield
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def run_command(main: Callable[[list[str]], int | None]) -> None:
    """Run a command's main and exit with the code of the table above.

    Characters that the terminal cannot show are printed as escapes. A user without a home folder gets a temporary one.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    # Print characters that the terminal cannot show as escapes
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # A terminal that closes ends the command by its signal, not by an error
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream.isatty() and not isinstance(stream, TerminalStream):
            setattr(sys, name, TerminalStream(stream))
    # Some libraries need a home folder
    try:
        Path.home()
    except RuntimeError:  # in a container, for a user without a name
        os.environ["HOME"] = tempfile.mkdtemp(prefix="home-")
    try:
        # From here on, Ctrl-C raises KeyboardInterrupt, until the command has ended
        if is_main_thread and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        # Print a user's mistake as one sentence, anything unexpected with its traceback
        try:
            code = main(sys.argv[1:]) or 0
        except BrokenPipeError:
            sys.stderr.close()
            code = 1
        except (Exception, Interrupted) as error:
            print_error(error)
            code = exit_code(error)
    except KeyboardInterrupt:
        code = start.CTRL_C

    if is_main_thread:
        start.end_at_once(code)
    if code == start.CTRL_C:
        start.end_by_ctrl_c()
    leave_garbage()
    sys.exit(code)


def print_error(error: BaseException) -> str:
    """Print an error, with its traceback if it is unexpected, and return it as one sentence."""
    text = f"out of memory: {one_line(error)}" if is_out_of_memory(error) else one_line(error)
    if isinstance(error, UserError):  # which may have a line for each mistake
        print(f"error: {lines(error)}", file=sys.stderr, flush=True)
    elif is_out_of_memory(error) or isinstance(error, Busy | Interrupted) or is_of_the_machine(error):
        print(f"error: {text}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)
    return text


def temporary_folders() -> list[tempfile.TemporaryDirectory]:
    """List the temporary folders of this process, and those of the process that forked it."""
    gc.unfreeze()  # `get_objects` skips what is frozen
    return [thing for thing in gc.get_objects() if type(thing) is tempfile.TemporaryDirectory]


def leave_garbage() -> None:
    """Skip garbage collection at exit, which takes a second or two once torch is loaded.

    If nanobind is loaded, which newer compilers of torch use, garbage is collected: otherwise it reports a leak.
    """
    if any(kind.__module__ == "nanobind" for kind in type.__subclasses__(type)):
        gc.unfreeze()
    else:
        gc.freeze()
