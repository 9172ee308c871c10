"""A Bayesian search: Optuna chooses each point from the results of those before it, in W&B's vocabulary.

    for point in choose(sweep, base, Runs("runs")): …    # each is chosen when it is asked for

It is asked and told through the directory of runs: a run that was chosen carries the sweep's name in its run.json,
so a search that was cut off goes on with all that it had learnt, and two processes share one search.
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
"""Suggestions after which nothing new is expected of a search."""


def choose(sweep: Sweep, base: Mapping[str, Any], runs: Runs, given: set[str]) -> Iterator[Point]:
    """Choose new points of a Bayesian search up to its cap, then yield those that other processes have chosen.

    `given` holds the fingerprints of points that are seen to already.
    """
    runs.path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(runs.path / f".{hashlib.sha256(sweep.name.encode()).hexdigest()[:10]}.lock")
    while True:
        with lock:
            known = runs.points(sweep, base)
            point = _ask(sweep, base, runs, known) if len(known) < sweep.run_cap else None
        yield from [point] if point else [one for one in known if one.config.fingerprint not in given]
        if not point:
            return
        if point.config.fingerprint in given:
            raise UserError(
                f"{sweep.path}: {point.config.run_name}, which was chosen, is not found in {runs.path}; "
                "a Bayesian search cannot have runs_dir for a parameter"
            )
        given.add(point.config.fingerprint)


def _ask(sweep: Sweep, base: Mapping[str, Any], runs: Runs, known: list[Point]) -> Point | None:
    """Choose a point that is not known and claim its run; None where there seems to be no other."""
    study, space = _study(sweep, runs, known)
    taken = {point.config.fingerprint for point in known}
    for _ in range(TRIES):
        trial = study.ask(space)
        values = {name: _value(parameter, trial.params.get(name)) for name, parameter in sweep.parameters.items()}
        try:
            point = sweep.point(values, base)
            if point.config.fingerprint not in taken:
                RunDirectory.of(point.config).claim(point.config, sweep.name, folder.digest(point.config))
                return point
        except (UserError, Busy):  # values that exclude each other; a run that another sweep trains just now
            continue
    return None


def _study(sweep: Sweep, runs: Runs, known: list[Point]) -> tuple[Any, dict[str, Any]]:
    """Tell Optuna what became of the points so far, and return its study and the space to ask in.

    Every parameter that draws numbers is a quantile of its distribution. A run that failed counts as the worst, as W&B
    imputes it; of one that Hyperband stopped, Optuna gets the epochs that there are.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
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
    """Return Optuna's name for the state of a run, and its losses, empty where it has failed."""
    directory = RunDirectory.of(point.config)
    info = directory.info()
    if info.get("state") == "failed":
        return "COMPLETE", []
    losses = runs.losses(sweep, point) or sweep.losses([directory.summary()])
    if info.get("state") not in DONE:
        return "RUNNING", losses
    return "PRUNED" if info.get("stopped_by") == HYPERBAND else "COMPLETE", losses


def _coordinate(parameter: Parameter, value: Any) -> float:
    """Return where a value lies in Optuna's space: its quantile, or its place among the choices."""
    return parameter.quantile(value) if parameter.choices is None else parameter.choices.index(value)


def _value(parameter: Parameter, coordinate: float | None) -> Any:
    """Return the value of a parameter at a place in Optuna's space, or the only one that it has."""
    if not parameter.varies:
        return parameter.choices[0]
    return parameter.value(coordinate) if parameter.choices is None else parameter.choices[coordinate]
