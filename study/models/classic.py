"""The networks of the assignments, small and from scratch.

python -c "from study import models, config; print(models.create(config.Config(model='cnn'), (3, 32, 32), 10))"
"""

from collections import OrderedDict

from torch import nn

from study.config import Config
from study.models.layers import Network, activations, convolution, dense, flat_size, widths

Shape = tuple[int, int, int]


def convnet(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build blocks of convolution 3×3, activation and pooling, then fully connected layers."""
    activation = activations(config)
    blocks = _blocks(config, image_shape, activation)
    hidden = len(widths(config.hidden))
    return Network(blocks, dense(config, flat_size(blocks, image_shape), classes, activation, {hidden}))


def all_conv(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build blocks, then a 1×1 convolution with a filter per class and the mean of each of its feature maps."""
    blocks = _blocks(config, image_shape, activations(config))
    flat_size(blocks, image_shape)
    head = OrderedDict(
        dropout=nn.Dropout2d(config.dropout),
        classes=nn.Conv2d(widths(config.filters)[-1], classes, 1),
        mean=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )
    return Network(blocks, nn.Sequential(head))


def _blocks(config: Config, image_shape: Shape, activation) -> nn.Sequential:
    """Build convolution 3×3 'same', activation, max-pool 2 for each width in `filters`."""
    channels, blocks = image_shape[0], OrderedDict()
    for place, filters in enumerate(widths(config.filters), 1):
        blocks[f"block{place}"] = convolution(config, channels, filters, 3, activation, padding=1, pool=2)
        channels = filters
    return nn.Sequential(blocks)


def perceptron(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build fully connected layers on the flattened image; where dropout stands is the network's own.

    `net1` has it after the 2nd and 5th hidden layer, `net2` after every second from the 1st, `net3` after the 3rd,
    the others after the last.
    """
    hidden = len(widths(config.hidden))
    dropouts = {"net1": {2, 5}, "net2": range(1, hidden + 1, 2), "net3": {3}}.get(config.model, {hidden})
    channels, height, width = image_shape
    layers = dense(config, channels * height * width, classes, activations(config), dropouts)
    output = list(layers).index(layers.get_submodule(f"fc{hidden + 1}"))
    return Network(layers[:output], layers[output:])


def netconv(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build two convolutions 5×5 with pooling, then a deep stack of fully connected layers (after LeNet-5)."""
    activation = activations(config)
    first, second = widths(config.filters)
    features = nn.Sequential(
        OrderedDict(
            conv1=convolution(config, image_shape[0], first, 5, activation, pool=2),
            conv2=convolution(config, first, second, 5, activation, pool=2),
        )
    )
    hidden = len(widths(config.hidden))
    return Network(features, dense(config, flat_size(features, image_shape), classes, activation, {hidden}))


def simple_cnn(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build two convolutions 3×3, one pooling, one hidden layer."""
    activation = activations(config)
    first, second = widths(config.filters)
    features = nn.Sequential(
        OrderedDict(
            conv1=convolution(config, image_shape[0], first, 3, activation, padding=1),
            conv2=convolution(config, first, second, 3, activation, padding=1, pool=2),
        )
    )
    hidden = len(widths(config.hidden))
    return Network(features, dense(config, flat_size(features, image_shape), classes, activation, {hidden}))


def alexnet(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build AlexNet for images of 32×32 px (after Krizhevsky, Sutskever, Hinton 2012): five convolutions."""
    activation = activations(config)
    sizes = [image_shape[0], *widths(config.filters)]
    kinds = (
        {"kernel": 5, "stride": 2, "padding": 2, "pool": 2, "pool_first": True},
        {"kernel": 5, "padding": 2, "pool": 2, "pool_first": True},
        {"kernel": 3, "padding": 1},
        {"kernel": 3, "padding": 1},
        {"kernel": 3, "padding": 1, "pool": 2, "pool_first": True},
    )
    features = nn.Sequential(
        OrderedDict(
            (f"conv{place}", convolution(config, sizes[place - 1], sizes[place], activation=activation, **kind))
            for place, kind in enumerate(kinds, 1)
        )
    )
    return Network(features, dense(config, flat_size(features, image_shape), classes, activation, {0, 1}))
