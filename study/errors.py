"""What can go wrong for the person at the terminal, and the exit code it ends in.

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
import difflib
import gc
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from unicodedata import category


class UserError(Exception):
    """A mistake that its maker can mend: what was wrong and what would be right."""


class Busy(Exception):
    """The run is being trained by another process."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM asked the program to end."""

    def __init__(self, signum: int):
        super().__init__(f"ended by {signal.Signals(signum).name}")
        self.signum = signum


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


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, on the host or on a device; torch need not be imported for it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error).lower()
    )


ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a program to end: a person, a scheduler, a terminal that closes."""

UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, lone surrogates, and what ends lines and paragraphs."""

LISTED, ALIKE = 60, 8
"""So many known names are listed in an error; of more, so many that are like the wrong one."""

DEVICE_FAILURES = (
    "uncorrectable ecc", "busy or unavailable", "no cuda-capable device", "no cuda gpus are available", "gpu is lost",
    "cuda driver", "cuda error: initialization error", "cuda error: unspecified launch failure",
    "cuda error: hardware stack error", "cuda error: unknown error", "status_not_initialized",
)  # fmt: skip
"""What CUDA says, in lower case, when the device itself does not work, whatever it was asked for."""


def is_device_failure(error: BaseException) -> bool:
    """Tell whether a device failed, rather than what was computed on it."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(failure in text for failure in DEVICE_FAILURES)


def printable(text: object) -> str:
    """Return a text, such as the name of a file, as one line of UTF-8: what cannot be printed is written as `\\xe9`.

    File names may hold any bytes; Python reads those that are not UTF-8 as lone surrogates, which no file in UTF-8,
    no JSON of W&B's and no terminal takes. Line ends and control characters are written out likewise.
    """
    return "".join(_escaped(letter) if category(letter) in UNPRINTABLE else letter for letter in str(text))


def _escaped(letter: str) -> str:
    if 0xDC80 <= ord(letter) <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


def one_line(error: BaseException) -> str:
    """Put an exception into one line."""
    text = printable(" ".join(str(error).split()))
    return text if isinstance(error, UserError | Busy | Interrupted) else f"{type(error).__name__}: {text}"


def reason(error: BaseException) -> str:
    """Put into one line what made torch fail: its innermost error, without the advice for developers below it."""
    inner = getattr(error, "inner_exception", None) or error
    text = " ".join(str(inner).strip().split("\n\n")[0].split())
    return f"{type(inner).__name__}: {text}"


def with_place(error: BaseException) -> str:
    """Put an error into one line, with the place in our code where it was raised, unless it is the user's mistake."""
    ours = Path(__file__).parent
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(ours)]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return one_line(error) + ("" if isinstance(error, UserError) else place)


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


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant."""
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.6)
    return lower[close[0]] if close else None


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, or list them, of very many the most alike."""
    known = list(known)
    found = closest(word, known)
    if found:
        return f"did you mean {found!r}?"
    if len(known) > LISTED:
        alike = difflib.get_close_matches(word, known, n=ALIKE, cutoff=0)
        return f"of {len(known):,} that are known, the most alike are: {', '.join(alike)}"
    return f"known are: {', '.join(known)}"
