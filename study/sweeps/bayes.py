"""Bayesian search: Optuna chooses each point from the results of the previous points.

    for point in choose(sweep, base, Runs("runs"), set()): …    # each point is chosen when it is needed

The state of a search is in the directory of runs: the run.json of a chosen run has the name of the sweep. So an
interrupted search continues with all its results, and several processes can share a search.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import filelock

from study.data import folder
from study.record.directory import DONE, HYPERBAND, RunDirectory
from study.sweeps.definition import Point, Sweep
from study.sweeps.distributions import Parameter
from study.sweeps.standing import Runs
from study.system.errors import Busy, UserError

MOST_STARTUP = 10
TRIES = 100
"""A search ends after this many suggestions without a new point."""


def choose(sweep: Sweep, base: Mapping[str, Any], runs: Runs, handled: set[str]) -> Iterator[Point]:
    """Yield new points of a Bayesian search up to its cap, then the points that other processes chose.

    `handled` holds the fingerprints of points that the caller has already; new ones are added. Raises UserError if a
    chosen run is not found in the directory of runs.
    """
    runs.path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(runs.path / f".{hashlib.sha256(sweep.name.encode()).hexdigest()[:10]}.lock")
    while True:
        # Choose a point while no other process does
        with lock:
            known = runs.points(sweep, base)
            point = _ask(sweep, base, runs, known) if len(known) < sweep.run_cap else None

        # At the cap, yield the points of other processes
        if not point:
            yield from [other for other in known if other.config.fingerprint not in handled]
            return

        # Yield a new point, and remember it
        yield point
        if point.config.fingerprint in handled:
            raise UserError(
                f"{sweep.path}: the chosen run {point.config.run_name} is not found in {runs.path}; "
                "a Bayesian search cannot have the parameter runs_dir"
            )
        handled.add(point.config.fingerprint)


def _ask(sweep: Sweep, base: Mapping[str, Any], runs: Runs, known: list[Point]) -> Point | None:
    """Choose a new point and claim its run; return None if TRIES suggestions bring no new point."""
    # Ask until a suggestion is new and valid
    study, space = _study(sweep, runs, known)
    taken = {point.config.fingerprint for point in known}
    for _ in range(TRIES):
        trial = study.ask(space)
        values = {name: _value(parameter, trial.params.get(name)) for name, parameter in sweep.parameters.items()}
        try:
            point = sweep.point(values, base)
            # Claim its run
            if point.config.fingerprint not in taken:
                RunDirectory.of(point.config).claim(point.config, sweep.name, folder.digest(point.config))
                return point
        except (UserError, Busy):  # values that exclude each other; a run that another sweep is training
            continue
    return None


def _study(sweep: Sweep, runs: Runs, known: list[Point]) -> tuple[Any, dict[str, Any]]:
    """Return an Optuna study with the results of the points so far, and its search space.

    Parameters that draw numbers are searched by the quantile of their distribution. A failed run counts as the worst
    result, as in W&B. For a run that Hyperband stopped, Optuna gets the epochs that it trained.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    # Describe the space, and make the study; its seed depends on the number of points
    space = {
        name: FloatDistribution(0, 1)
        if parameter.choices is None
        else CategoricalDistribution(range(len(parameter.choices)))
        for name, parameter in sweep.parameters.items()
        if parameter.varies
    }
    seed = int.from_bytes(hashlib.sha256(f"{sweep.name} {len(known)}".encode()).digest()[:4])
    startup = min(MOST_STARTUP, 1 + sweep.run_cap // 3)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
    )

    # Add the points with their results; a failed run gets the worst
    results = {point.config.fingerprint: _result(sweep, runs, point) for point in known}
    worst = max((max(losses) for _, losses in results.values() if losses), default=None)
    for point in known:
        state, losses = results[point.config.fingerprint]
        value = min(losses, default=worst)
        if state == "COMPLETE" and value is None:
            continue
        study.add_trial(
            optuna.create_trial(
                state=TrialState[state],
                value=value if state == "COMPLETE" else None,
                params={name: _coordinate(sweep.parameters[name], point.values[name]) for name in space},
                distributions=space,
                intermediate_values=dict(enumerate(losses, 1)),
            )
        )
    return study, space


def _result(sweep: Sweep, runs: Runs, point: Point) -> tuple[str, list[float]]:
    """Return Optuna's name for the state of a run, and its losses, which are empty if it failed."""
    directory = RunDirectory.of(point.config)
    info = directory.info()
    if info.get("state") == "failed":
        return "COMPLETE", []
    losses = runs.losses(sweep, point) or sweep.losses([directory.summary()])
    if info.get("state") not in DONE:
        return "RUNNING", losses
    return "PRUNED" if info.get("stopped_by") == HYPERBAND else "COMPLETE", losses


def _coordinate(parameter: Parameter, value: Any) -> float:
    """Return the coordinate of a value in Optuna's space: its quantile, or its index among the choices."""
    return parameter.quantile(value) if parameter.choices is None else parameter.choices.index(value)


def _value(parameter: Parameter, coordinate: float | None) -> Any:
    """Return the value of a parameter at a coordinate of Optuna's space, or its only value."""
    if not parameter.varies:
        return parameter.choices[0]
    return parameter.value(coordinate) if parameter.choices is None else parameter.choices[coordinate]
