"""Optimizers and schedules of the learning rate by name.

optimizer = create(config, model)
scheduler = schedule(config, optimizer, batches_per_epoch)    # scheduler.step() after every batch
"""

import torch
from torch import nn
from torch.optim import lr_scheduler

from study.config import Config
from study.errors import UserError, nearest

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
"""Torch's own; timm's factory makes the others."""


def create(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of a config for a model; UserError where timm has none of that name."""
    if config.optimizer.startswith("timm:"):
        return _from_timm(config, model)
    given = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.momentum is not None:
        given |= {"momentum": config.momentum, "nesterov": bool(config.nesterov)}
    return OPTIMIZERS[config.optimizer](_parameter_groups(config, model), **given)


def _parameter_groups(config: Config, model: nn.Module) -> list[dict]:
    """Put norms and biases, the parameters of one dimension, apart where they are not to decay."""
    parameters = list(model.parameters())
    if config.decay_norm_bias:
        return [{"params": parameters}]
    return [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _from_timm(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    from timm.optim import create_optimizer_v2, list_optimizers

    name = config.optimizer.removeprefix("timm:")
    if name not in list_optimizers():
        raise UserError(f"timm has no optimizer {name!r}; {nearest(name, list_optimizers())}")
    try:
        return create_optimizer_v2(
            _parameter_groups(config, model), name, lr=config.lr, weight_decay=config.weight_decay
        )
    except (AssertionError, ImportError, TypeError, ValueError) as error:
        raise UserError(f"optimizer timm:{name} cannot be made here: {error}") from None


def schedule(config: Config, optimizer: torch.optim.Optimizer, batches: int) -> lr_scheduler.LRScheduler:
    """Build the schedule of a config, in steps of one batch, for epochs of so many batches."""
    total = config.epochs * batches
    if config.schedule == "onecycle":
        return lr_scheduler.OneCycleLR(optimizer, max_lr=config.lr, total_steps=total + 1, cycle_momentum=False)
    warmup = min(round(config.warmup_epochs * batches), total - 1)
    main = {
        "none": lambda: lr_scheduler.LambdaLR(optimizer, _constant),
        "step": lambda: lr_scheduler.StepLR(optimizer, config.step_epochs * batches, config.step_factor),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - warmup),
    }[config.schedule]
    if not warmup:
        return main()
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return lr_scheduler.SequentialLR(optimizer, [rise, main()], milestones=[warmup])


def _constant(step: int) -> float:
    return 1.0
