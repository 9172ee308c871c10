"""What a person sees while the analysis waits: a bar on a terminal, else a line now and then.

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
    """Yield tasks as they end and tell on stderr how many have, and when the rest will."""
    shown = console(stderr=True, soft_wrap=True)
    columns = (text_column(text), BarColumn(), MofNCompleteColumn(), text_column("ETA"),
               TimeRemainingColumn(compact=True))  # fmt: skip
    pending, started, told = set(tasks), time.monotonic(), time.monotonic()
    with Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=len(tasks))
        while pending:
            ended, pending = wait(pending, return_when=FIRST_COMPLETED)
            done, now = len(tasks) - len(pending), time.monotonic()
            bar.update(task, completed=done)
            if not shown.is_terminal and now - told > LINE_SECONDS:
                left = (now - started) / done * len(pending)
                print(f"{text}: {done} of {len(tasks)}, ETA {left:.0f} s", file=sys.stderr, flush=True)
                told = now
            yield from ended
