"""A data set as uint8 tensors on the device, split, ready to be drawn in batches.

python -c "from study import config, data; print(data.load(config.Config(dataset='digits'), 'cpu'))"
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from study import folder, sources
from study.config import Config
from study.errors import UserError, nearest
from study.sources import Say

HOLD_OUT_10_000 = ("cifar10", "cifar100", "mnist", "fashion-mnist")


def memory_format(device: torch.device | str) -> torch.memory_format:
    """Return how a device likes images in memory; on MPS batch norm fails with channels last (pytorch 175251)."""
    return torch.contiguous_format if torch.device(device).type == "mps" else torch.channels_last


@dataclass(frozen=True)
class Split:
    """Images (n, channels, height, width) uint8 and their labels (n,) int64.

    The labels are on the device that trains; the images too, unless they do not fit there.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> "Split":
        if isinstance(index, slice):
            return Split(self.images[index], self.labels[index])
        return Split(self.images[index.to(self.images.device)], self.labels[index.to(self.labels.device)])

    def to(self, device: torch.device | str, images_too: bool = True) -> "Split":
        """Move to a device; images lie in memory as its convolutions like them."""
        images = self.images.to(device if images_too else "cpu", memory_format=memory_format(device))
        return Split(images, self.labels.to(device))

    def batches(self, size: int) -> Iterator["Split"]:
        """Yield batches in the split's own order, on the labels' device."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))

    def take(self, index: slice | Tensor) -> "Split":
        """Return the images with these indices on the labels' device."""
        part = self[index]
        return Split(part.images.to(self.labels.device, non_blocking=True), part.labels)


@dataclass(frozen=True)
class Data:
    """One data set; `mean` and `std` are those of the training pixels, per channel, on a scale from 0 to 255.

    `image_size` is the side to which batches are resized, None to keep the images' own.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None = None
    unreadable: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return the (channels, height, width) that a network sees."""
        channels, height, width = self.train.images.shape[1:]
        return (channels, self.image_size or height, self.image_size or width)

    def resize(self, images: Tensor) -> Tensor:
        """Resize uint8 images (n, channels, height, width) to `image_size`, as float32 on the same scale."""
        size = self.image_size
        if size in (None, images.shape[-1]) and size in (None, images.shape[-2]):
            return images
        return torch.nn.functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)

    def normalise(self, images: Tensor) -> Tensor:
        """Turn images on a scale from 0 to 255 into float32 of mean 0 and standard deviation 1 per channel."""
        mean, std = (_constant(values, images.device) for values in (self.mean, self.std))
        return (images.to(torch.float32) - mean) / std

    def prepared(self, batch: Split) -> Tensor:
        """Return the images of a batch as a network takes them, without augmentation."""
        return self.normalise(self.resize(batch.images))

    def describe(self) -> dict:
        """Return what `run.json` records of the data."""
        return {
            "classes": list(self.classes),
            "image_shape": list(self.image_shape),
            "mean": list(self.mean),
            "std": list(self.std),
            "unreadable": list(self.unreadable),
            "images": {"train": len(self.train), "val": len(self.val), "test": len(self.test)},
        }

    def __str__(self) -> str:
        channels, height, width = self.image_shape
        return (
            f"{self.name}: {len(self.train):,} training, {len(self.val):,} validation and {len(self.test):,} "
            f"test images of {channels}×{height}×{width}, {len(self.classes)} classes"
        )


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def load(config: Config, device: torch.device | str, say: Say = print, shared_by: int = 1) -> Data:
    """Load the data set of a config onto a device; a second call for the same data returns the same tensors.

    The images stay on the host if `shared_by` processes cannot have them on the device at once.
    Raises UserError where the data are missing, cannot be read, or cannot be split.
    """
    files = folder.of(config)
    key = (
        config.dataset, config.classes, config.data_dir, config.image_size, config.split_seed,
        files and files.stamp, str(device),
    )  # fmt: skip
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = _load(config, torch.device(device), say, shared_by)
    data = _loaded[key]
    return replace(data, train=drawn(data.train, config, data.classes))


