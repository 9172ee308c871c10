"""Explain predictions of a trained network: where it looks, and which training images are most similar to it.

    arrays = explain.arrays(model, data, logits, mistakes, size, print)

They are computed at the end of a run, because a run that is pulled from W&B has no weights, and are part of
evaluation.npz. A network without feature maps has no Grad-CAM, one without a `penultimate` layer no similar images.
On one CPU thread it takes 24 ms for `two-block` on digits, and 3.7 s for `cnn` on CIFAR, where an epoch takes 42 s:
about as long as one validation.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from study import models
from study.data.dataset import Data
from study.models import gradcam
from study.system.errors import one_line
from study.system.progress import Say
from study.training.evaluation import stratified
from study.training.thumbnails import small

MISTAKES = 6
"""Mistakes that are explained, the surest ones."""

RIGHT = 3
"""Right predictions that are explained, of a class each."""

ALIKE = 3
"""Training images that are shown for each mistake."""

SEARCHED = 10_000
"""Training images among which alike ones are searched, in proportion to the classes."""

SIDE = 96
"""Largest side in pixels of the images that are stored here."""


def arrays(
    model: nn.Module,
    data: Data,
    logits: Tensor,
    mistakes: Tensor,
    size: int,
    say: Say,
    features: Mapping[str, Tensor] | None = None,
) -> dict[str, np.ndarray]:
    """Return the arrays that explain the first `mistakes` and some right predictions; fewer if that is not possible.

    `logits` (n, classes) are those of the test images, `mistakes` indices of these. `features` (n, columns) are the
    penultimate ones of train and test, if they are known; otherwise they are computed in batches of `size`.

    `mistake_maps` (mistakes, 2, height, width) uint8 are the Grad-CAMs for the true and for the predicted class,
    `right_maps` (images, height, width) those of right predictions, which have `right_index`, `right_images`,
    `right_targets` and `right_confidences`. `alike_index`, `alike_images`, `alike_targets` and `alike_similarity`
    (mistakes, images, …) are the training images with the highest cosine similarity of features, the most alike first.
    """
    mistakes = mistakes[:MISTAKES]
    found: dict[str, Tensor] = {}
    try:
        found |= _maps(model, data, logits, mistakes)
        found |= _alike(model, data, mistakes, size, features) if len(mistakes) else {}
    except Exception as error:  # the result of the run is worth more
        say(f"without explanations of the mistakes: {one_line(error)}")
    return {name: values.cpu().numpy() for name, values in found.items()}


def _maps(model: nn.Module, data: Data, logits: Tensor, mistakes: Tensor) -> dict[str, Tensor]:
    """Return the Grad-CAMs of the mistakes and of some right predictions, with the latter's images."""
    # Choose the images
    confidence, predicted = logits.softmax(1).max(1)
    right = _surest_right(confidence, predicted, data.test.labels)
    chosen = torch.cat([mistakes, right])
    if not len(chosen):
        return {}

    # Explain the true and the predicted class of each
    batch = data.test.take(chosen)
    maps = gradcam.heat_maps(model, data.prepared(batch), [batch.labels, predicted[chosen]])
    if maps is None:
        return {}
    of_true, of_predicted = ((255 * each).round().byte() for each in maps)
    return {
        "mistake_maps": torch.stack([of_true, of_predicted], 1)[: len(mistakes)],
        "right_maps": of_true[len(mistakes) :],
        "right_index": right,
        "right_images": small(batch.images[len(mistakes) :], SIDE),
        "right_targets": batch.labels[len(mistakes) :],
        "right_confidences": confidence[right],
    }


def _surest_right(confidence: Tensor, predicted: Tensor, labels: Tensor) -> Tensor:
    """Return the index of the surest right prediction of RIGHT classes, evenly spread over those that have one."""
    known = labels[predicted == labels].unique()
    classes = known[torch.linspace(0, len(known) - 1, min(RIGHT, len(known))).long()]
    surest = [confidence.masked_fill((predicted != labels) | (labels != label), -1).argmax() for label in classes]
    return torch.stack(surest) if surest else labels[:0]


@torch.inference_mode()
def _alike(
    model: nn.Module, data: Data, mistakes: Tensor, size: int, features: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Return the training images whose features are most alike those of each mistake."""
    # The features of the mistakes, and of the training images batch by batch
    searched = stratified(data.train.labels, SEARCHED)
    if features:
        asked, known = features["test"][mistakes], iter([features["train"][searched.to(features["train"].device)]])
    else:
        model.eval()
        batches = (data.prepared(batch) for batch in data.train[searched].batches(size))
        known = (models.activations(model, images).get("penultimate") for images in batches)
        asked = models.activations(model, data.prepared(data.test.take(mistakes))).get("penultimate")
    if asked is None:
        return {}

    # Search the highest cosine similarity
    similarity = _similarity(asked, known)
    found = similarity.topk(min(ALIKE, len(searched)))
    index = searched.to(found.indices.device)[found.indices]
    images = data.train.take(index.flatten())
    return {
        "alike_index": index,
        "alike_images": small(images.images, SIDE).unflatten(0, index.shape),
        "alike_targets": images.labels.view(index.shape),
        "alike_similarity": found.values.float(),
    }


def _similarity(asked: Tensor, known: Iterable[Tensor]) -> Tensor:
    """Return the cosine similarity of features (asked, columns) and those of all batches (n, columns)."""
    asked = nn.functional.normalize(asked.float())
    return torch.cat([asked @ nn.functional.normalize(batch.float()).T for batch in known], 1)
