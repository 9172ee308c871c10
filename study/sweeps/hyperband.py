"""Early termination by Hyperband: stop runs that are not among the best.

    python -c "from study.sweeps.hyperband import read; print(read({'type': 'hyperband', 'min_iter': 3}).bands[:4])"

At each band, a number of epochs, a run must be among the best 1/eta of the runs that reached the band. This is the rule
of W&B's own engine (the package `sweeps`, hyperband_stopping.py), after Li et al., https://arxiv.org/abs/1603.06560.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.system.errors import UserError, nearest

KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")
MOST_BANDS = 100


@dataclass(frozen=True)
class Hyperband:
    """The rule: its bands in epochs, ascending, each of which a share 1/eta of the runs passes.

    If `strict`, the run's loss at the band counts, otherwise its best loss so far.
    """

    bands: tuple[int, ...]
    eta: float
    strict: bool

    def is_to_stop(self, own: Sequence[float], every: Sequence[Sequence[float]]) -> bool:
        """Return whether to stop a run.

        `own` are its losses after each epoch, `every` those of all runs of the sweep, including its own. A metric that
        is maximized is negated.
        """
        band = max((band for band in self.bands if band <= len(own)), default=0)
        at_band = sorted(losses[band - 1] for losses in every if band and len(losses) >= band)
        if not at_band:
            return False
        threshold = at_band[int(len(at_band) * (1 / self.eta))]
        return (own[band - 1] if self.strict else min(own)) > threshold


def read(content: Any) -> Hyperband:
    """Read a sweep's `early_terminate`; raise UserError with what is wrong in it."""
    # Check the keys and their values
    example = "such as {type: hyperband, min_iter: 3}"
    if not isinstance(content, Mapping) or content.get("type") != "hyperband":
        raise UserError(f"early_terminate must have the type hyperband, {example}, not {content!r}")
    for key in content:
        if key not in KEYS:
            raise UserError(f"early_terminate: unknown key {key!r}; {nearest(key, KEYS)}")
    for key in ("min_iter", "max_iter", "s"):
        if key in content and (isinstance(content[key], bool) or not isinstance(content[key], int) or content[key] < 1):
            raise UserError(f"early_terminate: {key} must be a whole number from 1, not {content[key]!r}")
    eta = content.get("eta", 3)
    strict = content.get("strict", True)
    if isinstance(eta, bool) or not isinstance(eta, int | float) or not 1 < eta <= 1e6:
        raise UserError(f"early_terminate: eta must be greater than 1 and at most a million, not {eta!r}")
    if not isinstance(strict, bool):
        raise UserError(f"early_terminate: strict must be true or false, not {strict!r}")

    # Compute the bands
    if "max_iter" in content and "s" in content:
        bands = [int(content["max_iter"] / eta**step) for step in range(1, content["s"] + 1)]
    elif "min_iter" in content:
        bands = [int(content["min_iter"] * eta**step) for step in range(MOST_BANDS)]
    else:
        raise UserError(f"early_terminate needs min_iter, or max_iter and s: {example}")
    bands = sorted({band for band in bands if band >= 1})
    if not bands:
        raise UserError(f"early_terminate: no band is left: max_iter {content['max_iter']} must be at least eta {eta}")
    return Hyperband(tuple(bands), eta, strict)
