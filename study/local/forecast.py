"""How long the runs of some sweeps will take, by the runs that this machine has trained.

    seconds = forecast.seconds(plan.todo(), Runs("runs"), on_gpu=False)     # of each job, or None

The time of an epoch is that of runs of the same network on the same data, on a GPU or a CPU as now.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median

from rich.table import Table

from study.config import Config
from study.local.engine import Job
from study.local.plan import Plan
from study.record.directory import CorruptRun, RunDirectory
from study.record.display import duration
from study.sweeps.standing import Runs
from study.system.console import console


def show(plan: Plan, runs: Runs, on_gpu: bool, at_a_time: int) -> None:
    """Print for each sweep how many of its runs are to be trained and about how long that takes, if it is known.

    A run that several sweeps share counts for the first of them.
    """
    jobs = plan.todo()
    times = dict(zip((job.config.fingerprint for job in jobs), seconds(jobs, runs, on_gpu), strict=True))
    table = Table("sweep", "runs", "to train", "about")
    names = Counter(sweep.name for sweep in plan.sweeps)
    for sweep, first, coming in zip(plan.sweeps, plan.of_sweep, plan.open_of, strict=True):
        missing = [times[key] for key in first if key in times] + [None] * coming
        name = sweep.name if names[sweep.name] == 1 else f"{sweep.name} ({sweep.path})"
        table.add_row(name, str(len(first) + coming), str(len(missing)), _about(missing, at_a_time))
    every = [*times.values(), *[None] * plan.coming]
    table.add_row("all", str(len(plan.known) + plan.coming), str(len(every)), _about(every, at_a_time))
    console(width=None if sys.stdout.isatty() else 200).print(table)


def _about(times: Sequence[float | None], at_a_time: int) -> str:
    """Write the time of some runs, and of how many it is not known."""
    known = [time for time in times if time is not None]
    parts = [duration(max([sum(known) / at_a_time, *known]))] * bool(known)
    parts += [f"{len(times) - len(known)} not known"] * (len(known) < len(times))
    return ", ".join(parts)


def seconds(jobs: Sequence[Job], runs: Runs, on_gpu: bool) -> list[float | None]:
    """Return the seconds of each job's epochs, None if no similar run has been trained on such a device."""
    # the median time of an epoch of each kind of run, without the first ones, which warm up
    found = defaultdict(list)
    for name, info in runs.infos().items():
        if (info.get("device", "cpu") != "cpu") == on_gpu:
            try:
                rows = RunDirectory(runs.path / name).history()
                times = [row["time/epoch"] for row in (rows[1:] or rows) if "time/epoch" in row]
                config = Config.recorded(info["config"])
            except (CorruptRun, ValueError):
                continue
            found[_kind(config), len(rows) > 1] += times
    epochs = {kind: median(times) for (kind, _), times in sorted(found.items(), key=lambda entry: entry[0][1]) if times}

    # times the epochs that are to be trained
    return [job.config.epochs * epochs[_kind(job.config)] if _kind(job.config) in epochs else None for job in jobs]


def _kind(config: Config) -> tuple[object, ...]:
    """Return the options of a run that its speed depends on most."""
    return config.model, config.dataset, config.classes, config.train_images, config.image_size, config.finetune
