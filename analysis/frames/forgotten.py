"""Recognises runs of a sweep that were trained with other values than its own: a forgotten `--set`.

python -c "from analysis.frames import forgotten, runs; from study.sweeps.definition import read; \\
    print(forgotten.values(runs.load('docs/study'), [read('sweeps/dropout.yaml')]))"
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from analysis.frames.runs import Frames, with_result
from study.config import Config
from study.sweeps.definition import Sweep
from study.system.errors import UserError

FREE = ("seed", "epochs")
"""Options in which runs that are meant for one report differ by mistake."""

MOST_OPTIONS = 3
"""Runs that differ from a point in more options than this are those of something else."""

MOST_POINTS = 200
"""At most this many points of a sweep are compared with the runs."""

MOST_GUESSES = 20
"""At most this many guesses, those that suit the most pairs of a point and a run, are tried on the sweeps."""


def values(frames: Frames, sweeps: Sequence[Sweep]) -> tuple[dict[str, Any], int]:
    """Return the values with which sweeps have runs, and the number of their points that have one.

    Of several possibilities, the one with the most points. The network, and what a sweep varies, are never replaced.
    Empty without any run that is near a point.
    """
    runs = with_result(frames.runs)
    guesses: Counter[tuple[tuple[str, Any], ...]] = Counter()
    for sweep in sweeps:
        guesses += _guesses(frames, list(map(str, runs.index)), sweep)
    trained = {*runs.fingerprint}
    counts = {
        guess: sum(_trained(sweep, dict(guess), trained) for sweep in sweeps)
        for guess, _ in guesses.most_common(MOST_GUESSES)
    }
    guess, count = max(counts.items(), key=lambda item: (item[1], -len(item[0])), default=((), 0))
    return (dict(guess), count) if count else ({}, 0)


def strays(frames: Frames, shown: Frames, sweeps: Sequence[Sweep]) -> tuple[int, dict[str, list[int]]]:
    """Return the number of runs with a result that would be of sweeps with other seeds or epochs, and these values.

    `shown` are the runs of the sweeps. Runs whose seed and epochs the sweeps have too are not counted.
    """

    def key(config: Config) -> tuple[tuple[str, str], ...]:
        return tuple(sorted((name, repr(value)) for name, value in config.identity().items() if name not in FREE))

    configs = [point.config for sweep in sweeps for point in sweep.points()[:MOST_POINTS]]
    keys = {key(config) for config in configs}
    others = with_result(frames.runs).drop(index=shown.runs.index, errors="ignore")
    near = others.loc[[key(frames.configs[str(run)]) in keys for run in others.index], list(FREE)]
    new = near.apply(lambda column: ~column.isin([getattr(config, column.name) for config in configs]))
    values = {name: sorted(set(near[name][new[name]])) for name in FREE}
    return int(new.any(axis=1).sum()), {name: found for name, found in values.items() if found}


def _guesses(frames: Frames, runs: Sequence[str], sweep: Sweep) -> Counter[tuple[tuple[str, Any], ...]]:
    """Count in which values runs differ from points of a sweep."""
    found: Counter[tuple[tuple[str, Any], ...]] = Counter()
    points = [point.config.identity() for point in sweep.points()[:MOST_POINTS]]
    for run in runs:
        config = frames.configs[run]
        identity = config.identity()
        for wanted in points:
            names = {name for name in {*wanted, *identity} if repr(wanted.get(name)) != repr(identity.get(name))}
            if len(names) <= MOST_OPTIONS and not names & {*sweep.varied, "seed", "model"}:
                found[tuple((name, getattr(config, name)) for name in sorted(names))] += 1
    return found


def _trained(sweep: Sweep, replaced: Mapping[str, Any], trained: set[str]) -> int:
    """Count the points of a sweep with some of its values replaced that have been trained."""
    with suppress(UserError):  # values that do not fit it
        return sum(point.config.fingerprint in trained for point in sweep.replaced(replaced).points())
    return 0
