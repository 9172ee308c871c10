"""The metrics of a run, one row each.

    python -c "from study.record.metrics import METRICS; print(*METRICS.values(), sep='\\n')"

Their names for a reader are in `analysis/wording/texts.yaml`, under the same keys.
"""

from dataclasses import dataclass
from typing import Any

PERCENT = 100
"""Scale of a metric that is recorded as a share and shown in percent."""


@dataclass(frozen=True)
class Metric:
    """A metric: its key, its goal (`maximize`, `minimize` or none), and the scale by which it is shown."""

    key: str
    goal: str = ""
    scale: int = 1


def _losses_and_accuracies(prefix: str, *keys: str) -> tuple[Metric, ...]:
    """Return the rows of losses and accuracies."""
    return tuple(
        Metric(prefix + key, "maximize", PERCENT) if key.endswith("acc") else Metric(prefix + key, "minimize")
        for key in keys
    )


EPOCH_METRICS = (
    *_losses_and_accuracies("", "train/loss", "train/acc", "val/loss", "val/acc"),
    Metric("lr"),
    Metric("time/epoch"),  # seconds
    Metric("time/images_per_second"),
    Metric("memory/peak_mb"),  # MB of 10^6 bytes
)
"""Metrics that are logged once per epoch, in addition to `epoch`."""

END_METRICS = (
    Metric("best/epoch"),
    *_losses_and_accuracies("best/", "val_acc", "val_loss", "train_acc", "train_loss"),
    *_losses_and_accuracies("test/", "acc", "loss"),
    Metric("last/epoch"),
    *_losses_and_accuracies("last/", "val_acc", "val_loss", "train_acc", "train_loss"),
    Metric("params"),
    Metric("params_intermediate"),
    Metric("params_penultimate"),
    Metric("params_logits"),
    Metric("param_bytes"),
    Metric("flops"),  # of one image
    Metric("iterations"),
    Metric("train_seconds"),
    Metric("energy_joules"),
)
"""Metrics that are written once, at the end of a run."""

METRICS = {metric.key: metric for metric in (*EPOCH_METRICS, *END_METRICS)}
HISTORY = [metric.key for metric in EPOCH_METRICS]
SUMMARY = [metric.key for metric in END_METRICS]


def scaled(values: Any, key: str) -> Any:
    """Return a metric of a frame or a row as it is shown: accuracies in percent."""
    return METRICS[key].scale * values[key]
