"""Optimizers by name.

python -c "from study.optim import OPTIMIZERS; print(*OPTIMIZERS)"
"""

from collections.abc import Iterable

import torch
from torch import nn

from study.config import Config

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


def create(config: Config, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer of a config; weight decay is on all parameters."""
    given = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.momentum is not None:
        given["momentum"] = config.momentum
    return OPTIMIZERS[config.optimizer](parameters, **given)
