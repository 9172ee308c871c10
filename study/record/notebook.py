"""Show progress in a notebook: one bar that moves, and lines of text only for what a person must know.

display = NotebookRun()    # in a cell of Jupyter, Colab or VS Code; needs no widgets
"""

import html
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from study.config import Config
from study.record.directory import DONE
from study.record.display import REFRESH_SECONDS, Display, describe, duration, result


def is_notebook() -> bool:
    """Return whether this process runs the cells of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class Bar:
    """A bar in the output of a cell, which is replaced as it moves; without a notebook it shows nothing."""

    def __init__(self) -> None:
        from IPython.display import display

        self.started = time.monotonic()
        self.drawn = 0.0
        self.handle = display(_drawn(0.0, "starting"), raw=True, display_id=True)

    def show(self, share: float, text: str, at_once: bool = True) -> None:
        """Draw the bar up to a share from 0 to 1, with a text; unless `at_once`, not if it was drawn a moment ago."""
        now = time.monotonic()
        if self.handle and (at_once or now - self.drawn > REFRESH_SECONDS):
            self.drawn = now
            self.handle.update(_drawn(share, text), raw=True)

    def left(self, share: float) -> str:
        """Return the time that is left, if a share of the work is done."""
        return f"ETA {duration((time.monotonic() - self.started) / share * (1 - share))}" if share else ""


def _drawn(share: float, text: str) -> Mapping[str, str]:
    """Return the bar as HTML, and as text for where there is none."""
    bar = f'<progress value="{share:.4f}" max="1" style="width: 12em; vertical-align: middle"></progress>'
    return {"text/html": f"<div>{bar} {html.escape(text)}</div>", "text/plain": f"{share:4.0%} {text}"}


class NotebookRun(Display):
    """Shows one run as a bar over its epochs."""

    def __init__(self) -> None:
        self.text = ""
        self.has_ended = False

    @cached_property
    def bar(self) -> Bar:
        """Return the bar, which appears with the first progress: a mistake in the config has none."""
        return Bar()

    def say(self, text: str) -> None:
        print(text)

    def start(self, config: Config, data: str, epoch: float) -> None:
        self.epochs = config.epochs
        self.first, self.done = epoch, int(epoch)
        self.bar.started = time.monotonic()
        self.text = f"epoch {self.done}/{config.epochs}"
        self.bar.show(epoch / config.epochs, self.text)

    def batch(self, batch: int, batches: int) -> None:
        self.bar.show((self.done + batch / batches) / self.epochs, self.text, at_once=False)

    def epoch(self, row: dict[str, float]) -> None:
        self.done = row["epoch"]
        left = self.bar.left((self.done - self.first) / (self.epochs - self.first))
        self.text = f"epoch {self.done}/{self.epochs}, {describe(row, short=True)}, {left}"
        self.bar.show(self.done / self.epochs, self.text)

    def finish(self, state: str, summary: dict[str, Any], metric: str) -> None:
        self.has_ended = True
        self.bar.show(1.0, f"{state}: {result(summary, metric)}")

    def close(self) -> None:
        if not self.has_ended and self.text:
            self.bar.show(self.done / self.epochs, f"ended: {self.text.rpartition(', ETA')[0] or self.text}")


class NotebookSweep:
    """Shows a sweep as a bar over its runs, with the methods of SweepDisplay; only runs without a result get a line."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self.ended = 0
        self.epochs: dict[str, int] = {}
        self.shares: dict[str, float] = {}
        self.last = ""

    def __enter__(self) -> "NotebookSweep":
        self.bar = Bar()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.show(self.share, f"{self.ended}/{self.runs} runs have ended")

    @property
    def share(self) -> float:
        """Return how much of the sweep is done, from 0 to 1."""
        return min(1.0, (self.ended + sum(self.shares.values())) / self.runs)

    def say(self, text: str) -> None:
        print(text.strip())

    def begin(self, name: str, label: str, epochs: int) -> None:
        self.epochs[name] = epochs
        self.shares[name] = 0.0

    def epoch(self, name: str, row: dict[str, float]) -> None:
        self.shares[name] = row["epoch"] / self.epochs[name]
        self._show(at_once=False)

    def end(self, name: str, label: str, state: str, text: str) -> None:
        self.ended += 1
        self.shares.pop(name, None)
        self.last = f"last: {label}, {text}"
        if state not in DONE:
            print(f"{state}: {label}: {text}")
        self._show(at_once=True)

    def _show(self, at_once: bool) -> None:
        words = [f"{self.ended}/{self.runs} runs", self.bar.left(self.share), self.last]
        self.bar.show(self.share, ", ".join(filter(None, words)), at_once)
