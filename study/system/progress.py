"""Report how far a long task is, and the time left.

progress = Progress(60_000, "decoded", "images", say)
progress.show(done)
"""

import time
from collections.abc import Callable

Say = Callable[[str], None]
"""Prints a line, or shows it elsewhere."""


class Progress:
    """Prints a line such as `decoded 2,000 of 60,000 images, ETA 9 s`, at most once every `seconds`."""

    def __init__(self, total: int, done: str, what: str, say: Say, seconds: float = 5.0):
        self.total = total
        self.done = done
        self.what = what
        self.say = say
        self.seconds = seconds
        self.started = time.monotonic()
        self.printed = self.started

    def show(self, done: int, more: str = "") -> None:
        """Print how much is done, followed by `more`, unless a line was printed a moment ago or all is done."""
        now = time.monotonic()
        if now - self.printed < self.seconds or not 0 < done < self.total:
            return
        self.printed = now
        left = (now - self.started) / done * (self.total - done)
        self.say(f"{self.done} {done:,} of {self.total:,} {self.what}{more}, ETA {left:.0f} s")
