"""Draw examples of augmentation as a picture.

python -m study.train --dataset digits --augment flip,rotate --show-augment sheet.png
"""

from pathlib import Path

from study.config import Config
from study.system.errors import UserError
from study.system.progress import Say


def show_augment(config: Config, path: Path, say: Say) -> None:
    """Draw the first training image and 63 augmented copies of it, as the network sees them, into a picture.

    With mixup or cutmix, which need different images, it is 63 of them instead of copies.
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
    from study.data.augment import MIXING, augment, mix

    # Take the first image 63 times, or random images to mix
    data = data_sets.load(config, "cpu", say)
    generator = torch.Generator().manual_seed(config.seed % 2**63)
    is_mixed = not MIXING.keys().isdisjoint(config.augment)
    first = torch.zeros(63, dtype=torch.int64)
    batch = data.train.take(torch.randint(len(data.train), (63,), generator=generator) if is_mixed else first)

    # Augment them
    copies = augment(data.resize(batch.images), config.augmentations, generator)
    copies, _ = mix(copies, batch.labels, len(data.classes), config.augmentations, generator)

    # Draw them in a grid, small images enlarged
    image = data.resize(data.train.images[:1])
    grid = make_grid(torch.cat([image.float(), copies.float()]) / 255, nrow=8, padding=2, pad_value=1.0)
    scale = max(1, 96 // image.shape[-1])
    enlarged = grid.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(enlarged, path)
    say(f"{path}: the original image, then 63 augmented {'images' if is_mixed else 'copies'}")
