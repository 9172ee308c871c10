"""Augment a whole batch at once, with a different random draw for every image.

    images = augment(images, {"flip": None, "rotate": 15.0}, generator)
    images, labels = mix(images, labels, 10, {"mixup": 1.0}, generator)

Flips and crops alone move pixels exactly. With a rotation or a perspective, all changes of geometry are combined into
one map per image, so that each image is interpolated only once.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from study.data import policies
from study.system.errors import UserError

Strengths = Mapping[str, float | None]


def alternating_flips(images: int, epoch: int, generator: torch.Generator) -> Tensor:
    """Return which images an epoch mirrors (images,), bool: about half of them, and the others in the next epoch.

    After Jordan 2024 (https://arxiv.org/abs/2404.00498).
    """
    return (torch.rand(images, generator=generator) < 0.5) ^ bool(epoch % 2)


def augment(images: Tensor, strengths: Strengths, generator: torch.Generator, mirrored: Tensor | None = None) -> Tensor:
    """Apply the named augmentations, each with its strength, to images (n, channels, height, width) from 0 to 255.

    Those of MIXING are left to `mix`. Flip, crop and cutout keep the dtype; the others return float32. `mirrored` (n,)
    marks the images that a flip mirrors; it is drawn by default. The result depends only on the arguments and the
    generator's state.
    """
    # Draw the images to mirror
    if "flip" not in strengths:
        mirrored = None
    elif mirrored is None:
        mirrored = torch.rand(len(images), generator=generator, device=images.device) < 0.5

    # Move pixels: by one interpolation if needed, otherwise exactly
    if "rotate" in strengths or "perspective" in strengths:
        images = _warp(images, strengths, generator, mirrored)
    else:
        if mirrored is not None:
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
        if "crop" in strengths:
            images = _crop(images, strengths["crop"], generator)

    # Change the values of pixels
    for name, change in COLOURING.items():
        if name in strengths:
            images = change(images, strengths[name], generator)
    return images


def refuse_unknown(strengths: Strengths) -> None:
    """Raise UserError for an augmentation that nothing here computes."""
    for name in strengths:
        if name not in NAMES:
            raise UserError(
                f"augmentation {name!r} is in study/config/choices.py, but COLOURING in study/data/augment.py lacks it"
            )


def _crop(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Shift each image by up to a share of its side in both directions; uncovered pixels are black."""
    n, channels, height, width = images.shape
    device = images.device

    # Pad the images by the largest shift
    top, left = _shifts(images, share, generator)
    pad_y = _largest_shift(height, share)
    pad_x = _largest_shift(width, share)
    padded = torch.nn.functional.pad(images, (pad_x, pad_x, pad_y, pad_y))

    # Take a window of the original size from each
    rows = (top + pad_y).view(-1, 1, 1, 1) + torch.arange(height, device=device).view(1, 1, -1, 1)
    columns = (left + pad_x).view(-1, 1, 1, 1) + torch.arange(width, device=device).view(1, 1, 1, -1)
    image = torch.arange(n, device=device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, -1, 1, 1)
    return padded[image, channel, rows, columns]


def _warp(images: Tensor, strengths: Strengths, generator: torch.Generator, mirrored: Tensor | None) -> Tensor:
    """Mirror, crop, rotate and tilt each image by one bilinear interpolation; uncovered pixels are black."""
    n, _, height, width = images.shape

    # Build the maps, homogeneous 3×3 matrices from a point of the result (x, y, 1), from -1 to 1, to its source
    maps = torch.eye(3, device=images.device).repeat(n, 1, 1)
    if mirrored is not None:
        maps[:, 0, 0] -= 2.0 * mirrored
    if "crop" in strengths:
        top, left = _shifts(images, strengths["crop"], generator)
        maps[:, 0, 2] += maps[:, 0, 0] * left * 2 / width
        maps[:, 1, 2] += top * 2 / height
    if "rotate" in strengths:
        angle = _uniform(images, generator) * (strengths["rotate"] * torch.pi / 180)
        turn = torch.zeros_like(maps)
        turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
        turn[:, 0, 1] = angle.sin() * (height / width)
        turn[:, 1, 0] = -angle.sin() * (width / height)
        turn[:, 2, 2] = 1
        maps = maps @ turn
    if "perspective" in strengths:
        tilt = torch.eye(3, device=images.device).repeat(n, 1, 1)
        tilt[:, 2, 0] = _uniform(images, generator) * (strengths["perspective"] / 2)
        tilt[:, 2, 1] = _uniform(images, generator) * (strengths["perspective"] / 2)
        maps = maps @ tilt

    # Map the centre of every pixel of the result
    ys = (torch.arange(height, device=images.device) + 0.5) * 2 / height - 1
    xs = (torch.arange(width, device=images.device) + 0.5) * 2 / width - 1
    points = torch.stack(
        [xs.expand(height, -1), ys.view(-1, 1).expand(-1, width), torch.ones_like(xs).expand(height, -1)]
    )
    x, y, w = (maps @ points.reshape(3, -1)).view(n, 3, height, width).unbind(1)

    # Interpolate there
    grid = torch.stack([x / w, y / w], dim=-1)
    return torch.nn.functional.grid_sample(images.float(), grid, mode="bilinear", align_corners=False)


def _color(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change saturation, contrast and brightness of each image, each by a factor from 1-strength to 1+strength."""
    images = images.float()
    saturation, contrast, brightness = (
        (1 + strength * _uniform(images, generator)).view(-1, 1, 1, 1) for _ in range(3)
    )
    if images.shape[1] == 3:
        grey = images.mean(1, keepdim=True)
        images = grey + saturation * (images - grey)
    mean = images.mean((1, 2, 3), keepdim=True)
    return (brightness * (mean + contrast * (images - mean))).clamp(0, 255)


def _noise(images: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Add normal noise to every value; `deviation` is its standard deviation as a share of the scale."""
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return (images.float() + 255 * deviation * noise).clamp(0, 255)


def _cutout(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Fill a square of each image, whose side is a share of the image's, with the image's mean colour."""
    n, _, height, width = images.shape
    device = images.device

    # Draw the centre of each square, and mark its rows and columns
    half_y = max(0.5, height * share / 2)
    half_x = max(0.5, width * share / 2)
    centre_y = torch.randint(height, (n, 1, 1, 1), generator=generator, device=device)
    centre_x = torch.randint(width, (n, 1, 1, 1), generator=generator, device=device)
    rows = (torch.arange(height, device=device).view(1, 1, -1, 1) - centre_y).abs() < half_y
    columns = (torch.arange(width, device=device).view(1, 1, 1, -1) - centre_x).abs() < half_x

    # Fill it
    mean = images.float().mean((2, 3), keepdim=True).to(images.dtype)
    return torch.where(rows & columns, mean, images)


COLOURING: dict[str, Callable[[Tensor, float | None, torch.Generator], Tensor]] = {
    "trivialaugment": policies.trivial_augment,
    "randaugment": policies.rand_augment,
    "color": _color,
    "noise": _noise,
    "cutout": _cutout,
}
"""Augmentations of each image by itself after flips, crops and warps, in the order in which they are applied."""


def mix(
    images: Tensor, labels: Tensor, classes: int, strengths: Strengths, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with the one before it, if the strengths name mixup or cutmix.

    Returns the images and, in place of their labels (n,), the share of each class (n, classes). With both, each image
    gets one or the other. Without either, returns its arguments.
    """
    chosen = [name for name in MIXING if name in strengths]
    if not chosen:
        return images, labels

    # Mix the images, by the first that is chosen and by the second
    others = images.roll(1, 0)
    (mixed, share), *second = [MIXING[name](images, others, strengths[name], generator) for name in chosen]
    for other_mixed, other_share in second:
        is_first = _uniform(images, generator) < 0
        mixed = torch.where(is_first.view(-1, 1, 1, 1), mixed, other_mixed)
        share = torch.where(is_first, share, other_share)

    # Mix the labels
    own = (labels.view(-1, 1) == torch.arange(classes, device=labels.device)).float()
    return mixed, own.roll(1, 0).lerp(own, share.view(-1, 1))


def _mixup(images: Tensor, others: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blend each image with another; return them, float32, and the share (n,) of the first.

    After Zhang et al. 2017 (https://arxiv.org/abs/1710.09412), with a share for each image.
    """
    share = _beta(images, alpha, generator)
    return others.float().lerp(images.float(), share.view(-1, 1, 1, 1)), share


def _cutmix(images: Tensor, others: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Put a box of another image into each; return them and the share (n,) of pixels that stay.

    After Yun et al. 2019 (https://arxiv.org/abs/1905.04899), with a box for each image. What lies beyond the border
    is cut off.
    """
    n, _, height, width = images.shape
    side = (1 - _beta(images, alpha, generator)).sqrt()
    rows = _in_box(side, height, generator)
    columns = _in_box(side, width, generator)
    inside = rows.view(n, 1, -1, 1) & columns.view(n, 1, 1, -1)
    return torch.where(inside, others, images), 1 - inside.float().mean((1, 2, 3))


def _in_box(side: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Draw the centre of each box, and return which rows or columns (n, length) of the image lie within it.

    `side` (n,) is that of the box as a share of the image's.
    """
    centre = torch.randint(length, (len(side), 1), generator=generator, device=side.device)
    half = (side * (length / 2)).floor().view(-1, 1)
    places = torch.arange(length, device=side.device)
    return (places >= centre - half) & (places < centre + half)


def _beta(images: Tensor, alpha: float, generator: torch.Generator) -> Tensor:
    """Draw a number from Beta(alpha, alpha) for each image, by a formula of Devroye 1996 on Student's t."""
    power = (1 - torch.rand(len(images), generator=generator, device=images.device)) ** (1 / alpha)
    cosine = torch.cos(torch.pi * _uniform(images, generator))
    return (1 + cosine / (power / (1 - power) + cosine**2).sqrt()) / 2


MIXING: dict[str, Callable[[Tensor, Tensor, float, torch.Generator], tuple[Tensor, Tensor]]] = {
    "mixup": _mixup,
    "cutmix": _cutmix,
}
"""Augmentations that mix the images of a batch."""

NAMES = ("flip", "crop", "rotate", "perspective", *COLOURING, *MIXING)


def _largest_shift(side: int, share: float) -> int:
    return max(1, round(side * share))


def _shifts(images: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the shifts of each image in whole pixels, down and to the right."""
    largest = [_largest_shift(side, share) for side in images.shape[2:]]
    top, left = (
        torch.randint(-limit, limit + 1, (len(images),), generator=generator, device=images.device) for limit in largest
    )
    return top, left


def _uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a number from -1 to 1 for each image."""
    return torch.rand(len(images), generator=generator, device=images.device) * 2 - 1
