"""Decide which runs of some sweeps are trained, and in which order.

plan = Plan(sweeps, base, standing.Runs("runs"))
outcomes = engine.run(plan.jobs(), len(plan.todo()) + plan.coming)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from study.config import Config
from study.config.setting import run_title
from study.data import folder, splits
from study.local.engine import Job
from study.record.directory import DONE, RunDirectory
from study.sweeps import adaptive, grid, random
from study.sweeps.definition import Point, Sweep
from study.sweeps.standing import Runs
from study.system.errors import UserError

OF_DATA = ("dataset", "data_dir", "labels", "group_by", "classes", "train_images", "val_share", "test_share")
"""Options that decide whether a folder of images can be used."""


class Plan:
    """The points of some sweeps as jobs; a point of several sweeps is one job, stopped early only if all agree.

    `known` has the jobs by fingerprint, `of_sweep` the fingerprints of each sweep that no sweep before it has, and
    `open_of` the number of points that each adaptive sweep has yet to choose.
    """

    def __init__(self, sweeps: Sequence[Sweep], base: Mapping[str, Any], runs: Runs, force: bool = False):
        self.sweeps = sweeps
        self.base = base
        self.runs = runs

        # Make a job of every known point, of the first sweep that has it, and count those that are yet to be chosen
        self.known: dict[str, Job] = {}
        self.of_sweep: list[list[str]] = []
        self.open_of: list[int] = []
        for sweep in sweeps:
            if sweep.is_adaptive:  # what it may choose is checked before anything is trained
                sweep.checked(sweep.probes(), base)
            points = runs.points(sweep, base)
            self.of_sweep.append([key for point in points if (key := point.config.fingerprint) not in self.known])
            for point in points:
                job = self._job(sweep, point, points, force)
                other = self.known.setdefault(point.config.fingerprint, job)
                if other is not job:
                    other.sweeps += [name for name in job.sweeps if name not in other.sweeps]
                    other.is_given_up = _all_agree(other.is_given_up, job.is_given_up)
            self.open_of.append(sweep.open_points(points))

    @property
    def coming(self) -> int:
        """Return the number of points that are yet to be chosen."""
        return sum(self.open_of)

    def todo(self) -> list[Job]:
        """List the jobs that have no result, or all if they are forced."""
        return [job for job in self.known.values() if job.force or not job.is_done]

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs to train: those of known points, then those that adaptive sweeps choose when needed."""
        yield from self.todo()
        for sweep in self.sweeps:
            own = {key for key, job in self.known.items() if sweep.name in job.sweeps}
            for point in adaptive.choose(sweep, self.base, self.runs, own):
                yield self._job(sweep, point)

    def _job(self, sweep: Sweep, point: Point, points: list[Point] | None = None, force: bool = False) -> Job:
        """Return the job of a point."""

        def is_given_up() -> bool:
            """Return whether the sweep's early termination stops the run, given all runs so far."""
            every = self.runs.points(sweep, self.base) if sweep.is_adaptive else points
            return self.runs.is_given_up(sweep, point, every)

        title = run_title(point.setting, point.config.seed)
        gives_up = is_given_up if sweep.early_terminate else None
        return Job(point.config, point.label, gives_up, force, title, [sweep.name])


def _all_agree(first: Callable[[], bool] | None, second: Callable[[], bool] | None) -> Callable[[], bool] | None:
    """Return a rule that stops a run only if both rules do; None if a sweep has no rule."""
    return (lambda: first() and second()) if first and second else None


def refuse_other_data(configs: Sequence[Config], is_forced: bool) -> None:
    """Raise UserError, before a worker starts, if a folder of images is wrong or a run was trained on other files.

    Other files do not matter if the runs are trained again (`is_forced`).
    """
    folders: dict[tuple[str | None, ...], folder.Folder | None] = {}
    checked = set()
    for config in configs:
        # List each folder once
        data = (config.dataset, config.data_dir, config.labels, config.group_by)
        if data not in folders:
            folders[data] = folder.of(config, print)
        files = folders[data]

        # Check each split once
        split = (*data, config.classes, config.train_images, config.val_share, config.test_share)
        if split not in checked:
            splits.check(config, files)
            checked.add(split)

        # Compare the files with those of an earlier training
        directory = RunDirectory.of(config)
        digest = folder.digest_of(config, files)
        before = str(directory.info().get("data_digest")) if directory.state() in DONE else digest
        if not is_forced and before.removesuffix(folder.JOINED) != digest:
            raise UserError(
                f"{directory.path} was trained on other files than are in {config.data_dir} now: "
                "put them back, name another --runs-dir, or train again with --force"
            )


def check_folders(sweep: Sweep, base: Mapping[str, str]) -> None:
    """Raise UserError if a folder of images lacks what a sweep names; a folder that is not there is not checked."""
    # Only folders are checked
    if not any("folder:" in str(choice) for name in ("dataset", "setting") if name in sweep.parameters
               for choice in sweep.parameters[name].choices or ()):  # fmt: skip
        return

    # Take each combination of the parameters that choose images
    parameters = {
        name: parameter
        for name, parameter in sweep.parameters.items()
        if (name == "setting" or name in OF_DATA) and parameter.choices is not None
    }
    first = random.draw(sweep.parameters, 0)
    configs = []
    for values in grid.points(parameters, None):
        with suppress(UserError):
            configs.append(sweep.point(first | values, base).config)

    # Check those of the folders that are there
    there = [config for config in configs if config.dataset.startswith("folder:") and folder.path(config).is_dir()]
    refuse_other_data(there, is_forced=True)
