"""Progress of the analysis: a bar in a terminal, otherwise a line every few seconds.

for task in progress.as_completed(tasks, "pulled from W&B"): …
"""

import sys
import time
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from study.system.console import console, text_column

LINE_SECONDS = 10.0


def as_completed(tasks: Collection[Future], text: str) -> Iterator[Future]:
    """Yield tasks as they complete, and print on stderr how many have and the time left."""
    screen = console(stderr=True, soft_wrap=True)
    columns = (
        text_column(text),
        BarColumn(),
        MofNCompleteColumn(),
        text_column("ETA"),
        TimeRemainingColumn(compact=True),
    )

    # the bar is hidden if the output is not a terminal
    pending = set(tasks)
    started = time.monotonic()
    printed = started
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=len(tasks))
        while pending:
            ended, pending = wait(pending, return_when=FIRST_COMPLETED)
            done = len(tasks) - len(pending)
            now = time.monotonic()
            bar.update(task, completed=done)
            # without a terminal, a line at most every LINE_SECONDS
            if not screen.is_terminal and now - printed > LINE_SECONDS:
                left = (now - started) / done * len(pending)
                print(f"{text}: {done} of {len(tasks)}, ETA {left:.0f} s", file=sys.stderr, flush=True)
                printed = now
            yield from ended
