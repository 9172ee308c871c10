"""t-SNE of the features of layers, and measures of how well they separate the classes.

    python -c "from analysis.themes import embedding; from analysis.frames import runs; frames = runs.load('runs'); \\
        arrays = frames.features(frames.runs.index[0]); \\
        print(embedding.separability(arrays['penultimate'], arrays['targets']))"

A picture in two dimensions can mislead; the numbers are measured in the space of the features themselves.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np

from analysis.frames import cache, progress
from analysis.frames.runs import Frames

LAYERS = ("intermediate", "penultimate", "logits")
"""The layers in evaluation.npz, in the order of the network."""

PERPLEXITY = 30
NEIGHBOURS = 10
FOLDS = 5
REGULARIZATION = 0.1
"""C of the linear classifier, the inverse of the L2 penalty."""

COMPONENTS = 50
"""Number of principal components to which features are reduced before t-SNE."""

FEWEST_IMAGES = 20

SAME = 1e-2
"""Features whose difference is below this share of their norm are the same except for rounding."""


@dataclass(frozen=True)
class Layer:
    """A layer of a run: number of features, t-SNE points (n, 2), and the results of `separability`."""

    numbers: int
    points: np.ndarray
    knn: float
    probe: np.ndarray
    silhouette: float


@dataclass(frozen=True)
class Seen:
    """Images seen by a run: their indices, their classes, those that the run predicts, and its layers.

    `sheet` are the images themselves, as `study.training.thumbnails.sheet` draws them; empty if they are not recorded.
    """

    images: np.ndarray
    targets: np.ndarray
    predicted: np.ndarray
    layers: dict[str, Layer]
    sheet: bytes = b""

    @property
    def right(self) -> np.ndarray:
        """Return whether the run classifies each image correctly."""
        return self.predicted == self.targets


def see(frames: Frames, names: Sequence[str]) -> dict[str, Seen]:
    """Embed and measure the layers of runs in parallel; results are cached.

    Left out are runs with too few images or a single class, layers that a run did not record, and a last block that is
    the same as the layer before the last. Layers with the same features, such as those of one frozen body, share one
    Layer.
    """
    # the arrays and layers of each run
    arrays_of = {run: frames.directories[run].evaluation() for run in names}
    arrays_of = {
        run: arrays
        for run, arrays in arrays_of.items()
        if "feature_targets" in arrays and is_enough(arrays["feature_targets"])
    }
    layers = {
        run: [name for name in LAYERS if name in arrays and not _is_next(arrays, name)]
        for run, arrays in arrays_of.items()
    }

    # one task per layer; runs with the same features share it
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), _without_false_alarms(), ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks: dict[tuple[str, str], Future[Layer]] = {}
        for run, arrays in arrays_of.items():
            for layer in layers[run]:
                alike = (
                    task
                    for (other, its), task in tasks.items()
                    if its == layer and _is_same(arrays_of[other], arrays, layer)
                )
                tasks[run, layer] = next(alike, None) or pool.submit(look_at, arrays[layer], arrays["feature_targets"])
        for task in progress.as_completed(dict.fromkeys(tasks.values(), 1), "t-SNE"):
            task.result()

    # results by run
    return {
        run: Seen(
            arrays["feature_index"],
            arrays["feature_targets"],
            arrays["logits"].argmax(1),
            {layer: tasks[run, layer].result() for layer in layers[run]},
            arrays["feature_images"].tobytes() if "feature_images" in arrays else b"",
        )
        for run, arrays in arrays_of.items()
    }


@contextmanager
def _without_false_alarms() -> Iterator[None]:
    """Leave out a warning of scikit-learn for the length of a `with` block.

    Its threads change the filters of warnings, which all share; one that finds them empty warns for no reason, and a
    filter against that would be gone too.
    """
    show = warnings.showwarning

    def show_others(message: Warning | str, *args: Any, **options: Any) -> None:
        if "sklearn.utils.parallel.delayed" not in str(message):
            show(message, *args, **options)

    warnings.showwarning = show_others
    try:
        yield
    finally:
        warnings.showwarning = show


def _is_next(arrays: Mapping[str, np.ndarray], layer: str) -> bool:
    """Return whether a layer has the same features as the next one, because nothing lies between them."""
    return layer == LAYERS[0] and LAYERS[1] in arrays and np.array_equal(arrays[layer], arrays[LAYERS[1]])


def _is_same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], layer: str) -> bool:
    """Return whether a layer has the same features of the same images in two runs, except for rounding."""
    same = all(np.array_equal(a[name], b[name]) for name in ("feature_index", "feature_targets"))
    if not same or a[layer].shape != b[layer].shape:
        return False
    features = _finite(a[layer])
    others = _finite(b[layer])
    return bool(np.linalg.norm(features - others) <= SAME * np.linalg.norm(features))


def is_enough(targets: np.ndarray) -> bool:
    """Return whether there are enough images, in all and per class on average, to measure separability."""
    members = np.unique(targets, return_counts=True)[1]
    return len(targets) >= FEWEST_IMAGES and members.mean() >= FOLDS and (members > 1).sum() > 1


def look_at(features: np.ndarray, targets: np.ndarray) -> Layer:
    """Embed and measure one layer, or take it from the cache."""
    # the key covers everything that the result depends on
    settings = json.dumps(
        [
            PERPLEXITY,
            COMPONENTS,
            NEIGHBOURS,
            FOLDS,
            REGULARIZATION,
            features.shape,
            str(features.dtype),
            metadata.version("openTSNE"),
            metadata.version("scikit-learn"),
        ]
    )
    digest = hashlib.sha256(settings.encode() + features.tobytes() + targets.tobytes()).hexdigest()

    # t-SNE and separability
    arrays = cache.arrays("layers", digest, lambda: {"points": tsne(features), **separability(features, targets)})
    return Layer(
        features.shape[1], arrays["points"], float(arrays["knn"]), arrays["probe"], float(arrays["silhouette"])
    )


def perplexity(images: int) -> int:
    """Return the perplexity for a number of images: 30, or less than a third of them."""
    return min(PERPLEXITY, (images - 1) // 3)


def tsne(features: np.ndarray, jobs: int = 1) -> np.ndarray:
    """Embed features (n, numbers) in two dimensions (n, 2), with openTSNE initialised by PCA.

    The learning rate is n / 12 (Belkina et al. 2019).
    """
    from openTSNE import TSNE
    from sklearn.decomposition import PCA

    # constant features and a single feature are special cases
    features = _finite(features)
    if not features.std(axis=0).any():
        return np.zeros((len(features), 2))
    if features.shape[1] == 1:
        features = np.pad(features, ((0, 0), (0, 1)))

    # reduce to principal components, then embed
    reduced = PCA(min(COMPONENTS, *features.shape), random_state=0).fit_transform(features)
    embedded = TSNE(
        perplexity=perplexity(len(features)),
        learning_rate=len(features) / 12,
        initialization="pca",
        neighbors="exact",
        negative_gradient_method="bh",
        n_jobs=jobs,
        random_state=0,
    ).fit(reduced)
    return np.asarray(embedded)


def separability(features: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Measure how well features (n, numbers) separate the classes, without the last layer of the network.

    Returns `knn`, the accuracy of a nearest-neighbour classifier; `probe` (n,), whether a linear classifier (logistic
    regression on scaled features) is right about each image; both are cross-validated. `silhouette` of the classes is
    between -1 and 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import silhouette_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # classes with a single image cannot be cross-validated
    features = _finite(features)
    members = np.bincount(targets)[targets]  # size of the class of each image
    often = members >= 2
    folds = min(FOLDS, int(members[often].min()))
    splits = StratifiedKFold(folds, shuffle=True, random_state=0)

    # both classifiers on the same folds
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARIZATION, max_iter=5000))
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, often.sum() // 2))
    probe = np.zeros(len(targets), bool)
    near = np.zeros(len(targets), bool)
    for right, classifier in ((probe, linear), (near, neighbours)):
        right[often] = cross_val_predict(classifier, features[often], targets[often], cv=splits) == targets[often]
    silhouette = silhouette_score(features, targets)
    return {"knn": np.float64(near.mean()), "probe": probe, "silhouette": np.float64(silhouette)}


def _finite(features: np.ndarray) -> np.ndarray:
    """Convert features to float32, with finite numbers in place of NaN and infinity."""
    return np.nan_to_num(features.astype(np.float32), posinf=6.5e4, neginf=-6.5e4)


def align(seen: Mapping[str, Seen]) -> dict[str, Seen]:
    """Rotate and mirror all embeddings of the same images to match that of the first run (orthogonal Procrustes).

    The reference is its layer before the last, or its logits. Distances within each embedding do not change.
    """
    from scipy.linalg import orthogonal_procrustes

    if not seen:
        return {}

    # the reference
    first = next(iter(seen.values()))
    reference = _centred(first.layers.get("penultimate", first.layers["logits"]).points)

    # embeddings of other images are only centred
    aligned = {}
    for run, other in seen.items():
        same = np.array_equal(other.images, first.images) and np.array_equal(other.targets, first.targets)
        layers = {}
        for name, layer in other.layers.items():
            points = _centred(layer.points)
            if same:
                points = points @ orthogonal_procrustes(points, reference)[0]
            layers[name] = replace(layer, points=points)
        aligned[run] = replace(other, layers=layers)
    return aligned


def _centred(points: np.ndarray) -> np.ndarray:
    return points - points.mean(0)
