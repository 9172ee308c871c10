"""The charts of a run in W&B, from evaluation.npz: confusion matrices, accuracies by class, the surest mistakes.

run.log(charts.of(directory.evaluation()))
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import wandb
from PIL import Image

CONFUSION = "test/confusion"
"""Name of the chart of the confusion matrix; its table is `test/confusion_table` in the summary."""

MATRIX = "wandb/confusion_matrix/v1"
"""Name of W&B's own chart of a confusion matrix."""

MATRIX_COLUMNS = ("Actual", "Predicted", "nPredictions")
"""Columns of its table."""

MOST_CLASSES = 100
"""Most classes of a confusion matrix: W&B keeps 10,000 rows of a table."""

MOST_MISTAKES = 25
"""Most images of the table of the surest mistakes; each is a file that is sent."""


def of(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the charts of the test images, by name."""
    # Count the pairs of actual and predicted classes, and the share of each in the images of its class
    names = arrays["class_names"].tolist()
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (arrays["test_targets"], arrays["test_predictions"]), 1)
    images = counts.sum(axis=1)
    shares = counts / np.maximum(images, 1)[:, None]

    # Draw the matrices of the classes that fit into a table
    shown, title = _shown(counts)
    matrices = {
        CONFUSION: _matrix(names, counts, shown, title),
        f"{CONFUSION}_shares": _matrix(names, shares, shown, f"{title}, share of each actual class"),
    }

    # Compute the accuracy of each class that has test images
    accuracies = [[name, float(shares[k, k])] for k, name in enumerate(names) if images[k]]
    table = wandb.Table(["class", "accuracy"], accuracies)
    per_class = wandb.plot.bar(table, "class", "accuracy", title="Test accuracy by class")
    return {**matrices, "test/per_class": per_class, "test/mistakes": _mistakes(arrays)}


def _shown(counts: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the classes that a confusion matrix shows, those with the most mistakes if there are many; and its title.

    A mistake counts for the actual and for the predicted class.
    """
    if len(counts) <= MOST_CLASSES:
        return np.arange(len(counts)), "Test images"
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES])
    return shown, f"Test images of the {MOST_CLASSES} of {len(counts)} classes with the most mistakes"


def _matrix(names: list[str], values: np.ndarray, shown: np.ndarray, title: str) -> Any:
    """Return the chart of a matrix (actual, predicted) of some classes."""
    rows = [
        [names[actual], names[predicted], values[actual, predicted].item()] for actual in shown for predicted in shown
    ]
    fields = {name: name for name in MATRIX_COLUMNS}
    return wandb.plot_table(MATRIX, wandb.Table(list(MATRIX_COLUMNS), rows), fields, {"title": title})


def _mistakes(arrays: Mapping[str, np.ndarray]) -> Any:
    """Return a table of the most confident mistakes: image, actual class, predicted class, and its probability."""
    names = arrays["class_names"]
    parts = (arrays[f"mistake_{part}"] for part in ("images", "targets", "predictions", "confidences"))
    rows = [
        [wandb.Image(_picture(image)), str(names[target]), str(names[predicted]), float(confidence)]
        for image, target, predicted, confidence in list(zip(*parts, strict=True))[:MOST_MISTAKES]
    ]
    return wandb.Table(["image", "truth", "prediction", "probability"], rows)


def _picture(image: np.ndarray) -> Image.Image:
    """Return an image (channels, height, width), uint8, as a picture; W&B shows it in its own size."""
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
