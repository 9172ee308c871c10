"""Load a data set as uint8 tensors on the device, in training, validation and test images.

python -c "from study.config import Config; from study.data import dataset; \\
    print(dataset.load(Config(dataset='digits'), 'cpu'))"
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from study.config import Config
from study.data import duplicates, folder, notes, sources, splits
from study.data.folder import Folder
from study.data.memory import Memory
from study.data.pictures import Range
from study.system.progress import Say

ROWS = 1000
"""Number of images that are moved at once."""


def memory_format(device: torch.device | str) -> torch.memory_format:
    """Return the fastest memory format of a device; on MPS batch norm fails with channels last (pytorch 175251)."""
    return torch.contiguous_format if torch.device(device).type == "mps" else torch.channels_last


@dataclass(frozen=True)
class Split:
    """Images (n, channels, height, width) uint8 and their labels (n,) int64.

    The labels are on the training device; so are the images, unless they do not fit there.
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
        """Move to a device, the images only if `images_too`, in the memory format of the device's convolutions."""
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
    """One data set.

    `mean` and `std` are those of the training pixels, per channel, on a scale from 0 to 255. `image_size` is the side
    to which batches are resized; None keeps the images' size. `range` is the range of pictures of more than 8 bits,
    None if there are none. `untested` are the classes without a test image, `unreadable` the files that cannot be read,
    `unused` the folders that are not used, and `skipped` the number of other files by suffix. `copies` are the counts
    of `duplicates.count`; `subjects` the number of subjects in each split and of those in two. `examples` names some of
    what these three count. `is_joined` and `is_moved` are those of the plan of the splits.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None = None
    range: Range | None = None
    untested: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    skipped: dict[str, int] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    subjects: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    is_joined: bool = False
    is_moved: bool = False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return the (channels, height, width) of a network's input."""
        channels, height, width = self.train.images.shape[1:]
        return (channels, self.image_size or height, self.image_size or width)

    def resize(self, images: Tensor) -> Tensor:
        """Resize uint8 images (n, channels, height, width) to `image_size`, as float32 on the same scale."""
        size = self.image_size
        if size in (None, images.shape[-1]) and size in (None, images.shape[-2]):
            return images
        return torch.nn.functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise images from 0 to 255 to mean 0 and standard deviation 1 per channel, float32."""
        mean, std = (_constant(values, images.device) for values in (self.mean, self.std))
        return (images.to(torch.float32) - mean) / std

    def prepared(self, batch: Split) -> Tensor:
        """Return the resized and normalised images of a batch, without augmentation."""
        return self.normalise(self.resize(batch.images))

    def balance(self) -> Tensor:
        """Return the weight of each class (classes,), the inverse of its share of the training images; 1 if equal."""
        counts = torch.bincount(self.train.labels, minlength=len(self.classes))
        return len(self.train) / (len(self.classes) * counts.clamp(min=1).float())

    def describe(self) -> dict:
        """Return the description of the data that run.json records."""
        return {
            "classes": list(self.classes),
            "image_shape": list(self.image_shape),
            "mean": list(self.mean),
            "std": list(self.std),
            "preparation": self.preparation,
            "untested": list(self.untested),
            "unreadable": list(self.unreadable),
            "unused": list(self.unused),
            "skipped": [list(pair) for pair in self.skipped.items()],
            "images": {"train": len(self.train), "val": len(self.val), "test": len(self.test)},
            "images_per_class": self.per_class(),
            **({"copies": self.copies} if self.copies else {}),  # W&B drops empty values
            **({"subjects": self.subjects} if self.subjects else {}),
            **({"examples": self.examples} if self.examples else {}),
        }

    def per_class(self) -> dict[str, list[int]]:
        """Return the number of images of each class in each split."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: torch.bincount(own.labels, minlength=len(self.classes)).tolist() for name, own in splits.items()}

    @property
    def preparation(self) -> dict:
        """Return how pictures are prepared for the network, so that `predict` can repeat it."""
        return {
            "stored_size": list(self.train.images.shape[2:]),
            "channels": self.train.images.shape[1],
            "depth": self._depth(),
            "range": self.range and list(self.range),
            "resized_to": self.image_size,
            "resampling": "bilinear, antialiased",
        }

    def _depth(self) -> int | str:
        """Return the bit depth of the pictures, or `range` if they were scaled to 8 bits by another range."""
        if not self.range:
            return 8
        low, high = self.range
        return int(high).bit_length() if low == 0 and high > 1 else "range"

    def __str__(self) -> str:
        return f"{notes.title(self)}\n{notes.class_sizes(self)}"


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def load(
    config: Config, device: torch.device | str, say: Say = print, shared_by: int = 1, memory: Memory | None = None
) -> Data:
    """Load the data set of a config onto a device; a second call for the same data and `memory` has the same tensors.

    The images stay on the host if they do not fit on the device for `shared_by` processes at once. Raises UserError if
    the data are missing, cannot be read or cannot be split.
    """
    # List the files, and refuse early what cannot be split
    files = folder.of(config, say)
    splits.check(config, files)

    # Load the images, unless they are in memory
    memory = memory or Memory()
    key = (
        config.dataset,
        config.classes,
        config.data_dir,
        config.image_size,
        config.split_seed,
        config.val_share,
        config.test_share,
        config.labels,
        files and files.digest,
        str(device),
    )
    data = memory.cached(key, lambda: _load(config, files, torch.device(device), say, shared_by))

    # Draw the training images, which depend on the run's seed
    return replace(data, train=drawn(data.train, config, data.classes))


