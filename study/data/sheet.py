"""Draw examples of augmentation as a picture.

python -m study.train --dataset digits --augment flip,rotate --show-augment sheet.png
"""

from collections.abc import Callable
from pathlib import Path

from study.config import Config
from study.system.errors import UserError


def show_augment(config: Config, path: Path, say: Callable[[str], None]) -> None:
    """Draw the first training image and 63 augmented copies of it, as the network sees them, into a picture.

    Raises UserError without augmentation or if the path is neither .png nor .jpg.
    """
    # Check the request before torch is imported
    if not config.augment:
        raise UserError("there is nothing to show without --augment, such as --augment=flip,crop")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"{path} must end in .png or .jpg")
    import torch
    from torchvision.utils import make_grid, save_image

    from study.data import dataset as data_sets
    from study.data.augment import augment

    # Augment copies of the first image
    data = data_sets.load(config, "cpu", say)
    image = data.resize(data.train.images[:1])
    generator = torch.Generator().manual_seed(config.seed % 2**63)
    copies = augment(image.expand(63, -1, -1, -1), config.augmentations, generator)

    # Draw them in a grid, small images enlarged
    grid = make_grid(torch.cat([image.float(), copies.float()]) / 255, nrow=8, padding=2, pad_value=1.0)
    scale = max(1, 96 // image.shape[-1])
    enlarged = grid.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(enlarged, path)
    say(f"{path}: the original image, then 63 augmented copies")
