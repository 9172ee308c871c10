"""Split a data set into training, validation and test images, from the labels alone.

    python -c "import numpy as np; from study.data.splits import plan; print(plan({'train': np.arange(9) % 3}, 'abc'))"

A class with at least three images has at least one in each of training, validation and test. A class with two has one
in training and one in validation; a class with one has it in training. Images of one group, such as those of a subject
or copies of one image, stay together; then this is true of a class's groups instead of its images.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from study.config import Config
from study.config.checks import wrong_classes
from study.config.choices import DATASETS
from study.data import duplicates
from study.data.folder import Folder
from study.system.errors import UserError

NAMES = ("train", "val", "test")
SHARE = 5
"""Without splits of its own, one image in five is held out for test, and one in five of the rest for validation."""

LISTED = 5
"""At most this many classes are named in a sentence."""


@dataclass(frozen=True)
class Plan:
    """The images of each split.

    `parts` maps a split to the data set's own split that its images come from, and their indices there (None for all).
    `labels` maps it to their labels (n,). `untested` and `unvalidated` are the classes without a test or a validation
    image. `is_joined` is whether there are copies of images that the split keeps together, `is_moved` whether
    the split therefore differs from the one that ignores copies, as earlier versions did.
    """

    parts: dict[str, tuple[str, np.ndarray | None]]
    labels: dict[str, np.ndarray]
    classes: tuple[str, ...]
    untested: tuple[str, ...]
    unvalidated: tuple[str, ...]
    is_joined: bool = False
    is_moved: bool = False

    def divided(self, values: Mapping[str, Sequence]) -> dict[str, np.ndarray]:
        """Divide a value of each image of the data set's own splits among the splits."""
        every = {name: np.asarray(own) for name, own in values.items()}
        return {name: every[own] if index is None else every[own][index] for name, (own, index) in self.parts.items()}


def of(
    config: Config,
    labels: Mapping[str, np.ndarray],
    classes: Sequence[str],
    subjects: Sequence[str] | None = None,
    pixels: np.ndarray | None = None,
) -> Plan:
    """Plan the splits of a config's data set; raise UserError if one of them would be empty.

    `labels` maps the data set's own splits (`train`, perhaps `val` and `test`) to their labels (n,). Training images
    with equal `subjects` (n,) or digests of their `pixels` (n,) stay together.
    """
    # Split without regard to copies
    known = DATASETS.get(config.dataset)
    held_out = known.val_images if known else None
    shares = {"val": config.val_share, "test": config.test_share}
    make = partial(plan, labels, classes, config.classes, config.split_seed, held_out, config.dataset, shares)
    groups = None if subjects is None else np.unique(subjects, return_inverse=True)[1]
    result = make(groups)

    # Split again if there are copies among the images to divide, unless nothing else is in a class
    is_divided = not {"val", "test"} <= labels.keys()
    if is_divided and pixels is not None and len(np.unique(pixels)) < len(pixels):
        with suppress(UserError):
            joined = make(pixels if groups is None else duplicates.joined(groups, pixels))
            is_moved = not all(np.array_equal(joined.parts[name][1], result.parts[name][1]) for name in NAMES)
            result = replace(joined, is_joined=True, is_moved=is_moved)
    check_train_images(config, len(result.labels["train"]), len(result.classes))
    return result


def check(config: Config, files: Folder | None) -> None:
    """Raise UserError if a folder has too few images for the splits of a config."""
    if files:
        labels = {split: np.array([label for _, label in listed]) for split, listed in files.files.items()}
        subjects = [files.subjects[path] for path, _ in files.files["train"]] if files.subjects else None
        of(config, labels, files.classes, subjects)


