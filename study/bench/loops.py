"""The training loops that the benchmark compares: common ones and this project's.

    for _ in reference(config, device, workers=0): ...    # each turn trains on one batch

A loop may yield before the device has finished the work of the batch.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from study import models
from study.config import Config
from study.data import dataset as data_sets
from study.data.dataset import Data
from study.system.errors import UserError
from study.training.trainer import Trainer

Loop = Iterator[None]


class Pictures(torch.utils.data.Dataset):
    """A data set of PIL pictures and labels, like those of torchvision."""

    def __init__(self, data: Data, transform: Callable | None = None):
        from PIL import Image

        arrays = data.train.images.permute(0, 2, 3, 1).numpy()
        self.images = [Image.fromarray(image.squeeze()) for image in arrays]
        self.labels = data.train.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.images[index]
        return (self.transform(image) if self.transform else image), self.labels[index]


def check(config: Config, data: Data) -> None:
    """Raise UserError for a config that not all of these loops can train."""
    _transform(config, data)
    if config.batch_size >= len(data.train):
        raise UserError(
            f"batch_size must be less than {len(data.train):,}, the training images of {config.dataset}, to be compared"
        )


def _transform(config: Config, data: Data) -> Callable:
    """Return torchvision's transforms for the augmentations of a config; raise UserError if it lacks one."""
    from torchvision import transforms

    # Map the augmentations to transforms
    strengths = config.augmentations
    color = strengths.get("color")
    known = {
        "flip": lambda: transforms.RandomHorizontalFlip(),
        "crop": lambda: transforms.RandomCrop(data.image_shape[1], round(data.image_shape[1] * strengths["crop"])),
        "rotate": lambda: transforms.RandomRotation(strengths["rotate"]),
        "perspective": lambda: transforms.RandomPerspective(strengths["perspective"], p=1.0),
        "trivialaugment": transforms.TrivialAugmentWide,
        "randaugment": lambda: transforms.RandAugment(magnitude=strengths["randaugment"]),
        "color": lambda: transforms.ColorJitter(brightness=color, contrast=color, saturation=color),
    }
    if unknown := set(strengths) - set(known):
        raise UserError(f"torchvision's transforms have no {', '.join(sorted(unknown))} to compare with")

    # Compose those of the config, followed by normalisation
    return transforms.Compose(
        [known[name]() for name in strengths] + [transforms.ToTensor(), transforms.Normalize(*_scaled(data))]
    )


def _scaled(data: Data) -> list[tuple[float, ...]]:
    """Return the mean and standard deviation for values from 0 to 1."""
    return [tuple(value / 255 for value in values) for values in (data.mean, data.std)]


def _plain_step(config: Config, data: Data, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a training step for a new network as it is commonly written; the step returns the loss."""
    torch.manual_seed(0)
    model = models.create(config, data.image_shape, len(data.classes)).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        output = model(images.to(device))
        logits = output[0] if isinstance(output, tuple) else output  # auxiliary heads come after the logits
        loss = nn.functional.cross_entropy(logits, labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def reference(config: Config, device: torch.device, workers: int) -> Loop:
    """Train like a tutorial: PIL images, transforms and a DataLoader."""
    data = data_sets.load(config, "cpu")
    # Make the loader
    loader = torch.utils.data.DataLoader(
        Pictures(data, _transform(config, data)),
        config.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=True,
        pin_memory=device.type == "cuda",
    )
    # Train, waiting for the loss at every step
    step = _plain_step(config, data, device)
    while True:
        for images, labels in loader:
            step(images, labels).item()
            yield


def timm_loader(config: Config, device: torch.device, workers: int) -> Loop:
    """Train with timm's loader, which has the flip, but its own crop and colour jitter instead of the others."""
    from timm.data import create_loader

    # Make the loader
    data = data_sets.load(config, "cpu")
    mean, std = _scaled(data)
    loader = create_loader(
        Pictures(data),
        data.image_shape,
        config.batch_size,
        is_training=True,
        no_aug=not config.augment,
        color_jitter=config.color_strength or 0.0,
        mean=mean,
        std=std,
        num_workers=workers,
        device=device,
        persistent_workers=workers > 0,
    )

    # Train
    step = _plain_step(config, data, device)
    while True:
        for images, labels in loader:
            step(images, labels)
            yield


def tensors(config: Config, device: torch.device) -> Loop:
    """Train from tensors on the device, without augmentation."""
    data = data_sets.load(config, device)
    images = data.normalise(data.train.images).contiguous()
    step = _plain_step(config, data, device)
    while True:
        for indices in torch.randperm(len(images), device=device).split(config.batch_size)[:-1]:
            step(images[indices], data.train.labels[indices])
            yield


def ours(config: Config, device: torch.device, precision: str) -> Loop:
    """Train with this project's trainer."""
    trainer = Trainer(config, data_sets.load(config, device), device, precision)
    while True:
        for _ in trainer.train_epoch():
            yield
        trainer.progress.batch = 0
        trainer.progress.epoch += 1
