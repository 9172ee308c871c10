"""What can go wrong for the person at the terminal, in one line each."""

import difflib
import signal
import traceback
from collections.abc import Iterable
from pathlib import Path
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


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, on the host or on a device; torch need not be imported for it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error).lower()
    )


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
    ours = Path(__file__).parents[1]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(ours)]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return one_line(error) + ("" if isinstance(error, UserError) else place)


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
