"""Measure a network: its parameters, FLOPs, depth, and the outputs of its layers.

    python -c "from study import models; from study.config import Config; \\
        print(models.count(models.create(Config(model='cnn'), (3, 32, 32), 10), (3, 32, 32)))"

`measure` is called before training; it prints a line about what cannot be measured.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from graphlib import TopologicalSorter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from study.system import devices
from study.system.errors import UserError, is_out_of_memory, one_line
from study.system.progress import Say

LAYERS = {
    "intermediate": "no block before its last layer returns a row for each image",
    "penultimate": "no convolution and no linear layer gets a row for each image",
}
"""The layers before the logits, with the reason why a network may lack them."""

FEATURE_BLOCKS = ("features", "layer4", "inception5b")
"""Names of the last block of features in our own and in torchvision's networks; timm's have a method instead."""

WEIGHT_LAYERS = ("ConvolutionBackward0", "AddmmBackward0", "MmBackward0")
"""Names of convolutions and fully connected layers, with or without biases, in torch's autograd graph."""

KNOWN = ("torch.nn.modules.", "torchvision.models.", "study.models.layers")
"""Packages of modules that compute matrix products only in convolutions and linear layers."""


def measure(model: nn.Module, images: Tensor, classes: int, name: str, say: Say) -> dict[str, int]:
    """Return the results of `count` and `count_behind`, as far as possible; `say` gets a line about the rest.

    `images` are a few prepared images (n, channels, height, width). The network and torch's random generators keep
    their state. Raises UserError if the network does not return logits (n, classes).
    """
    generator_states = devices.generators(images.device)
    image_shape = tuple(images.shape[1:])
    lacking: list[str] = []
    try:
        # Find the layers that evaluation.npz will hold
        with as_it_predicts(model, gradients=False), torch.inference_mode():
            outputs = activations(model, images)
        if not isinstance(outputs["logits"], Tensor) or outputs["logits"].shape != (len(images), classes):
            raise UserError(
                f"{name} must return logits of shape (images, {classes}), not {_described(outputs['logits'])}"
            )
        lacking += [f"its {layer} layer ({why})" for layer, why in LAYERS.items() if layer not in outputs]

        # Count the parameters, and whatever else can be counted
        result = _count_parameters(model)
        for quantity, count_it in (
            ("its FLOPs", lambda: _flops_in_all(model, image_shape)),
            ("the parameters behind each layer", lambda: count_behind(model, image_shape)),
        ):
            try:
                result |= count_it()
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                lacking.append(f"{quantity} ({one_line(error)})")
    finally:
        devices.set_generators(images.device, generator_states)
    if lacking:
        say(f"{name} cannot be measured in full; left out: {'; '.join(lacking)}")
    return result


def _described(output: Any) -> str:
    return str(tuple(output.shape)) if isinstance(output, Tensor) else f"a {type(output).__name__}"


def count(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count parameters, their bytes, and the FLOPs of one image: 2 × multiply-adds of convolutions and matmuls."""
    return _count_parameters(model) | _flops_in_all(model, image_shape)


def _count_parameters(model: nn.Module) -> dict[str, int]:
    parameters = list(model.parameters())
    return {
        "params": sum(p.numel() for p in parameters),
        "param_bytes": sum(p.numel() * p.element_size() for p in parameters),
    }


def _flops_in_all(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count the FLOPs of one image; raise ValueError if there is no operation that counts."""
    total = sum(flops(model, image_shape).values())
    if not total:
        raise ValueError("no convolution and no matrix product is found")
    return {"flops": total}


@contextmanager
def as_it_predicts(model: nn.Module, gradients: bool) -> Iterator[None]:
    """Put a network in eval mode for a `with` block, with gradients for all parameters or for none."""
    modes = [(module, module.training) for module in model.modules()]
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(gradients)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)


