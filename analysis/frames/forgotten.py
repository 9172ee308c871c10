"""Recognises runs of a sweep that were trained with other values than its own: a forgotten `--set`.

python -c "from analysis.frames import forgotten, runs; from study.sweeps.definition import read; \\
    print(forgotten.values(runs.load('docs/study'), read('sweeps/dropout.yaml')))"
"""

from collections import Counter
from typing import Any

from analysis.frames.runs import Frames, with_result
from study.sweeps.definition import Sweep

MOST_OPTIONS = 3
"""Runs that differ from a point in more options than this are those of something else."""

MOST_POINTS = 200
"""At most this many points of a sweep are compared with the runs."""


def values(frames: Frames, sweep: Sweep) -> tuple[dict[str, Any], int]:
    """Return the values of options in which runs differ from the points of a sweep, and the number of these points.

    Of several possibilities, the one with the most points. Empty without any run that is near a point.
    """
    configs = [frames.configs[str(run)] for run in with_result(frames.runs).index]
    runs = [(config, config.identity()) for config in configs]
    found: Counter[tuple[tuple[str, Any], ...]] = Counter()
    for point in sweep.points()[:MOST_POINTS]:
        wanted = point.config.identity()
        fewest: dict[str, Any] | None = None
        for config, identity in runs:
            names = {name for name in {*wanted, *identity} if repr(wanted.get(name)) != repr(identity.get(name))}
            if names & {*sweep.varied, "seed"} or len(names) > MOST_OPTIONS:
                continue
            if fewest is None or len(names) < len(fewest):
                fewest = {name: getattr(config, name) for name in names}
        if fewest:
            found[tuple(sorted(fewest.items(), key=lambda pair: pair[0]))] += 1
    if not found:
        return {}, 0
    (pairs, count), *_ = found.most_common(1)
    return dict(pairs), count
