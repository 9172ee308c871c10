"""Where images come from: scikit-learn, torchvision's downloads, or image files; always uint8 tensors.

python -c "from study import config, sources; print(sources.read(config.Config(dataset='digits'), print).classes)"
"""

import itertools
import time
import urllib.error
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import numpy as np
import torch
from torch import Tensor

from study import cache, folder
from study.config import Config
from study.errors import UserError

Say = Callable[[str], None]
Listing = dict[str, list[tuple[str, int]]]
"""For each split the image files, relative to a root, with their labels."""

UNREADABLE_SHARE = 0.01


@dataclass(frozen=True)
class Source:
    """Images (n, channels, height, width) uint8 and labels (n,) int64 of `train`, perhaps `val` and `test`."""

    splits: dict[str, tuple[Tensor, Tensor]]
    classes: tuple[str, ...]
    unreadable: tuple[str, ...] = field(default=())


def read(config: Config, say: Say) -> Source:
    """Read the whole data set of a config; UserError where it is missing or cannot be read."""
    if config.dataset == "digits":
        return _digits()
    if config.dataset == "pets":
        return _pets(config, say)
    files = folder.of(config)
    if files:
        return _cached(files.root.parent, files.root, files.stamp, files.files, files.classes, config.image_size, say)
    return _torchvision(config, say)


def _digits() -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    return Source({"train": (images, torch.from_numpy(digits.target).long())}, tuple("0123456789"))


def _torchvision(config: Config, say: Say) -> Source:
    """Read CIFAR or MNIST, downloading it where it is not there; torchvision compares its digests."""
    from torchvision import datasets

    kind, folder_name = {
        "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
        "cifar100": (datasets.CIFAR100, "cifar-100-python"),
        "mnist": (datasets.MNIST, "MNIST/raw"),
        "fashion-mnist": (datasets.FashionMNIST, "FashionMNIST/raw"),
    }[config.dataset]
    train, test = _download(
        config,
        folder_name,
        say,
        lambda root, download: [kind(root, train=part, download=download) for part in (True, False)],
    )
    splits = {}
    for name, part in (("train", train), ("test", test)):
        images = torch.as_tensor(part.data)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        splits[name] = (images, torch.as_tensor(part.targets))
    return Source(splits, tuple(name.split(" - ")[0] for name in train.classes))


def _pets(config: Config, say: Say) -> Source:
    """Read Oxford-IIIT Pet (Parkhi et al. 2012) as cats and dogs."""
    from torchvision.datasets import OxfordIIITPet

    _download(config, "oxford-iiit-pet", say, lambda root, download: OxfordIIITPet(root, download=download))
    root = Path(config.data_dir) / "oxford-iiit-pet"
    listing: Listing = {}
    for split, file in (("train", "trainval.txt"), ("test", "test.txt")):
        lines = [line.split() for line in (root / "annotations" / file).read_text().splitlines() if line[:1] != "#"]
        listing[split] = [(f"images/{name}.jpg", int(species) - 1) for name, _, species, *_ in lines]
    return _cached(root.parent, root, "1", listing, ("cat", "dog"), config.image_size, say)


