"""Which images of a data set train, validate and test: chosen from the labels alone, before an image is read.

    python -c "import numpy as np; from study.data.splits import plan; print(plan({'train': np.arange(9) % 3}, 'abc'))"

A class with at least three images has at least one in each of training, validation and test. A class with fewer stays
in training, with two also in validation, and is not tested.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from study.config import Config
from study.system.errors import UserError, nearest
from study.data.folder import Folder

NAMES = ("train", "val", "test")
SHARE = 5
"""One image in five is held out for test, and one in five of the rest for validation, where the data set has none."""

HOLD_OUT_10_000 = ("cifar10", "cifar100", "mnist", "fashion-mnist")

LISTED = 5
"""At most this many classes are named in a sentence."""


@dataclass(frozen=True)
class Plan:
    """The images of each split: which of the data set's own splits they come from, their places there, their labels.

    Places are None where a split is taken as it is. `untested` and `unvalidated` name the classes without a test or a
    validation image.
    """

    parts: dict[str, tuple[str, np.ndarray | None]]
    labels: dict[str, np.ndarray]
    classes: tuple[str, ...]
    untested: tuple[str, ...]
    unvalidated: tuple[str, ...]


def of(config: Config, labels: Mapping[str, np.ndarray], classes: Sequence[str]) -> Plan:
    """Plan the splits of a config's data set; UserError where one of them would be empty.

    `labels` holds those (n,) of the splits that the data set has: `train`, perhaps `val` and `test`.
    """
    held_out = 10_000 if config.dataset in HOLD_OUT_10_000 else None
    chosen = config.classes.split(",") if config.classes else ()
    found = plan(labels, classes, chosen, config.split_seed, held_out, config.dataset)
    check_train_images(config, len(found.labels["train"]), len(found.classes))
    return found


def check(config: Config, files: Folder | None) -> None:
    """Raise UserError where the images of a folder, by their number, cannot be split as a config wants it."""
    if files:
        labels = {split: np.array([label for _, label in listed]) for split, listed in files.files.items()}
        of(config, labels, files.classes)


def check_train_images(config: Config, images: int, classes: int) -> None:
    """Raise UserError where a config wants more training images than there are, or fewer than there are classes."""
    if config.train_images is None:
        return
    if config.train_images > images:
        raise UserError(
            f"train_images must be at most {images:,}, the images that are left for training, not "
            f"{config.train_images:,}"
        )
    if config.train_images < classes:
        raise UserError(f"train_images must be at least {classes}, one of each class, not {config.train_images}")


def plan(
    labels: Mapping[str, np.ndarray],
    classes: Sequence[str],
    chosen: Sequence[str] = (),
    seed: int = 0,
    val_images: int | None = None,
    dataset: str = "the data set",
) -> Plan:
    """Split a data set in proportion to its classes, then keep the chosen ones; UserError where a split is empty.

    What the data set has as a split of its own stays one. `val_images` is the number to hold out for validation, if not
    a fifth.
    """
    # A class whose files cannot be read has no image to learn from
    members = np.bincount(labels["train"], minlength=len(classes))
    if lost := [name for name, count in zip(classes, members, strict=True) if not count]:
        raise UserError(f"{dataset} has no training image of {', '.join(lost[:LISTED])} that can be read")

    # Hold out test, then validation images from those of training
    parts: dict[str, tuple[str, np.ndarray | None]] = {name: (name, None) for name in NAMES if name in labels}
    rest = np.arange(len(labels["train"]))
    for name, later in (("test", "val" not in labels), ("val", False)):
        if name not in labels:
            count = val_images if name == "val" and val_images else len(rest) // SHARE
            kept, held = hold_out(labels["train"][rest], count, seed, leave=1 + later)
            parts[name], rest = ("train", rest[held]), rest[kept]
            parts["train"] = ("train", rest)

    # Keep the chosen classes, and number them anew
    places, kept_classes = _places(classes, chosen, dataset)
    found = {}
    for name, (source, index) in parts.items():
        own = labels[source] if index is None else labels[source][index]
        if chosen:
            among = np.flatnonzero(places[own] >= 0)
            parts[name] = (source, among if index is None else index[among])
            own = own[among]
        found[name] = places[own]

    # Say what is too few in the numbers that a person can count in the folder
    if empty := [name for name in NAMES if not len(found[name])]:
        raise UserError(_too_few(labels, classes, kept_classes, empty, dataset))
    absent = {
        split: tuple(kept_classes[place] for place in np.setdiff1d(np.arange(len(kept_classes)), found[split]))
        for split in NAMES
    }
    return Plan({name: parts[name] for name in NAMES}, found, kept_classes, absent["test"], absent["val"])


def _places(classes: Sequence[str], chosen: Sequence[str], dataset: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the new label of each class, -1 where it is not chosen, and the names of those that are kept."""
    for name in chosen:
        if name not in classes:
            raise UserError(f"{dataset} has no class {name!r}; {nearest(name, classes)}")
    if len(set(chosen)) == 1:
        raise UserError(f"classes must name two or more, such as {','.join(classes[:2])}, not only {chosen[0]}")
    kept = tuple(name for name in classes if name in chosen or not chosen)
    places = np.full(len(classes), -1)
    places[[place for place, name in enumerate(classes) if name in kept]] = np.arange(len(kept))
    return places, kept


def _too_few(
    labels: Mapping[str, np.ndarray], classes: Sequence[str], kept: Sequence[str], empty: Sequence[str], dataset: str
) -> str:
    """Say which splits would be empty, and how many images of each class there are."""
    wanted = [place for place, name in enumerate(classes) if name in kept]
    counts = sum(np.bincount(own, minlength=len(classes)) for own in labels.values())[wanted]
    fewest = [f"{count} of {name}" for count, name in sorted(zip(counts, kept, strict=True))[:LISTED]]
    more = f" and {len(kept) - LISTED} more classes" if len(kept) > LISTED else ""
    given = [name for name in empty if name in labels]
    if given:
        return f"the {' and '.join(given)} folder of {dataset} holds no image of {', '.join(kept[:LISTED])}{more}"
    return (
        f"{dataset} has {', '.join(fewest)}{more}: that leaves no image for {' and '.join(empty)}; "
        "a class needs three images to be in train, val and test, or give the data set val and test folders"
    )


def hold_out(labels: np.ndarray, count: int, seed: int, leave: int) -> tuple[np.ndarray, np.ndarray]:
    """Part images (n,) into those that are kept and about `count` that are held out, each class in proportion.

    A class with more than `leave` images has at least one on the held-out side, and keeps at least `leave`; where that
    takes more than `count` images, more are held out. Returns the places of both, ascending; drawn by `seed`.
    """
    members = np.bincount(labels)
    most = np.maximum(members - leave, 0)
    quota = shares(members, max(count, np.count_nonzero(most)), np.minimum(most, 1), most)
    random = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.flatnonzero(members):
        held[random.permutation(np.flatnonzero(labels == label))[: quota[label]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def shares(members: np.ndarray, count: int, fewest: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Divide `count` images among classes with these numbers of members, in proportion, each within its bounds.

    Each class gets its share rounded down; what is left goes to the largest remainders.
    """
    count = min(max(count, fewest.sum()), most.sum())
    exact = members * (count / max(1, members.sum()))
    quota = np.clip(np.floor(exact).astype(int), fewest, most)
    while quota.sum() != count:
        missing = quota.sum() < count
        room = quota < most if missing else quota > fewest
        distance = np.where(room, exact - quota if missing else quota - exact, -np.inf)
        quota[distance.argmax()] += 1 if missing else -1
    return quota
