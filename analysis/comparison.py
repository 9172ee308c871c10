"""Which setting is best: the comparison of a section's settings, and their learning curves.

python -c "from analysis import comparison, runs; print(comparison.compare(runs.by_dataset(runs.load('runs'))[0]))"
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis import figures
from analysis.blocks import Block, Heading, Picture
from analysis.figures import Looks
from analysis.runs import IDENTITY, Frames, Section
from analysis.statistics import difference, estimate, sampling_interval
from analysis.tables import Column, Table
from analysis.wording import label, sentence

UNSHARED = {
    "seed", "activation", "softmax_output", "dropout", "epochs", "label_smoothing", "optimizer", "lr", "momentum",
    "nesterov", "weight_decay", "decay_norm_bias", "clip_norm", "ema_decay", "schedule", "warmup_epochs", "step_epochs",
    "step_factor", "augment", "crop_share", "rotate_degrees", "perspective_tilt", "color_strength", "noise_deviation",
    "cutout_share", "early_stopping", "early_stopping_metric",
}  # fmt: skip
"""Runs of one seed that differ only in these begin with the same weights and see the images in the same order."""


@dataclass(frozen=True)
class Measure:
    """A number of each run that is compared."""

    key: str
    values: Callable[[pd.DataFrame], pd.Series]
    scale: float = 1.0
    digits: int = 2
    spread: bool = True


MEASURES = (
    Measure("val_acc", lambda runs: runs["best/val_acc"], 100),
    Measure("best_epoch", lambda runs: runs["best/epoch"], digits=1, spread=False),
    Measure("test_acc", lambda runs: runs["test/acc"], 100),
    Measure("gap_best", lambda runs: runs["best/train_acc"] - runs["best/val_acc"], 100),
    Measure("gap_last", lambda runs: runs["last/train_acc"] - runs["last/val_acc"], 100),
    Measure("val_loss_last", lambda runs: runs["last/val_loss"], digits=3),
    Measure("params", lambda runs: runs["params"], digits=0, spread=False),
    Measure("param_mb", lambda runs: runs["param_bytes"] / 1e6, digits=3, spread=False),
    Measure("epoch_seconds", lambda runs: runs["epoch_seconds"], digits=3),
    Measure("images_per_second", lambda runs: runs["images_per_second"], digits=0),
)


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the table of a section's settings and their learning curves."""
    compared = table(section)
    title = sentence("curves_title", name=section.title)
    caption = sentence("curves_caption" if compared.frame.n.max() > 1 else "curves_caption_single")
    return [
        Heading(label("comparison")),
        compared,
        Heading(label("curves")),
        Picture("curves", title, figures.learning_curves(section.history, title, looks), caption),
    ]


def compare(section: Section) -> pd.DataFrame:
    """Return a row per setting, the best validation accuracy first.

    Columns: `setting`, the values of what is varied, `n`, for each of MEASURES its mean in the unit of its label and,
    as `…_ci95`, half the width of its interval over seeds (NaN where n = 1); `test_acc_low` and `test_acc_high`, where
    n = 1, the sampling interval of the test set in percent; `tied`, whether the difference in validation accuracy from
    the best is within noise.
    """
    runs = section.runs.join(_times(section))
    rows = []
    for setting, group in runs.groupby("setting", sort=False):
        varied = {name: group[name].iloc[0] for name in section.varied if name != "setting"}
        row: dict[str, object] = {"setting": setting, **varied, "n": len(group)}
        for measure in MEASURES:
            found = estimate(measure.values(group) * measure.scale)
            row |= {measure.key: found.mean} | ({f"{measure.key}_ci95": found.half_width} if measure.spread else {})
        row |= {"test_acc_low": math.nan, "test_acc_high": math.nan}
        if len(group) == 1:
            low, high = sampling_interval(group["test/acc"].iloc[0], int(group["test_images"].iloc[0]))
            row |= {"test_acc_low": 100 * low, "test_acc_high": 100 * high}
        rows.append(row)
    frame = pd.DataFrame(rows).sort_values("val_acc", ascending=False, ignore_index=True)
    best = runs[runs.setting == frame.setting[0]]
    frame["tied"] = [_is_tied(runs[runs.setting == setting], best) for setting in frame.setting]
    return frame


def table(section: Section) -> Table:
    """Return the comparison as a table."""
    frame = compare(section)
    columns = [Column("setting"), Column("n", 0), Column("val_acc", 2, bold="tied")]
    columns += [Column(measure.key, measure.digits) for measure in MEASURES[1:]]
    return Table("comparison", label("comparison"), frame, columns, _notes(frame))


def _times(section: Section) -> pd.DataFrame:
    """Return seconds per epoch and images per second of the runs that had their device alone, the first epoch apart."""
    alone = section.runs.index[section.runs.device_shared_by == 1]
    history = section.history[section.history.run.isin(alone) & (section.history.epoch > 1)]
    means = history.groupby("run")[["time/epoch", "time/images_per_second"]].mean()
    means.columns = ["epoch_seconds", "images_per_second"]
    return means


def _is_tied(group: pd.DataFrame, best: pd.DataFrame) -> bool:
    """Tell whether a setting's validation accuracy differs from the best one's by no more than noise."""
    if min(len(group), len(best)) < 2:
        return False
    if group.index.equals(best.index):
        return True
    shared = [name for name in IDENTITY if name not in UNSHARED]
    paired = all(repr(group[name].iloc[0]) == repr(best[name].iloc[0]) for name in shared)
    a, b = (runs.set_index("seed")["best/val_acc"] for runs in (best, group))
    return difference(a, b, paired).contains_zero


def _notes(frame: pd.DataFrame) -> list[str]:
    notes = []
    if (frame.n > 1).any():
        notes.append(sentence("table_interval"))
    if (frame.n == 1).any():
        notes.append(sentence("table_single"))
    notes.append(sentence("table_gap"))
    if frame.epoch_seconds.notna().any():
        notes.append(sentence("table_times"))
    if frame.epoch_seconds.isna().any():
        notes.append(sentence("table_no_times"))
    return notes
