"""Load images for a pretrained network, and fit a linear SVM to the features of its frozen body.

    python -m study.train --model resnet50 --pretrained --finetune svm --dataset pets

The SVM is fitted to features scaled to unit length and has no intercept, so its predictions do not depend on their
length, and it can become the head of the network: a linear layer without bias. The network is then saved and used like
any other. Its logits are multiplied by the factor with which their softmax fits the validation images best.
"""

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from study import models
from study.config import RESULTS_VERSION, Config
from study.data import dataset as data_sets
from study.data import folder
from study.data.dataset import Data, Split, memory_format
from study.data.memory import Memory
from study.models import pretrained
from study.models.pretrained import Pretrained
from study.system import devices
from study.system import files as cache
from study.system.errors import UserError
from study.system.progress import Progress, Say
from study.training import evaluation, explain

PENALTIES = tuple(10.0**power for power in range(-3, 4))
"""Values of C to choose from, by validation accuracy or cross-validation; of equally good ones, the smallest."""

FEW_IMAGES = 1_000
"""With fewer validation images, C is chosen by cross-validation on the training images."""

FOLDS = 5
MAX_ITERATIONS = 5_000
PROGRESS_SECONDS = 30.0
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Svm:
    """Result of fitting: the row of the only epoch, contents of summary.json and evaluation.npz, weights, and C."""

    row: dict[str, float]
    summary: dict[str, float]
    arrays: dict[str, np.ndarray]
    weights: dict[str, Tensor]
    penalty: float


def load_data(
    config: Config,
    pretraining: Pretrained | None,
    device: torch.device,
    say: Say,
    shared_by: int = 1,
    memory: Memory | None = None,
) -> Data:
    """Load the data of a config; for a pretrained network, with its image size, mean and standard deviation.

    `shared_by` and `memory` are those of `dataset.load`.
    """
    if pretraining is None:
        return data_sets.load(config, device, say, shared_by, memory)
    config = config.model_copy(update={"image_size": pretraining.image_size})
    data = data_sets.load(config, device, say, shared_by, memory)
    mean = pretraining.mean
    std = pretraining.std
    if data.image_shape[0] == 1:
        mean = (sum(mean) / len(mean),)
        std = (sum(std) / len(std),)
    return replace(data, mean=mean, std=std)


def fit_svm(
    config: Config,
    pretraining: Pretrained,
    device: torch.device,
    say: Say,
    on_batch: Callable[[int, int], None],
    memory: Memory | None = None,
) -> Svm:
    """Fit a linear SVM to the frozen network's features of the training images, and test it once.

    The features of all images of a data set are extracted and kept in DATA_DIR/.cache. `on_batch` gets the number of
    finished batches and of all batches; `memory` is that of `dataset.load`. Recorded times are those of the fit and of
    the extraction of the images used, also if they were extracted before. Raises UserError if the network does not end
    in one linear layer.
    """
    # Build the network, and check that an SVM can be its head
    all_data = load_data(config.model_copy(update={"train_images": None}), pretraining, device, say, memory=memory)
    model = models.create(config, all_data.image_shape, len(all_data.classes))
    head = _head(config, model, pretrained.begin(model, pretraining, config))
    model.to(device, memory_format=memory_format(device)).eval()
    sizes = evaluation.measure(model, all_data, config.model, say)
    _check_features(config, model, head, all_data)

    # Extract the features, or read them from the cache
    path = Path(config.data_dir) / ".cache" / f"features-{_key(config, pretraining, all_data)}.pt"
    size = evaluation.batch_size(all_data.image_shape, config.batch_size, device)
    content = cache.cached(path, lambda: _extract(model, all_data, size, device, say, on_batch), "the features", say)

    # Fit the SVM, and compute its logits for every split
    data = replace(all_data, train=data_sets.drawn(all_data.train, config, all_data.classes))
    features = {name: Split(content[name].to(device), getattr(all_data, name).labels) for name in SPLITS}
    features["train"] = data_sets.drawn(features["train"], config, all_data.classes)
    started = time.perf_counter()
    penalty = _fit_head(head, features["train"], features["val"], config.seed, say, on_batch)
    fit_seconds = time.perf_counter() - started
    logits = {name: _scores(head, split.images) for name, split in features.items()}
    logged = evaluation.logged(config, data)
    scores = {name: evaluation.scores(name, logits[name], split.labels, logged) for name, split in features.items()}

    # Make the row of the only epoch
    per_image = content["seconds_per_image"]
    row = {
        "epoch": 1,
        "train/loss": scores["train"]["train/loss"],
        "train/acc": scores["train"]["train/acc"],
        **scores["val"],
        "time/epoch": fit_seconds + per_image * (len(data.train) + len(data.val)),
        "time/images_per_second": len(data.train) / (fit_seconds + per_image * len(data.train)),
        "memory/peak_mb": content["peak_mb"],
    }

    # Make the summary and the arrays of the evaluation
    sample = evaluation.train_sample(data).to(device)
    chosen = evaluation.feature_sample(data)
    sampled = evaluation.score(logits["train"][sample], data.train.labels[sample])
    summary = sizes | {"train_seconds": row["time/epoch"]}
    summary |= evaluation.summary_of("last", row, sampled) | evaluation.summary_of("best", row, sampled)
    summary |= scores["test"]
    activations = {
        "logits": logits["val"].cpu()[chosen],
        "penultimate": content["val"][chosen],
    }
    if len(content.get("intermediate", ())) == len(all_data.val):
        activations["intermediate"] = content["intermediate"][chosen]
    arrays = evaluation.arrays(data, logits["test"], chosen, activations)
    mistakes = torch.from_numpy(arrays["mistake_index"]).to(device)
    known = {name: split.images for name, split in features.items()}
    arrays |= explain.arrays(model, data, logits["test"], mistakes, size, say, known)
    return Svm(row, summary, arrays, model.state_dict(), penalty)


