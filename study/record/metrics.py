"""The metrics of a run, one row each.

    python -c "from study.record.metrics import METRICS; print(*METRICS.values(), sep='\\n')"

Their names for a reader are in `analysis/wording/words.py`, under the same keys.
"""

import re
from dataclasses import dataclass
from typing import Any

from study.config.scores import SCORES
from study.system.errors import closest

PERCENT = 100
"""Scale of a metric that is recorded as a share and shown in percent."""


@dataclass(frozen=True)
class Metric:
    """A metric: its key, its goal (`maximize`, `minimize` or none), the scale by which it is shown, and its unit."""

    key: str
    goal: str = ""
    scale: int = 1
    unit: str = ""


EPOCH_METRICS = (
    Metric("train/loss", "minimize"),
    Metric("train/acc", "maximize", PERCENT, "%"),
    Metric("val/loss", "minimize"),
    Metric("val/acc", "maximize", PERCENT, "%"),
    Metric("lr"),
    Metric("time/epoch", unit="s"),
    Metric("time/images_per_second"),
    Metric("memory/peak_mb", unit="MB"),
    *(Metric(key, "maximize", PERCENT, "%") for key in SCORES),
)
"""Metrics that are logged once per epoch, in addition to `epoch`; of SCORES only those that a run needs."""

END_METRICS = (
    Metric("best/epoch"),
    Metric("best/val_acc", "maximize", PERCENT, "%"),
    Metric("best/val_loss", "minimize"),
    Metric("best/train_acc", "maximize", PERCENT, "%"),
    Metric("best/train_loss", "minimize"),
    Metric("test/acc", "maximize", PERCENT, "%"),
    Metric("test/loss", "minimize"),
    Metric("last/epoch"),
    Metric("last/val_acc", "maximize", PERCENT, "%"),
    Metric("last/val_loss", "minimize"),
    Metric("last/train_acc", "maximize", PERCENT, "%"),
    Metric("last/train_loss", "minimize"),
    Metric("params"),
    Metric("params_intermediate"),
    Metric("params_penultimate"),
    Metric("params_logits"),
    Metric("param_bytes"),
    Metric("flops"),
    Metric("iterations"),
    Metric("train_seconds", unit="s"),
    Metric("energy_joules", unit="J"),
    *(
        Metric(before + key.removeprefix("val/"), "maximize", PERCENT, "%")
        for key in SCORES
        for before in ("best/val_", "last/val_", "test/")
    ),
)
"""Metrics that are written once, at the end of a run."""

METRICS = {metric.key: metric for metric in (*EPOCH_METRICS, *END_METRICS)}
HISTORY = [metric.key for metric in EPOCH_METRICS]
SUMMARY = [metric.key for metric in END_METRICS]


_KINDS = {
    "loss": "loss", **dict.fromkeys(("acc", "accuracy", "top1"), "acc"), "f1": "macro_f1", "top2": "top2",
    "top5": "top5",
}  # fmt: skip
_IMAGES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SAME = {"val", "valid", "validation", "eval", "dev", "epoch", "avg", "mean", "final", "max", "min", "macro"}


def meant(name: str) -> str | None:
    """Return the metric that other projects call by a name, such as val/acc for validation_accuracy, or None."""
    known = {*_KINDS, *_IMAGES, *_SAME, "best", "last"}
    words = [closest(word, known) or word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    kinds = [_KINDS[word] for word in words if word in _KINDS]
    if len(kinds) != 1 or not all(word in known for word in words):
        return None
    images = next((_IMAGES[word] for word in words if word in _IMAGES), "val")
    when = next((word for word in words if word in ("best", "last")), None)
    key = f"{when}/{images}_{kinds[0]}" if when else f"{images}/{kinds[0]}"
    return key if key in METRICS else None


def scaled(values: Any, key: str) -> Any:
    """Return a metric of a frame or a row as it is shown: accuracies in percent."""
    return METRICS[key].scale * values[key]
