"""The comparison of settings: one frame of numbers, and the same as Markdown, LaTeX and CSV.

    python -c "from analysis import runs, tables; \\
        print(tables.markdown(tables.comparison(runs.by_dataset(runs.load('runs'))[0])))"
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.runs import IDENTITY, Section
from analysis.statistics import difference, estimate, sampling_interval
from analysis.wording import label

UNSHARED = {
    "seed", "dropout", "epochs", "label_smoothing", "optimizer", "lr", "momentum", "nesterov", "weight_decay",
    "decay_norm_bias", "clip_norm", "ema_decay", "schedule", "warmup_epochs", "step_epochs", "step_factor", "augment",
    "crop_share", "rotate_degrees", "perspective_tilt", "color_strength", "noise_deviation", "cutout_share",
    "early_stopping", "early_stopping_metric",
}  # fmt: skip
"""Runs of one seed that differ only in these begin with the same weights and see the images in the same order."""


@dataclass(frozen=True)
class Column:
    """A column of the comparison: where its values come from and how they are written."""

    key: str
    values: Callable[[pd.DataFrame], pd.Series]
    scale: float = 1.0
    digits: int = 2
    spread: bool = True


COLUMNS = (
    Column("val_acc", lambda runs: runs["best/val_acc"], 100),
    Column("best_epoch", lambda runs: runs["best/epoch"], digits=1, spread=False),
    Column("test_acc", lambda runs: runs["test/acc"], 100),
    Column("gap_best", lambda runs: runs["best/train_acc"] - runs["best/val_acc"], 100),
    Column("gap_last", lambda runs: runs["last/train_acc"] - runs["last/val_acc"], 100),
    Column("val_loss_last", lambda runs: runs["last/val_loss"], digits=3),
    Column("params", lambda runs: runs["params"], digits=0, spread=False),
    Column("param_mb", lambda runs: runs["param_bytes"] / 1e6, digits=3, spread=False),
    Column("epoch_seconds", lambda runs: runs["epoch_seconds"], digits=3),
    Column("images_per_second", lambda runs: runs["images_per_second"], digits=0),
)


def comparison(section: Section) -> pd.DataFrame:
    """Return a row per setting, the best validation accuracy first.

    Columns: `setting`, the values of what is varied, `n`, for each of COLUMNS its mean in the unit of its label and,
    as `…_ci95`, half the width of its interval over seeds (NaN where n = 1); `test_low` and `test_high`, where n = 1,
    the sampling interval of the test set in percent; `tied`, whether the difference in validation accuracy from the
    best is within noise.
    """
    runs = section.runs.join(_times(section))
    rows = []
    for setting, group in runs.groupby("setting", sort=False):
        varied = {name: group[name].iloc[0] for name in section.varied if name != "setting"}
        row: dict[str, object] = {"setting": setting, **varied, "n": len(group)}
        for column in COLUMNS:
            found = estimate(column.values(group) * column.scale)
            row |= {column.key: found.mean} | ({f"{column.key}_ci95": found.half_width} if column.spread else {})
        row |= {"test_low": math.nan, "test_high": math.nan}
        if len(group) == 1:
            low, high = sampling_interval(group["test/acc"].iloc[0], int(group["test_images"].iloc[0]))
            row |= {"test_low": 100 * low, "test_high": 100 * high}
        rows.append(row)
    frame = pd.DataFrame(rows).sort_values("val_acc", ascending=False, ignore_index=True)
    best = runs[runs.setting == frame.setting[0]]
    frame["tied"] = [_is_tied(runs[runs.setting == setting], best) for setting in frame.setting]
    return frame


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


def markdown(frame: pd.DataFrame) -> str:
    """Write the comparison as a Markdown table."""
    header, rows = _texts(frame, bold="**{}**", escape=lambda text: text.replace("|", "\\|"))
    aligned = [":---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, aligned, *rows]) + "\n"


def latex(frame: pd.DataFrame) -> str:
    """Write the comparison as a LaTeX table for the booktabs package."""
    header, rows = _texts(frame, bold=r"\textbf{{{}}}", escape=_escape_latex)
    lines = [
        r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
    ]
    lines += [" & ".join(cells) + r" \\" for cells in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def csv(frame: pd.DataFrame) -> str:
    """Write the comparison as CSV, numbers in full, empty where there is none."""
    return frame.to_csv(index=False, float_format="%.6g")


def cells(frame: pd.DataFrame) -> tuple[list[str], list[list[str]], list[bool]]:
    """Return the header, the cells as plain text, and which rows are tied with the best, for the HTML page."""
    header, rows = _texts(frame, bold="{}", escape=str)
    return header, rows, list(frame.tied)


def _texts(frame: pd.DataFrame, bold: str, escape: Callable[[str], str]) -> tuple[list[str], list[list[str]]]:
    header = [escape(label(key)) for key in ("setting", "n", *(column.key for column in COLUMNS))]
    rows = []
    for row in frame.to_dict("records"):
        texts = [escape(str(row["setting"])), str(row["n"])]
        for column in COLUMNS:
            text = _text(column, row)
            texts.append(bold.format(escape(text)) if column.key == "val_acc" and row["tied"] else escape(text))
        rows.append(texts)
    return header, rows


def _text(column: Column, row: dict) -> str:
    """Write one cell; empty where nothing was measured."""
    mean, half_width = row[column.key], row.get(f"{column.key}_ci95", math.nan)
    if math.isnan(mean):
        return ""
    digits = 0 if mean.is_integer() and not column.spread else column.digits
    text = f"{mean:,.{digits}f}"
    if column.key == "test_acc" and row["n"] == 1:
        return f"{text} [{row['test_low']:.2f}, {row['test_high']:.2f}]"
    return text if math.isnan(half_width) else f"{text} ± {half_width:,.{digits}f}"


def _escape_latex(text: str) -> str:
    for plain, escaped in (
        ("\\", r"\textbackslash "),
        ("_", r"\_"),
        ("%", r"\%"),
        ("&", r"\&"),
        ("#", r"\#"),
        ("±", r"$\pm$"),
    ):
        text = text.replace(plain, escaped)
    return text