def drawn(train: Split, config: Config, classes: tuple[str, ...]) -> Split:
    """Return the `train_images` of a config, drawn by its seed; raise UserError if there are fewer."""
    splits.check_train_images(config, len(train), len(classes))
    if config.train_images is None:
        return train
    _, kept = splits.hold_out(train.labels.cpu().numpy(), config.train_images, config.seed, 0)
    return train[torch.from_numpy(kept)]


def _load(config: Config, files: Folder | None, device: torch.device, say: Say, shared_by: int) -> Data:
    """Load all images of a config's data set onto a device, with all training images."""
    # Read the images, and report the files that are left out
    source = sources.read(config, files, say)
    for line in notes.left_out(source, files):
        say(f"{config.dataset}: {line}")

    # Split by the labels, and report what should not be on two sides
    labels = {name: own.numpy() for name, (_, own) in source.splits.items()}
    plan = splits.of(config, labels, source.classes, source.subjects.get("train"), source.pixels.get("train"))
    copies = duplicates.count(plan.divided(source.pixels), plan.labels) if source.pixels else {}
    shared = duplicates.shared(plan.divided(source.subjects)) if source.subjects else {}
    subjects = {name: len(own) for name, own in shared.items()}
    images = {name: len(plan.labels[name]) for name in splits.NAMES}
    examples = notes.examples(source, plan, shared) if copies or subjects else {}
    for line in duplicates.lines(copies, subjects, images, plan.is_joined, examples):
        say(f"{config.dataset}: {line}")
    for line in (*notes.shares(config, plan), *notes.spellings(plan.classes)):
        say(f"{config.dataset}: {line}")
    for absent, kind in ((plan.untested, "test"), (plan.unvalidated, "validation")):
        if absent:
            say(f"{config.dataset}: without a {kind} image: {', '.join(absent)}")

    # Copy the images of each split, and free the originals
    split_images = {}
    for name in reversed(splits.NAMES):  # training images last: they overwrite the originals
        origin, index = plan.parts[name]
        images = _taken(source.splits[origin][0], index, in_place=name == "train")
        split_images[name] = Split(images, torch.from_numpy(plan.labels[name]))
    source.splits.clear()

    # Move them to the device, if they fit
    mean, std = _pixel_statistics(split_images["train"].images)
    is_on_device = fits_on(shared_by * sum(split.images.nbytes for split in split_images.values()), device)
    if not is_on_device:
        times = f", {shared_by} times," if shared_by > 1 else ""
        say(f"the images{times} do not fit half the memory of {device}: they stay on the host")
    on_device = {name: split.to(device, images_too=is_on_device) for name, split in split_images.items()}
    return Data(
        config.dataset,
        plan.classes,
        **on_device,
        mean=mean,
        std=std,
        image_size=config.image_size,
        range=source.range,
        untested=plan.untested,
        unreadable=source.unreadable,
        unused=files.unused if files else (),
        skipped=files.skipped if files else {},
        copies=copies,
        subjects=subjects,
        examples=(files.examples if files else {}) | examples,
        is_joined=plan.is_joined,
        is_moved=plan.is_moved,
    )


def _taken(images: Tensor, index: np.ndarray | None, in_place: bool) -> Tensor:
    """Return the images with these ascending indices, or all for None; channels last in memory.

    With `in_place`, `images` may be overwritten, which saves memory if most of them are kept.
    """
    if index is None:
        return images

    # Copy the chosen images
    rows = images.permute(0, 2, 3, 1)
    chosen = torch.from_numpy(index)
    if not in_place or 2 * len(index) < len(rows):
        return rows[chosen].permute(0, 3, 1, 2)

    # Or move them to the front; as indices ascend, no row is overwritten before it is read
    for start in range(0, len(chosen), ROWS):
        part = chosen[start : start + ROWS]
        rows[start : start + len(part)] = rows[part]
    return rows[: len(chosen)].permute(0, 3, 1, 2)


def fits_on(size: int, device: torch.device) -> bool:
    """Return whether `size` bytes fit into half of the device's memory."""
    if device.type == "cuda":
        return size <= torch.cuda.get_device_properties(device).total_memory / 2
    if device.type == "mps":
        return size <= torch.mps.recommended_max_memory() / 2
    return True


def _pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the exact mean and standard deviation of each channel of uint8 images, from their histograms."""
    means = []
    deviations = []
    levels = torch.arange(256, dtype=torch.float64)
    for channel in images.unbind(1):
        share = torch.bincount(channel.reshape(-1), minlength=256).double() / channel.numel()
        mean = (share * levels).sum()
        means.append(round(mean.item(), 4))
        deviations.append(round((share * (levels - mean) ** 2).sum().sqrt().item(), 4) or 1.0)
    return tuple(means), tuple(deviations)