def check_train_images(config: Config, images: int, classes: int) -> None:
    """Raise UserError if `train_images` is more than the number of images or less than the number of classes."""
    if config.train_images is None:
        return
    if config.train_images > images:
        raise UserError(
            f"train_images must be at most {images:,}, the images left for training, not {config.train_images:,}"
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
    shares: Mapping[str, float | None] | None = None,
    groups: np.ndarray | None = None,
) -> Plan:
    """Split a data set in proportion to its classes, then keep the `chosen` classes.

    The data set's own splits are kept. `val_images` is the number to hold out for validation, by default a fifth;
    `shares` are the shares of the images to hold out for `val` and `test` instead. `groups` are those of `of`. Raises
    UserError if a split would be empty or is there although it has a share.
    """
    # Refuse a class without a readable training image
    members = np.bincount(labels["train"], minlength=len(classes))
    if unreadable := [name for name, count in zip(classes, members, strict=True) if not count]:
        raise UserError(f"{dataset} has no training image of {', '.join(unreadable[:LISTED])} that can be read")

    # Hold out test images, then validation images, from the training images
    parts: dict[str, tuple[str, np.ndarray | None]] = {name: (name, None) for name in NAMES if name in labels}
    rest = np.arange(len(labels["train"]))
    for name, later in (("test", "val" not in labels), ("val", False)):
        share = (shares or {}).get(name)
        if name in labels and share:
            raise UserError(f"{dataset} has {name} images of its own: leave out --{name}-share")
        if name not in labels:
            count = val_images if name == "val" and val_images else len(rest) // SHARE
            count = round(share * len(labels["train"])) if share else count
            own_groups = None if groups is None else groups[rest]
            kept, held = hold_out(labels["train"][rest], count, seed, leave=1 + later, groups=own_groups)
            parts[name] = ("train", rest[held])
            rest = rest[kept]
            parts["train"] = ("train", rest)

    # Keep the chosen classes, and renumber them
    new_labels, kept_classes = _places(classes, chosen, dataset)
    split_labels = {}
    for name, (source, index) in parts.items():
        own = labels[source] if index is None else labels[source][index]
        if chosen:
            kept_images = np.flatnonzero(new_labels[own] >= 0)
            parts[name] = (source, kept_images if index is None else index[kept_images])
            own = own[kept_images]
        split_labels[name] = new_labels[own]

    # Refuse an empty split, and note the classes that a split lacks
    if empty := [name for name in NAMES if not len(split_labels[name])]:
        together = "" if groups is None else "; the images of a subject stay together"
        raise UserError(_too_few(labels, classes, kept_classes, empty, dataset) + together)
    absent = {
        split: tuple(kept_classes[place] for place in np.setdiff1d(np.arange(len(kept_classes)), split_labels[split]))
        for split in NAMES
    }
    return Plan({name: parts[name] for name in NAMES}, split_labels, kept_classes, absent["test"], absent["val"])


