"""Print the state of a sweep's runs on this machine, and remove runs that failed.

python -m study.sweep status sweeps/dropout.yaml
python -m study.sweep clean sweeps/dropout.yaml
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from study.config import RESULTS_VERSION
from study.record.directory import DONE, RunDirectory
from study.remote.sink import sync_command
from study.sweeps.definition import Sweep
from study.sweeps.standing import Runs, explanation
from study.system.console import console
from study.system.errors import UserError

REMOVED = ("failed", "interrupted")
"""States of runs that `clean` removes."""

LISTED = 1000
"""With more points than this, those that have a result are only counted."""


def show(sweep: Sweep, runs: Runs, base: Mapping[str, Any]) -> None:
    """Print a table of a sweep's points with the states of their runs, and which runs are duplicated."""
    # Make the table
    table = Table("run", "state", "result", "directory", title=f"{sweep.name} ({sweep.path})", title_justify="left")
    states = Counter()
    unsent = {}
    points = runs.points(sweep, base)
    infos = runs.infos()
    for point in points:
        directory = RunDirectory.of(point.config)
        run = directory.read(infos.get(directory.path.name) if directory.path.parent == runs.path else None)
        states[run.state] += 1
        is_unsent = run.state in DONE and bool(run.info.get("wandb_missing"))
        if is_unsent:
            unsent[directory.path] = directory
        if len(points) <= LISTED or run.state not in DONE:
            starts_again = run.state == "interrupted" and not (directory.path / "last.pt").exists()
            more = ", not in W&B" if is_unsent else ", without a checkpoint" if starts_again else ""
            text = explanation(run, point.config.epochs) + more
            table.add_row(point.label, run.state, text, directory.path.name)
    if count := sweep.open_points(points):
        states["missing"] += count

    # Print it with the number of runs in each state
    if table.row_count:
        console(width=None if sys.stdout.isatty() else 200).print(table)
    if hidden := len(points) - table.row_count:
        print(f"{hidden} points with a result are not listed, because the sweep has more than {LISTED} points")
    print(", ".join(f"{count} {state}" for state, count in states.most_common()))

    # Report what W&B lacks, runs of another version, and duplicates
    if unsent:
        print(f"to send W&B what it lacks: {sync_command(*unsent.values())}")
    outdated = sum(info.get("results_version") != RESULTS_VERSION for info in infos.values())
    if outdated:
        print(f"{outdated} runs in {runs.path} are of another version of the code, whose results cannot be compared")
    copies = runs.copies(infos)
    for point in points if copies else ():
        own = point.config.run_name
        for name in copies.get(point.config.fingerprint, ()):
            if name != own:
                print(f"duplicated: {runs.path / name} holds the same run as {runs.path / own}")


def clean(sweeps: Sequence[Sweep], runs: Runs, base: Mapping[str, Any], is_agreed: bool) -> None:
    """Remove the directories of failed and interrupted runs of some sweeps; ask first unless `is_agreed`.

    Raises UserError if there is no terminal to ask on.
    """
    # List what would be removed
    directories = {}
    for sweep in sweeps:
        for point in runs.points(sweep, base):
            directory = RunDirectory.of(point.config)
            run = directory.read()
            if run.state in REMOVED and directory.path not in directories:
                directories[directory.path] = directory
                back = "; its previous result is restored" if directory.had_result() else ""
                print(f"{run.state}: {directory.path}  {explanation(run, point.config.epochs)}{back}")
    if not directories:
        print("no run has failed or was interrupted: nothing to remove")
        return

    # Ask
    if not is_agreed and not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on; --yes removes without asking")
    if not is_agreed and input(f"remove {len(directories)} of these trainings? [y/N] ").strip().lower() not in (
        "y",
        "yes",
    ):
        print("nothing is removed")
        return

    # Remove it, except runs that have started again
    removed = sum(directory.remove() for directory in directories.values())
    print(f"{removed} removed" + (f", {len(directories) - removed} in use again" if removed < len(directories) else ""))
