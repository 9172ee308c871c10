"""Print the progress of runs: bars on a terminal, a plain line per epoch elsewhere.

display = RunDisplay()
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from study.config import Config
from study.config.scores import SCORES
from study.record.metrics import METRICS, scaled
from study.system.console import console, text_column

REFRESH_SECONDS = 0.2

BESIDE = 49
"""Characters of a run's line in a sweep that are not its label."""


class Display:
    """Null display: prints nothing, and names the methods of the others."""

    def say(self, text: str) -> None:
        """Print a line."""

    def start(self, config: Config, data: str, epoch: float) -> None:
        """Show that a training starts after `epoch` epochs; a fraction is the trained part of the next one."""

    def batch(self, batch: int, batches: int) -> None:
        """Show the number of finished batches of an epoch."""

    def epoch(self, row: dict[str, float]) -> None:
        """Show the row of a finished epoch."""

    def finish(self, state: str, summary: dict[str, Any], metric: str) -> None:
        """Show the result; `metric` chose the best epoch."""

    def close(self) -> None:
        """Leave what is shown as it is: nothing follows."""


class RunDisplay(Display):
    """Shows one run: a bar with an ETA on a terminal, otherwise a line per epoch; or gives each line to `write`."""

    def __init__(self, write: Callable[[str], Any] | None = None) -> None:
        self.console = console(soft_wrap=True)
        self.write = write or self.console.print
        self.has_bar = self.console.is_terminal and write is None
        self.bar: Progress | None = None

    def say(self, text: str) -> None:
        self.write(text)

    def start(self, config: Config, data: str, epoch: float) -> None:
        # Remember when and where the training started
        self.epochs = config.epochs
        self.first = self.done = int(epoch)
        self.started = time.monotonic()
        self.seconds = 0.0
        self.drawn = 0.0
        self.say(data)

        # Show a bar on a terminal
        if self.has_bar:
            self.bar = Progress(
                text_column("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(bar_width=10),
                text_column("ETA"),
                TimeRemainingColumn(compact=True, table_column=_uncut()),
                _metrics_column(),
                console=self.console,
                refresh_per_second=5,
            )
            self.bar.start()
            self.task = self.bar.add_task(
                "", total=config.epochs, completed=epoch, epoch=self.first + 1, epochs=config.epochs, metrics=""
            )

    def batch(self, batch: int, batches: int) -> None:
        if self.bar and time.monotonic() - self.drawn > REFRESH_SECONDS:
            self.drawn = time.monotonic()
            self.bar.update(self.task, completed=self.done + batch / batches)

    def epoch(self, row: dict[str, float]) -> None:
        self.done = row["epoch"]
        if self.bar:
            self.bar.update(
                self.task,
                completed=row["epoch"],
                metrics=describe(row, short=self.console.width < 110),
                epoch=min(row["epoch"] + 1, self.epochs),
            )
        else:
            self.seconds += row["time/epoch"]  # with those before the run was resumed within an epoch
            pace = max(time.monotonic() - self.started, self.seconds) / (row["epoch"] - self.first)
            left = duration(pace * (self.epochs - row["epoch"]))
            self.say(f"epoch {row['epoch']}/{self.epochs}  {describe(row)}  ETA {left}")

    def finish(self, state: str, summary: dict[str, Any], metric: str) -> None:
        self.close()
        self.say(f"{state}: {result(summary, metric)}")

    def close(self) -> None:
        # Remove the bar from the terminal
        if self.bar:
            self.bar.stop()
            self.bar = None


class SweepDisplay:
    """Shows a sweep: an overall bar and a bar per run on a terminal, otherwise a line per run that ends."""

    def __init__(self, runs: int) -> None:
        self.console = console(soft_wrap=True)
        self.runs = runs
        self.ended = 0
        self.started = time.monotonic()
        self.tasks: dict[str, Any] = {}
        self.labels: dict[str, str] = {}

        # Make the bars, which are shown only on a terminal
        self.bar = Progress(
            text_column("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(table_column=_uncut()),
            text_column("ETA"),
            TimeRemainingColumn(compact=True, table_column=_uncut()),
            _metrics_column(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> "SweepDisplay":
        self.bar.start()
        self.overall = self.bar.add_task("all runs", total=self.runs, metrics="")
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(text)

    def begin(self, name: str, label: str, epochs: int) -> None:
        """Show that a run starts; a run may start again after it failed."""
        self._forget(name)
        self.labels[name] = label
        room = max(16, self.console.width - BESIDE)
        shown = label if len(label) <= room else label[: room - 1] + "…"
        self.tasks[name] = self.bar.add_task(shown, total=epochs, metrics="")
        if not self.console.is_terminal:
            self.say(f"begins    {label}  ({name})")

    def epoch(self, name: str, row: dict[str, float]) -> None:
        """Show the row of a finished epoch of a run."""
        self.bar.update(self.tasks[name], completed=row["epoch"], metrics=f"val acc {row['val/acc']:.2%}")
        if not self.console.is_terminal:
            self.say(f"          {self.labels[name]}  epoch {row['epoch']}  {describe(row)}")

    def end(self, name: str, label: str, state: str, text: str) -> None:
        """Show how a run ended."""
        self.ended += 1
        self._forget(name)
        self.bar.update(self.overall, completed=self.ended)
        left = (time.monotonic() - self.started) / self.ended * (self.runs - self.ended)
        self.say(f"{state:<9} {label}  {text}  [{self.ended}/{self.runs}, ETA {duration(left)}]")

    def _forget(self, name: str) -> None:
        if name in self.tasks:
            self.bar.remove_task(self.tasks.pop(name))


def _uncut() -> Column:
    """Return a column that is not cut on a narrow terminal."""
    return Column(no_wrap=True)


def _metrics_column() -> TextColumn:
    """Return the last column, which is cut on a narrow terminal."""
    return text_column("{task.fields[metrics]}", table_column=Column(no_wrap=True, ratio=1))


def describe(row: dict[str, float], short: bool = False) -> str:
    """Return the row of an epoch as a short text."""
    losses = f"loss {row['train/loss']:.4f}/{row['val/loss']:.4f}"
    accuracies = f"acc {row['train/acc']:.2%}/{row['val/acc']:.2%}"
    accuracies += _scores("val", row, "  ")
    pace = f"{row['time/images_per_second']:,.0f} images/s"
    if short:
        return f"train/val {accuracies}"
    return f"train/val {losses}  {accuracies}  {pace}  {duration(row['time/epoch'])}/epoch"


def result(summary: Mapping[str, Any], metric: str) -> str:
    """Return the summary of a run as a short text; it names the metric that chose the best epoch, and its value."""
    if "test/acc" not in summary:
        return f"no result after epoch {summary.get('last/epoch', 0)}"
    best = f"best val acc {summary['best/val_acc']:.2%} at epoch {summary['best/epoch']}"
    key = f"best/{metric.replace('/', '_')}"
    if metric != "val/acc" and key in METRICS and summary.get(key) is not None:
        value = f"{scaled(summary, key):.{2 if METRICS[key].unit else 4}f}{METRICS[key].unit}"
        best = f"best {metric} {value} at epoch {summary['best/epoch']}, val acc {summary['best/val_acc']:.2%}"
    return f"{best}, test acc {summary['test/acc']:.2%}{_scores('test', summary, ', test ')}"


def _scores(split: str, values: Mapping[str, Any], before: str) -> str:
    """Return the scores other than accuracy and loss that a run logs, each after some text."""
    keys = [f"{split}/{key.removeprefix('val/')}" for key in SCORES]
    return "".join(
        f"{before}{key.partition('/')[2]} {scaled(values, key):.2f}{METRICS[key].unit}" for key in keys if key in values
    )


def duration(seconds: float) -> str:
    """Format seconds: 0.04s, 0.8s, 42s, 3m20s, 1h05m."""
    # Below a minute, in seconds
    if 0 < seconds < 0.095:
        return f"{seconds:.2f}s"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded}s"
    # Above, in minutes or hours
    minutes, rest = divmod(rounded, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"
