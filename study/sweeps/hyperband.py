"""Early termination by Hyperband: whether a run is worth its further epochs, as W&B decides it.

    python -c "from study.sweeps.hyperband import read; print(read({'type': 'hyperband', 'min_iter': 3}).bands[:4])"

At each band, a number of epochs, a run must be among the best 1/eta of the runs that came so far. The rule is that of
W&B's own engine (the package `sweeps`, hyperband_stopping.py), after Li et al., https://arxiv.org/abs/1603.06560.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.system.errors import UserError, nearest

KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")
MOST_BANDS = 100


@dataclass(frozen=True)
class Hyperband:
    """The rule: its bands in epochs, ascending, and what share, 1/eta, of the runs passes each.

    `strict` looks at the run as it was at the band, otherwise its best epoch so far counts.
    """

    bands: tuple[int, ...]
    eta: float
    strict: bool

    def is_to_stop(self, own: Sequence[float], every: Sequence[Sequence[float]]) -> bool:
        """Tell whether a run is to end, by its losses after each epoch and those of all runs of its sweep, its own too.

        What is to be maximized is given with its sign changed.
        """
        band = max((band for band in self.bands if band <= len(own)), default=0)
        at_band = sorted(losses[band - 1] for losses in every if band and len(losses) >= band)
        if not at_band:
            return False
        threshold = at_band[int(len(at_band) * (1 / self.eta))]
        return (own[band - 1] if self.strict else min(own)) > threshold


def read(given: Any) -> Hyperband:
    """Read a sweep's `early_terminate`; a UserError says what in it is wrong."""
    example = "such as {type: hyperband, min_iter: 3}"
    if not isinstance(given, Mapping) or given.get("type") != "hyperband":
        raise UserError(f"early_terminate must have the type hyperband, {example}, not {given!r}")
    for key in given:
        if key not in KEYS:
            raise UserError(f"early_terminate: unknown key {key!r}; {nearest(key, KEYS)}")
    for key in ("min_iter", "max_iter", "s"):
        if key in given and (isinstance(given[key], bool) or not isinstance(given[key], int) or given[key] < 1):
            raise UserError(f"early_terminate: {key} must be a whole number from 1, not {given[key]!r}")
    eta, strict = given.get("eta", 3), given.get("strict", True)
    if isinstance(eta, bool) or not isinstance(eta, int | float) or not 1 < eta <= 1e6:
        raise UserError(f"early_terminate: eta must be greater than 1 and at most a million, not {eta!r}")
    if not isinstance(strict, bool):
        raise UserError(f"early_terminate: strict must be true or false, not {strict!r}")
    if "max_iter" in given and "s" in given:
        bands = [int(given["max_iter"] / eta**step) for step in range(1, given["s"] + 1)]
    elif "min_iter" in given:
        bands = [int(given["min_iter"] * eta**step) for step in range(MOST_BANDS)]
    else:
        raise UserError(f"early_terminate needs min_iter, or max_iter and s: {example}")
    bands = sorted({band for band in bands if band >= 1})
    if not bands:
        raise UserError(f"early_terminate: no band is left: max_iter {given['max_iter']} must be at least eta {eta}")
    return Hyperband(tuple(bands), eta, strict)
