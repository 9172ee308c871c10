"""What of some sweeps is to be trained, and in which order.

plan = Plan(sweeps, base, standing.Runs("runs"))
outcomes = engine.run(plan.jobs(), len(plan.todo()) + plan.coming)
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from study import bayes
from study.engine import Job
from study.search import Point, Sweep
from study.standing import Runs


class Plan:
    """The points of some sweeps as jobs; a point of several sweeps is one job, which all of them must want to end."""

    def __init__(self, sweeps: Sequence[Sweep], base: Mapping[str, Any], runs: Runs, force: bool = False):
        self.sweeps, self.base, self.runs = sweeps, base, runs
        self.known: dict[str, Job] = {}
        self.coming = 0
        for sweep in sweeps:
            points = runs.points(sweep, base)
            for point in points:
                job = replace(self._job(sweep, point, points), force=force)
                known = self.known.setdefault(point.config.fingerprint, job)
                known.is_given_up = known.is_given_up and job.is_given_up
            if sweep.method == "bayes":
                self.coming += max(0, sweep.run_cap - len(points))

    @property
    def todo(self) -> list[Job]:
        """List the jobs that have no result, or all if they are forced."""
        return [job for job in self.known.values() if job.force or not job.is_done]

    @property
    def jobs(self) -> Iterator[Job]:
        """Yield what is to be trained: what is known, then what each Bayesian search chooses when it is asked for."""
        searches = [
            map(partial(self._job, sweep), bayes.choose(sweep, self.base, self.runs, set(self.known)))
            for sweep in self.sweeps
            if sweep.method == "bayes"
        ]
        return itertools.chain(self.todo, *searches)

    def _job(self, sweep: Sweep, point: Point, points: list[Point] | None = None) -> Job:
        def is_given_up() -> bool:
            is_fixed = sweep.method != "bayes"
            return self.runs.is_given_up(sweep, point, points if is_fixed else self.runs.points(sweep, self.base))

        return Job(point.config, point.label, is_given_up if sweep.early_terminate else None)
