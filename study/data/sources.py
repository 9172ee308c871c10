"""Read a data set from scikit-learn, torchvision's downloads or image files into uint8 tensors.

python -c "from study.config import Config; from study.data import sources; \\
    print(sources.read(Config(dataset='digits'), None, print).classes)"
"""

import urllib.error
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.config import RESULTS_VERSION, Config
from study.data import duplicates, pictures
from study.data.folder import Folder, cache_stem
from study.data.pictures import Listing, Range
from study.system import files as cache
from study.system.errors import UserError, printable
from study.system.progress import Say


@dataclass(frozen=True)
class Source:
    """Images (n, channels, height, width), uint8, and labels (n,), int64, of `train`, perhaps `val` and `test`.

    `range` and `unreadable` are described in `pictures.Decoded`. For a folder, `pixels` has the digest of the pixels of
    each image, `names` its path, and `subjects` its subject, if there are any.
    """

    splits: dict[str, tuple[Tensor, Tensor]]
    classes: tuple[str, ...]
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    subjects: dict[str, list[str]] = field(default_factory=dict)
    range: Range | None = None
    unreadable: tuple[str, ...] = ()


def read(config: Config, files: Folder | None, say: Say) -> Source:
    """Read all images of a config's data set; raise UserError if it is missing or cannot be read.

    `files` is its listed folder, None for data sets known by name.
    """
    # Read data sets known by name
    if config.dataset == "digits":
        return _digits()
    if config.dataset == "pets":
        return _pets(config, say)

    # Read a folder of image files
    if files:
        return _cached(config, files.root, files.contents, files.files, files.classes, say, files)
    return _torchvision(config, say)


