"""Progress of the analysis: a bar in a terminal, otherwise a line every few seconds.

for task in progress.as_completed({task: 25 for task in tasks}, "pulled from W&B"): …
"""

import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from study.system.console import console, text_column

LINE_SECONDS = 10.0


def as_completed(tasks: Mapping[Future, int], text: str) -> Iterator[Future]:
    """Yield tasks as they complete, and print on stderr how much is done and the time left.

    `tasks` maps each task to the number of things that it does.
    """
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
    total = sum(tasks.values())
    done = 0
    started = time.monotonic()
    printed = started
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as bar:
        row = bar.add_task("", total=total)
        while pending:
            ended, pending = wait(pending, return_when=FIRST_COMPLETED)
            done += sum(tasks[task] for task in ended)
            now = time.monotonic()
            bar.update(row, completed=done)
            # without a terminal, a line at most every LINE_SECONDS
            if not screen.is_terminal and now - printed > LINE_SECONDS:
                left = (now - started) / done * (total - done)
                print(f"{text}: {done} of {total}, ETA {left:.0f} s", file=sys.stderr, flush=True)
                printed = now
            yield from ended
