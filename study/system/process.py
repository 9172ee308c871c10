"""How a program begins, is asked to end, and ends: its command line, signals, and exit codes.

| code | means                                                     |
|------|-----------------------------------------------------------|
| 0    | done; a run that diverged or was stopped early is a result |
| 1    | anything not named below                                  |
| 2    | a user's mistake: one sentence, no traceback              |
| 3    | out of memory                                             |
| 129  | a closed terminal                                         |
| 130  | Ctrl-C                                                    |
| 143  | SIGTERM                                                   |
"""

import argparse
import gc
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from study.system.errors import Busy, Interrupted, UserError, is_out_of_memory, one_line


def handle_ends(handler: Callable[[int, object], None]) -> None:
    """Let the signals of ENDS be handled, but not those that are ignored, as SIGHUP is by nohup, and SIGINT in the
    background of a script; what this process starts can heed SIGINT nevertheless.
    """
    for signum in ENDS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, handler)
        elif signum == signal.SIGINT:
            signal.signal(signum, lambda signum, frame: None)


class Signals:
    """Turns the signals that end a program into Interrupted: at once, or, while `held`, when asked for or at a
    second Ctrl-C.
    """

    def __init__(self) -> None:
        self.held, self.received = False, 0
        handle_ends(self._receive)

    def _receive(self, signum: int, frame: object) -> None:
        again, self.received = signum == self.received == signal.SIGINT, signum
        if not self.held or again:
            raise Interrupted(signum)

    @contextmanager
    def hold(self):
        """Let signals wait; the holder looks at `received`."""
        self.held = True
        try:
            yield
        finally:
            self.held = False


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are a sentence, as all others."""

    def error(self, message: str) -> NoReturn:
        """Raise a UserError."""
        raise UserError(f"{message}; {self.prog} --help tells more")


def exit_code(error: BaseException) -> int:
    """Map an exception to the exit code of the table above."""
    match error:
        case UserError():
            return 2
        case Interrupted():
            return 128 + error.signum
        case KeyboardInterrupt():
            return 130
        case _ if is_out_of_memory(error):
            return 3
    return 1


def how_ended(code: int | None) -> str:
    """Say how a process has ended, by its exit code: negative for a signal, None while it has not."""
    if code is None:
        return "cannot be killed"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a program to end: a person, a scheduler, a terminal that closes."""


def run_command(main: Callable[[list[str]], int | None]) -> None:
    """Run a command's main and end the process with the code that its outcome means.

    Where a terminal cannot show a letter, it shows its number; who has no home gets a place for one.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        Path.home()
    except RuntimeError:  # in a container, for a user without a name
        os.environ["HOME"] = tempfile.mkdtemp(prefix="home-")
    try:
        code = main(sys.argv[1:]) or 0
    except (UserError, Busy, Interrupted) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        code = exit_code(error)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except Exception as error:
        if is_out_of_memory(error):
            print(f"error: out of memory: {one_line(error)}", file=sys.stderr)
        else:
            traceback.print_exc()
        code = exit_code(error)
    leave_garbage()
    sys.exit(code)


def leave_garbage() -> None:
    """Let the end of this process not search what torch holds for garbage: that takes a second or two.

    Where nanobind made some of it, as in newer compilers of torch, its end would complain at length.
    """
    gc.unfreeze()
    if not any(type(one).__module__ == "nanobind" for one in gc.get_objects()):
        gc.freeze()
