"""A data set as uint8 tensors on the device, split, ready to be drawn in batches.

python -c "from study import config, data; print(data.load(config.Config(dataset='digits'), 'cpu'))"
"""

import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import filelock
import numpy as np
import torch
from torch import Tensor

from study import folder
from study.config import Config
from study.errors import UserError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Split:
    """Images (n, channels, height, width) uint8 and their labels (n,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> "Split":
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device | str) -> "Split":
        """Move to a device, channels last in memory, as its convolutions like them."""
        return Split(self.images.to(device, memory_format=torch.channels_last), self.labels.to(device))

    def batches(self, size: int, order: Tensor | None = None) -> Iterator["Split"]:
        """Yield batches, in the given order of indices or in the split's own."""
        for start in range(0, len(self) if order is None else len(order), size):
            index = slice(start, start + size)
            yield self[index if order is None else order[index]]


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

    def describe(self) -> dict:
        """Return what `run.json` records of the data."""
        return {
            "classes": list(self.classes),
            "image_shape": list(self.image_shape),
            "mean": list(self.mean),
            "std": list(self.std),
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


def load(config: Config, device: torch.device | str, say: Say = print) -> Data:
    """Load the data set of a config onto a device; a second call for the same data returns the same tensors.

    Raises UserError where the data are missing, cannot be read, or cannot be split.
    """
    files = folder.of(config)
    key = (config.dataset, config.data_dir, config.image_size, config.split_seed, files and files.stamp, str(device))
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = _load(config, device, say)
    return _loaded[key]


_loaded: dict[tuple, Data] = {}


def _load(config: Config, device: torch.device | str, say: Say) -> Data:
    splits, classes = _READERS[config.dataset.partition(":")[0]](config, say)
    train = splits["train"]
    if "test" not in splits:
        train, splits["test"] = _hold_out(train, len(train) // 5, config.split_seed, classes)
    if "val" not in splits:
        held_out = 10_000 if config.dataset == "cifar10" else len(train) // 5
        train, splits["val"] = _hold_out(train, held_out, config.split_seed, classes)
    mean, std = _pixel_statistics(train.images)
    place = {key: split.to(device) for key, split in (splits | {"train": train}).items()}
    return Data(config.dataset, classes, **place, mean=mean, std=std, image_size=config.image_size)


def _hold_out(split: Split, count: int, seed: int, classes: tuple[str, ...]) -> tuple[Split, Split]:
    """Part a split in two, each class in proportion; the second has `count` images."""
    from sklearn.model_selection import train_test_split

    fewest = torch.bincount(split.labels, minlength=len(classes))
    if fewest.min() < 2 or count < len(classes):
        name = classes[int(fewest.argmin())]
        raise UserError(
            f"too few images to hold out a fifth of each class: {len(split)} in all, {int(fewest.min())} of {name}; "
            "add images, or give the folder val and test folders"
        )
    rest, held = train_test_split(
        np.arange(len(split)), test_size=count, stratify=split.labels.numpy(), random_state=seed
    )
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


def _read_digits(config: Config, say: Say) -> tuple[dict[str, Split], tuple]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    return {"train": Split(images, torch.from_numpy(digits.target).long())}, tuple("0123456789")


def _read_cifar10(config: Config, say: Say) -> tuple[dict[str, Split], tuple]:
    from torchvision.datasets import CIFAR10

    data_dir = Path(config.data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(data_dir / ".cifar10.lock"):
            if not (data_dir / CIFAR10.base_folder).is_dir():
                say(f"downloading CIFAR-10 (170 MB) into {data_dir}")
            parts = {"train": CIFAR10(data_dir, train=True, download=True), "test": CIFAR10(data_dir, train=False)}
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"cifar10 is not in {data_dir / CIFAR10.base_folder} and could not be downloaded "
            f"({type(error).__name__}); put {CIFAR10.filename} into {data_dir}, or name another --data-dir"
        ) from None
    splits = {
        key: Split(torch.from_numpy(part.data).permute(0, 3, 1, 2), torch.tensor(part.targets))
        for key, part in parts.items()
    }
    return splits, tuple(parts["train"].classes)


def _read_folder(config: Config, say: Say) -> tuple[dict[str, Split], tuple]:
    """Read a folder's images from a cache of tensors, which is made at the first reading."""
    files, image_size = folder.of(config), config.image_size
    stem = f"{files.root.name}-{image_size or 'own'}"
    cache = files.root.parent / ".cache" / f"{stem}-{files.stamp}.pt"
    try:
        cache.parent.mkdir(exist_ok=True)
        with filelock.FileLock(cache.parent / f"{stem}.lock"):
            if not cache.exists():
                tensors = {split: _decode(files.root, listed, image_size, say) for split, listed in files.files.items()}
                for outdated in cache.parent.glob(f"{stem}-*.pt"):
                    outdated.unlink()
                torch.save(tensors, cache.with_suffix(".tmp"))
                cache.with_suffix(".tmp").replace(cache)
    except PermissionError:
        say(f"{cache.parent} cannot be written: the images of {files.root} are decoded anew at every start")
        tensors = {split: _decode(files.root, listed, image_size, say) for split, listed in files.files.items()}
    else:
        tensors = torch.load(cache, weights_only=True)
    labels = {split: torch.tensor([label for _, label in listed]) for split, listed in files.files.items()}
    return {split: Split(images, labels[split]) for split, images in tensors.items()}, files.classes


_READERS = {"digits": _read_digits, "cifar10": _read_cifar10, "folder": _read_folder}


def _decode(root: Path, listed: list[tuple[str, int]], image_size: int | None, say: Say) -> Tensor:
    """Decode image files to RGB uint8 tensors (n, 3, height, width)."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    def read(path: str) -> np.ndarray:
        try:
            with Image.open(root / path) as image:
                image = ImageOps.exif_transpose(image).convert("RGB")
                if image_size:
                    image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
                return np.asarray(image)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{root / path} cannot be read as an image: {error}") from None

    images, last = [], time.monotonic()
    say(f"decoding {len(listed):,} images below {root / listed[0][0].partition('/')[0]} (once)")
    with ThreadPoolExecutor() as pool:
        for (path, _), image in zip(listed, pool.map(read, (path for path, _ in listed)), strict=True):
            if images and image.shape != images[0].shape:
                (h0, w0), (h, w) = images[0].shape[:2], image.shape[:2]
                raise UserError(
                    f"the images of {root} differ in size ({w0}×{h0}, and {w}×{h} in {path}); "
                    "say --image-size N to bring all to N×N"
                )
            images.append(image)
            if time.monotonic() - last > 5:
                last = time.monotonic()
                say(f"decoded {len(images):,} of {len(listed):,}")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