def flops(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count the FLOPs of one image for each module by its path, without those of its submodules."""
    image = torch.zeros(1, *image_shape, device=next(model.parameters()).device)
    count_flops = _flops_of_layers if _is_of_layers(model) else _flops_of_operations
    with as_it_predicts(model, gradients=False), torch.no_grad():
        return count_flops(model, image)


def _is_of_layers(model: nn.Module) -> bool:
    """Return whether all matrix products of a network are in convolutions and fully connected layers."""
    weights = [
        (module, weight) for module in model.modules() for weight in module.parameters(recurse=False) if weight.ndim > 1
    ]
    return all(isinstance(module, nn.Conv2d | nn.Linear) for module, _ in weights) and all(
        type(module).__module__.startswith(KNOWN) for module in model.modules()
    )


def _flops_of_layers(model: nn.Module, image: Tensor) -> dict[str, int]:
    """Count the FLOPs of a network whose matrix products are all in convolutions and fully connected layers."""
    result: dict[str, int] = {}

    def add(path: str, layer: nn.Module, output: Tensor) -> None:
        products = layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else layer.in_features
        result[path] = result.get(path, 0) + 2 * products * output.numel()

    # Count in a hook of every layer
    hooks = [
        module.register_forward_hook(lambda layer, inputs, output, path=path: add(path, layer, output))
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    model(image)
    for hook in hooks:
        hook.remove()
    return result


def _flops_of_operations(model: nn.Module, image: Tensor) -> dict[str, int]:
    """Count the FLOPs of any network, including attention; importing torch's counter takes a second.

    No parameter may require a gradient: torch's counter would look for the history of parameters passed to a module.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # Turn off fused attention, which the counter misses on a CPU and in torch's own layers
    unfused = sdpa_kernel(SDPBackend.MATH)
    was_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)

    # Count for each module the FLOPs between its start and its end, less those of its submodules
    paths = {module: path for path, module in model.named_modules()}
    result = {}
    running: list[list[int]] = []  # for each running module: [FLOPs before it, FLOPs of its submodules]

    def enter(module: nn.Module, inputs: Any) -> None:
        running.append([counter.get_total_flops(), 0])

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        before, within = running.pop()
        spent = counter.get_total_flops() - before
        result[paths[module]] = result.get(paths[module], 0) + spent - within
        if running:
            running[-1][1] += spent

    hooks = [module.register_forward_pre_hook(enter) for module in paths]
    hooks += [module.register_forward_hook(leave) for module in paths]

    # Run the network
    try:
        with unfused, FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)
        for hook in hooks:
            hook.remove()
    return result


