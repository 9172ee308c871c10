"""What a sweep's method is: the points that are known beforehand, and those chosen after results.

A new method is a file in this package, with a `Method`, and a line in METHODS of study/sweeps/file.py.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.sweeps.distributions import Parameter

Parameters = Mapping[str, Parameter]
Values = dict[str, Any]
"""A point: a value for each parameter of a sweep."""


@dataclass(frozen=True)
class Trial:
    """A point that a sweep has, and what came of it.

    `losses` holds the sweep's metric after each epoch, negated if it is maximized. `state` is finished, running (or
    interrupted), failed (without losses) or stopped (early, by the sweep).
    """

    values: Values
    state: str
    losses: Sequence[float]


@dataclass(frozen=True)
class Method:
    """How a sweep finds its points.

    `points` lists those known beforehand. `next(name, parameters, run_cap, trials)`, if there is one, suggests further
    points given the trials so far, the best suggestion first; `name` is the sweep's. `size` counts all points. A
    method that `is_search` takes any distribution, and on W&B the server draws its points; the others need values.
    """

    points: Callable[[Parameters, int | None], Iterable[Values]] = lambda parameters, run_cap: ()
    next: Callable[[str, Parameters, int, Sequence[Trial]], Iterator[Values]] | None = None
    size: Callable[[Parameters, int | None], int | None] = lambda parameters, run_cap: run_cap
    is_search: bool = True
