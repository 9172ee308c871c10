"""How the training of each run ends: its gaps between training and validation, and the trend of its last epochs.

python -c "from analysis.frames import endings, runs, sections; \\
    print(endings.verdicts(sections.by_dataset(runs.load('runs'))[0]))"
"""

import math

import numpy as np
import pandas as pd

from analysis.frames import contrasts, trends
from analysis.frames.sections import Section, once
from analysis.frames.statistics import ALPHA, estimates, moderate, simultaneous
from study.config.setting import Setting
from study.record.directory import EARLY
from study.record.metrics import scaled

FEWEST = 8
"""A run needs at least this many epochs for a trend at its end, which is at most half of them."""

END = 0.3
"""The trend at the end is measured over this share of the epochs."""

DECAYED = 0.1
"""The learning rate has decayed if it is below this share of its highest value."""

LEAST_LOSS = 0.05
"""The validation loss has no trend if it changes by a smaller share over the last epochs."""

TRENDS = ("acc_slope", "loss_slope", "gain")
"""Columns of `measure` that say what more epochs would bring."""

GAPS = (
    "train_acc_best",
    "gap_best",
    "gap_last",
    "loss_gap_best",
    "loss_gap_last",
    "val_loss_min",
    "val_loss_min_epoch",
    "val_loss_last",
)


@once
def measure(section: Section) -> pd.DataFrame:
    """Return for each run its setting, gaps, lowest validation loss, and trends at the end.

    Gaps are training minus validation accuracy in points, and validation minus training loss. `acc_slope` (points per
    epoch), `loss_slope` (per epoch) and their standard errors belong to lines through the last epochs; `rise` is the
    mean validation loss over these epochs divided by the lowest mean over equally many; `gain` is what twice the epochs
    would bring by a power law fitted to the curve, in points; all are NaN for too few epochs.
    `lr_share` is the last learning rate divided by the highest. `collapsed` is whether the run fits its training images
    hardly better at the end than in its first epoch.
    """
    # gaps
    runs = section.runs
    frame = pd.DataFrame(
        {
            "setting": runs.setting,
            "best_epoch": runs["best/epoch"],
            "epochs": runs["last/epoch"],
            "train_acc_best": scaled(runs, "best/train_acc"),
            "gap_best": scaled(runs, "best/train_acc") - scaled(runs, "best/val_acc"),
            "gap_last": contrasts.gap_last(runs),
            "loss_gap_best": runs["best/val_loss"] - runs["best/train_loss"],
            "loss_gap_last": runs["last/val_loss"] - runs["last/train_loss"],
            "val_loss_last": runs["last/val_loss"],
            "early": runs.stopped_by == EARLY,
        }
    )

    # lowest validation loss, learning rate, collapse
    by_run = section.history.groupby("run")
    known = section.history.dropna(subset="val/loss")
    lowest = known.loc[known.groupby("run")["val/loss"].idxmin()].set_index("run")
    frame["val_loss_min"] = lowest["val/loss"]
    frame["val_loss_min_epoch"] = lowest["epoch"].astype(float)
    frame["lr_share"] = by_run["lr"].last() / by_run["lr"].max()
    frame["collapsed"] = contrasts.collapsed(section)

    # trends at the end
    lengths = by_run.size()
    ends = [
        _trends(section.history[section.history.run.isin(same.index)], length)
        for length, same in lengths.groupby(lengths)
    ]
    return frame.join(pd.concat(ends))


