"""Bayesian search: Optuna suggests each point from the results of the previous points.

    values = next(suggestions("my sweep", sweep.parameters, run_cap=20, trials=[]))

`study.sweeps.adaptive` collects the results and decides which suggestion becomes a run.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from study.sweeps.distributions import Parameter
from study.sweeps.method import Method, Parameters, Trial, Values

MOST_STARTUP = 10
STATES = {"finished": "COMPLETE", "failed": "COMPLETE", "running": "RUNNING", "stopped": "PRUNED"}
"""Optuna's names for the states of trials."""


def suggestions(name: str, parameters: Parameters, run_cap: int, trials: Sequence[Trial]) -> Iterator[Values]:
    """Yield points without end, each as a next point given the trials so far.

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
        for name, parameter in parameters.items()
        if parameter.varies
    }
    seed = int.from_bytes(hashlib.sha256(f"{name} {len(trials)}".encode()).digest()[:4])
    startup = min(MOST_STARTUP, 1 + run_cap // 3)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
    )

    # Add the points with their results; a failed run gets the worst
    worst = max((max(trial.losses) for trial in trials if trial.losses), default=None)
    for trial in trials:
        state = STATES[trial.state]
        value = min(trial.losses, default=worst)
        if state == "COMPLETE" and value is None:
            continue
        used = {name: distribution for name, distribution in space.items() if name in trial.values}
        study.add_trial(
            optuna.create_trial(
                state=TrialState[state],
                value=value if state == "COMPLETE" else None,
                params={name: _coordinate(parameters[name], trial.values[name]) for name in used},
                distributions=used,
                intermediate_values=dict(enumerate(trial.losses, 1)),
            )
        )

    # Ask for suggestions
    while True:
        coordinates = study.ask(space).params
        yield {name: _value(parameter, coordinates.get(name)) for name, parameter in parameters.items()}


def _coordinate(parameter: Parameter, value: Any) -> float:
    """Return the coordinate of a value in Optuna's space: its quantile, or its index among the choices."""
    return parameter.quantile(value) if parameter.choices is None else parameter.choices.index(value)


def _value(parameter: Parameter, coordinate: float | None) -> Any:
    """Return the value of a parameter at a coordinate of Optuna's space, or its only value."""
    if not parameter.varies:
        return parameter.choices[0]
    return parameter.value(coordinate) if parameter.choices is None else parameter.choices[coordinate]


METHOD = Method(next=suggestions)
