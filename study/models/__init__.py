"""The one registry of networks.

python -c "from study import models; print(models.names())"
"""

import math
from graphlib import TopologicalSorter

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from study.config import Config
from study.errors import UserError
from study.models import classic, library, vgg
from study.models.layers import TooSmall
from study.names import SMALLEST_SIDES

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

FEATURE_BLOCKS = ("features", "layer4", "inception5b")
"""What the last block of features is called, in our own networks and in torchvision's; timm's have a method."""

WEIGHT_LAYERS = ("ConvolutionBackward0", "AddmmBackward0", "MmBackward0")
"""What torch calls convolutions and fully connected layers, with or without biases, in the graph of a gradient."""


def names() -> tuple[str, ...]:
    """List the names that `create` knows; `timm:` stands for all that begin so."""
    return tuple(NETWORKS)


def create(config: Config, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the network of a config for images (channels, height, width); UserError where they are too small for it.

    It returns logits (n, classes); in training, where it has auxiliary heads, a tuple of logits with the main ones
    first.
    """
    name = "timm:" if config.model.startswith("timm:") else config.model
    if name not in NETWORKS:
        raise UserError(f"model {name!r} is in study/names.py, but NETWORKS in study/models/__init__.py lacks it")
    try:
        return NETWORKS[name](config, image_shape, classes)
    except TooSmall as error:
        smallest, side = SMALLEST_SIDES.get(config.model), "×".join(map(str, image_shape[1:]))
        why = f"needs images of at least {smallest} px, not" if smallest else f"cannot be built ({error}) for images of"
        raise UserError(f"{config.model} {why} {side}") from None


def count(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count parameters, their bytes, and the FLOPs of one image: 2 × multiply-adds of convolutions and matrices."""
    parameters = list(model.parameters())
    return {
        "params": sum(p.numel() for p in parameters),
        "param_bytes": sum(p.numel() * p.element_size() for p in parameters),
        "flops": sum(flops(model, image_shape).values()),
    }


def flops(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count the FLOPs of one image for each module, by its path, without those of the modules within it."""
    image = torch.zeros(1, *image_shape, device=next(model.parameters()).device)
    training = model.training
    counted = _flops_of_operations if hasattr(model, "forward_features") else _flops_of_layers
    with torch.no_grad():
        result = counted(model.eval(), image)
    model.train(training)
    return result


def _flops_of_layers(model: nn.Module, image: Tensor) -> dict[str, int]:
    """Count the FLOPs of a network whose matrix products are all in convolutions and fully connected layers."""
    result: dict[str, int] = {}

    def note(path: str, layer: nn.Module, made: Tensor) -> None:
        each = layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else layer.in_features
        result[path] = result.get(path, 0) + 2 * each * made.numel()

    hooks = [
        module.register_forward_hook(lambda layer, given, made, path=path: note(path, layer, made))
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    model(image)
    for hook in hooks:
        hook.remove()
    return result


def _flops_of_operations(model: nn.Module, image: Tensor) -> dict[str, int]:
    """Count the FLOPs of any network, attention's too; torch needs a second to load what counts them."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    plain = sdpa_kernel(SDPBackend.MATH)  # the fused attention of a CPU is not counted
    with plain, FlopCounterMode(display=False) as counter:
        model(image)
    root = type(model).__name__
    totals = {key.removeprefix(root).lstrip("."): sum(of.values()) for key, of in counter.get_flop_counts().items()}
    totals[""] = counter.get_total_flops()
    return {
        path: totals[path] - sum(totals.get(f"{path}.{name}".lstrip("."), 0) for name, _ in module.named_children())
        for path, module in model.named_modules()
        if path in totals
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


def count_behind(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count the parameters on which each layer of `activations` depends: those of a network that is cut after it."""
    parameters = list(model.parameters())
    trainable, training = [parameter.requires_grad for parameter in parameters], model.training
    model.eval().requires_grad_(True)
    try:
        found = activations(model, torch.zeros(1, *image_shape, device=parameters[0].device))
        return {f"params_{name}": _count_graph(features) for name, features in found.items()}
    finally:
        for parameter, flag in zip(parameters, trainable, strict=True):
            parameter.requires_grad_(flag)
        model.train(training)


def depth(logits: Tensor) -> int:
    """Count the convolutions and fully connected layers on the longest path from images to logits, with gradient."""
    graph, depths = _graph(logits), {}
    for node in TopologicalSorter(graph).static_order():
        depths[node] = max((depths[before] for before in graph[node]), default=0) + (node.name() in WEIGHT_LAYERS)
    return max(depths.values())


def _count_graph(result: Tensor) -> int:
    """Count the parameters in the graph of what was computed."""
    return sum(node.variable.numel() for node in _graph(result) if hasattr(node, "variable"))


def _graph(result: Tensor) -> dict[Node, list[Node]]:
    """Return what was computed for a result: each operation with those before it."""
    found, todo = {}, [result.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in found:
            found[node] = [before for before, _ in node.next_functions if before is not None]
            todo += found[node]
    return found


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
