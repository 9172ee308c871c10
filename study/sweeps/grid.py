"""A grid: every combination of the parameters' values, in the order of W&B's server.

    python -m study.sweep run sweeps/dropout.yaml --dry-run

The server sorts the parameters by name and takes each value once (the package `sweeps`, grid_search.py).
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

from study.sweeps.distributions import Parameter
from study.sweeps.method import Method, Parameters, Values


def points(parameters: Parameters, run_cap: int | None) -> Iterator[Values]:
    """Yield the combinations up to the cap; of the sorted names, the last varies fastest."""
    names = sorted(parameters)
    products = itertools.product(*(choices(parameters[name]) for name in names))
    for values in itertools.islice(products, run_cap):
        by_name = dict(zip(names, values, strict=True))
        yield {name: by_name[name] for name in parameters}


def size(parameters: Parameters, run_cap: int | None) -> int:
    """Count the combinations up to the cap."""
    combinations = math.prod(len(choices(parameter)) for parameter in parameters.values())
    return min(combinations, run_cap or combinations)


def choices(parameter: Parameter) -> list[Any]:
    """List the values of a parameter, each once; 64 and 64.0 are one value for W&B, 64 and "64" are two."""
    unique = {}
    for value in parameter.grid:
        is_whole = isinstance(value, float) and value.is_integer()
        unique.setdefault(repr(int(value) if is_whole else value), value)
    return list(unique.values())


METHOD = Method(points, size=size, is_search=False)
