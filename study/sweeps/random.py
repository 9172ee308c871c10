"""A random search: each point is drawn from the parameters' distributions, and follows from the file.

python -c "from study.sweeps import distributions as d, random; print(random.draw({'seed': d.of_choices([0, 1])}, 0))"
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from study.sweeps.method import Method, Parameters, Values


def points(parameters: Parameters, run_cap: int | None) -> Iterator[Values]:
    """Yield `run_cap` draws."""
    return (draw(parameters, index) for index in range(run_cap))


def draw(parameters: Parameters, index: int) -> Values:
    """Draw the values of point `index`.

    Each value depends only on its own parameter and the index, so it stays the same if other parameters or the cap
    change.
    """
    return {
        name: parameter.value(_share(name, parameter.distribution, dict(parameter.keys), index))
        for name, parameter in parameters.items()
    }


def _share(*keys: Any) -> float:
    """Derive a number in [0, 1) from the keys, the same on every machine and with every library version."""
    digest = hashlib.sha256(json.dumps(keys, sort_keys=True, default=str).encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53


METHOD = Method(points)
