"""Show what the slots of this machine train for a W&B sweep, and how their runs ended.

with SeatsDisplay(left=4) as display: display.show(seats)
"""

import time
from collections import Counter
from collections.abc import Sequence

from rich.live import Live
from rich.table import Table

from study.local.seat import Seat
from study.record.directory import RunDirectory
from study.record.display import duration
from study.remote.sink import sync_command
from study.remote.sweep import WandbSweep
from study.system.console import console

LINE_SECONDS = 300.0


class SeatsDisplay:
    """Shows a table of the slots on a terminal, and a line for every run that ends."""

    def __init__(self, left: int | None):
        self.console = console(soft_wrap=True)
        self.left = left
        self.ended = 0
        self.shown: set[int] = set()
        self.started = time.monotonic()
        self.reported = self.started
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "SeatsDisplay":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self.console.print(text)

    def show(self, seats: Sequence[Seat]) -> None:
        """Show the runs that ended since the last call, and what the slots do now."""
        # Print a line for every run that ended
        for seat in seats:
            for run in seat.runs:
                if run.end and id(run) not in self.shown:
                    self.shown.add(id(run))
                    self.ended += run.state != "ended"
                    self.say(f"{run.state:<9} {seat.slot.name}  {run.label}  {run.text}  {self._progress()}".rstrip())

        # Update the table; without a terminal, print the running runs now and then
        if self.console.is_terminal:
            self.live.update(self.table(seats))
        elif time.monotonic() - self.reported > LINE_SECONDS:
            self.reported = time.monotonic()
            for seat in seats:
                if run := seat.run:
                    self.say(f"{run.state:<9} {seat.slot.name}  {run.label}  {run.text}")

    def _progress(self) -> str:
        if not (self.left and self.ended):
            return f"[{self.ended} so far]" if self.ended else ""
        left = max(0, self.left - self.ended)
        eta = (time.monotonic() - self.started) / self.ended * left
        return f"[{self.ended} of at most {self.left}, ETA {duration(eta)}]"

    def table(self, seats: Sequence[Seat]) -> Table:
        """Return a table of what the slots do; on a narrow terminal its last column is cut."""
        # Make the columns
        table = Table(box=None, expand=True)
        label = {"max_width": max(16, self.console.width // 2 - 8)}
        for name, options in {"agent": {}, "ended": {}, "failed": {}, "trains": label, "": {"ratio": 1}}.items():
            table.add_column(name, no_wrap=True, **options)

        # Add a row for each slot
        for seat in seats:
            counts = _counts(seat)
            run = seat.run
            idle = "has ended" if seat.is_over else "waits" if seat.is_ready else "starts"
            activity = (run.label, run.text) if run else (idle, "")
            table.add_row(seat.slot.name, str(counts.total()), str(counts["failed"]), *activity)
        return table

    def exits(self, seats: Sequence[Seat]) -> None:
        """Print how each slot and its runs ended, and where its log is."""
        # Print a table of the slots
        table = Table()
        for name in ("agent", "runs", "how it ended"):
            table.add_column(name, no_wrap=name == "agent")
        for seat in seats:
            counts = _counts(seat)
            counts["not in W&B"] = len(seat.unsent)
            runs = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"
            table.add_row(seat.slot.name, runs, seat.reason)
        console(width=self.console.width if self.console.is_terminal else 200).print(table)

        # Name the logs
        for seat in seats:
            self.say(f"log of {seat.slot.name}: {seat.log}")

    def advise(self, seats: Sequence[Seat], sweep: WandbSweep) -> None:
        """Print the commands for what is left to do."""
        unsent = dict.fromkeys(run.end.directory for seat in seats for run in seat.unsent)
        if unsent:
            self.say(f"to send W&B what it lacks: {sync_command(*map(RunDirectory, unsent))}")
        if any(seat.is_asked or seat.has_failed for seat in seats):
            self.say("the same command resumes from here")


def _counts(seat: Seat) -> Counter:
    return Counter(run.state for run in seat.runs if run.end)
