"""The assignments' own networks.

python -c "from study import models, config; print(models.create(config.Config(model='cnn'), (3, 32, 32), 10))"
"""

import math
from collections import OrderedDict

import torch
from torch import nn

from study.config import Config
from study.errors import UserError


class Network(nn.Sequential):
    """`features`, then a `head` that ends in logits."""

    def __init__(self, features: nn.Module, head: nn.Module):
        super().__init__(OrderedDict(features=features, head=head))


def convnet(config: Config, image_shape: tuple[int, int, int], classes: int) -> Network:
    """Build blocks of convolution, ReLU and pooling, then a hidden fully connected layer."""
    blocks = _blocks(config, image_shape)
    with torch.no_grad():
        flat = blocks(torch.zeros(1, *image_shape)).numel()
    return Network(blocks, nn.Sequential(nn.Flatten(), *_hidden(config, flat), *_output(config, flat, classes)))


def mlp(config: Config, image_shape: tuple[int, int, int], classes: int) -> Network:
    """Build a perceptron with hidden layers on the flattened image."""
    flat = math.prod(image_shape)
    return Network(nn.Sequential(nn.Flatten(), *_hidden(config, flat)), nn.Sequential(*_output(config, flat, classes)))


def all_conv(config: Config, image_shape: tuple[int, int, int], classes: int) -> Network:
    """Build blocks, then a 1×1 convolution with a filter per class and the mean of each of its feature maps."""
    filters = _widths(config.filters)[-1]
    head = [nn.Dropout2d(config.dropout), nn.Conv2d(filters, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Network(_blocks(config, image_shape), nn.Sequential(*head))


def _blocks(config: Config, image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Build convolution 3×3 'same', ReLU, max-pool 2 for each width in `filters`."""
    channels, height, width = image_shape
    blocks = nn.Sequential()
    for filters in _widths(config.filters):
        blocks.append(nn.Sequential(nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)))
        channels = filters
    smallest = 2 ** len(blocks)
    if min(height, width) < smallest:
        raise UserError(f"{config.model} needs images of at least {smallest} px, not {height}×{width}")
    return blocks


def _hidden(config: Config, inputs: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for units in _widths(config.hidden):
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return layers


def _output(config: Config, flat: int, classes: int) -> list[nn.Module]:
    return [nn.Dropout(config.dropout), nn.Linear((_widths(config.hidden) or [flat])[-1], classes)]


def _widths(text: str) -> list[int]:
    return [int(width) for width in text.split(",")]