def _trends(history: pd.DataFrame, length: int) -> pd.DataFrame:
    """Return for each run the number of its last epochs, the slopes over them and their errors, the rise and the gain.

    All runs have `length` epochs. The slopes are those of least squares.
    """
    # runs that are too short have no trend
    runs = history.run.unique()
    names = ["window", "acc_slope", "acc_error", "loss_slope", "loss_error", "rise", "gain"]
    if length < FEWEST:
        return pd.DataFrame(math.nan, runs, names)

    # the lines through the last epochs; rounding errors do not make what is left negative
    window = max(FEWEST // 2, round(END * length))
    values = history[["val/acc", "val/loss"]].to_numpy(dtype=float).reshape(len(runs), length, 2)
    last = values[:, -window:] * [100, 1]
    places = np.arange(window) - (window - 1) / 2
    spread = last - last.mean(axis=1, keepdims=True)
    slopes = np.einsum("t,rtm->rm", places, spread) / (places**2).sum()
    left = (spread**2).sum(axis=1) - slopes**2 * (places**2).sum()
    errors = np.sqrt(left.clip(min=0) / (places**2).sum() / (window - 2))

    # the mean loss over the last epochs, divided by the lowest mean over equally many
    means = np.lib.stride_tricks.sliding_window_view(values[..., 1], window, axis=1).mean(axis=2)
    columns = (np.full(len(runs), window), slopes[:, 0], errors[:, 0], slopes[:, 1], errors[:, 1])
    lowest = pd.DataFrame(means).min(axis=1).to_numpy()
    gain = np.minimum(trends.gain(100 * values[..., 0]), 100 * (1 - values[:, -1, 0]))  # at most 100 % are right
    return pd.DataFrame(dict(zip(names, (*columns, means[:, -1] / lowest, gain), strict=True)), index=runs)


@once
def gaps(section: Section) -> pd.DataFrame:
    """Return for each setting the means of GAPS over seeds with their intervals, `rise`, `loss_slope` and `collapsed`.

    A gap is the difference of two accuracies, so its interval is never smaller than the rounding of both.
    """
    runs = measure(section)
    of_accuracy = contrasts.resolution(section.runs) / math.sqrt(12)
    of_gap = math.sqrt(2) * of_accuracy
    rounding = {"train_acc_best": of_accuracy, "gap_best": of_gap, "gap_last": of_gap}
    frame = estimates(runs, "setting", GAPS, rounding).join(
        runs.groupby("setting")[["rise", "loss_slope", "collapsed"]].mean()
    )
    return contrasts.in_order(section, frame).reset_index()


@once
def verdicts(section: Section) -> pd.DataFrame:
    """Judge for each setting that has epochs whether more would help, by the trend of its last epochs.

    Columns: the slopes with half the width of their intervals (over seeds if there are several, with variances
    moderated over the settings, otherwise of the fit of the line) and their p, both corrected for the number of
    settings as in `statistics.simultaneous`; `gain`, with its interval if there are several seeds; `verdict`, see
    `_verdict`.
    """
    # means over seeds; an SVM has no epochs
    runs = measure(section)
    runs = runs[section.runs.iterations.notna()]
    means = ["epochs", "best_epoch", *TRENDS, "window", "lr_share", "val_loss_last", "collapsed"]
    frame = estimates(runs.astype({"collapsed": float}), "setting", means)
    by_setting = runs.groupby("setting")
    frame["early"] = by_setting.early.all()
    frame["n"] = by_setting.size()

    # a single run has the error and the degrees of freedom of its line
    count = by_setting.acc_slope.count()[frame.index]
    single = runs[~runs.setting.duplicated(keep=False)].set_index("setting").reindex(frame.index)
    for name in TRENDS:
        deviations = by_setting[name].std(ddof=1)[frame.index]
        tests = pd.DataFrame({"variance": deviations**2, "degrees": count - 1.0, "n": count.astype(float)})
        if name != "gain":
            error = single[name.replace("slope", "error")]
            of_line = pd.DataFrame({"variance": error**2, "degrees": single.window - 2})
            tests.loc[error.notna()] = of_line[error.notna()].assign(n=1.0)

        # moderated variances of those with several seeds; trainings that failed do not count for the others
        several = count > 1
        use = (tests.variance > 0) & (frame.collapsed == 0)
        own = tests[several]
        variance, degrees = moderate(own.variance, own.degrees, own.degrees.sum(), use[several])
        tests.loc[several, "variance"] = variance
        tests.loc[several, "degrees"] = degrees

        # a change of less than one image, or a small share of the loss, is no trend
        least = contrasts.resolution(section.runs) if name == "acc_slope" else LEAST_LOSS * frame.val_loss_last
        value = frame[name] if name == "gain" else frame[name].where((frame[name] * frame.window).abs() >= least, 0.0)
        half_width, _, p = simultaneous(value, np.sqrt(tests.variance / tests.n), tests.degrees)
        frame[f"{name}_ci95"] = half_width
        frame[f"{name}_p"] = p
    kept = [
        "n",
        "epochs",
        "best_epoch",
        "window",
        *(f"{name}{more}" for name in TRENDS for more in ("", "_ci95", "_p")),
    ]

    # the verdict
    frame["verdict"] = [_verdict(row) for row in frame.to_dict("records")]
    return contrasts.in_order(section, frame[[*kept, "verdict"]]).reset_index()


def overtaking(section: Section, score: pd.Series, best: Setting) -> list[Setting]:
    """Return the settings below `best` that are still rising, and may be as good as `best` after twice the epochs.

    `score` is the mean of each setting. What twice the epochs bring is `gain` with its interval, and for the best
    setting, if it is still rising too, `gain` alone.
    """
    frame = verdicts(section).set_index("setting")
    rising = frame[frame.verdict.isin(["rises", "mixed"])]
    now = score.reindex(rising.index)
    later = now + rising.gain + rising.gain_ci95.fillna(0)
    is_enough = (now < score[best]) & (later >= score[best] + rising.gain.get(best, 0.0))
    return list(rising.index[is_enough])


def _verdict(row: dict) -> str:
    """Return the verdict on a setting: first what makes a trend meaningless, then the signs of the trends."""
    # signs of the slopes that are more than noise
    accuracy, loss = (
        math.copysign(1, row[f"{name}_slope"]) if row[f"{name}_slope_p"] < ALPHA else 0 for name in ("acc", "loss")
    )

    # reasons for which the trend does not count
    if row["early"]:
        return "early"
    if row["collapsed"] == 1:
        return "collapsed"
    if row["window"] != row["window"]:
        return "few"
    if row["lr_share"] < DECAYED:
        return "decayed"

    # the trend
    if accuracy > 0:
        return "mixed" if loss > 0 else "rises"
    if accuracy < 0 or loss > 0:
        return "falls" if accuracy < 0 else "overfits"
    return "perhaps" if loss < 0 else "unclear"