def _download(config: Config, folder_name: str, say: Say, fetch: Callable):
    """Let torchvision find or download a data set, one process at a time."""
    root = Path(config.data_dir)
    there = (root / folder_name).is_dir()
    with suppress(RuntimeError, OSError):
        return fetch(str(root), False)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(root / ".download.lock"):
            if not there:
                say(f"downloading {config.dataset} into {root}")
            return fetch(str(root), True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        what = "cannot be read" if there else "is not there, and cannot be downloaded"
        raise UserError(
            f"{config.dataset}: {root / folder_name} {what} ({' '.join(str(error).split())}); "
            "put it there by hand, or name the folder that holds it with --data-dir"
        ) from None


def _cached(
    data_dir: Path, root: Path, stamp: str, listing: Listing, classes: Sequence[str], image_size: int | None, say: Say
) -> Source:
    """Decode image files, or take them from the cache of tensors that the first time has left."""
    stem = f"{root.name}-{image_size or 'own'}"
    path = data_dir / ".cache" / f"{stem}-{stamp}.pt"
    content = cache.through(
        path, lambda: _decode_all(root, listing, image_size, say), f"the decoded images of {root}", say
    )
    with suppress(OSError):
        for outdated in path.parent.glob(f"{stem}-{'?' * len(stamp)}.*"):
            if outdated.stem != path.stem:
                outdated.unlink()
    return Source(content["splits"], tuple(classes), tuple(content["unreadable"]))


def _decode_all(root: Path, listing: Listing, image_size: int | None, say: Say) -> dict:
    unreadable: list[str] = []
    if image_size and _are_small(root, listing, image_size):
        image_size = None
    splits = {name: _decode(root, listed, image_size, unreadable, say) for name, listed in listing.items()}
    shapes = {tuple(images.shape[1:]) for images, _ in splits.values()}
    if len(shapes) > 1:
        raise _different_sizes(root, *(shape[:0:-1] for shape in list(shapes)[:2]))
    files = sum(map(len, listing.values()))
    if len(unreadable) > UNREADABLE_SHARE * files:
        raise UserError(
            f"{len(unreadable)} of {files} files below {root} cannot be read as images, more than "
            f"{UNREADABLE_SHARE:.0%}: {'; '.join(unreadable[:3])}; mend them or take them away"
        )
    for line in unreadable:
        say(f"skipped {root / line}")
    return {"splits": splits, "unreadable": unreadable}


def _are_small(root: Path, listing: Listing, image_size: int) -> bool:
    """Tell whether all images are squares of one smaller size: they are kept so, and enlarged batch by batch."""
    from PIL import Image

    first = None
    for path, _ in itertools.chain(*listing.values()):
        with suppress(Exception), Image.open(root / path) as image:
            first = first or image.size
            if image.size != first or first[0] != first[1] or first[0] >= image_size:
                return False
    return True


def _decode(
    root: Path, listed: list[tuple[str, int]], image_size: int | None, unreadable: list[str], say: Say
) -> tuple[Tensor, Tensor]:
    """Decode image files to RGB tensors and their labels; a line for each that cannot be read goes to `unreadable`."""
    images, labels, last = [], [], time.monotonic()
    size = (image_size, image_size) if image_size else None
    say(f"decoding {len(listed):,} images below {root / listed[0][0].partition('/')[0]} (once)")
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda entry: read_image(root / entry[0], size), listed)
        for (path, label), image in zip(listed, read, strict=True):
            if isinstance(image, str):
                unreadable.append(f"{path}: {image}")
                continue
            if images and image.shape != images[0].shape:
                raise _different_sizes(root, images[0].shape[1::-1], image.shape[1::-1])
            images.append(image)
            labels.append(label)
            if time.monotonic() - last > 5:
                last = time.monotonic()
                say(f"decoded {len(images):,} of {len(listed):,}")
    if not images:
        raise UserError(f"none of the {len(listed)} files below {root} can be read as an image: {unreadable[0]}")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def _different_sizes(root: Path, first: Sequence[int], second: Sequence[int]) -> UserError:
    sizes = " and ".join("×".join(map(str, size)) for size in (first, second))
    return UserError(f"the images of {root} differ in size ({sizes}); say --image-size N to bring all to N×N")


def read_image(path: Path, size: tuple[int, int] | None) -> np.ndarray | str:
    """Read one image file of any mode as RGB (height, width, 3) uint8, upright.

    With a `size` (width, height) it is resized and centre-cropped to it. Returns the reason where it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bit: Pillow would cut off what is above 255
                levels = np.asarray(image, dtype=np.float64)
                image = Image.fromarray((levels / (65535 / 255)).clip(0, 255).astype(np.uint8))
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            image = image.convert("RGB")
            if size:
                image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
            return np.asarray(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads to
        return " ".join((getattr(error, "strerror", None) or str(error)).split())
