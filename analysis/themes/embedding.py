"""t-SNE of the features of a network's layers, and the numbers that say how well they separate the classes.

    python -c "from analysis.themes import embedding; from analysis.frames import runs; frames = runs.load('runs'); \\
        found = frames.features(frames.runs.index[0]); \\
        print(embedding.separability(found['penultimate'], found['targets']))"

A picture in two dimensions can mislead; the numbers are measured in the space of the features themselves.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import metadata

import numpy as np
from threadpoolctl import threadpool_limits

from analysis.frames import cache, progress
from analysis.frames.runs import Frames

LAYERS = ("intermediate", "penultimate", "logits")
"""The layers in evaluation.npz, the first of the network first."""

PERPLEXITY = 30
NEIGHBOURS = 10
FOLDS = 5
REGULARIZATION = 0.1
"""C of the linear classifier: the inverse of the strength of its L2 penalty."""

COMPONENTS = 50
"""Features are reduced to so many principal components before t-SNE."""

FEWEST_IMAGES = 20

SAME = 1e-2
"""Features that differ by less than this share of their length are the same but for rounding."""


@dataclass(frozen=True)
class Layer:
    """A layer of a run: where t-SNE puts each image (n, 2), and what `separability` says of it."""

    numbers: int
    points: np.ndarray
    knn: float
    probe: np.ndarray
    silhouette: float


@dataclass(frozen=True)
class Seen:
    """What a run makes of images: which they are, their classes, which of them it recognises, its layers by name."""

    images: np.ndarray
    targets: np.ndarray
    right: np.ndarray
    layers: dict[str, Layer]


def see(frames: Frames, names: Sequence[str]) -> dict[str, Seen]:
    """Embed and measure the layers of runs, several at a time; what was measured before comes from the cache.

    Runs with too few images, or of a single class, are left out; so is a layer that a run could not measure, and a last
    block that the last layer follows at once, which is the layer before the last. Layers with the same features, as
    those of one frozen body, are one Layer.
    """
    arrays = {run: frames.directories[run].evaluation() for run in names}
    arrays = {
        run: one for run, one in arrays.items() if "feature_targets" in one and _is_enough(one["feature_targets"])
    }
    layers = {run: [name for name in LAYERS if name in one and not _is_next(one, name)] for run, one in arrays.items()}
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks: dict[tuple[str, str], Future[Layer]] = {}
        for run, one in arrays.items():
            for layer in layers[run]:
                alike = (task for (other, its), task in tasks.items()
                         if its == layer and _is_same(arrays[other], one, layer))  # fmt: skip
                tasks[run, layer] = next(alike, None) or pool.submit(_look, one[layer], one["feature_targets"])
        for task in progress.as_completed(set(tasks.values()), "t-SNE"):
            task.result()
    return {
        run: Seen(
            one["feature_index"],
            one["feature_targets"],
            one["logits"].argmax(1) == one["feature_targets"],
            {layer: tasks[run, layer].result() for layer in layers[run]},
        )
        for run, one in arrays.items()
    }


def _is_next(arrays: Mapping[str, np.ndarray], layer: str) -> bool:
    """Tell whether a layer is the same as the one after it, as where a last layer follows the features."""
    return layer == LAYERS[0] and LAYERS[1] in arrays and np.array_equal(arrays[layer], arrays[LAYERS[1]])


def _is_same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], layer: str) -> bool:
    """Tell whether a layer of two runs has the same features of the same images, but for rounding."""
    same = all(np.array_equal(one[name], other[name]) for name in ("feature_index", "feature_targets"))
    if not same or one[layer].shape != other[layer].shape:
        return False
    features, others = _finite(one[layer]), _finite(other[layer])
    return bool(np.linalg.norm(features - others) <= SAME * np.linalg.norm(features))


def _is_enough(targets: np.ndarray) -> bool:
    """Tell whether there are enough images, of each class in the mean, to measure how separable the classes are."""
    members = np.unique(targets, return_counts=True)[1]
    return len(targets) >= FEWEST_IMAGES and members.mean() >= FOLDS and (members > 1).sum() > 1


def _look(features: np.ndarray, targets: np.ndarray) -> Layer:
    """Embed and measure one layer, or take it from the cache."""
    said = json.dumps([PERPLEXITY, COMPONENTS, NEIGHBOURS, FOLDS, REGULARIZATION, features.shape, str(features.dtype),
                       metadata.version("openTSNE"), metadata.version("scikit-learn")])  # fmt: skip
    digest = hashlib.sha256(said.encode() + features.tobytes() + targets.tobytes()).hexdigest()
    found = cache.arrays("layers", digest, lambda: {"points": tsne(features), **separability(features, targets)})
    return Layer(features.shape[1], found["points"], float(found["knn"]), found["probe"], float(found["silhouette"]))


def perplexity(images: int) -> int:
    """Return the perplexity for so many images: 30, or less than a third of them."""
    return min(PERPLEXITY, (images - 1) // 3)


def tsne(features: np.ndarray, jobs: int = 1) -> np.ndarray:
    """Embed features (n, numbers) in two dimensions (n, 2), by openTSNE from a start by PCA.

    The learning rate is n / 12 (Belkina et al. 2019).
    """
    from openTSNE import TSNE
    from sklearn.decomposition import PCA

    features = _finite(features)
    if not features.std(axis=0).any():
        return np.zeros((len(features), 2))
    if features.shape[1] == 1:  # two dimensions are asked for, of a layer with a single unit too
        features = np.pad(features, ((0, 0), (0, 1)))
    reduced = PCA(min(COMPONENTS, *features.shape), random_state=0).fit_transform(features)
    embedded = TSNE(
        perplexity=perplexity(len(features)), learning_rate=len(features) / 12, initialization="pca",
        neighbors="exact", negative_gradient_method="bh", n_jobs=jobs, random_state=0,
    ).fit(reduced)  # fmt: skip
    return np.asarray(embedded)


def separability(features: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Measure how well features (n, numbers) separate classes, without the network's own last layer.

    `knn`: the accuracy of the nearest neighbours; `probe` (n,): whether a linear classifier (logistic regression on
    scaled features) is right about each image; both by cross-validation. `silhouette` of the classes, from -1 to 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import silhouette_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = _finite(features)
    members = np.bincount(targets)[targets]  # of each image's class
    often = members >= 2
    folds = min(FOLDS, int(members[often].min()))
    splits = StratifiedKFold(folds, shuffle=True, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARIZATION, max_iter=5000))
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, often.sum() // 2))
    probe, near = (np.zeros(len(targets), bool) for _ in range(2))
    for right, classifier in ((probe, linear), (near, neighbours)):
        right[often] = cross_val_predict(classifier, features[often], targets[often], cv=splits) == targets[often]
    silhouette = silhouette_score(features, targets)
    return {"knn": np.float64(near.mean()), "probe": probe, "silhouette": np.float64(silhouette)}


def _finite(features: np.ndarray) -> np.ndarray:
    return np.nan_to_num(features.astype(np.float32), posinf=6.5e4, neginf=-6.5e4)


def align(seen: Mapping[str, Seen]) -> dict[str, Seen]:
    """Turn and mirror all embeddings of the same images to lie like the first run's layer before the last, or logits.

    Distances within each embedding stay as they are (orthogonal Procrustes).
    """
    from scipy.linalg import orthogonal_procrustes

    if not seen:
        return {}
    first = next(iter(seen.values()))
    wanted = _centred(first.layers.get("penultimate", first.layers["logits"]).points)
    aligned = {}
    for run, one in seen.items():
        same = np.array_equal(one.images, first.images) and np.array_equal(one.targets, first.targets)
        layers = {}
        for name, layer in one.layers.items():
            points = _centred(layer.points)
            layers[name] = replace(layer, points=points @ orthogonal_procrustes(points, wanted)[0] if same else points)
        aligned[run] = replace(one, layers=layers)
    return aligned


def _centred(points: np.ndarray) -> np.ndarray:
    return points - points.mean(0)
