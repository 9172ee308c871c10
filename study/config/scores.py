"""The scores of validation images by which a run can choose its best epoch, and a sweep its settings.

    python -m study.train --metric val/macro_f1

A score of your own is a function of the logits (n, classes) and labels (n,) of a split, and its row in SCORES. It is a
share: from 0 to 1, and more is better, so that it can be shown in percent. Of a cost, return 1 - cost / highest cost;
of Cohen's kappa, (1 + kappa) / 2. Its name for a reader is in METRICS of `analysis/wording/ranked.py`, by its key. Only
methods of tensors are used, so that options are read without torch.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from study.system.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def macro_f1(logits: "Tensor", labels: "Tensor") -> float:
    """Return the mean F1 of the classes that have images."""
    hits, images, predicted = _counts(logits, labels)
    return float((2 * hits / (images + predicted).clamp(min=1))[images > 0].mean())


def balanced_accuracy(logits: "Tensor", labels: "Tensor") -> float:
    """Return the mean recall of the classes that have images."""
    hits, images, _ = _counts(logits, labels)
    return float((hits / images.clamp(min=1))[images > 0].mean())


def top_k(logits: "Tensor", labels: "Tensor", k: int) -> float:
    """Return the share of the images whose class is among the k with the highest logits."""
    best = logits.topk(min(k, logits.shape[1])).indices
    return int((best == labels[:, None]).sum()) / len(labels)


def _counts(logits: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor, Tensor]":
    """Return for each class its correctly classified images, all its images, and the images taken for it."""
    predicted = logits.argmax(1)
    kinds = (labels[predicted == labels], labels, predicted)
    hits, images, taken = (kind.bincount(minlength=logits.shape[1]).cpu().double() for kind in kinds)
    return hits, images, taken


SCORES: "dict[str, Callable[[Tensor, Tensor], float]]" = {
    "val/macro_f1": macro_f1,
    "val/balanced_acc": balanced_accuracy,
    "val/top2": partial(top_k, k=2),
    "val/top5": partial(top_k, k=5),
}
"""The functions that compute scores, by the key of the score, which begins with val/.

A run logs its `metric` after each epoch, and at its end for the test images too, if it is one of them."""

OF_CLASSES = ("val/macro_f1", "val/balanced_acc")
"""Scores that weigh every class alike, which a run logs too if its classes are unbalanced."""

UNBALANCED = 1.5
"""Classes are unbalanced if the largest has at least this many times the images of the smallest."""


def is_unbalanced(counts: Iterable[int]) -> bool:
    """Return whether classes with these numbers of images are unbalanced; empty classes do not count."""
    present = [count for count in counts if count]
    return bool(present) and max(present) >= UNBALANCED * min(present)


CHOOSING = ("val/acc", "val/loss", *SCORES)
"""Metrics by which a run can choose its best epoch; accuracy and loss are always logged."""


def check(metric: str, classes: int) -> None:
    """Raise UserError if every image would be right by a metric: top-k with at most k classes."""
    if (match := re.fullmatch(r"val/top(\d+)", metric)) and classes <= int(match[1]):
        raise UserError(f"metric {metric} is always 100 % with {classes} classes; take val/acc, for instance")


def choosing(name: str) -> str | None:
    """Return the metric by which the runs of a sweep with this metric choose their best epoch, None if they cannot.

    It is always that of the validation images: `best/val_loss`, `last/val_loss` and `test/loss` stand for val/loss.
    """
    key = re.sub("^(best/val_|last/val_|test/)", "val/", name)
    return key if key in CHOOSING else None
