"""The one registry of networks.

python -c "from study import models; print(models.names())"
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from study.config import Config
from study.errors import UserError
from study.models import classic, library, vgg
from study.models.layers import TooSmall

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

LARGEST_SIDE = 512
"""Where the search ends for the smallest images that a network takes."""

FEATURE_BLOCKS = ("features", "layer4", "inception5b")
"""What the last block of features is called, in our own networks and in torchvision's; timm's have a method."""


def names() -> tuple[str, ...]:
    """List the names that `create` knows; `timm:` stands for all that begin so."""
    return tuple(NETWORKS)


def create(config: Config, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the network of a config for images (channels, height, width); UserError where they are too small for it.

    It returns logits (n, classes); in training, where it has auxiliary heads, a tuple of logits with the main ones
    first.
    """
    build = NETWORKS["timm:" if config.model.startswith("timm:") else config.model]
    try:
        return build(config, image_shape, classes)
    except TooSmall as error:
        channels, height, width = image_shape
        smallest = _smallest(build, config, channels, min(height, width), classes)
        if smallest is None:
            raise UserError(f"{config.model} cannot be built for images of {height}×{width}: {error}") from None
        raise UserError(f"{config.model} needs images of at least {smallest} px, not {height}×{width}") from None


def _smallest(build, config: Config, channels: int, side: int, classes: int) -> int | None:
    """Find the smallest square images, larger than `side`, that a network takes; nothing is computed for it."""
    for larger in range(side + 1, LARGEST_SIDE + 1):
        try:
            with torch.device("meta"):
                build(config, (channels, larger, larger), classes)
            return larger
        except TooSmall:
            continue
    return None


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
    """Return what a network in eval mode computes for images (n, channels, height, width), one row per image.

    `logits` (n, classes); `penultimate`, what the last weight layer gets, feature maps averaged; `intermediate`,
    the last block of features, averaged to at most 512 numbers.
    """
    caught: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, given: caught.update(penultimate=given[0]))
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    block = next((getattr(model, name) for name in FEATURE_BLOCKS if hasattr(model, name)), None)
    if block is not None:
        hooks.append(block.register_forward_hook(lambda _, given, result: caught.update(intermediate=result)))
    try:
        if hasattr(model, "forward_features"):
            caught["intermediate"] = model.forward_features(images)
            logits = model.forward_head(caught["intermediate"])
        else:
            logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        caught["intermediate"] = caught["intermediate"].movedim(-1, 1)
    return {
        "logits": logits,
        "penultimate": _averaged(caught["penultimate"]),
        "intermediate": _at_most(512, _averaged(caught["intermediate"])),
    }


def _averaged(features: Tensor) -> Tensor:
    """Average feature maps over the finest even grid that gives at most 512 numbers, and tokens over all of them."""
    if features.ndim == 3:
        return features.mean(1)
    if features.ndim == 4:
        _, channels, height, width = features.shape
        finest = max(1, math.isqrt(512 // channels))
        side = max(side for side in range(1, finest + 1) if height % side == width % side == 0)
        features = nn.functional.adaptive_avg_pool2d(features, side)
    return features.flatten(1)


def _at_most(count: int, features: Tensor) -> Tensor:
    """Average neighbouring columns of (n, columns) until there are at most so many."""
    group = -(-features.shape[1] // count)
    whole = features[:, : features.shape[1] // group * group]
    return whole.unflatten(1, (-1, group)).mean(2)
