"""Points that a sweep's method chooses from the results of previous points.

    for point in choose(sweep, base, Runs("runs"), set()): …    # each point is chosen when it is needed

The state of a search is in the directory of runs: the run.json of a chosen run has the name of the sweep. So an
interrupted search continues with all its results, and several processes can share a search.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import filelock

from study.data import folder
from study.record.directory import DONE, HYPERBAND, RunDirectory
from study.sweeps.definition import Point, Sweep
from study.sweeps.file import METHODS
from study.sweeps.method import Trial
from study.sweeps.standing import Runs
from study.system.errors import Busy, UserError

TRIES = 100
"""A search ends after this many suggestions without a new point."""


def choose(sweep: Sweep, base: Mapping[str, Any], runs: Runs, handled: set[str]) -> Iterator[Point]:
    """Yield new points of a sweep up to its cap, then those that other processes chose.

    A method whose points are all known beforehand has none.
    `handled` holds the fingerprints of points that the caller has already; new ones are added. Raises UserError if a
    chosen run is not found in the directory of runs.
    """
    if not sweep.is_adaptive:
        return
    runs.path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(runs.path / f".{hashlib.sha256(sweep.name.encode()).hexdigest()[:10]}.lock")
    while True:
        # Choose a point while no other process does
        with lock:
            known = runs.points(sweep, base)
            point = _next(sweep, base, runs, known) if sweep.open_points(known) else None

        # At the cap, yield the points of other processes
        if not point:
            yield from [other for other in known if other.config.fingerprint not in handled]
            return

        # Yield a new point, and remember it
        yield point
        if point.config.fingerprint in handled:
            raise UserError(
                f"{sweep.path}: the chosen run {point.config.run_name} is not found in {runs.path}; "
                f"a sweep with method {sweep.method} cannot have the parameter runs_dir"
            )
        handled.add(point.config.fingerprint)


def _next(sweep: Sweep, base: Mapping[str, Any], runs: Runs, known: list[Point]) -> Point | None:
    """Choose a new point and claim its run; return None if TRIES suggestions bring no new point."""
    trials = [_trial(sweep, runs, point) for point in known]
    suggestions = METHODS[sweep.method].next(sweep.name, sweep.parameters, sweep.run_cap, trials)
    taken = {point.config.fingerprint for point in known}
    for values in itertools.islice(suggestions, TRIES):
        try:
            point = sweep.point(values, base)
            # Claim its run
            if point.config.fingerprint not in taken:
                RunDirectory.of(point.config).claim(point.config, sweep.name, folder.digest(point.config))
                return point
        except (UserError, Busy):  # values that exclude each other; a run that another sweep is training
            continue
    return None


def _trial(sweep: Sweep, runs: Runs, point: Point) -> Trial:
    """Return a point with the state of its run and its losses."""
    directory = RunDirectory.of(point.config)
    info = directory.info()
    if info.get("state") == "failed":
        return Trial(point.values, "failed", [])
    losses = runs.losses(sweep, point) or sweep.losses([directory.summary()])
    if info.get("state") not in DONE:
        return Trial(point.values, "running", losses)
    return Trial(point.values, "stopped" if info.get("stopped_by") == HYPERBAND else "finished", losses)
