"""Create optimizers and learning rate schedules by name.

optimizer = create(config, model)
factor = schedule(config, batches_per_epoch, history)
set_learning_rate(optimizer, factor(iteration))    # before every batch
average = MovingAverage(model, decay=0.999)
average.update(model)                              # after every batch
"""

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from study.config import Config
from study.system import devices
from study.system.errors import UserError, is_out_of_memory, nearest, reason

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
"""Optimizers of torch; timm creates all others."""

TRIED_STEPS = 2
"""Number of steps for which a timm optimizer is tried before training."""

OF_THE_DEVICE = ("fused", "capturable")
"""Options of optimizers that depend on the device."""


def create(config: Config, model: nn.Module, heads: Sequence[str] = ()) -> torch.optim.Optimizer:
    """Build the optimizer of a config for a model.

    `heads` are the paths of a pretrained network's new layers; all other layers get `body_lr_factor` times the learning
    rate. Raises UserError if timm has no optimizer of that name, or if it does not work on this machine.
    """
    groups = _parameter_groups(config, model, heads)
    if config.optimizer.startswith("timm:"):
        return _from_timm(config, groups)
    device = next(model.parameters()).device.type

    # Set the options
    parameters = [parameter for group in groups for parameter in group["params"]]
    options = {
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "fused": config.optimizer != "sgd" or device != "cpu" or _fused_sgd_is_alike(config, parameters),
    }
    if config.optimizer != "sgd" and device == "cuda":
        options["capturable"] = True
    if config.momentum is not None:
        options |= {"momentum": config.momentum, "nesterov": bool(config.nesterov)}
    return OPTIMIZERS[config.optimizer](groups, **options)


def _fused_sgd_is_alike(config: Config, parameters: Sequence[torch.Tensor]) -> bool:
    """Return whether on a CPU torch's fused SGD computes the same as the plain one, bit for bit, and faster.

    It copies channels-last weights at every step. It rounds once where the plain one rounds twice, which is the same
    only without weight decay and if the momentum is 0 or a power of two, as 0.5 is.
    """
    is_exact = not config.weight_decay and math.frexp(config.momentum or 0.0)[0] in (0.0, 0.5)
    return is_exact and all(parameter.is_contiguous() for parameter in parameters)