def _digits() -> Source:
    """Read scikit-learn's digits from its file, since importing scikit-learn takes longer than a short training."""
    path = Path(find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz"
    if path.exists():
        table = np.loadtxt(path, delimiter=",")
        values, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    else:
        from sklearn.datasets import load_digits

        values, labels = load_digits().images, load_digits().target
    images = torch.from_numpy(np.rint(values * (255 / 16)).astype(np.uint8))[:, None]
    return Source({"train": (images, torch.from_numpy(labels).long())}, tuple("0123456789"))


def _torchvision(config: Config, say: Say) -> Source:
    """Read CIFAR or MNIST, or download it; torchvision checks its digests."""
    from torchvision import datasets

    # Find or download the data set
    known = {
        "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
        "cifar100": (datasets.CIFAR100, "cifar-100-python"),
        "mnist": (datasets.MNIST, "MNIST/raw"),
        "fashion-mnist": (datasets.FashionMNIST, "FashionMNIST/raw"),
    }
    if config.dataset not in known:
        raise UserError(
            f"data set {config.dataset!r} is in study/config/choices.py, but `read` of study/data/sources.py lacks it"
        )
    kind, folder_name = known[config.dataset]
    train, test = _download(
        config,
        folder_name,
        say,
        lambda root, download: [kind(root, train=part, download=download) for part in (True, False)],
    )

    # Bring the images of both splits into one layout
    splits = {}
    for name, part in (("train", train), ("test", test)):
        images = torch.as_tensor(part.data)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        splits[name] = (images, torch.as_tensor(part.targets))
    return Source(splits, tuple(name.split(" - ")[0] for name in train.classes))


def _pets(config: Config, say: Say) -> Source:
    """Read Oxford-IIIT Pet (Parkhi et al. 2012) as cats and dogs."""
    from torchvision.datasets import OxfordIIITPet

    # Download the photographs
    _download(config, "oxford-iiit-pet", say, lambda root, download: OxfordIIITPet(root, download=download))
    root = Path(config.data_dir) / "oxford-iiit-pet"

    # List them with the species as labels
    listing: Listing = {}
    for split, file in (("train", "trainval.txt"), ("test", "test.txt")):
        lines = [
            line.split()
            for line in (root / "annotations" / file).read_text(encoding="utf-8").splitlines()
            if line[:1] != "#"
        ]
        listing[split] = [(f"images/{name}.jpg", int(species) - 1) for name, _, species, *_ in lines]
    return _cached(config, root, "0" * 16, listing, ("cat", "dog"), say)


def _download(config: Config, folder_name: str, say: Say, fetch: Callable):
    """Let torchvision find or download a data set, one process at a time."""
    # Use what is already there
    root = Path(config.data_dir)
    is_there = (root / folder_name).is_dir()
    with suppress(RuntimeError, OSError):
        return fetch(str(root), False)

    # Otherwise download it
    try:
        root.mkdir(parents=True, exist_ok=True)
        wait = partial(say, f"another process downloads images into {root}: waiting for it")
        with cache.lock(root / ".download.lock", wait):
            with suppress(RuntimeError, OSError):  # another process has downloaded it meanwhile
                return fetch(str(root), False)
            if not is_there:
                say(f"downloading {config.dataset} into {root}")
            return fetch(str(root), True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        problem = "cannot be read" if is_there else "is not there, and cannot be downloaded"
        raise UserError(
            f"{config.dataset}: {root / folder_name} {problem} ({' '.join(str(error).split())}); "
            "put it there by hand, or name the folder that holds it with --data-dir"
        ) from None


def _cached(
    config: Config,
    root: Path,
    digest: str,
    listing: Listing,
    classes: Sequence[str],
    say: Say,
    files: Folder | None = None,
) -> Source:
    """Read the decoded images of a folder from the cache, or decode the files and write the cache."""
    # Name the file in the cache
    folder_name = Path(config.data_dir) / ".cache"
    stem = cache_stem(config.dataset.removeprefix("folder:"), config.labels)
    kind = f"{stem}-{config.image_size or 'own'}-v{RESULTS_VERSION}"
    path = folder_name / f"{kind}-{digest}.pt"

    def decode() -> dict[str, Any]:
        decoded = pictures.decode(root, listing, config.image_size, say, folder_name / f"{stem}-unreadable.txt")
        splits = {name: tuple(torch.from_numpy(values) for values in arrays) for name, arrays in decoded.splits.items()}
        known = {"splits": splits, "range": decoded.range, "unreadable": decoded.unreadable}
        return known | ({"pixels": _pixels(splits)} if files else {})

    # Read it or decode the files, and delete the caches of other contents
    content = cache.cached(path, decode, f"the decoded images of {root}", say)
    with suppress(OSError):
        for outdated in folder_name.glob(f"{kind}-{'?' * len(digest)}.pt"):
            if outdated != path:
                outdated.unlink()

    # Turn the content into tensors of torch's layout
    splits = {name: (images.permute(0, 3, 1, 2), labels) for name, (images, labels) in content["splits"].items()}
    unreadable = tuple(f"{name}: {reason}" for name, reason in content["unreadable"])
    levels = content["range"] and tuple(content["range"])
    source = Source(splits, tuple(classes), range=levels, unreadable=unreadable)
    if not files:
        return source

    # Give each image of a folder the digest of its pixels, which older caches lack, its name and its subject
    pixels = content["pixels"] if "pixels" in content else _pixels(content["splits"])
    lost = {name for name, _ in content["unreadable"]}
    names = {
        split: [path for path, _ in listed if not lost or printable(path) not in lost]
        for split, listed in listing.items()
    }
    subjects = {split: [files.subjects[path] for path in own] for split, own in names.items() if files.subjects}
    digests = {name: values.numpy() for name, values in pixels.items()}
    return replace(source, pixels=digests, names=names, subjects=subjects)


def _pixels(splits: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return the digest of the pixels of each image (n, height, width, channels) of each split."""
    return {name: torch.from_numpy(duplicates.digests(images.numpy())) for name, (images, _) in splits.items()}