def activations(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return layer outputs of a network in eval mode for images (n, channels, height, width), one row per image.

    `logits` is (n, classes). `penultimate` is the input of the last weight layer, with averaged feature maps.
    `intermediate` is the last block of features, averaged to at most 512 columns. A layer without a row for each image
    is left out.
    """
    # Run the network, and catch its layers
    caught: dict[str, Any] = {}
    with watched(model, caught):
        logits = model(images)
    block = feature_block(caught)
    if is_channels_last(model) and isinstance(block, Tensor) and block.ndim == 4:
        block = block.movedim(-1, 1)

    # Average each to a row per image
    result = {"logits": logits}
    if penultimate := _rows(caught.get("penultimate"), len(images)):
        result["penultimate"] = _averaged(penultimate[0])
    if parts := _rows(block, len(images)):
        result["intermediate"] = _at_most(512, torch.cat([_averaged(part) for part in parts], 1))
    return result


def feature_block(caught: dict[str, Any]) -> Any:
    """Return the output of the last block of features that `watched` has caught, None without one."""
    return caught.get("block", caught.get("maps", caught.get("part")))


def is_channels_last(model: nn.Module) -> bool:
    """Return whether feature maps of a network are (n, height, width, channels), as those of timm's Swin are."""
    return getattr(model, "output_fmt", "NCHW") == "NHWC"


@contextmanager
def watched(model: nn.Module, caught: dict[str, Any]) -> Iterator[None]:
    """Catch layer outputs of a network while it runs: `penultimate`, and the last `block` of features.

    For a network without a block of a known name, `maps` is the last output of one of its parts before the last weight
    layer that are feature maps or tokens, and `part` the last output of any kind.
    """
    latest: dict[str, Any] = {}

    def catch_input(_: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        caught["penultimate"] = inputs[0] if inputs else keywords.get("input")
        caught.update(latest)

    def catch_output(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        output = output[0] if isinstance(output, tuple) and output else output  # of attention and recurrent layers
        latest["part"] = output
        if (
            isinstance(output, Tensor)
            and output.ndim > 2
            and output[0].numel() > output.shape[1 if output.ndim > 3 else -1]
        ):
            latest["maps"] = output

    # Watch the inputs of weight layers and the outputs of the network's parts
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(catch_input, with_kwargs=True) for layer in layers]
    hooks += [part.register_forward_hook(catch_output) for part in _parts(model)]

    # Watch the last block of features, by its name or by timm's method
    blocks = (getattr(model, name, None) for name in FEATURE_BLOCKS)
    if block := next((block for block in blocks if isinstance(block, nn.Module)), None):
        hooks.append(block.register_forward_hook(lambda _, inputs, output: caught.update(block=output)))
    forward_features = getattr(model, "forward_features", None)
    if forward_features is not None:

        def watched(*args: Any, **kwargs: Any) -> Any:
            caught["block"] = forward_features(*args, **kwargs)
            return caught["block"]

        model.forward_features = watched

    # Remove all of it afterwards
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        if forward_features is not None:
            with suppress(AttributeError):
                del model.forward_features


def _parts(model: nn.Module) -> list[nn.Module]:
    """List the submodules of a network at the first level that has several."""
    parts = list(_children(model))
    while len(parts) == 1 and any(True for _ in parts[0].children()):
        parts = list(_children(parts[0]))
    return parts


def _children(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the direct children of a module, and for a list or dict of modules its items."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _children(child)
        else:
            yield child


def _rows(value: Any, images: int) -> list[Tensor]:
    """List the tensors with a row for each image in a tensor or a nested list, tuple or dict of tensors."""
    if isinstance(value, Tensor):
        return [value] if value.ndim > 1 and len(value) == images and value.is_floating_point() else []
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for item in values for tensor in _rows(item, images)]


def count_behind(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count the parameters of the network up to each layer of `activations`.

    A layer without a gradient, to neither the images nor the parameters, is left out.
    """
    images = torch.zeros(1, *image_shape, device=next(model.parameters()).device, requires_grad=True)
    with as_it_predicts(model, gradients=True):
        outputs = activations(model, images.clone())  # the network may change them in place
        return {f"params_{name}": _count_graph(layer) for name, layer in outputs.items() if layer.requires_grad}


def depth(logits: Tensor) -> int:
    """Count the convolutions and fully connected layers on the longest path from images to logits, with gradient."""
    graph = _graph(logits)
    depths = {}
    for node in TopologicalSorter(graph).static_order():
        depths[node] = max((depths[before] for before in graph[node]), default=0) + (node.name() in WEIGHT_LAYERS)
    return max(depths.values())


def _count_graph(result: Tensor) -> int:
    """Count the parameters in the autograd graph of a tensor."""
    variables = [node.variable for node in _graph(result) if hasattr(node, "variable")]
    return sum(variable.numel() for variable in variables if isinstance(variable, nn.Parameter))


def _graph(result: Tensor) -> dict[Node, list[Node]]:
    """Return the autograd graph of a tensor: each operation with those that it depends on."""
    graph = {}
    todo = [result.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in graph:
            graph[node] = [before for before, _ in node.next_functions if before is not None]
            todo += graph[node]
    return graph


def _averaged(features: Tensor) -> Tensor:
    """Average feature maps over the finest even grid with at most 512 outputs; average tokens over all of them."""
    if features.ndim == 3:
        return features.mean(1)
    if features.ndim == 4:
        _, channels, height, width = features.shape
        finest = max(1, math.isqrt(512 // channels))
        side = max(side for side in range(1, finest + 1) if height % side == width % side == 0)
        features = nn.functional.adaptive_avg_pool2d(features, side)
    return features.flatten(1)


def _at_most(count: int, features: Tensor) -> Tensor:
    """Average neighbouring columns of (n, columns) so that at most `count` are left."""
    group = -(-features.shape[1] // count)
    full_groups = features[:, : features.shape[1] // group * group]
    return full_groups.unflatten(1, (-1, group)).mean(2)
