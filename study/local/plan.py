"""Decide which runs of some sweeps are trained, and in which order.

plan = Plan(sweeps, base, standing.Runs("runs"))
outcomes = engine.run(plan.jobs(), len(plan.todo()) + plan.coming)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from study.config.setting import run_title
from study.local.engine import Job
from study.sweeps import adaptive
from study.sweeps.definition import Point, Sweep
from study.sweeps.standing import Runs


class Plan:
    """The points of some sweeps as jobs; a point of several sweeps is one job, stopped early only if all agree."""

    def __init__(self, sweeps: Sequence[Sweep], base: Mapping[str, Any], runs: Runs, force: bool = False):
        self.sweeps = sweeps
        self.base = base
        self.runs = runs

        # Make a job of every known point, and count those that are yet to be chosen
        self.known: dict[str, Job] = {}
        self.coming = 0
        for sweep in sweeps:
            points = runs.points(sweep, base)
            for point in points:
                job = self._job(sweep, point, points, force)
                other = self.known.setdefault(point.config.fingerprint, job)
                if other is not job:
                    other.sweeps += [name for name in job.sweeps if name not in other.sweeps]
                    other.is_given_up = _all_agree(other.is_given_up, job.is_given_up)
            self.coming += sweep.open_points(points)

    def todo(self) -> list[Job]:
        """List the jobs that have no result, or all if they are forced."""
        return [job for job in self.known.values() if job.force or not job.is_done]

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs to train: those of known points, then those that adaptive sweeps choose when needed."""
        yield from self.todo()
        for sweep in self.sweeps:
            for point in adaptive.choose(sweep, self.base, self.runs, set(self.known)):
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
