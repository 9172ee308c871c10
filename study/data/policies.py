"""TrivialAugment and RandAugment of a whole batch: every image gets its own operation, strength and direction.

    images = trivial_augment(images, None, generator)

The operations and their strengths are those of torchvision, with bilinear interpolation. All operations are computed
for all images, and each image takes its own: choosing images for an operation would wait for the device.
"""

from typing import NamedTuple

import torch
from torch import Tensor

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip

LARGEST = 30
"""Strengths are whole numbers from 0 to this one."""

RANDAUGMENT_OPERATIONS = 2
"""Number of operations that RandAugment applies to each image."""


class Space(NamedTuple):
    """The largest strength of each operation: shear, shifts in pixels, angle, change of colours, bits to drop."""

    shear: float
    shift_x: float
    shift_y: float
    degrees: float
    factor: float
    bits: int


def trivial_augment(images: Tensor, strength: None, generator: torch.Generator) -> Tensor:
    """Apply one random operation of random strength to each image; return float32.

    The wide space of Müller, Hutter 2021 (https://arxiv.org/abs/2103.10158), but no shift is larger than the image.
    """
    height, width = images.shape[2:]
    space = Space(0.99, min(32, width), min(32, height), 135, 0.99, 6)
    return _apply_random(images, _draw(images, LARGEST + 1, generator) / LARGEST, space, generator)


def rand_augment(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Apply two random operations of one strength, from 0 to 30, to each image; return float32.

    After Cubuk et al. 2019 (https://arxiv.org/abs/1909.13719).
    """
    height, width = images.shape[2:]
    space = Space(0.3, width * 150 / 331, height * 150 / 331, 30, 0.9, 4)
    level = torch.full((len(images),), strength / LARGEST, device=images.device)
    for _ in range(RANDAUGMENT_OPERATIONS):
        images = _apply_random(images, level, space, generator)
    return images


def _apply_random(images: Tensor, level: Tensor, space: Space, generator: torch.Generator) -> Tensor:
    """Draw an operation and a direction for each image, and apply them."""
    operation = _draw(images, len(OPERATIONS), generator)
    direction = 2 * _draw(images, 2, generator) - 1
    return apply(images, operation, level, direction, space)


def apply(images: Tensor, operation: Tensor, level: Tensor, direction: Tensor, space: Space) -> Tensor:
    """Apply to each image (n, channels, height, width), from 0 to 255, the operation with its index (n,).

    `level` (n,) is the strength as a share of the largest; `direction` (n,), 1 or -1, is its sign where it has one.
    """
    images = images.float().contiguous()
    signed = level * direction

    def takes(*names: str) -> Tensor:
        """Return which images take one of some operations (n, 1, 1, 1), bool."""
        return sum(operation == OPERATIONS.index(name) for name in names).bool().view(-1, 1, 1, 1)

    def only(name: str, values: Tensor) -> Tensor:
        """Return the values (n,) of the images that take an operation, and 0 for the others."""
        return values * (operation == OPERATIONS.index(name))

    # Move pixels
    moved = _moved(
        images,
        shear=(only("shear_x", space.shear * signed), only("shear_y", space.shear * signed)),
        shift=(
            only("translate_x", (space.shift_x * signed).trunc()),
            only("translate_y", (space.shift_y * signed).trunc()),
        ),
        angle=only("rotate", space.degrees * torch.pi / 180 * signed),
    )
    result = torch.where(takes("shear_x", "shear_y", "translate_x", "translate_y", "rotate"), moved, images)

    # Move colours away from, or towards, an image that lacks brightness, colour, contrast or sharpness
    grey = _grey(images)
    lacking = torch.where(takes("color"), grey, torch.zeros_like(images))
    lacking = torch.where(takes("contrast"), grey.mean((1, 2, 3), keepdim=True), lacking)
    lacking = torch.where(takes("sharpness"), _blurred(images), lacking)
    factor = (1 + space.factor * signed).view(-1, 1, 1, 1)
    blended = (lacking + factor * (images - lacking)).clamp(0, 255)
    result = torch.where(takes("brightness", "color", "contrast", "sharpness"), blended, result)

    # Change each value by itself
    step = 1 << (space.bits * level).round().int().view(-1, 1, 1, 1)
    result = torch.where(takes("posterize"), (images / step).floor() * step, result)
    is_bright = images >= 255 * (1 - level).view(-1, 1, 1, 1)
    result = torch.where(takes("solarize") & is_bright, 255 - images, result)

    # Spread the values of each channel
    result = torch.where(takes("autocontrast"), _stretched(images), result)
    return torch.where(takes("equalize"), _equalized(images), result)


def _moved(images: Tensor, shear: tuple[Tensor, Tensor], shift: tuple[Tensor, Tensor], angle: Tensor) -> Tensor:
    """Shear about the corner, shift in pixels and rotate each image by one interpolation; uncovered pixels are black.

    Of an image's five values (n,) at most one is not 0.
    """
    height, width = images.shape[2:]
    wide, high = width / height, height / width
    sine, cosine = angle.sin(), angle.cos()
    x_row = [cosine, high * (shear[0] - sine), high * shear[0] - 2 / width * shift[0]]
    y_row = [wide * (shear[1] + sine), cosine, wide * shear[1] - 2 / height * shift[1]]
    maps = torch.stack([torch.stack(x_row, 1), torch.stack(y_row, 1)], 1)
    grid = torch.nn.functional.affine_grid(maps, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, mode="bilinear", align_corners=False)


def _grey(images: Tensor) -> Tensor:
    """Return the luminance of images (n, 1, height, width)."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def _blurred(images: Tensor) -> Tensor:
    """Return the weighted mean of each pixel, which counts 5, and its eight neighbours; the border stays."""
    if min(images.shape[2:]) < 3:
        return images
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    blurred = images.clone()
    inner = blurred[..., 1:-1, 1:-1]
    inner.mul_(4).add_(sums).div_(13)
    return blurred


def _stretched(images: Tensor) -> Tensor:
    """Scale each channel to the range from 0 to 255; a channel of one value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, 255 * (images - low) / (high - low).clamp(min=1e-6), images)


def _equalized(images: Tensor) -> Tensor:
    """Map the values of each channel, rounded, so that all are about as frequent, as Pillow does."""
    # Count the values of each channel, and how many pixels are below each value
    values = images.round().clamp(0, 255).long().flatten(2)
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.int32, device=images.device)
    counts.scatter_add_(2, values, torch.ones_like(values, dtype=torch.int32))
    below = counts.cumsum(2, dtype=torch.int32) - counts

    # Map each value; a channel in which nearly all pixels have its largest value stays
    largest = values.amax(2, keepdim=True)
    step = below.gather(2, largest).div(255, rounding_mode="floor")
    table = ((below + step // 2) // step.clamp(min=1)).clamp(0, 255)
    mapped = torch.where(step > 0, table.gather(2, values), values)
    return mapped.view(images.shape).float()


def _draw(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw a whole number below `count` for each image."""
    return torch.randint(count, (len(images),), generator=generator, device=images.device)
