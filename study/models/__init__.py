"""The registry of networks: names, and functions that build them.

python -c "from study import models; print(models.names())"
"""

import torch
from torch import nn

from study.config import Config
from study.config.choices import SMALLEST_SIDES
from study.models import classic, library, vgg
from study.models.layers import TooSmall
from study.models.measure import activations, count, count_behind, depth, flops, measure
from study.system.errors import UserError, expect

__all__ = ["NETWORKS", "activations", "count", "count_behind", "create", "depth", "flops", "measure", "names"]

NETWORKS = {
    "single-block": classic.convnet,
    "two-block": classic.convnet,
    "cnn": classic.convnet,
    "mlp": classic.perceptron,
    "all-conv": classic.all_conv,
    "net": classic.perceptron,
    "net1": classic.perceptron,
    "net2": classic.perceptron,
    "net3": classic.perceptron,
    "netconv": classic.netconv,
    "simple-cnn": classic.simple_cnn,
    "alexnet": classic.alexnet,
    **dict.fromkeys(vgg.CONVOLUTIONS, vgg.vgg),
    "googlenet": library.googlenet,
    "resnet18": library.resnet,
    "resnet34": library.resnet,
    "resnet50": library.resnet,
    "timm:": library.from_timm,
}


def names() -> tuple[str, ...]:
    """List the names that `create` accepts; `timm:` stands for all names with this prefix."""
    return tuple(NETWORKS)


def create(config: Config, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the network of a config for images (channels, height, width); raise UserError if they are too small.

    The network returns logits (n, classes). With auxiliary heads, it returns a tuple of logits in training mode, the
    main ones first.
    """
    # Look up the network
    name = "timm:" if config.model.startswith("timm:") else config.model
    if name not in NETWORKS:
        raise UserError(
            f"model {name!r} is in study/config/choices.py, but NETWORKS in study/models/__init__.py lacks it"
        )

    # Build it
    try:
        model = NETWORKS[name](config, image_shape, classes)
        expect(model, nn.Module, f"the function of {name!r} in NETWORKS must return a network (an nn.Module)")
        return _with_weights(model, image_shape)
    except TooSmall as error:
        smallest = SMALLEST_SIDES.get(config.model)
        size = "×".join(map(str, image_shape[1:]))
        problem = (
            f"needs images of at least {smallest} px, not" if smallest else f"cannot be built ({error}) for images of"
        )
        raise UserError(f"{config.model} {problem} {size}") from None


def _with_weights(model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """Run lazy layers on an image once, so that they create their weights."""
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        with torch.no_grad():
            model.eval()(torch.zeros(1, *image_shape))
        model.train()
    return model
