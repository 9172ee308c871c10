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
)
"""Metrics that are logged once per epoch, in addition to `epoch`."""

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
)
"""Metrics that are written once, at the end of a run."""

METRICS = {metric.key: metric for metric in (*EPOCH_METRICS, *END_METRICS)}
HISTORY = [metric.key for metric in EPOCH_METRICS]
SUMMARY = [metric.key for metric in END_METRICS]


def scaled(values: Any, key: str) -> Any:
    """Return a metric of a frame or a row as it is shown: accuracies in percent."""
    return METRICS[key].scale * values[key]
