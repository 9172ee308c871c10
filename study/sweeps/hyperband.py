"""Early termination by Hyperband: stop runs that are not among the best.

    python -c "from study.sweeps.hyperband import Hyperband; print(Hyperband(type='hyperband', min_iter=3).bands[:4])"

At each band, a number of epochs, a run must be among the best 1/eta of the runs that reached the band. This is the rule
of W&B's own engine (the package `sweeps`, hyperband_stopping.py), after Li et al., https://arxiv.org/abs/1603.06560.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_BANDS = 100
MOST_EPOCHS = 1_000_000
"""Bands above this number of epochs are never reached."""

EXAMPLE = "{type: hyperband, min_iter: 3}"
Whole = Annotated[int | None, Field(ge=1, le=MOST_EPOCHS, description=f"a whole number from 1 to {MOST_EPOCHS:,}")]


class Hyperband(BaseModel):
    """A sweep's `early_terminate`.

    Its bands are min_iter·eta^n epochs, or max_iter/eta^n for n up to `s`. If `strict`, the run's loss at the band
    counts, otherwise its best loss so far.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    type: Literal["hyperband"] = Field(description=f"hyperband, such as {EXAMPLE}")
    min_iter: Whole = None
    max_iter: Whole = None
    s: Whole = None
    eta: float = Field(3, gt=1, le=1e6, description="greater than 1 and at most a million")
    strict: bool = Field(True, description="true or false")

    @model_validator(mode="after")
    def _has_bands(self) -> "Hyperband":
        """Raise ValueError if there is no band."""
        if not self.min_iter and not (self.max_iter and self.s):
            raise ValueError(f"early_terminate needs min_iter, or max_iter and s: such as {EXAMPLE}")
        if not self.bands:
            raise ValueError(
                f"early_terminate: no band is left: max_iter {self.max_iter} must be at least eta {self.eta:g}"
            )
        return self

    @cached_property
    def bands(self) -> tuple[int, ...]:
        """Return the bands in epochs, ascending."""
        return tuple(sorted({int(band) for band in self._steps()}))

    def _steps(self) -> Iterator[float]:
        """Yield the bands before they are rounded."""
        if self.max_iter and self.s:
            steps = (self.max_iter / self.eta**step for step in range(1, self.s + 1))
            return itertools.takewhile(lambda band: band >= 1, steps)
        steps = (self.min_iter * self.eta**step for step in range(MOST_BANDS))
        return itertools.takewhile(lambda band: band <= MOST_EPOCHS, steps)

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
