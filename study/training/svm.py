"""Transfer from a pretrained network: images as it wants them, and a linear SVM on the features of its frozen body.

    python -m study.train --model resnet50 --pretrained --finetune svm --dataset pets

The SVM is fitted to features of unit length and has no intercept, so that it predicts the same for features of any
length: it is a linear layer without a bias. It becomes the head of the network, which is then saved and used like any
other. Its logits are multiplied by one factor for all, with which their softmax fits the validation images best.
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
from study.models import pretrained
from study.models.pretrained import Pretrained
from study.system import devices
from study.system import files as cache
from study.system.errors import UserError
from study.training import evaluation

PENALTIES = tuple(10.0**power for power in range(-3, 4))
"""The SVM's C is the best of these, the smallest of equals: on the validation images, or by cross-validation."""

FEW_IMAGES = 1_000
"""With fewer validation images than this, C is chosen by cross-validation on the training images."""

FOLDS = 5
MAX_ITERATIONS = 5_000
TELL_SECONDS = 30.0
SPLITS = ("train", "val", "test")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Svm:
    """A network whose head is an SVM: the row of its only epoch, summary.json, evaluation.npz, its weights, its C."""

    row: dict[str, float]
    summary: dict[str, float]
    arrays: dict[str, np.ndarray]
    weights: dict[str, Tensor]
    penalty: float


def load_data(config: Config, given: Pretrained | None, device: torch.device, say: Say, shared_by: int = 1) -> Data:
    """Load the data of a config, in the size, mean and standard deviation of a network's pretraining if it had any.

    `shared_by` as of `data.load`.
    """
    if given is None:
        return data_sets.load(config, device, say, shared_by)
    data = data_sets.load(config.model_copy(update={"image_size": given.image_size}), device, say, shared_by)
    mean, std = given.mean, given.std
    if data.image_shape[0] == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return replace(data, mean=mean, std=std)


def fit_svm(
    config: Config, given: Pretrained, device: torch.device, say: Say, on_batch: Callable[[int, int], None]
) -> Svm:
    """Fit a linear SVM to what the frozen network makes of the training images, and test it, once.

    Features are extracted for all images of a data set at once and kept in DATA_DIR/.cache; `on_batch` gets the batches
    done and their number. Times are those of the fit and of the extraction, then or now, of the images that it used.
    """
    whole = load_data(config.model_copy(update={"train_images": None}), given, device, say)
    model = models.create(config, whole.image_shape, len(whole.classes))
    head = _head(config, model, pretrained.begin(model, given, config))
    model.to(device, memory_format=memory_format(device)).eval()
    sizes = evaluation.measure(model, whole, config.model, say)
    _check_features(config, model, head, whole)
    path = Path(config.data_dir) / ".cache" / f"features-{_key(config, given, whole)}.pt"
    size = evaluation.batch_size(whole.image_shape, config.batch_size, device)
    content = cache.through(path, lambda: _extract(model, whole, size, device, say, on_batch), "the features", say)

    data = replace(whole, train=data_sets.drawn(whole.train, config, whole.classes))
    features = {name: Split(content[name].to(device), getattr(whole, name).labels) for name in SPLITS}
    features["train"] = data_sets.drawn(features["train"], config, whole.classes)
    started = time.perf_counter()
    penalty = _fit_head(head, features["train"], features["val"], config.seed, say, on_batch)
    fit_seconds = time.perf_counter() - started
    logits = {name: _scores(head, split.images) for name, split in features.items()}
    scores = {name: evaluation.score(logits[name], split.labels) for name, split in features.items()}

    per_image = content["seconds_per_image"]
    row = {
        "epoch": 1,
        "train/loss": scores["train"][0],
        "train/acc": scores["train"][1],
        "val/loss": scores["val"][0],
        "val/acc": scores["val"][1],
        "time/epoch": fit_seconds + per_image * (len(data.train) + len(data.val)),
        "time/images_per_second": len(data.train) / (fit_seconds + per_image * len(data.train)),
        "memory/peak_mb": content["peak_mb"],
    }
    sample, chosen = evaluation.train_sample(data).to(device), evaluation.feature_sample(data)
    sampled = evaluation.score(logits["train"][sample], data.train.labels[sample])
    summary = sizes | {"train_seconds": row["time/epoch"]}
    summary |= evaluation.summary_of("last", row, sampled) | evaluation.summary_of("best", row, sampled)
    summary["test/loss"], summary["test/acc"] = scores["test"]
    activations = {
        "logits": logits["val"].cpu()[chosen],
        "penultimate": content["val"][chosen],
    }
    if len(content.get("intermediate", ())) == len(whole.val):
        activations["intermediate"] = content["intermediate"][chosen]
    return Svm(row, summary, evaluation.arrays(data, logits["test"], chosen, activations), model.state_dict(), penalty)


