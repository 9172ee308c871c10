"""Extrapolate learning curves.

python -c "import numpy; from analysis.frames import trends; print(trends.gain(9 - 3 / numpy.arange(1.0, 21)[None]))"
"""

import numpy as np

EXPONENTS = np.geomspace(0.1, 3, 30)
"""Exponents that are tried: from a curve that goes on rising to one that is flat after a few epochs."""

SKIPPED = 0.1
"""Share of the epochs at the beginning that is ignored; they follow no power law."""


def gain(curves: np.ndarray) -> np.ndarray:
    """Return by how much each curve would rise if it were twice as long.

    `curves` has a row per run and a column per epoch.

    A power law a - b·epoch^-c is fitted by least squares (the usual form of a learning curve: Viering and Loog 2023).
    It rises or is flat, so the gain is never negative: of a network that begins to overfit it is an upper estimate.
    """
    epochs = curves.shape[1]
    begin = round(SKIPPED * epochs)
    numbers = np.arange(1.0, 2 * epochs + 1)

    # for each exponent, the line through the transformed epochs that fits best
    gains = []
    errors = []
    for exponent in EXPONENTS:
        shape = -(numbers**-exponent)
        centred = shape[begin:epochs] - shape[begin:epochs].mean()
        values = curves[:, begin:] - curves[:, begin:].mean(axis=1, keepdims=True)
        slope = (values @ centred / (centred @ centred)).clip(min=0)
        errors.append(((values - slope[:, None] * centred) ** 2).sum(axis=1))
        gains.append(slope * (shape[-1] - shape[epochs - 1]))

    # the exponent with the smallest error
    best = np.argmin(errors, axis=0)
    return np.array(gains)[best, np.arange(len(curves))]