def drawn(train: Split, config: Config, classes: tuple[str, ...]) -> Split:
    """Return the training images that a config keeps, drawn by its seed; UserError where there are fewer."""
    if config.train_images is None:
        return train
    if config.train_images > len(train):
        raise UserError(f"train_images must be at most {len(train):,}, not {config.train_images:,}")
    if config.train_images < len(classes):
        raise UserError(f"train_images must be at least {len(classes)}, one of each class, not {config.train_images}")
    return _part(train, config.train_images, config.seed, classes)[1]


_loaded: dict[tuple, Data] = {}


def _load(config: Config, device: torch.device, say: Say, shared_by: int) -> Data:
    source = sources.read(config, say)
    classes = source.classes
    splits = {name: Split(images, labels) for name, (images, labels) in source.splits.items()}
    if "test" not in splits:
        splits["train"], splits["test"] = _part(splits["train"], len(splits["train"]) // 5, config.split_seed, classes)
    if "val" not in splits:
        held_out = 10_000 if config.dataset in HOLD_OUT_10_000 else len(splits["train"]) // 5
        splits["train"], splits["val"] = _part(splits["train"], held_out, config.split_seed, classes)
    if config.classes:
        splits, classes = _chosen(splits, classes, config)
    mean, std = _pixel_statistics(splits["train"].images)
    fits = _fits(shared_by * sum(split.images.nbytes for split in splits.values()), device)
    if not fits:
        times = f", {shared_by} times," if shared_by > 1 else ""
        say(f"the images{times} do not fit half the memory of {device}: they stay on the host")
    placed = {name: split.to(device, images_too=fits) for name, split in splits.items()}
    return Data(
        config.dataset, classes, **placed, mean=mean, std=std, image_size=config.image_size,
        unreadable=source.unreadable,
    )  # fmt: skip


def _fits(size: int, device: torch.device) -> bool:
    """Tell whether so many bytes fit half of the device's memory."""
    if device.type == "cuda":
        return size <= torch.cuda.get_device_properties(device).total_memory / 2
    if device.type == "mps":
        return size <= torch.mps.recommended_max_memory() / 2
    return True


def _chosen(splits: dict[str, Split], classes: tuple[str, ...], config: Config) -> tuple[dict[str, Split], tuple]:
    """Keep the classes that the config names."""
    names = config.classes.split(",")
    for name in names:
        if name not in classes:
            raise UserError(f"{config.dataset} has no class {name!r}; {nearest(name, classes)}")
    if len(set(names)) < 2:
        raise UserError(f"classes must name two or more, such as {','.join(classes[:2])}, not only {names[0]}")
    kept = tuple(name for name in classes if name in names)
    old = torch.tensor([classes.index(name) for name in kept])  # ascending: a label becomes its place among them
    result = {}
    for key, split in splits.items():
        part = split[torch.where(torch.isin(split.labels, old))[0]]
        result[key] = Split(part.images, torch.searchsorted(old, part.labels))
    return result, kept


def _part(split: Split, count: int, seed: int, classes: tuple[str, ...]) -> tuple[Split, Split]:
    """Part a split in two, each class in proportion; the second has `count` images."""
    from sklearn.model_selection import train_test_split

    labels = split.labels.cpu().numpy()
    if count == len(split):
        return split[:0], split
    fewest = np.bincount(labels, minlength=len(classes))
    if fewest.min() < 2 or count < len(classes) or len(split) - count < len(classes):
        name = classes[int(fewest.argmin())]
        raise UserError(
            f"{len(split)} images are too few to divide so that each of {len(classes)} classes is on both sides, "
            f"{count} and {len(split) - count} (the fewest, {fewest.min()}, are of {name}); add images, or give the "
            "folder val and test folders"
        )
    rest, held = train_test_split(np.arange(len(split)), test_size=count, stratify=labels, random_state=seed % 2**32)
    return split[torch.from_numpy(rest)], split[torch.from_numpy(held)]


def _pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel of uint8 images, exactly, from their histograms."""
    means, deviations = [], []
    levels = torch.arange(256, dtype=torch.float64)
    for channel in images.unbind(1):
        share = torch.bincount(channel.reshape(-1), minlength=256).double() / channel.numel()
        mean = (share * levels).sum()
        means.append(round(mean.item(), 4))
        deviations.append(round((share * (levels - mean) ** 2).sum().sqrt().item(), 4) or 1.0)
    return tuple(means), tuple(deviations)