def _head(config: Config, model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """Return the layer that will hold the SVM; raise UserError if it is not the only one, or not linear."""
    head = model.get_submodule(names[0])
    is_linear = isinstance(head, nn.Linear) or (isinstance(head, nn.Conv2d) and head.weight[0, 0].numel() == 1)
    if len(names) > 1 or not is_linear:
        raise _no_linear_end(config)
    return head


@torch.inference_mode()
def _check_features(config: Config, model: nn.Module, head: nn.Module, data: Data) -> None:
    """Raise UserError unless the network's logits are those of its head applied to `penultimate`."""
    nn.init.normal_(head.weight, generator=torch.Generator(head.weight.device).manual_seed(0))
    outputs = models.activations(model, data.prepared(data.val.take(slice(evaluation.MEASURED_IMAGES))))
    features = outputs.get("penultimate")
    logits = outputs["logits"]
    fits = features is not None and features.shape[1] == head.weight.shape[1]
    if not fits or not torch.allclose(_scores(head, features), logits, atol=0.01 * float(logits.abs().max())):
        raise _no_linear_end(config)
    nn.init.zeros_(head.weight)


def _no_linear_end(config: Config) -> UserError:
    return UserError(f"{config.model} does not end in one linear layer, which an SVM could replace; use finetune head")


def _key(config: Config, pretraining: Pretrained, data: Data) -> str:
    """Return a digest of everything that the features depend on."""
    files = folder.of(config)
    parts = (
        RESULTS_VERSION,
        config.model,
        pretraining.digest,
        config.dataset,
        files and files.digest,
        data.classes,
        data.image_shape,
        data.mean,
        data.std,
        config.split_seed,
        config.val_share,
        config.test_share,
        data.is_joined,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@torch.inference_mode()
def _extract(
    model: nn.Module, data: Data, size: int, device: torch.device, say: Say, on_batch: Callable[[int, int], None]
) -> dict[str, Any]:
    """Return the features (n, columns) of each split, the `intermediate` features of `val`, and their cost."""
    # Count images and batches
    splits = {name: getattr(data, name) for name in SPLITS}
    images = sum(len(split) for split in splits.values())
    batches = sum(math.ceil(len(split) / size) for split in splits.values())
    features: dict[str, list[Tensor]] = {name: [] for name in (*SPLITS, "intermediate")}
    say(f"extracting the features of {images:,} images (once)")
    devices.forget_peak(device)

    # Run the network on all splits, and report the progress
    started = time.monotonic()
    progress = Progress(batches, "extracted the features of", "batches", say, PROGRESS_SECONDS)
    done = 0
    for name, split in splits.items():
        for batch in split.batches(size):
            activations = models.activations(model, data.prepared(batch))
            features[name].append(activations["penultimate"].cpu())
            if name == "val" and "intermediate" in activations:
                features["intermediate"].append(activations["intermediate"].half().cpu())
            done += 1
            on_batch(done, batches)
            progress.show(done)

    # Add the time and memory that it took
    cost = {"seconds_per_image": (time.monotonic() - started) / images, "peak_mb": devices.peak_megabytes(device)}
    return {name: torch.cat(parts) for name, parts in features.items() if parts} | cost


def _fit_head(
    head: nn.Module, train: Split, val: Split, seed: int, say: Say, on_batch: Callable[[int, int], None]
) -> float:
    """Fit an SVM to features (n, columns) with the best C of PENALTIES, copy it into the head, and return its C.

    `on_batch` gets the number of fitted SVMs and of all SVMs.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    def fit(x: np.ndarray, y: np.ndarray, penalty: float) -> LinearSVC:
        state = seed % 2**32
        svm = LinearSVC(C=penalty, dual="auto", fit_intercept=False, max_iter=MAX_ITERATIONS, random_state=state)
        return svm.fit(x, y)

    # Join training and validation images, and divide them to choose C
    x = torch.cat([train.images, val.images]).cpu()
    x = nn.functional.normalize(x.double()).numpy()
    y = torch.cat([train.labels, val.labels]).cpu().numpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        divisions = _divisions(y, len(train), seed)
    fits = len(PENALTIES) * len(divisions) + 1
    done = 0
    progress = Progress(fits, "fitted", "SVMs", say, PROGRESS_SECONDS)
    accuracies = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)

        # Measure each C on held-out images
        for penalty in PENALTIES:
            scores = []
            for fit_index, test_index in divisions:
                scores.append(fit(x[fit_index], y[fit_index], penalty).score(x[test_index], y[test_index]))
                done += 1
                on_batch(done, fits)
            accuracies[penalty] = np.mean(scores)
            progress.show(done, f": {accuracies[penalty]:.1%} right with C = {penalty:g}")

        # Fit to all training images with the best C
        svm = fit(x[: len(train)], y[: len(train)], max(PENALTIES, key=accuracies.__getitem__))
        on_batch(fits, fits)
    if svm.n_iter_ >= MAX_ITERATIONS:
        say(f"the SVM with C = {svm.C:g} has not converged in {MAX_ITERATIONS:,} iterations")

    # Copy the weights into the head
    weight = svm.coef_
    if len(weight) == 1:  # with two classes, the SVM scores only the second
        weight = np.concatenate([-weight, weight]) / 2
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight).view_as(head.weight))
        if head.bias is not None:
            head.bias.zero_()
        head.weight *= _inverse_temperature(_scores(head, val.images), val.labels)
    return svm.C


def _divisions(labels: np.ndarray, train_images: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of indices (fitted images, measured images) by which C is chosen.

    `labels` are those of the training images, followed by those of the validation images. There is one pair if there
    are many validation images, which are then measured; otherwise the folds of a stratified cross-validation on the
    training images.
    """
    from sklearn.model_selection import StratifiedKFold

    # Use the validation images if there are enough
    train = labels[:train_images]
    members = np.bincount(train)
    often = np.flatnonzero(members[train] > 1)  # a class with one image is never measured
    if len(labels) - train_images >= FEW_IMAGES or not len(often):
        return [(np.arange(train_images), np.arange(train_images, len(labels)))]

    # Otherwise use cross-validation
    folds = min(FOLDS, int(members.max()))
    folding = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    everything = np.arange(train_images)
    return [
        (np.setdiff1d(everything, often[held]), often[held]) for _, held in folding.split(train[often], train[often])
    ]


def _inverse_temperature(scores: Tensor, labels: Tensor) -> float:
    """Return the factor of scores (n, classes) that minimizes the cross-entropy of the labels (temperature scaling).

    Guo et al. 2017, https://arxiv.org/abs/1706.04599; it does not change predictions.
    """
    from scipy.optimize import minimize_scalar

    def loss(exponent: float) -> float:
        return evaluation.score(scores * math.exp(exponent), labels)[0]

    return math.exp(minimize_scalar(loss, bounds=(-5, 10), method="bounded").x)


@torch.inference_mode()
def _scores(head: nn.Module, features: Tensor) -> Tensor:
    """Return the logits of features (n, columns)."""
    return nn.functional.linear(features, head.weight.flatten(1), head.bias)