def _parameter_groups(config: Config, model: nn.Module, heads: Sequence[str]) -> list[dict]:
    """Group the parameters by learning rate and weight decay, which differ for a pretrained body, norms and biases.

    Norms and biases are the parameters of one dimension. Frozen parameters are in no group.
    """
    # Sort the parameters into groups
    in_heads = tuple(f"{head}." for head in heads)
    groups: dict[tuple[bool, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        in_body = bool(heads) and not name.startswith(in_heads)
        without_decay = not config.decay_norm_bias and parameter.ndim < 2
        group = groups.setdefault((in_body, without_decay), {"params": []})
        group["params"].append(parameter)

        # Set what differs from the optimizer's defaults
        if in_body:
            group["lr"] = config.lr * config.body_lr_factor
        if without_decay:
            group["weight_decay"] = 0.0
    return list(groups.values())


def _from_timm(config: Config, groups: list[dict]) -> torch.optim.Optimizer:
    """Build an optimizer of timm; raise UserError if timm does not have it, or if it does not work here."""
    from timm.optim import get_optimizer_info

    name = known_name(config.optimizer.removeprefix("timm:"))

    # Build it, after a trial
    build = timm_builder(config)
    device = groups[0]["params"][0].device
    try:
        optimizer = build(groups)
        _try(build, device)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        is_second_order = get_optimizer_info(name).second_order
        problem = "it needs second derivatives, which are not computed" if is_second_order else reason(error)
        raise UserError(f"optimizer timm:{name} cannot train here ({problem}); name another --optimizer") from None
    return optimizer


def known_name(name: str) -> str:
    """Return a name of timm's optimizers; raise UserError if timm does not have it."""
    from timm.optim import list_optimizers

    if name not in list_optimizers():
        raise UserError(f"timm has no optimizer {name!r}; {nearest(name, list_optimizers())}")
    return name


def timm_builder(config: Config) -> Callable[..., torch.optim.Optimizer]:
    """Return a function that builds a config's optimizer of timm for parameters or groups of them."""
    from timm.optim import create_optimizer_v2

    name = config.optimizer.removeprefix("timm:")
    return partial(create_optimizer_v2, opt=name, lr=config.lr, weight_decay=config.weight_decay)


def _try(build: Callable[[list[torch.Tensor]], torch.optim.Optimizer], device: torch.device) -> None:
    """Take a few steps with an optimizer on the weights and biases of a convolution and a linear layer.

    This fails for optimizers that need second derivatives, or libraries that this machine lacks. Torch's random
    generators keep their state.
    """
    generator_states = devices.generators(device)
    try:
        # Make weights without random numbers
        shapes = ((2, 1, 3, 3), (2,), (2, 8), (2,))
        weights = [torch.full(shape, 0.1, device=device, requires_grad=True) for shape in shapes]

        # Take steps
        optimizer = build(weights)
        images = torch.linspace(-1, 1, 32, device=device).view(2, 1, 4, 4)
        for _ in range(TRIED_STEPS):
            optimizer.zero_grad(set_to_none=True)
            maps = nn.functional.conv2d(images, *weights[:2])
            nn.functional.linear(maps.flatten(1), *weights[2:]).square().mean().backward()
            optimizer.step()
    finally:
        devices.set_generators(device, generator_states)


def load(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load an optimizer's `state_dict`, which may have been saved on another kind of device."""
    own = [{name: group[name] for name in OF_THE_DEVICE if name in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, own, strict=True):
        group.update(values)


def schedule(config: Config, batches: int, history: Sequence[Mapping[str, float]] = ()) -> Callable[[int], float]:
    """Return the schedule of a config: a function from the number of finished batches to a factor of the learning rate.

    `batches` is their number in an epoch; `history` are the rows of the epochs so far, on which only a plateau depends.
    The factors are those of timm, or of torch's LinearLR, StepLR, CosineAnnealingLR and OneCycleLR, but a function of
    the batch has no state to save.
    """
    # One cycle has its own warm-up
    total = config.epochs * batches
    if config.schedule == "onecycle":
        return lambda batch: _one_cycle(batch, total)

    # The others follow a linear warm-up
    warmup = min(round(config.warmup_epochs * batches), total - 1)
    main: Callable[[int], float]
    if config.schedule.startswith("timm:"):
        main = _of_timm(config, total - warmup, history)
    else:
        main = {
            "none": lambda batch: 1.0,
            "step": lambda batch: config.step_factor ** (batch // (config.step_epochs * batches)),
            "cosine": lambda batch: _cosine(1.0, 0.0, batch / (total - warmup)),
        }[config.schedule]
    return lambda batch: (batch + 1) / (warmup + 1) if batch < warmup else main(batch - warmup)


def _of_timm(config: Config, total: int, history: Sequence[Mapping[str, float]]) -> Callable[[int], float]:
    """Return a schedule of timm over `total` batches; a plateau goes through the rows of the epochs after warm-up."""
    from timm.scheduler import create_scheduler_v2

    # Let it set the learning rate of an optimizer of its own
    name = config.schedule.removeprefix("timm:")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    if name != "plateau":
        cycles = config.cycles or 1
        scheduler, _ = create_scheduler_v2(
            optimizer,
            name,
            num_epochs=total / cycles,
            decay_rate=config.poly_power,
            cycle_limit=cycles,
            cycle_decay=1.0,
            step_on_epochs=False,
            updates_per_epoch=1,
        )

        def factor(batch: int) -> float:
            scheduler.step_update(batch)
            return optimizer.param_groups[0]["lr"]

        return factor

    # A plateau changes it only after an epoch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # timm advises against it, because it does not save its state
        scheduler, _ = create_scheduler_v2(
            optimizer, name, patience_epochs=config.step_epochs, decay_rate=config.step_factor, plateau_mode="min"
        )
    for row in history:
        if row["epoch"] > config.warmup_epochs:
            scheduler.step(row["epoch"], row["val/loss"])
    return lambda batch: optimizer.param_groups[0]["lr"]


def _one_cycle(batch: int, total: int) -> float:
    """Rise to 1 in the first 30 %, then fall to almost 0 (Smith, Topin 2018, https://arxiv.org/abs/1708.07120)."""
    start = 1 / 25
    end = 1 / 25e4
    top = 0.3 * (total + 1) - 1
    if batch <= top:
        return _cosine(start, 1.0, batch / top)
    return _cosine(1.0, end, (batch - top) / (total - top))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of each group to its initial learning rate times `factor`."""
    for group in optimizer.param_groups:
        lr = group.setdefault("initial_lr", float(group["lr"])) * factor
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def prepare_capture(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Keep what a CUDA graph reads at each step on the device: the learning rates, and the number of steps."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", float(group["lr"]))
        group["lr"] = torch.tensor(float(group["lr"]), device=device)

        # Optimizers that count their steps do it on the device if told so
        if "capturable" in group:
            group["capturable"] = optimizer.defaults["capturable"] = True
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                if "step" in state:
                    state["step"] = torch.as_tensor(state["step"], dtype=torch.float32, device=device)


class MovingAverage:
    """The exponential moving average of a network's weights and buffers, as a network.

    The decay of update n is (1 + n) / (10 + n), at most `decay`. Otherwise the initial weights would count for too
    long.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.updates = torch.zeros((), device=next(model.parameters()).device)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights after a step, without waiting for the device."""
        # Move floating-point values towards those of the model
        self.updates += 1
        share = 1 - ((1 + self.updates) / (10 + self.updates)).clamp(max=self.decay)
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        blended = [pair for pair in pairs if pair[0].is_floating_point()]
        averages, values = map(list, zip(*blended, strict=True))
        steps = torch._foreach_sub(values, averages)
        torch._foreach_mul_(steps, share)
        torch._foreach_add_(averages, steps)

        # Copy counters
        for own, other in pairs:
            if not own.is_floating_point():
                own.copy_(other)
