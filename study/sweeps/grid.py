"""A grid: every combination of the parameters' values.

python -m study.sweep run sweeps/dropout.yaml --dry-run
"""

import itertools
import math
from collections.abc import Iterator

from study.sweeps.method import Method, Parameters, Values


def points(parameters: Parameters, run_cap: int | None) -> Iterator[Values]:
    """Yield the combinations up to the cap; the last parameter varies fastest."""
    products = itertools.product(*(parameter.grid for parameter in parameters.values()))
    for values in itertools.islice(products, run_cap):
        yield dict(zip(parameters, values, strict=True))


def size(parameters: Parameters, run_cap: int | None) -> int:
    """Count the combinations up to the cap."""
    combinations = math.prod(len(parameter.grid) for parameter in parameters.values())
    return min(combinations, run_cap or combinations)


METHOD = Method(points, size=size, is_search=False)
