"""What is measured about a network: parameters, FLOPs, depth, and what its layers compute.

    python -c "from study import models; from study.config import Config; \\
        print(models.count(models.create(Config(model='cnn'), (3, 32, 32), 10), (3, 32, 32)))"

`measure` is called before a training: what cannot be measured is then left out, and a line says so.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from graphlib import TopologicalSorter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from study.system import devices
from study.system.errors import UserError, is_out_of_memory, one_line

LAYERS = {
    "intermediate": "no block before its last layer returns a row for each image",
    "penultimate": "no convolution and no linear layer gets a row for each image",
}
"""The layers before the logits, and why a network may lack each."""

FEATURE_BLOCKS = ("features", "layer4", "inception5b")
"""What the last block of features is called, in our own networks and in torchvision's; timm's have a method."""

WEIGHT_LAYERS = ("ConvolutionBackward0", "AddmmBackward0", "MmBackward0")
"""What torch calls convolutions and fully connected layers, with or without biases, in the graph of a gradient."""

KNOWN = ("torch.nn.modules.", "torchvision.models.", "study.models.layers")
"""Where the modules are defined that compute matrix products in layers of torch only."""


def measure(model: nn.Module, images: Tensor, classes: int, name: str, say: Callable[[str], None]) -> dict[str, int]:
    """Return what `count` and `count_behind` do, as far as it can be measured; `say` gets a line about the rest.

    `images` are a few prepared ones (n, channels, height, width). The network and torch's random generators are left as
    they were. Raises UserError where the network does not return logits (n, classes).
    """
    before, image_shape = devices.generators(images.device), tuple(images.shape[1:])
    lacking: list[str] = []
    try:
        # the layers of real images, as evaluation.npz is to hold them
        with _as_it_predicts(model, gradients=False), torch.inference_mode():
            found = activations(model, images)
        if not isinstance(found["logits"], Tensor) or found["logits"].shape != (len(images), classes):
            raise UserError(
                f"{name} must return logits of shape (images, {classes}), not {_described(found['logits'])}"
            )
        lacking += [f"its {layer} layer ({why})" for layer, why in LAYERS.items() if layer not in found]

        # sizes: the parameters always, and what else can be counted
        result = _count_parameters(model)
        for what, counted in (
            ("its FLOPs", lambda: _flops_in_all(model, image_shape)),
            ("the parameters behind each layer", lambda: count_behind(model, image_shape)),
        ):
            try:
                result |= counted()
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                lacking.append(f"{what} ({one_line(error)})")
    finally:
        devices.set_generators(images.device, before)
    if lacking:
        say(f"{name} cannot be measured in full; left out: {'; '.join(lacking)}")
    return result


def _described(output: Any) -> str:
    return str(tuple(output.shape)) if isinstance(output, Tensor) else f"a {type(output).__name__}"


def count(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count parameters, their bytes, and the FLOPs of one image: 2 × multiply-adds of convolutions and matrices."""
    return _count_parameters(model) | _flops_in_all(model, image_shape)


def _count_parameters(model: nn.Module) -> dict[str, int]:
    parameters = list(model.parameters())
    return {
        "params": sum(p.numel() for p in parameters),
        "param_bytes": sum(p.numel() * p.element_size() for p in parameters),
    }


