"""Check and count the points of a sweep without listing those of a grid.

    python -c "from study.sweeps import counting, definition; print(counting.count(definition.read('sweeps/mlp.yaml')))"

Most options are checked by themselves, whatever the others are. So only the combinations of the remaining options are
made into configs; each of them stands for all values of the options that are checked by themselves.
"""

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from study.config import CHOOSERS, PARTNERS, check_value, is_identity
from study.sweeps import grid
from study.sweeps.definition import Point, Sweep

MOST_DRAWN = 1000
"""At most this many points of a random search are checked, beside some near the ends of each range."""

Places = tuple[int, ...]
"""A combination, by the places of its values among the choices of their parameters."""


def count(sweep: Sweep, base: Mapping[str, Any] | None = None) -> int:
    """Check a sweep and count its points with different configs, with those of a search that are still to be chosen.

    A random search of more than MOST_DRAWN points is taken for one without equal points. Raises UserError with what is
    wrong with the points.
    """
    if sweep.is_adaptive:
        sweep.checked(sweep.probes(), base)
        points = sweep.points(base)
        return len(points) + sweep.open_points(points)
    if not sweep.is_search:
        return _count_grid(sweep, base)
    if sweep.run_cap <= MOST_DRAWN:
        return len(sweep.points(base))
    sweep.checked(itertools.chain(itertools.islice(sweep.values(), MOST_DRAWN), sweep.probes()), base)
    return sweep.run_cap


def _count_grid(sweep: Sweep, base: Mapping[str, Any] | None) -> int:
    """Check the points of a grid up to its cap, and count those with different configs."""
    # Separate the options that are checked by themselves, with their values as a config has them
    choices = {name: grid.choices(sweep.parameters[name]) for name in sorted(sweep.parameters)}
    is_cut = sweep.size < math.prod(map(len, choices.values()))
    together = _checked_together(sweep, choices, is_cut)
    alone = [name for name in choices if name not in together]
    typed = {name: [check_value(name, value) for value in choices[name]] for name in alone}

    # Find the combinations of the others; a cap may cut some off
    walked = list(choices) if is_cut else together
    columns = [column for column, name in enumerate(walked) if name in together]
    grid_places = itertools.product(*(range(len(choices[name])) for name in walked))
    grid_places = list(itertools.islice(grid_places, sweep.run_cap if is_cut else None))
    combinations = list(dict.fromkeys(tuple(places[column] for column in columns) for places in grid_places))

    # Check each with the first values of the rest, and with all values of those that only CHOOSERS restrict
    first = {name: choices[name][0] for name in alone}
    values = [first | _values(choices, together, places) for places in combinations]
    others = [(name, value) for name in alone if name in PARTNERS for value in choices[name][1:]]
    more = (combination | {name: value} for combination in values for name, value in others)
    points = sweep.checked(itertools.chain(values, more), base)[: len(values)]

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


def _checked_together(sweep: Sweep, choices: Mapping[str, Sequence[Any]], is_cut: bool) -> list[str]:
    """List the options whose combinations are to be checked.

    Beside CHOOSERS, these are options with a partner that varies, options that `setting` may replace, and options that
    may be unset, whose default can depend on others.
    """
    result = []
    for name, values in choices.items():
        has_partner = any(len(choices.get(other, ())) > 1 for other in PARTNERS.get(name, ()))
        may_be_unset = name not in CHOOSERS and any(check_value(name, value) is None for value in values)
        is_restricted = name in CHOOSERS or name in sweep.set_together or (is_cut and name in PARTNERS)
        if is_restricted or has_partner or may_be_unset:
            result.append(name)
    return result


def _values(choices: Mapping[str, Sequence[Any]], names: Sequence[str], places: Places) -> dict[str, Any]:
    return {name: choices[name][place] for name, place in zip(names, places, strict=True)}


def _identity(point: Point, alone: Sequence[str]) -> tuple[Hashable, tuple[str, ...]]:
    """Return the identity of a point's config without the options that are checked `alone`, and those that apply."""
    rest = tuple((name, value) for name, value in point.config.identity().items() if name not in alone)
    return rest, tuple(name for name in alone if name in point.values and is_identity(name))
