"""What a network is made of: the parameters, memory, shapes and FLOPs of every layer.

    python -m analysis.anatomy vgg16 [--image-size 224] [--classes 1000] [--format text|md|tex|csv]
    python -m analysis.anatomy vgg --table                   # configurations A to E of the VGG paper
    python -m analysis.anatomy cnn all-conv --compare        # and a picture of where their parameters sit

Networks are built on the meta device: nothing is allocated or computed.
"""

import math

import pandas as pd

from analysis.wording import label
from study.config import Config

VGG = {
    "vgg11": "A", "vgg11-lrn": "A-LRN", "vgg13": "B", "vgg16-1x1": "C", "vgg16": "D", "vgg19": "E",
}  # fmt: skip
"""The configurations' names in the paper."""

IMAGENET = (*VGG, "googlenet", "resnet18", "resnet34", "resnet50")

COUNTS = ["weights", "biases", "params", "param_bits", "param_mb", "activation_mb", "flops"]


def native(model: str) -> tuple[tuple[int, int, int], int]:
    """Return the (channels, height, width) and the number of classes for which a network was designed."""
    if model.startswith("timm:"):
        import timm

        given = timm.models.get_pretrained_cfg(model.removeprefix("timm:"))
        return (tuple(given.input_size), given.num_classes) if given else ((3, 224, 224), 1000)
    if model in IMAGENET:
        return (3, 224, 224), 1000
    return ((1, 28, 28) if model == "simple-cnn" else (3, 32, 32)), 10


def layers(config: Config, image_shape: tuple[int, int, int], classes: int) -> pd.DataFrame:
    """Return a row per layer that has parameters or makes more or fewer numbers, in the order in which they compute.

    Columns: block, layer, kind, output (shape for one image), weights, biases, params, param_bits and param_mb
    (float32, MB = 10⁶ bytes), activation_mb (of the output, float32), flops (2 × multiply-adds of convolutions and
    matrix products, one image). Layers that only training uses (auxiliary heads) come last, without an output.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from study import models

    with torch.device("meta"):
        model = models.create(config, image_shape, classes).eval()
        image = torch.zeros(1, *image_shape)
    paths = {module: path for path, module in model.named_modules()}
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def note(module, given, result) -> None:
        inside = given[0].shape[1:] if given and isinstance(given[0], torch.Tensor) else ()
        outside = result if isinstance(result, torch.Tensor) else next(iter(result))
        shapes.setdefault(paths[module], (tuple(inside), tuple(outside.shape[1:])))

    for module in model.modules():
        module.register_forward_hook(note)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    flops = {key: sum(count.values()) for key, count in counter.get_flop_counts().items()}
    rows = []
    for path in [*shapes, *(path for path in paths.values() if path not in shapes)]:
        module = model.get_submodule(path)
        inside, outside = shapes.get(path, ((), ()))
        own = {name: parameter.numel() for name, parameter in module.named_parameters(recurse=False)}
        biases = sum(count for name, count in own.items() if "bias" in name)
        computed = _own_flops(model, module, path, flops)
        is_leaf = not any(True for _ in module.children())
        if own or computed or (is_leaf and math.prod(inside) != math.prod(outside)):
            words = path.removeprefix("features.").removeprefix("head.").split(".")
            rows.append(
                {
                    "block": words[0] or config.model,
                    "layer": ".".join(words[1:]) or words[0],
                    "kind": _kind(module),
                    "output": "×".join(map(str, outside)),
                    "weights": sum(own.values()) - biases,
                    "biases": biases,
                    "activations": math.prod(outside) if outside else 0,
                    "flops": computed,
                }
            )
    frame = pd.DataFrame(rows)
    frame["params"] = frame.weights + frame.biases
    frame["param_bits"] = 32 * frame.params
    frame["param_mb"] = 4e-6 * frame.params
    frame["activation_mb"] = 4e-6 * frame.activations
    return frame


def _own_flops(model, module, path: str, flops: dict[str, int]) -> int:
    """Return the FLOPs of a module that no module within it computes."""

    def total(place: str) -> int:
        return flops.get(f"{type(model).__name__}.{place}" if place else type(model).__name__, 0)

    return total(path) - sum(total(f"{path}.{name}".lstrip(".")) for name, _ in module.named_children())


def _kind(module) -> str:
    """Name the kind of a layer as a table does."""
    name = type(module).__name__
    if name.startswith("Conv2d"):
        height, width = module.kernel_size
        stride = f" /{module.stride[0]}" if module.stride[0] > 1 else ""
        return f"conv {height}×{width}{stride}" + (f", {module.groups} groups" if module.groups > 1 else "")
    if name == "MaxPool2d":
        return f"max-pool {module.kernel_size}×{module.kernel_size}"
    known = {"Linear": "linear", "BatchNorm2d": "batch norm", "BatchNorm1d": "batch norm", "Flatten": "flatten"}
    return known.get(name, "mean" if name == "AdaptiveAvgPool2d" else name)


def with_totals(frame: pd.DataFrame) -> pd.DataFrame:
    """Put the sums of each block before its layers and those of all at the end; `level` tells which is which."""
    parts = []
    for block in frame.block.unique():
        chosen = frame[frame.block == block]
        if len(chosen) > 1 or chosen.layer.iloc[0] != block:
            sums = {"block": block, "layer": "", "output": chosen.output.iloc[-1], **chosen[COUNTS].sum()}
            parts += [pd.DataFrame([{"level": "block", **sums}]), chosen.assign(level="layer")]
        else:
            parts.append(chosen.assign(level="block", layer=""))
    total = {"level": "total", "block": label("total"), "layer": "", **frame[COUNTS].sum()}
    joined = pd.concat([*parts, pd.DataFrame([total])], ignore_index=True)
    joined[["kind", "output"]] = joined[["kind", "output"]].fillna("")
    whole = [name for name in COUNTS if not name.endswith("mb")]
    return joined.astype(dict.fromkeys(whole, "int64"))[["level", "block", "layer", "kind", "output", *COUNTS]]


def summary(config: Config, frame: pd.DataFrame) -> dict[str, object]:
    """Return the totals of a network, and the share of its parameters that sits in fully connected layers."""
    return {
        "model": config.model,
        "weight_layers": int(frame.kind.str.startswith(("conv", "linear")).sum()),
        "params": int(frame.params.sum()),
        "params_millions": frame.params.sum() / 1e6,
        "param_mb": frame.param_mb.sum(),
        "dense_share": 100 * frame.params[frame.kind == "linear"].sum() / frame.params.sum(),
        "activation_mb": frame.activation_mb.sum(),
        "flops": int(frame.flops.sum()),
    }
