"""Write a network as PyTorch code.

    python -m analysis.anatomy two-block --code

A network of blocks that follow each other becomes one class. Others, such as ResNets, are printed as their library has
them.
"""

import ast
import inspect

from torch import nn

from study.models.layers import Network

INDENT = 8 * " "


def written(model: nn.Module, name: str) -> str:
    """Return the code of a network: a class, with how the parameters of each layer are counted."""
    if isinstance(model, Network):
        return _as_class(model, name)
    kinds = {type(module): None for module in model.modules() if not type(module).__module__.startswith("torch.nn.")}
    return "\n\n".join(f"# {kind.__module__}\n{inspect.getsource(kind)}" for kind in kinds)


def _as_class(model: Network, name: str) -> str:
    """Write a network of blocks that follow each other."""
    # the blocks, each with its layers
    blocks = [(part, block) for half in (model.features, model.head) for part, block in half.named_children()]
    parts = [part for part, _ in blocks]
    lines = []
    for part, block in blocks:
        inner = [*block.children()]
        if not inner:
            lines.append(f"{INDENT}self.{part} = {_with_count(block, '')}")
        else:
            lines += [f"{INDENT}self.{part} = nn.Sequential(", *(f"    {INDENT}{_with_count(x, ',')}" for x in inner)]
            lines.append(f"{INDENT})")

    # the class around them
    steps = [f"{INDENT}images = self.{part}(images)" for part in parts[:-1]]
    return "\n".join(
        [
            "from torch import nn",
            "",
            "",
            f"class {''.join(word.capitalize() for word in name.split('-'))}(nn.Module):",
            "    def __init__(self):",
            f"{INDENT}super().__init__()",
            *lines,
            "",
            "    def forward(self, images):",
            *steps,
            f"{INDENT}return self.{parts[-1]}(images)",
            "",
        ]
    )


def _with_count(layer: nn.Module, end: str) -> str:
    """Write a layer, and as a comment how its parameters are counted."""
    counted = derivation(layer)
    total = sum(parameter.numel() for parameter in layer.parameters())
    return f"{_call(layer)}{end}" + (f"  # {counted} = {total:,} parameters" if counted else "")


def _call(layer: nn.Module) -> str:
    """Write the call that makes a layer, without arguments that are the defaults."""
    kind = type(layer)
    call = ast.parse(f"{kind.__name__}({layer.extra_repr()})", mode="eval").body
    parameters = inspect.signature(kind).parameters
    words = [ast.unparse(argument) for argument in call.args]
    for keyword in call.keywords:
        # a number for a pair of equal ones
        value = ast.literal_eval(keyword.value)
        if isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]

        # without its name, if no argument before it has been left out
        is_next = keyword.arg == list(parameters)[len(words)]
        if value != parameters[keyword.arg].default and (keyword.arg != "stride" or value != _size(layer)):
            words.append(repr(value) if is_next else f"{keyword.arg}={value!r}")
    return f"nn.{kind.__name__}({', '.join(words)})"


def _size(layer: nn.Module) -> int | None:
    """Return the side of the windows of a pooling, which is its stride if none is given."""
    return layer.kernel_size if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) else None


def derivation(layer: nn.Module) -> str:
    """Return how the parameters of a layer are counted, such as `(3·3·64 + 1)·128`; empty if it has none of its own."""
    match layer:
        case nn.Conv2d():
            height, width = layer.kernel_size
            products, outputs = f"{height}·{width}·{layer.in_channels // layer.groups}", layer.out_channels
        case nn.Linear():
            products, outputs = f"{layer.in_features}", layer.out_features
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return f"2·{layer.num_features}" if layer.affine else ""
        case _:
            return ""
    return f"({products} + 1)·{outputs}" if layer.bias is not None else f"{products}·{outputs}"
