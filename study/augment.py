"""Augmentation of a whole batch at once: a different draw for every image.

augment(images, ["flip", "crop"], generator)
"""

from collections.abc import Collection

import torch
from torch import Tensor


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its side in both directions; what comes in is black."""
    n, channels, height, width = images.shape
    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    padded = torch.nn.functional.pad(images, (pad_x, pad_x, pad_y, pad_y))
    device = images.device
    top = torch.randint(2 * pad_y + 1, (n, 1, 1, 1), generator=generator, device=device)
    left = torch.randint(2 * pad_x + 1, (n, 1, 1, 1), generator=generator, device=device)
    rows = top + torch.arange(height, device=device).view(1, 1, -1, 1)
    columns = left + torch.arange(width, device=device).view(1, 1, 1, -1)
    image = torch.arange(n, device=device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, -1, 1, 1)
    return padded[image, channel, rows, columns]


AUGMENTATIONS = {"flip": flip, "crop": crop}
"""In the order in which they are applied."""


def augment(images: Tensor, names: Collection[str], generator: torch.Generator) -> Tensor:
    """Apply the named augmentations to images (n, channels, height, width) of any type; shape and type are kept."""
    for name, function in AUGMENTATIONS.items():
        if name in names:
            images = function(images, generator)
    return images
