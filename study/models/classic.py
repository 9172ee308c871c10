"""Build the small networks of the assignments.

python -c "from study import models; from study.config import Config; \\
    print(models.create(Config(model='cnn'), (3, 32, 32), 10))"
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence

from torch import nn

from study.config import Config
from study.models.layers import Network, activations, convolution, dense, flat_size

Shape = tuple[int, int, int]
Kind = dict[str, int | bool]
"""Keyword arguments of `layers.convolution`."""

BLOCK: Kind = {"kernel": 3, "padding": 1, "pool": 2}


def convnet(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build blocks of convolution 3×3, activation and pooling, then fully connected layers."""
    return _convolutional(config, image_shape, classes, _blocks(config), name="block")


def all_conv(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build blocks, then a 1×1 convolution with a filter per class, and average each of its feature maps."""
    blocks = _convolutions(config, image_shape, activations(config), _blocks(config), name="block")
    flat_size(blocks, image_shape)
    head = OrderedDict(
        dropout=nn.Dropout2d(config.dropout),
        classes=nn.Conv2d(config.filters[-1], classes, 1),
        mean=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )
    return Network(blocks, nn.Sequential(head))


def perceptron(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build fully connected layers on the flattened image, with dropout after some of them.

    `net1` has dropout after the 2nd and 5th hidden layer, `net2` after every second one from the 1st, `net3` after the
    3rd, the others after the last.
    """
    # Choose the layers with dropout
    hidden = len(config.hidden)
    dropouts = {"net1": {2, 5}, "net2": range(1, hidden + 1, 2), "net3": {3}}.get(config.model, {hidden})

    # Build the layers; the last one is the head
    channels, height, width = image_shape
    layers = dense(config, channels * height * width, classes, activations(config), dropouts)
    output = list(layers).index(layers.get_submodule(f"fc{hidden + 1}"))
    return Network(layers[:output], layers[output:])


def netconv(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build two convolutions 5×5 with pooling, then a deep stack of fully connected layers (after LeNet-5)."""
    return _convolutional(config, image_shape, classes, [{"kernel": 5, "pool": 2}] * 2)


def simple_cnn(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build two convolutions 3×3, one pooling, one hidden layer."""
    return _convolutional(config, image_shape, classes, [{"kernel": 3, "padding": 1}, BLOCK])


def alexnet(config: Config, image_shape: Shape, classes: int) -> Network:
    """Build AlexNet for images of 32×32 px (after Krizhevsky, Sutskever, Hinton 2012): five convolutions."""
    kinds: list[Kind] = [
        {"kernel": 5, "stride": 2, "padding": 2, "pool": 2, "pool_first": True},
        {"kernel": 5, "padding": 2, "pool": 2, "pool_first": True},
        {"kernel": 3, "padding": 1},
        {"kernel": 3, "padding": 1},
        {"kernel": 3, "padding": 1, "pool": 2, "pool_first": True},
    ]
    return _convolutional(config, image_shape, classes, kinds, dropouts={0, 1})


def _blocks(config: Config) -> list[Kind]:
    return [BLOCK] * len(config.filters)


def _convolutional(
    config: Config,
    image_shape: Shape,
    classes: int,
    kinds: Sequence[Kind],
    name: str = "conv",
    dropouts: Collection[int] | None = None,
) -> Network:
    """Build convolutions, then fully connected layers with dropout after the last hidden one, or after `dropouts`."""
    activation = activations(config)
    features = _convolutions(config, image_shape, activation, kinds, name)
    dropouts = {len(config.hidden)} if dropouts is None else dropouts
    return Network(features, dense(config, flat_size(features, image_shape), classes, activation, dropouts))


def _convolutions(
    config: Config, image_shape: Shape, activation: Iterator[nn.Module], kinds: Sequence[Kind], name: str
) -> nn.Sequential:
    """Build a convolution for each width in `filters`, named name1, name2…"""
    sizes = [image_shape[0], *config.filters]
    layers = OrderedDict()
    for number, kind in enumerate(kinds, 1):
        layers[f"{name}{number}"] = convolution(config, *sizes[number - 1 : number + 1], activation=activation, **kind)
    return nn.Sequential(layers)
