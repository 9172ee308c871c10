"""Building blocks of this study's own networks.

features = nn.Sequential(OrderedDict(block1=convolution(config, 3, 32, 3, activations(config), padding=1, pool=2)))
Network(features, dense(config, flat_size(features, image_shape), classes, activations(config), {1}))
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Iterator
from itertools import cycle

import torch
from torch import Tensor, nn

from study.config import Config

ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


class TooSmall(Exception):
    """The images are too small for the network."""


class Network(nn.Sequential):
    """Applies `features`, then a `head` that returns logits."""

    def __init__(self, features: nn.Module, head: nn.Module):
        super().__init__(OrderedDict(features=features, head=head))


class Block(nn.Sequential):
    """A sequence of layers that is faster in training if it ends in ReLU and max-pooling.

    Training pools first, which gives the same values and gradients with less work. In eval mode the layers keep their
    order, so that hooks see the layers as documented.
    """

    def forward(self, images: Tensor) -> Tensor:
        layers = list(self)
        if self.training and [type(layer) for layer in layers[-2:]] == [nn.ReLU, nn.MaxPool2d]:
            layers[-2:] = layers[-1], layers[-2]
        for layer in layers:
            images = layer(images)
        return images


def activations(config: Config) -> Iterator[nn.Module]:
    """Yield an activation module for each layer, cycling through those of the config."""
    return (ACTIVATIONS[name]() for name in cycle(config.activation))


def convolution(
    config: Config,
    channels: int,
    filters: int,
    kernel: int,
    activation: Iterator[nn.Module],
    *,
    stride: int = 1,
    padding: int = 0,
    pool: int = 0,
    pool_first: bool = False,
) -> nn.Sequential:
    """Build a convolution, batch norm if `config.batch_norm`, an activation, and max-pooling after or before it."""
    layers = OrderedDict(conv=nn.Conv2d(channels, filters, kernel, stride, padding))
    if config.batch_norm:
        layers["norm"] = nn.BatchNorm2d(filters)
    layers["activation"] = next(activation)
    if pool:
        layers["pool"] = nn.MaxPool2d(pool)
    if pool_first:
        layers.move_to_end("activation")
    return Block(layers)


def dense(
    config: Config,
    inputs: int,
    classes: int,
    activation: Iterator[nn.Module],
    dropouts: Collection[int],
    batch_norm: bool | None = None,
) -> nn.Sequential:
    """Build the fully connected layers fc1, fc2… of a config; the last one returns logits.

    `dropouts` holds the numbers of the hidden layers that dropout follows; 0 is before the first. `batch_norm`
    overrides the config's.
    """
    # Flatten the features
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    if 0 in dropouts:
        layers["dropout"] = nn.Dropout(config.dropout)

    # Add the hidden layers
    units = config.hidden
    for number, (in_features, out_features) in enumerate(zip([inputs, *units], units, strict=False), 1):
        layer = OrderedDict(linear=nn.Linear(in_features, out_features))
        if config.batch_norm if batch_norm is None else batch_norm:
            layer["norm"] = nn.BatchNorm1d(out_features)
        layer["activation"] = next(activation)
        if number in dropouts:
            layer["dropout"] = nn.Dropout(config.dropout)
        layers[f"fc{number}"] = nn.Sequential(layer)

    # Add the last layer
    layers[f"fc{len(units) + 1}"] = nn.Linear(units[-1], classes)
    if config.softmax_output:
        layers["softmax"] = nn.Softmax(1)
    return nn.Sequential(layers)


def flat_size(features: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the number of outputs of `features` for one image; raise TooSmall if the image is too small for it."""
    image = torch.zeros(1, *image_shape, device=next(features.parameters()).device)
    try:
        with torch.no_grad():
            size = features.eval()(image).numel()
    except RuntimeError:
        raise TooSmall from None
    finally:
        features.train()
    if size == 0:
        raise TooSmall
    return size


class AveragePool(nn.Module):
    """Adaptive average pooling to side × side, on any device.

    MPS has `nn.AdaptiveAvgPool2d` only if `side` divides the height and the width (pytorch 96056).
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        height, width = maps.shape[-2:]
        if maps.device.type != "mps" or (height % self.side == 0 and width % self.side == 0):
            return nn.functional.adaptive_avg_pool2d(maps, self.side)
        return averaging(height, self.side).to(maps) @ maps @ averaging(width, self.side).to(maps).T


def averaging(size: int, side: int) -> Tensor:
    """Return the matrix (side, size) that averages `size` numbers over `side` windows, which may overlap."""
    rows = torch.zeros(side, size)
    for row in range(side):
        start = row * size // side
        end = math.ceil((row + 1) * size / side)
        rows[row, start:end] = 1 / (end - start)
    return rows
