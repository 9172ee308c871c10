"""Evaluate a network: the scores of summary.json and the arrays of evaluation.npz.

loss, accuracy = Evaluator(model, data, device, torch.float32, 64, flip_test=False).score(data.val)
arrays = evaluation.arrays(data, test_logits, chosen, activations)
"""

import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from study import models
from study.config import Config
from study.config.scores import OF_CLASSES, SCORES, is_unbalanced
from study.data import splits
from study.data.dataset import Data, Split
from study.record.metrics import METRICS
from study.system.errors import UserError
from study.system.progress import Say
from study.training import thumbnails
from study.training.step import autocast

LARGEST_BATCH = {"cpu": 100, "cuda": 500, "mps": 500}
"""Images of 32×32 px in a batch, fewer if they are larger; on a CPU, larger batches need newly allocated memory."""

FEATURE_IMAGES = 2_000
MISTAKE_IMAGES = 64
MEASURED_IMAGES = 3

HALF = torch.finfo(torch.float16)

ROUNDING = 1e-5
"""Most by which a score may leave the range from 0 to 1."""


def batch_size(image_shape: tuple[int, int, int], trained: int, device: torch.device) -> int:
    """Return the batch size of the evaluation for images (channels, height, width); at least `trained`."""
    largest = LARGEST_BATCH[device.type]
    return max(trained, min(largest, largest * 32**2 // math.prod(image_shape[1:])))


class Evaluator:
    """Evaluates a network in eval mode, without gradients, in batches that are fast on its device."""

    def __init__(
        self, model: nn.Module, data: Data, device: torch.device, precision: torch.dtype, trained: int, flip_test: bool
    ):
        """Evaluate `model` on images of `data`; `trained` is the batch size of the training."""
        self.model = model
        self.data = data
        self.device = device
        self.precision = precision
        self.flip_test = flip_test
        self.batch_size = batch_size(data.image_shape, trained, device)

    @torch.inference_mode()
    def logits(self, split: Split) -> Tensor:
        """Return the logits (n, classes) of every image of a split, on the device."""
        with autocast(self.device, self.precision):
            return torch.cat([logits(self.model, images, self.flip_test) for images in self._batches(split)])

    @torch.inference_mode()
    def activations(self, split: Split) -> dict[str, Tensor]:
        """Return the layer outputs for every image of a split, as `models.activations` names them."""
        parts = [models.activations(self.model, images) for images in self._batches(split)]
        names = [name for name in parts[0] if all(name in part for part in parts)]
        return {name: torch.cat([part[name] for part in parts]) for name in names}

    def _batches(self, split: Split) -> Iterator[Tensor]:
        self.model.eval()
        return (self.data.prepared(batch) for batch in split.batches(self.batch_size))

    def score(self, split: Split) -> tuple[float, float]:
        """Return the mean cross-entropy and the top-1 accuracy of a split."""
        return score(self.logits(split), split.labels)


def measure(model: nn.Module, data: Data, name: str, say: Say) -> dict[str, int]:
    """Measure a network on a few images of a data set before training; see `models.measure`."""
    images = data.prepared(data.val.take(slice(MEASURED_IMAGES)))
    return models.measure(model, images, len(data.classes), name, say)


def logits(model: nn.Module, images: Tensor, flip_test: bool = False) -> Tensor:
    """Return logits (n, classes), float32; with `flip_test`, their mean over the images and their mirror images."""
    result = model(images).float()
    return (result + model(images.flip(-1)).float()) / 2 if flip_test else result


def score(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean cross-entropy and the top-1 accuracy of logits (n, classes)."""
    loss = nn.functional.cross_entropy(logits, labels)
    return loss.item(), int((logits.argmax(1) == labels).sum()) / len(labels)


def logged(config: Config, data: Data) -> set[str]:
    """Return the metrics that a run logs: its own, and those that weigh classes alike if these are unbalanced."""
    counts = torch.bincount(data.train.labels).tolist()
    own = {config.metric, config.early_stopping_metric} - {None}
    return own | {*(OF_CLASSES if is_unbalanced(counts) else ())}


def scores(split: str, logits: Tensor, labels: Tensor, metrics: Collection[str]) -> dict[str, float]:
    """Return the loss, the accuracy and those of SCORES that are in `metrics` of a split, such as val/loss."""
    loss, accuracy = score(logits, labels)
    own = {key.removeprefix("val/"): _number(key, of(logits, labels)) for key, of in SCORES.items() if key in metrics}
    for name, value in own.items():
        if math.isfinite(loss) and not -ROUNDING <= value <= 1 + ROUNDING:
            raise UserError(
                f"score val/{name} is {value:g} on the {split} images, but must be from 0 to 1, and more be better; "
                "change its function in study/config/scores.py"
            )
    return {f"{split}/{kind}": value for kind, value in ({"loss": loss, "acc": accuracy} | own).items()}


def _number(key: str, value: object) -> float:
    """Return a score as a number; raise UserError if it is several, such as one of each image, or something else."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (OverflowError, RuntimeError, TypeError, ValueError):
        shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
        raise UserError(
            f"score {key} must be one number for all images, not a {type(value).__name__}{shape}; "
            "change its function in study/config/scores.py"
        ) from None


def is_better(row: Mapping[str, float], best: Mapping[str, float], metric: str) -> bool:
    """Return whether an epoch is better than the best so far: by the metric, then by validation loss."""

    def rank(of: Mapping[str, float]) -> tuple[float, float]:
        return worth(of, metric), -of["val/loss"]

    return not best or rank(row) > rank(best)


def worth(row: Mapping[str, float], metric: str) -> float:
    """Return a metric of an epoch so that more is better."""
    return -row[metric] if METRICS[metric].goal == "minimize" else row[metric]


def stratified(labels: Tensor, count: int) -> Tensor:
    """Choose `count` indices in proportion to the classes, evenly spread over the images of each class.

    Neighbouring images can be alike, such as frames of one film. `labels` is (n,); the result is ascending.
    """
    # Take all of few images
    labels = labels.cpu()
    if len(labels) <= count:
        return torch.arange(len(labels))

    # Divide the count among the classes
    members = np.bincount(labels)
    fewest = np.minimum(members, 1) if count >= np.count_nonzero(members) else np.zeros_like(members)

    # Spread each share over the images of its class
    chosen = []
    for label, share in enumerate(splits.shares(members, count, fewest, members)):
        indices = torch.where(labels == label)[0]
        chosen.append(indices[torch.arange(share) * len(indices) // max(1, share)])
    return torch.cat(chosen).sort().values


def train_sample(data: Data) -> Tensor:
    """Choose as many training images as there are validation images, to compare their accuracies."""
    return stratified(data.train.labels, len(data.val))


def feature_sample(data: Data) -> Tensor:
    """Choose the validation images whose layer outputs evaluation.npz holds."""
    return stratified(data.val.labels, FEATURE_IMAGES)


def summary_of(name: str, row: Mapping[str, float], train_score: tuple[float, float]) -> dict[str, float]:
    """Return the summary of the weights after the epoch of `row`; `name` is best or last."""
    return {
        f"{name}/epoch": row["epoch"],
        f"{name}/val_acc": row["val/acc"],
        f"{name}/val_loss": row["val/loss"],
        f"{name}/train_acc": train_score[1],
        f"{name}/train_loss": train_score[0],
    } | {f"{name}/{key.replace('/', '_')}": row[key] for key in SCORES if key in row}


def arrays(data: Data, logits: Tensor, chosen: Tensor, activations: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return the arrays of evaluation.npz for the logits (n, classes) of the test images.

    `activations` are the layer outputs of the validation images with the indices `chosen`, from `models.activations`.
    `feature_images` are the bytes of a JPEG file, the sheet of these images.
    """
    # Find the most confident mistakes
    probabilities = logits.softmax(1)
    confidence, predicted = probabilities.max(1)
    surest = confidence.masked_fill(predicted == data.test.labels, -1).argsort(descending=True)
    mistakes = surest[: min(MISTAKE_IMAGES, int((predicted != data.test.labels).sum()))]

    # Collect the arrays, in half precision where it suffices
    tensors = {
        "test_targets": data.test.labels,
        "test_predictions": predicted.short(),
        "test_probabilities": probabilities.half(),
        "mistake_index": mistakes,
        "mistake_images": data.test[mistakes].images.contiguous(),
        "mistake_targets": data.test.labels[mistakes],
        "mistake_predictions": predicted[mistakes],
        "mistake_confidences": confidence[mistakes],
        "feature_index": chosen,
        "feature_targets": data.val.labels.cpu()[chosen],
    } | {name: values.clamp(-HALF.max, HALF.max).half() for name, values in activations.items()}
    sheet = np.frombuffer(thumbnails.sheet(data.val[chosen]), np.uint8)
    named = {"class_names": np.array(data.classes), "feature_images": sheet}
    return named | {key: value.cpu().numpy() for key, value in tensors.items()}
