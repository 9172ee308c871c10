"""Build VGG, configurations A to E (Simonyan, Zisserman 2014, https://arxiv.org/abs/1409.1556, table 1).

    python -m analysis.anatomy vgg --table

After five poolings, the first fully connected layer gets feature maps of 7×7 for images of 224 px, as in the paper,
and of 1×1 for images of 32 px.
"""

from collections import OrderedDict

from torch import nn

from study.config import Config
from study.models.layers import Block, Network, activations, dense, flat_size

CONVOLUTIONS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg11-lrn": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16-1x1": (2, 2, 3, 3, 3),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
"""Number of convolutions in each block: configurations A, A-LRN, B, C, D and E."""


def vgg(config: Config, image_shape: tuple[int, int, int], classes: int) -> Network:
    """Build five blocks of convolutions, each ending in a pooling, then fully connected layers with dropout."""
    activation = activations(config)

    # Build the blocks
    channels = image_shape[0]
    blocks = OrderedDict()
    for block, (filters, count) in enumerate(zip(config.filters, CONVOLUTIONS[config.model], strict=True), start=1):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for place in range(1, count + 1):
            kernel = 1 if config.model == "vgg16-1x1" and place == 3 else 3
            layers[f"conv{place}"] = nn.Conv2d(channels, filters, kernel, padding=kernel // 2)
            if config.batch_norm:
                layers[f"norm{place}"] = nn.BatchNorm2d(filters)
            layers[f"activation{place}"] = next(activation)
            if config.model == "vgg11-lrn" and block == 1:
                layers["lrn"] = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2)
            channels = filters
        layers["pool"] = nn.MaxPool2d(2)
        blocks[f"Conv{block}"] = Block(layers)

    # Add the fully connected layers
    features = nn.Sequential(blocks)
    hidden = len(config.hidden)
    flat = flat_size(features, image_shape)
    network = Network(features, dense(config, flat, classes, activation, range(1, hidden + 1), batch_norm=False))
    _initialise(network)
    return network


def _initialise(network: nn.Module) -> None:
    """Initialize weights after He et al. 2015, as torchvision does; with torch's defaults, deep VGGs do not learn."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
