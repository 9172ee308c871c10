"""Check and count the points of a sweep without listing those of a grid.

    python -c "from study.sweeps import counting, definition; print(counting.count(definition.read('sweeps/mlp.yaml')))"

Most options are checked by themselves, whatever the others are. So only the combinations of the remaining options are
made into configs; each of them stands for all values of the options that are checked by themselves.
"""

import itertools
import math
from collections.abc import Hashable, Mapping
from typing import Any

from study.config import INTERACTING, check_value, is_identity
from study.sweeps import grid
from study.sweeps.definition import Point, Sweep

MOST_DRAWN = 1000
"""At most this many points of a random search are checked, beside some near the ends of each range."""


def count(sweep: Sweep, base: Mapping[str, Any] | None = None) -> int:
    """Check a sweep and count its points with different configs, with those of a search that are still to be chosen.

    A random search of more than MOST_DRAWN points is taken for one without equal points. Raises UserError with what is
    wrong with the points.
    """
    if sweep.is_adaptive:
        points = sweep.points(base)
        return len(points) + sweep.open_points(points)
    if not sweep.is_search:
        return _count_grid(sweep, base)
    if sweep.run_cap <= MOST_DRAWN:
        return len(sweep.points(base))
    sweep.checked(itertools.islice(sweep.values(), MOST_DRAWN), base)
    sweep.check_probes(base)
    return sweep.run_cap


def _count_grid(sweep: Sweep, base: Mapping[str, Any] | None) -> int:
    """Check the points of a grid up to its cap, and count those with different configs."""
    # Separate the options that are checked by themselves, with their values as a config has them
    choices = {name: grid.choices(sweep.parameters[name]) for name in sorted(sweep.parameters)}
    typed = {
        name: [check_value(name, value) for value in values]
        for name, values in choices.items()
        if name not in INTERACTING and name not in sweep.set_together
    }
    alone = [name for name, values in typed.items() if None not in values]
    together = [name for name in choices if name not in alone]

    # Find the combinations of the others, as places among their choices; a cap may cut some off
    is_cut = sweep.size < math.prod(map(len, choices.values()))
    walked = [range(len(choices[name])) for name in (choices if is_cut else together)]
    grid_places = list(itertools.islice(itertools.product(*walked), sweep.run_cap if is_cut else None))
    columns = [place for place, name in enumerate(choices if is_cut else together) if name in together]
    combinations = list(dict.fromkeys(tuple(places[column] for column in columns) for places in grid_places))

    # Check each with the first values of the options that are checked by themselves
    first = {name: choices[name][0] for name in alone}
    values = [
        {name: choices[name][place] for name, place in zip(together, places, strict=True)} for places in combinations
    ]
    points = sweep.checked((first | others for others in values), base)
    sweep.refuse_unused({name for point in points for name in point.values}, base)

    # Equal combinations count once, each with the different values of the options that apply to it
    known = {places: _identity(point, alone) for places, point in zip(combinations, points, strict=True)}
    if not is_cut:
        return sum(math.prod(len(set(typed[name])) for name in own) for _, own in set(known.values()))
    seen = set()
    for places in grid_places:
        identity, own = known[tuple(places[column] for column in columns)]
        at = dict(zip(choices, places, strict=True))
        seen.add((identity, *(typed[name][at[name]] for name in own)))
    return len(seen)


def _identity(point: Point, alone: list[str]) -> tuple[Hashable, tuple[str, ...]]:
    """Return the identity of a point's config without the options that are checked `alone`, and those that apply."""
    rest = tuple((name, value) for name, value in point.config.identity().items() if name not in alone)
    return rest, tuple(name for name in alone if name in point.values and is_identity(name))