def _head(config: Config, model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """Return the layer that the SVM becomes."""
    head = model.get_submodule(names[0])
    is_linear = isinstance(head, nn.Linear) or (isinstance(head, nn.Conv2d) and head.weight[0, 0].numel() == 1)
    if len(names) > 1 or not is_linear:
        raise _no_linear_end(config)
    return head


@torch.inference_mode()
def _check_features(config: Config, model: nn.Module, head: nn.Module, data: Data) -> None:
    """Raise UserError unless the logits of a few images are the head's of what it gets, as the SVM's will be."""
    nn.init.normal_(head.weight, generator=torch.Generator(head.weight.device).manual_seed(0))
    found = models.activations(model, data.prepared(data.val.take(slice(evaluation.MEASURED_IMAGES))))
    features, logits = found.get("penultimate"), found["logits"]
    fits = features is not None and features.shape[1] == head.weight.shape[1]
    if not fits or not torch.allclose(_scores(head, features), logits, atol=0.01 * float(logits.abs().max())):
        raise _no_linear_end(config)
    nn.init.zeros_(head.weight)


def _no_linear_end(config: Config) -> UserError:
    return UserError(f"{config.model} does not end in one linear layer, which the SVM would become; use finetune head")


def _key(config: Config, given: Pretrained, data: Data) -> str:
    """Name the features of a network, its weights, a data set and the size of its images."""
    files = folder.of(config)
    parts = (
        RESULTS_VERSION, config.model, given.digest, config.dataset, files and files.digest, data.classes,
        data.image_shape, data.mean, data.std, config.split_seed,
    )  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@torch.inference_mode()
def _extract(
    model: nn.Module, data: Data, size: int, device: torch.device, say: Say, on_batch: Callable[[int, int], None]
) -> dict[str, Any]:
    """Return what the head gets of every image of each split, and the intermediate features of `val`; their cost."""
    splits = {name: getattr(data, name) for name in SPLITS}
    images, batches = (sum(math.ceil(len(split) / each) for split in splits.values()) for each in (1, size))
    found: dict[str, list[Tensor]] = {name: [] for name in (*SPLITS, "intermediate")}
    say(f"extracting the features of {images:,} images (once)")
    devices.forget_peak(device)
    started = told = time.monotonic()
    done = 0
    for name, split in splits.items():
        for batch in split.batches(size):
            activations = models.activations(model, data.prepared(batch))
            found[name].append(activations["penultimate"].cpu())
            if name == "val" and "intermediate" in activations:
                found["intermediate"].append(activations["intermediate"].half().cpu())
            done += 1
            on_batch(done, batches)
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                say(f"extracted {done / batches:.0%}, {(told - started) * (batches - done) / done:.0f} s to go")
    cost = {"seconds_per_image": (time.monotonic() - started) / images, "peak_mb": devices.peak_megabytes(device)}
    return {name: torch.cat(parts) for name, parts in found.items() if parts} | cost


def _fit_head(
    head: nn.Module, train: Split, val: Split, seed: int, say: Say, on_batch: Callable[[int, int], None]
) -> float:
    """Fit an SVM to features (n, columns), with the best C of PENALTIES, make it the head, and return its C.

    `on_batch` gets the number of SVMs that are fitted, and of all that will be.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    def fit(x: np.ndarray, y: np.ndarray, penalty: float) -> LinearSVC:
        state = seed % 2**32
        svm = LinearSVC(C=penalty, dual="auto", fit_intercept=False, max_iter=MAX_ITERATIONS, random_state=state)
        return svm.fit(x, y)

    x, y = (torch.cat([getattr(split, name) for split in (train, val)]).cpu() for name in ("images", "labels"))
    x, y = nn.functional.normalize(x.double()).numpy(), y.numpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        divisions = _divisions(y, len(train), seed)
    fits, done, told = len(PENALTIES) * len(divisions) + 1, 0, time.monotonic()
    accuracies = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)

        # Measure each C on images that the SVM was not fitted to
        for penalty in PENALTIES:
            measured = []
            for kept, held in divisions:
                measured.append(fit(x[kept], y[kept], penalty).score(x[held], y[held]))
                done += 1
                on_batch(done, fits)
            accuracies[penalty] = np.mean(measured)
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                say(f"fitted {done} of {fits} SVMs: {accuracies[penalty]:.1%} right with C = {penalty:g}")

        # Fit to all training images with the best
        svm = fit(x[: len(train)], y[: len(train)], max(PENALTIES, key=accuracies.__getitem__))
        on_batch(fits, fits)
    if svm.n_iter_ >= MAX_ITERATIONS:
        say(f"the SVM with C = {svm.C:g} has not converged in {MAX_ITERATIONS:,} iterations")
    weight = svm.coef_
    if len(weight) == 1:  # of two classes it scores the second
        weight = np.concatenate([-weight, weight]) / 2
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight).view_as(head.weight))
        if head.bias is not None:
            head.bias.zero_()
        head.weight *= _sharpness(_scores(head, val.images), val.labels)
    return svm.C


def _divisions(labels: np.ndarray, train_images: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide images to choose C: which of them to fit to, and which to measure on.

    `labels` are those of the training images, then of the validation images. Where the latter are many, they are
    measured on; else each part of the training images is, in turn, with each class in proportion.
    """
    from sklearn.model_selection import StratifiedKFold

    train = labels[:train_images]
    members = np.bincount(train)
    often = np.flatnonzero(members[train] > 1)  # the only image of a class is always fitted to
    if len(labels) - train_images >= FEW_IMAGES or not len(often):
        return [(np.arange(train_images), np.arange(train_images, len(labels)))]
    folds = min(FOLDS, int(members.max()))
    folding = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    everything = np.arange(train_images)
    return [
        (np.setdiff1d(everything, often[held]), often[held]) for _, held in folding.split(train[often], train[often])
    ]


def _sharpness(scores: Tensor, labels: Tensor) -> float:
    """Return the factor of scores (n, classes) with which their softmax fits the labels best: temperature scaling.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599; predictions stay as they are.
    """
    from scipy.optimize import minimize_scalar

    def loss(exponent: float) -> float:
        return evaluation.score(scores * math.exp(exponent), labels)[0]

    return math.exp(minimize_scalar(loss, bounds=(-5, 10), method="bounded").x)


@torch.inference_mode()
def _scores(head: nn.Module, features: Tensor) -> Tensor:
    """Return the logits of features (n, columns)."""
    return nn.functional.linear(features, head.weight.flatten(1), head.bias)
