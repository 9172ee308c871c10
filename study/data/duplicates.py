"""Find images that have the same pixels, within a split and in several.

python -c "import numpy as np; from study.data import duplicates; \\
    print(duplicates.digests(np.zeros((3, 8, 8, 3), np.uint8)))"
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from study.system.errors import some

CHUNK = 1000
"""Number of images that a thread digests at once."""

PAIRS = (("val", "train"), ("test", "train"), ("test", "val"))
"""Splits that should share no image."""

Pair = tuple[tuple[str, int], tuple[str, int]]
"""Two images, each as its split and its place there."""


def digests(images: np.ndarray) -> np.ndarray:
    """Return a digest (n,), int64, of the pixels of each image (n, height, width, channels)."""

    def digest(start: int) -> bytes:
        part = np.ascontiguousarray(images[start : start + CHUNK])
        return b"".join(hashlib.blake2b(image, digest_size=8).digest() for image in part)

    with ThreadPoolExecutor() as pool:
        return np.frombuffer(bytearray().join(pool.map(digest, range(0, len(images), CHUNK))), dtype=np.int64)


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return groups (n,) of the images that are connected by equal values of `first` or of `second`, both (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Connect each value of the first with the values of the second that its images have
    _, left = np.unique(first, return_inverse=True)
    _, right = np.unique(second, return_inverse=True)
    right = right + left.max() + 1
    nodes = right.max() + 1
    edges = coo_array((np.ones(len(left)), (left, right)), shape=(nodes, nodes))
    return connected_components(edges, directed=False)[1][left]


def count(digests_of: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Count the images of each split that are copies of others; both mappings are from splits to (n,).

    `train`, `val` and `test` are the copies within a split, without the first of each; `val in train` and so on are
    the images of a split that another one has too; `other labels` are images of which there is a copy with another
    label, in any split.
    """
    # Within splits, and between each two
    counts = {name: len(own) - len(np.unique(own)) for name, own in digests_of.items()}
    counts |= {f"{name} in {other}": int(np.isin(digests_of[name], digests_of[other]).sum()) for name, other in PAIRS}

    # Copies with different labels
    every = np.concatenate(list(digests_of.values()))
    label_of = np.concatenate([labels[name] for name in digests_of])
    kinds = np.unique(np.stack([every, label_of]), axis=1)[0]
    ambiguous, times = np.unique(kinds, return_counts=True)
    counts["other labels"] = int(np.isin(every, ambiguous[times > 1]).sum())
    return counts if any(counts.values()) else {}


def pairs(digests_of: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], most: int) -> dict[str, list[Pair]]:
    """Return up to `most` pairs of equal images for each of the counts of `count`."""
    found = {}

    # Within splits: a copy and the first one
    for name, own in digests_of.items():
        _, first, inverse = np.unique(own, return_index=True, return_inverse=True)
        copies = np.flatnonzero(first[inverse] != np.arange(len(own)))[:most]
        found[name] = [((name, place), (name, first[inverse[place]])) for place in copies]

    # Between splits
    for one, other in PAIRS:
        known, first = np.unique(digests_of[other], return_index=True)
        both = np.flatnonzero(np.isin(digests_of[one], known))[:most]
        same = first[np.searchsorted(known, digests_of[one][both])]
        found[f"{one} in {other}"] = [((one, place), (other, twin)) for place, twin in zip(both, same, strict=True)]

    # Copies with different labels: the first image of each of two labels
    starts = np.cumsum([0, *map(len, digests_of.values())])
    every = np.concatenate(list(digests_of.values()))
    label_of = np.concatenate([labels[name] for name in digests_of])
    kinds, first = np.unique(np.stack([every, label_of]), axis=1, return_index=True)
    again = np.flatnonzero(kinds[0, 1:] == kinds[0, :-1])
    again = again[np.unique(kinds[0, again], return_index=True)[1]]

    def image(place: int) -> tuple[str, int]:
        split = np.searchsorted(starts, place, side="right") - 1
        return list(digests_of)[split], place - starts[split]

    found["other labels"] = [(image(first[place]), image(first[place + 1])) for place in again[:most]]
    return found


def shared(subjects: Mapping[str, np.ndarray]) -> dict[str, set[str]]:
    """Return the subjects in each split, and those that two splits share; `subjects` maps splits to (n,)."""
    own = {name: set(values.tolist()) for name, values in subjects.items()}
    return own | {f"{one} and {other}": own[one] & own[other] for one, other in PAIRS}


def lines(
    copies: Mapping[str, int],
    subjects: Mapping[str, int],
    images: Mapping[str, int],
    is_joined: bool,
    examples: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return sentences about counts of `count` and of what `shared` found; `images` is the size of each split.

    `is_joined` is whether there are copies that the split keeps together. `examples` has names for each count.
    """
    found = []
    if copies:
        within = [
            f"{copies[name]:,} in {name} ({some(examples[name], copies[name])})" for name in images if copies[name]
        ]
        kept = ", which the split keeps together" * is_joined
        found += [f"copies of other images{kept}: {', '.join(within)}"] if within else []
    for one, other in PAIRS:
        if number := copies.get(key := f"{one} in {other}"):
            found.append(
                f"{number:,} of {images[one]:,} {one} images are in {other} too: {some(examples[key], number)}"
            )
        if number := subjects.get(key := f"{one} and {other}"):
            which = some(examples[key], number)
            found.append(f"{number:,} of {subjects[one]:,} subjects of {one} are in {other} too: {which}")
    if number := copies.get("other labels"):
        which = some(examples["other labels"], number - len(examples["other labels"]))
        found.append(f"{number:,} images have a copy with another label: {which}")
    if subjects:
        found.append(f"subjects: {', '.join(f'{subjects[name]:,} in {name}' for name in images)}")
    return found
