"""The one registry of networks.

python -c "from study import models; print(models.names())"
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from study.config import Config
from study.models import classic

NETWORKS = {
    "single-block": classic.convnet,
    "two-block": classic.convnet,
    "cnn": classic.convnet,
    "mlp": classic.mlp,
    "all-conv": classic.all_conv,
}


def names() -> tuple[str, ...]:
    """List the names that `create` knows."""
    return tuple(NETWORKS)


def create(config: Config, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the network of a config for images (channels, height, width); UserError where they are too small for it.

    Its `features` end in the last block of features, its `head` in logits (n, classes).
    """
    return NETWORKS[config.model](config, image_shape, classes)


def count(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count parameters, their bytes, and the FLOPs of one image: 2 × multiply-adds of convolutions and matrices."""
    parameters = list(model.parameters())
    image = torch.zeros(1, *image_shape, device=parameters[0].device)
    training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(image)
    model.train(training)
    return {
        "params": sum(p.numel() for p in parameters),
        "param_bytes": sum(p.numel() * p.element_size() for p in parameters),
        "flops": counter.get_total_flops(),
    }


def activations(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return what a network computes for images (n, channels, height, width), one row per image.

    `logits` (n, classes); `penultimate`, what the last weight layer gets; `intermediate`, the last block of
    features. Feature maps are averaged to at most 512 numbers.
    """
    caught: dict[str, Tensor] = {}
    last = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    hooks = [
        last.register_forward_pre_hook(lambda _, given: caught.update(penultimate=given[0])),
        model.features.register_forward_hook(lambda _, given, result: caught.update(intermediate=result)),
    ]
    try:
        logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {"logits": logits, **{name: _at_most_512(tensor) for name, tensor in caught.items()}}


def _at_most_512(features: Tensor) -> Tensor:
    """Average feature maps (n, channels, height, width) over the finest even grid that 512 numbers allow."""
    if features.ndim == 4:
        _, channels, height, width = features.shape
        finest = max(1, math.isqrt(512 // channels))
        side = max(side for side in range(1, finest + 1) if height % side == width % side == 0)
        features = nn.functional.adaptive_avg_pool2d(features, side)
    return features.flatten(1)