def _flops_in_all(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count the FLOPs of one image; ValueError where no operation is found that counts."""
    total = sum(flops(model, image_shape).values())
    if not total:
        raise ValueError("no convolution and no matrix product is found")
    return {"flops": total}


@contextmanager
def _as_it_predicts(model: nn.Module, gradients: bool) -> Iterator[None]:
    """Put a network in eval mode, with gradients for all of its parameters or for none; leave it as it was."""
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
    """Count the FLOPs of one image for each module, by its path, without those of the modules within it."""
    image = torch.zeros(1, *image_shape, device=next(model.parameters()).device)
    counted = _flops_of_layers if _is_of_layers(model) else _flops_of_operations
    with _as_it_predicts(model, gradients=False), torch.no_grad():
        return counted(model, image)


def _is_of_layers(model: nn.Module) -> bool:
    """Tell whether all matrix products of a network are those of convolutions and fully connected layers."""
    weights = [
        (module, weight) for module in model.modules() for weight in module.parameters(recurse=False) if weight.ndim > 1
    ]
    return all(isinstance(module, nn.Conv2d | nn.Linear) for module, _ in weights) and all(
        type(module).__module__.startswith(KNOWN) for module in model.modules()
    )


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
    """Count the FLOPs of any network, attention's too; torch needs a second to load what counts them.

    No parameter may want a gradient: where one is handed to a module, torch's counter would look for its history.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # fused attention, on a CPU and in torch's own layers, is not counted
    plain, fast = sdpa_kernel(SDPBackend.MATH), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    paths, result = {module: path for path, module in model.named_modules()}, {}
    running: list[list[int]] = []  # of each module that runs: what was counted before it, and within modules of its own

    def enter(module: nn.Module, given: Any) -> None:
        running.append([counter.get_total_flops(), 0])

    def leave(module: nn.Module, given: Any, made: Any) -> None:
        before, within = running.pop()
        spent = counter.get_total_flops() - before
        result[paths[module]] = result.get(paths[module], 0) + spent - within
        if running:
            running[-1][1] += spent

    hooks = [module.register_forward_pre_hook(enter) for module in paths]
    hooks += [module.register_forward_hook(leave) for module in paths]
    try:
        with plain, FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for hook in hooks:
            hook.remove()
    return result


def activations(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return what a network in eval mode computes for images (n, channels, height, width), one row per image.

    `logits` (n, classes); `penultimate`, what the last weight layer gets, feature maps averaged; `intermediate`,
    the last block of features, averaged to at most 512 numbers. A layer without a row for each image is left out.
    """
    caught: dict[str, Any] = {}
    with _watched(model, caught):
        logits = model(images)
    block = caught.get("block", caught.get("maps", caught.get("part")))
    if getattr(model, "output_fmt", "NCHW") == "NHWC" and isinstance(block, Tensor) and block.ndim == 4:
        block = block.movedim(-1, 1)
    found = {"logits": logits}
    if penultimate := _rows(caught.get("penultimate"), len(images)):
        found["penultimate"] = _averaged(penultimate[0])
    if parts := _rows(block, len(images)):
        found["intermediate"] = _at_most(512, torch.cat([_averaged(part) for part in parts], 1))
    return found


@contextmanager
def _watched(model: nn.Module, caught: dict[str, Any]) -> Iterator[None]:
    """Catch what a network computes while it runs: `penultimate`, and its last `block` of features.

    For a network without a block that is known by its name, that is the last output of one of its parts before the last
    weight layer: of its last feature `maps` or tokens, or, where there are none, of any `part`.
    """
    latest: dict[str, Any] = {}

    def catch_input(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        caught["penultimate"] = given[0] if given else named.get("input")
        caught.update(latest)

    def catch_output(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        made = made[0] if isinstance(made, tuple) and made else made  # as attention and recurrent layers return
        latest["part"] = made
        if isinstance(made, Tensor) and made.ndim > 2 and made[0].numel() > made.shape[1 if made.ndim > 3 else -1]:
            latest["maps"] = made

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(catch_input, with_kwargs=True) for layer in layers]
    hooks += [part.register_forward_hook(catch_output) for part in _parts(model)]
    named = (getattr(model, name, None) for name in FEATURE_BLOCKS)
    if block := next((one for one in named if isinstance(one, nn.Module)), None):
        hooks.append(block.register_forward_hook(lambda _, given, made: caught.update(block=made)))
    forward_features = getattr(model, "forward_features", None)
    if forward_features is not None:

        def watched(*args: Any, **kwargs: Any) -> Any:
            caught["block"] = forward_features(*args, **kwargs)
            return caught["block"]

        model.forward_features = watched
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        if forward_features is not None:
            with suppress(AttributeError):
                del model.forward_features


def _parts(model: nn.Module) -> list[nn.Module]:
    """List the modules of which a network is made, at the first level that has several."""
    parts = list(_children(model))
    while len(parts) == 1 and any(True for _ in parts[0].children()):
        parts = list(_children(parts[0]))
    return parts


def _children(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the direct children of a module, of a list or a mapping of modules those within it."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _children(child)
        else:
            yield child


def _rows(value: Any, images: int) -> list[Tensor]:
    """List the tensors with a row for each image, of one that is alone or of all in a list, a tuple or a mapping."""
    if isinstance(value, Tensor):
        return [value] if value.ndim > 1 and len(value) == images and value.is_floating_point() else []
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for one in values for tensor in _rows(one, images)]


def count_behind(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count the parameters on which each layer of `activations` depends: those of a network that is cut after it.

    A layer that gradients do not reach, neither from images nor from parameters, is left out.
    """
    images = torch.zeros(1, *image_shape, device=next(model.parameters()).device, requires_grad=True)
    with _as_it_predicts(model, gradients=True):
        found = activations(model, images.clone())  # which the network may change in place
        return {f"params_{name}": _count_graph(layer) for name, layer in found.items() if layer.requires_grad}


def depth(logits: Tensor) -> int:
    """Count the convolutions and fully connected layers on the longest path from images to logits, with gradient."""
    graph, depths = _graph(logits), {}
    for node in TopologicalSorter(graph).static_order():
        depths[node] = max((depths[before] for before in graph[node]), default=0) + (node.name() in WEIGHT_LAYERS)
    return max(depths.values())


def _count_graph(result: Tensor) -> int:
    """Count the parameters in the graph of what was computed."""
    variables = [node.variable for node in _graph(result) if hasattr(node, "variable")]
    return sum(variable.numel() for variable in variables if isinstance(variable, nn.Parameter))


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