def _places(classes: Sequence[str], chosen: Sequence[str], dataset: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the new label of each class, -1 for those that are dropped, and the names of the kept classes."""
    if text := wrong_classes(dataset, chosen, classes):
        raise UserError(text)
    kept = tuple(name for name in classes if name in chosen or not chosen)
    new_labels = np.full(len(classes), -1)
    new_labels[[label for label, name in enumerate(classes) if name in kept]] = np.arange(len(kept))
    return new_labels, kept


def _too_few(
    labels: Mapping[str, np.ndarray], classes: Sequence[str], kept: Sequence[str], empty: Sequence[str], dataset: str
) -> str:
    """Return a sentence with the splits that would be empty and the number of images of each class."""
    # Count the images of the kept classes in all splits, as a user can in the folder
    kept_labels = [label for label, name in enumerate(classes) if name in kept]
    counts = sum(np.bincount(own, minlength=len(classes)) for own in labels.values())[kept_labels]
    fewest = [f"{count} of {name}" for count, name in sorted(zip(counts, kept, strict=True))[:LISTED]]
    more = f" and {len(kept) - LISTED} more classes" if len(kept) > LISTED else ""

    # Name the empty folders, or what cannot be held out
    empty_folders = [name for name in empty if name in labels]
    if empty_folders:
        return (
            f"the {' and '.join(empty_folders)} folder of {dataset} holds no image of {', '.join(kept[:LISTED])}{more}"
        )
    return (
        f"{dataset} has {', '.join(fewest)}{more}: that leaves no image for {' and '.join(empty)}; "
        "a class needs three images to be in train, val and test, or give the data set val and test folders"
    )


def hold_out(
    labels: np.ndarray, count: int, seed: int, leave: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw about `count` images to hold out, in proportion to the classes; return the kept and held-out indices.

    A class with more than `leave` images has at least one held out and keeps at least `leave`. If that takes more than
    `count` images, more are held out. `labels` is (n,); both results are ascending. Images of one of the `groups` (n,)
    are kept or held out together.
    """
    # Divide the count among the classes
    members = np.bincount(labels)
    most = np.maximum(members - leave, 0)
    quota = shares(members, max(count, np.count_nonzero(most)), np.minimum(most, 1), most)
    # Draw that many images of each
    random = np.random.default_rng(seed)
    drawn = {label: random.permutation(np.flatnonzero(labels == label)) for label in np.flatnonzero(members)}
    if groups is not None:
        held = _whole_groups(labels, groups, drawn, quota, leave)
    else:
        held = np.zeros(len(labels), dtype=bool)
        for label, images in drawn.items():
            held[images[: quota[label]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _whole_groups(
    labels: np.ndarray, groups: np.ndarray, drawn: Mapping[int, np.ndarray], quota: np.ndarray, leave: int
) -> np.ndarray:
    """Hold out the groups of the images in the order in which they are `drawn`; return whether each image is held out.

    A group is taken if that brings the number of images of its classes nearer to the `quota`. With groups of one image
    each, these are the first images of each class.
    """
    # List the images of each group, and count the groups of each class
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(groups, kind="stable"), sizes.cumsum()[:-1])
    in_groups = np.unique(np.stack([groups, labels]), axis=1)[1]
    left = np.bincount(in_groups, minlength=len(quota))
    short = quota.copy()
    held = np.zeros(len(sizes), dtype=bool)

    def take(group: int, always: bool = False) -> None:
        if held[group]:
            return
        own, counts = np.unique(labels[members[group]], return_counts=True)
        is_nearer = np.abs(short[own] - counts).sum() < np.abs(short[own]).sum()
        if (is_nearer or always) and (left[own] > leave).all():
            held[group] = True
            short[own] -= counts
            left[own] -= 1

    # Fill the quota of each class; if all its groups are too large, take the smallest one that can be taken
    for label, images in drawn.items():
        for group in groups[images]:
            if short[label] <= 0:
                break
            if sizes[group] == 1 and left[label] > leave:  # most are, where groups are copies
                held[group] = True
                short[label] -= 1
                left[label] -= 1
            else:
                take(group)
        for group in groups[images][np.argsort(sizes[groups[images]], kind="stable")]:
            if short[label] < quota[label] or not quota[label]:
                break
            take(group, always=True)
    return held[groups]


def shares(members: np.ndarray, count: int, fewest: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Divide `count` images among classes in proportion to their numbers of images, within bounds for each class.

    `members`, `fewest` and `most` are (classes,), and so is the result. Each class gets its share rounded down; the
    rest goes to the largest remainders.
    """
    # Round the shares down
    count = min(max(count, fewest.sum()), most.sum())
    exact = members * (count / max(1, members.sum()))
    quota = np.clip(np.floor(exact).astype(int), fewest, most)

    # Add or take single images until the sum is right
    while quota.sum() != count:
        is_short = quota.sum() < count
        may_change = quota < most if is_short else quota > fewest
        distance = np.where(may_change, exact - quota if is_short else quota - exact, -np.inf)
        quota[distance.argmax()] += 1 if is_short else -1
    return quota
