"""The errors that a user sees, and how an error becomes one line of text."""

import difflib
import errno
import signal
import traceback
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from types import UnionType
from unicodedata import category


class UserError(Exception):
    """A mistake that the user can fix; the message says what was wrong and what would be right."""

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows in place of a traceback."""
        return [f"{type(self).__name__}: {lines(self)}"]


class ServerError(UserError):
    """A server does not answer, or not as it should: also one sentence, but no mistake of the user."""


Place = tuple[Hashable, ...]
"""The keys and indices that lead to a value in nested input; () is all of it."""


class Mistakes(UserError, ValueError):
    """Mistakes in one input, each with its place and a sentence; also a ValueError, which pydantic's checks raise."""

    def __init__(self, mistakes: Sequence[tuple[Place, str]]):
        super().__init__("; ".join(text for _, text in mistakes))
        self.mistakes = list(mistakes)

    def below(self, *keys: Hashable) -> list[tuple[Place, str]]:
        """Return the mistakes with their places in the input that holds this one at `keys`."""
        return [((*keys, *place), text) for place, text in self.mistakes]


class Busy(Exception):
    """The run is being trained by another process."""


STOP = signal.SIGUSR2
"""The signal that a run sends to itself when it is stopped at W&B."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM asked the program to end, or STOP the run."""

    def __init__(self, signum: int):
        super().__init__("stopped at W&B" if signum == STOP else f"ended by {signal.Signals(signum).name}")
        self.signum = signum


SHOWN = 60
"""An error shows a value of the wrong type if it has at most this many characters, otherwise only its type."""


def expect(value: object, kinds: type | UnionType, right: str) -> None:
    """Raise UserError if a value that a script passes is of another type; `right` says what would be right."""
    if not isinstance(value, kinds):
        shown = repr(value)
        is_short = len(shown) <= SHOWN and shown.isprintable()
        raise UserError(f"{right}, not {shown if is_short else f'a value of type {type(value).__qualname__}'}")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on the host or on a device; works without importing torch."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error).lower()
    )


OF_PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
"""Errors of the system after which another name or folder is right."""

OF_THE_MACHINE = (*OF_PLACES, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EIO)
"""Errors of the system that say what is wrong: a full disk, a quota, a limit."""


def is_of_the_machine(error: BaseException, numbers: Sequence[int] = OF_THE_MACHINE) -> bool:
    """Return whether the system refused a file for a reason that a person can understand without a traceback."""
    return isinstance(error, OSError) and error.errno in numbers


UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, lone surrogates, and separators of lines and paragraphs."""

LISTED = 60
"""An error lists all known names if there are at most this many."""

ALIKE = 8
"""If there are more, it lists this number of names that resemble the wrong one."""

DEVICE_FAILURES = (
    "uncorrectable ecc",
    "busy or unavailable",
    "no cuda-capable device",
    "no cuda gpus are available",
    "gpu is lost",
    "cuda driver",
    "cuda error: initialization error",
    "cuda error: unspecified launch failure",
    "cuda error: hardware stack error",
    "cuda error: unknown error",
    "status_not_initialized",
)
"""Parts of CUDA's messages, in lower case, that mean that the device itself does not work."""


def is_device_failure(error: BaseException) -> bool:
    """Return whether an error means that the device itself does not work."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(failure in text for failure in DEVICE_FAILURES)


def printable(text: object) -> str:
    """Return a text, such as the name of a file, as one printable line, with escapes such as `\\xe9` where needed.

    File names may hold any bytes. Python reads those that are not UTF-8 as lone surrogates, which neither a UTF-8 file
    nor W&B's JSON nor a terminal accepts. Line ends and control characters are escaped too.
    """
    return "".join(_escaped(character) if category(character) in UNPRINTABLE else character for character in str(text))


def _escaped(character: str) -> str:
    """Return the escape of one character, such as `\\xe9` or `\\n`."""
    if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def one_line(error: BaseException) -> str:
    """Return an exception as one line."""
    text = printable(" ".join(str(error).split()))
    if is_of_the_machine(error):
        return printable(f"{error.filename} cannot be used: {error.strerror}" if error.filename else error.strerror)
    return text if isinstance(error, UserError | Busy | Interrupted) else f"{type(error).__name__}: {text}"


def lines(error: BaseException) -> str:
    """Return the text of an error, which may have several lines, with escapes for what cannot be printed."""
    return "\n".join(map(printable, str(error).splitlines()))


def reason(error: BaseException) -> str:
    """Return torch's innermost error as one line, without the advice for developers that follows it."""
    inner = getattr(error, "inner_exception", None) or error
    text = " ".join(str(inner).strip().split("\n\n")[0].split())
    return f"{type(inner).__name__}: {text}"


def with_place(error: BaseException) -> str:
    """Return an error as one line, with the file and line where this project raised it unless it is a UserError."""
    package = Path(__file__).parents[1]
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(package)
    ]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return one_line(error) + ("" if isinstance(error, UserError) else place)


NAMED = 3
"""At most this many files of one kind are named in a sentence."""


def some(names: Sequence[str], count: int) -> str:
    """Return the first names of `count` in one text, with the number of the others."""
    return ", ".join(names) + (f" and {count - len(names):,} more" if count > len(names) else "")


FIRST_CHARACTERS = 4
"""Least length of a word that may be the beginning of a name in a long list."""

LIKE = 0.74
LONGER = 2
"""Least similarity, from 0 to 1, of a name that was probably meant, and the most by which its length may differ."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, None if none is similar; names with other digits are not."""
    word = str(word).lower()
    lower = {name.lower(): name for name in known}
    alike = [name for name in lower if abs(len(name) - len(word)) <= LONGER and _digits(name) == _digits(word)]
    close = difflib.get_close_matches(word, alike, n=1, cutoff=LIKE)
    return lower[close[0]] if close else None


def _digits(word: str) -> str:
    return "".join(filter(str.isdigit, word))


def longer(word: str, known: Iterable[str]) -> str | None:
    """Return the shortest of the known names that begin with a word of some length, None if there is none."""
    names = [name for name in known if name.startswith(word)] if len(word) >= FIRST_CHARACTERS else []
    return min(names, key=lambda name: (len(name), name), default=None)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint for an error: the name that was probably meant, else all known names or the most similar."""
    known = list(known)
    guess = (longer(word, known) if len(known) > LISTED else None) or closest(word, known)
    if guess:
        return f"did you mean {guess!r}?"
    if len(known) > LISTED:
        similar = difflib.get_close_matches(word, known, n=ALIKE, cutoff=0)
        return f"of the {len(known):,} known names, the most similar are: {', '.join(similar)}"
    return f"known are: {', '.join(known)}"
