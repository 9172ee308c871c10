"""How the settings of a section differ: means, intervals and p values, over seeds and over images.

python -c "from analysis.frames import contrasts, runs, sections; \\
    print(contrasts.compare(sections.by_dataset(runs.load('runs'))[0]))"
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from analysis.frames.runs import IDENTITY, Frames
from analysis.frames.sections import ACCURACY, Section, once
from analysis.frames.statistics import (
    ALPHA,
    differences,
    error_over_images,
    estimates,
    holm,
    mcnemar,
    sampling_interval,
    width_over_images,
)
from study.config import affects
from study.config.scores import OF_CLASSES
from study.config.setting import Setting
from study.record.metrics import METRICS, scaled

PER_RUN = {
    "score": lambda section, runs: section.scores(runs),
    "best_epoch": lambda section, runs: runs["best/epoch"],
    "test_score": lambda section, runs: section.scores(runs, "test"),
}
"""Measures of each run that are compared: what settings are ranked by, accuracy unless the runs of the section have
another metric, of the validation and of the test images."""

SHARES = (ACCURACY, "val/top2", "val/top5")
"""Metrics that are a share of the images, whose smallest change is that of one image."""

SHOWN = 40
"""At most this many settings, the best ones, are drawn; at most this many without a result are in the table."""

COLLAPSED_ACC = 0.6
COLLAPSED_LOSS = 0.99
COLLAPSED_GAIN = 0.05
"""A training has collapsed if it ends below this accuracy on its training images, with this share or more of the loss
of its first epoch, and with an accuracy that is at most this much higher than in its first epoch.
"""


def gap_last(runs: pd.DataFrame) -> pd.Series:
    """Return the gap of each run: training minus validation accuracy at the last epoch, in points."""
    return scaled(runs, "last/train_acc") - scaled(runs, "last/val_acc")


def collapsed(section: Section) -> pd.Series:
    """Return for each run whether it fits its training images hardly better at the end than in its first epoch."""
    by_run = section.history.groupby("run")
    no_better = by_run["train/loss"].last() >= COLLAPSED_LOSS * by_run["train/loss"].first()
    last = by_run["train/acc"].last()
    no_better &= last <= by_run["train/acc"].first() + COLLAPSED_GAIN
    found = no_better & (last < COLLAPSED_ACC) & (by_run.size() > 1)
    return found.reindex(section.runs.index, fill_value=False)


@once
def failures(section: Section) -> pd.DataFrame:
    """Return for each setting the number of its runs that `failed` to learn, of `all`; see `collapsed`."""
    by_setting = collapsed(section).groupby(section.runs.setting)
    return pd.DataFrame({"failed": by_setting.sum(), "all": by_setting.size()})


def partly_failed(section: Section) -> pd.DataFrame:
    """Return the rows of `failures` of settings of which some runs failed to learn and others did not.

    Their mean is that of two kinds of runs, so they have no interval and are not compared.
    """
    found = failures(section)
    return found[(found.failed > 0) & (found.failed < found["all"])]


@once
def compare(section: Section) -> pd.DataFrame:
    """Return one row per setting, the best validation score first, settings without a result last.

    Columns: `setting`, the values of the varied options, `n` (seeds with a result) of `asked`; for each of PER_RUN the
    mean, and half the width of its interval over seeds as `…_ci95` (NaN if n = 1, or if only some runs `failed` to
    learn: their number); the sampling interval of the test images as `test_score_low` and `test_score_high`. Scores are
    in percent; a CSV file names them by their metric, see `tables.by_metric`. Of runs with unbalanced classes also
    `test_macro_f1` and `test_balanced_acc`.
    Columns of the difference from the best setting (see `reference`): `below`, in points of the validation score; if
    both have several seeds also `below_ci95`, `paired` (then `below` is that of the shared seeds), `p`, `p_holm`
    (corrected for all pairs of the section), and `tied`, whether the setting is not shown to be worse; `test_below`,
    `test_below_ci95` and `p_test` are the same of the test score, a family of its own.
    """
    # mean and interval over seeds
    measured = section.runs[["setting"]].assign(**{name: of(section, section.runs) for name, of in PER_RUN.items()})
    means = estimates(measured, "setting", list(PER_RUN), rounding(section)).drop(columns="best_epoch_ci95")
    means["n"] = section.runs.groupby("setting").size()

    # a mean of runs that learned and runs that did not has no interval
    failed = partly_failed(section)
    means["failed"] = failed.failed.reindex(means.index, fill_value=0)
    means.loc[failed.index, ["score_ci95", "test_score_ci95"]] = math.nan
    means = means.join(_of_classes(section, failed.index))

    # the sampling interval of the test images, if these are shares of images
    scale = METRICS["test/acc"].scale
    images = section.runs.test_images.astype(float).groupby(section.runs.setting).min()
    is_share = section.metric == ACCURACY
    bounds = [
        sampling_interval(accuracy / scale, images[setting])
        if is_share and (n == 1 or width == width)
        else (math.nan, math.nan)
        for setting, accuracy, width, n in means[["test_score", "test_score_ci95", "n"]].itertuples()
    ]
    means[["test_score_low", "test_score_high"]] = scale * np.array(bounds, dtype=float).reshape(-1, 2)

    # one row per setting of the design, with or without a result
    asked = section.points.drop_duplicates("setting").set_index("setting")[section.varied]
    frame = asked.join(means).sort_values("score", ascending=False, kind="stable").rename_axis("setting")
    frame["n"] = frame.n.fillna(0).astype(int)
    frame["failed"] = frame.failed.fillna(0).astype(int)
    frame["asked"] = section.points.groupby("setting").fingerprint.nunique()

    # differences from the best setting
    best = reference(frame)
    names = {"difference": "shown", "half_width": "below_ci95", "holm": "p_holm"}
    pairs = pairwise(section, reference=best).rename(columns=names)
    with_reference = (
        pairs.xs(best, level="a") if best in pairs.index.get_level_values("a") else pairs.droplevel("a")[:0]
    )
    frame["below"] = frame.score[best] - frame.score
    frame = frame.join(with_reference[["shown", "below_ci95", "paired", "p", "p_holm"]])
    frame["below"] = frame.pop("shown").fillna(frame.below)
    frame["tied"] = (frame.p_holm >= ALPHA) | ((frame.index == best) & frame.p_holm.notna().any())

    # the same differences on the test images
    names = {"difference": "test_below", "half_width": "test_below_ci95", "holm": "p_test"}
    pairs = pairwise(section, "test_score", "test", best).rename(columns=names)[list(names.values())]
    known = best in pairs.index.get_level_values("a")
    return frame.join(pairs.xs(best, level="a") if known else pairs.droplevel("a")[:0]).reset_index()


@once
def right(frames: Frames, section: Section) -> dict[Setting, np.ndarray]:
    """Return the share of the trainings of a setting that classify each test image correctly, for up to SHOWN settings.

    Settings with a run whose predictions cannot be read are left out. Empty if the splits vary, because seeds then have
    different images.
    """
    found: dict[Setting, np.ndarray] = {}
    targets = None
    chosen = [] if section.splits_vary else section.ranked[:SHOWN]
    by_setting = section.runs.groupby("setting", sort=False).groups
    for setting in chosen:
        tested = [frames.tested(run) for run in by_setting[setting]]
        if all(of_run is not None for of_run in tested):
            targets = tested[0].target.to_numpy() if targets is None else targets
            if all(np.array_equal(of_run.target, targets) for of_run in tested):
                found[setting] = np.mean([of_run.predicted.to_numpy() == targets for of_run in tested], axis=0)
    return found


@once
def with_images(frames: Frames | None, section: Section) -> pd.DataFrame:
    """Return `compare`, and how much the differences from the best setting would vary with other images.

    Columns `below_images` and `test_below_images`: half the width of the interval over the choice of the validation and
    of the test images, in points, corrected for all pairs of the section like `below_ci95`. Both are estimated from the
    test images, because each run records its predictions for these: per image, the difference between the shares of the
    trainings that are right. NaN where a difference has no p, see also `right`; without `frames` all are.
    """
    frame = compare(section)
    frame["below_images"] = frame["test_below_images"] = math.nan
    tested = frame.p_holm.notna()
    best = reference(frame.set_index("setting"))
    is_known = frames and tested.any() and section.metric == ACCURACY
    share = right(frames, section) if is_known else {}
    if best not in share:
        return frame
    pairs = pairwise(section, reference=best).pairs
    images = section.runs[["val_images", "test_images"]].astype(float).min()
    for place in frame.index[tested]:
        if frame.setting[place] in share:
            deviation = 100 * error_over_images(share[best], share[frame.setting[place]])
            for name, split in (("below_images", "val_images"), ("test_below_images", "test_images")):
                frame.loc[place, name] = width_over_images(deviation, images[split], int(pairs.iloc[0]))
    return frame


def reference(frame: pd.DataFrame) -> str:
    """Return the setting that others are compared with: the best one that can be compared, otherwise the best one.

    It has several seeds, and not only some of them failed to learn. `frame` is indexed by setting, the best first.
    """
    several = frame.index[(frame.n > 1) & (frame.failed == 0)]
    return several[0] if len(several) else frame.index[0]


def in_order(section: Section, frame: pd.DataFrame) -> pd.DataFrame:
    """Sort the settings of a frame by their validation score, the best first."""
    present = [setting for setting in section.ranked if setting in frame.index]
    return frame.loc[present].rename_axis("setting")


def _of_classes(section: Section, failed: Sequence[Setting]) -> pd.DataFrame:
    """Return the means over seeds of the test scores that weigh every class alike, which some runs logged.

    Settings of which some runs `failed` have no interval.
    """
    keys = [key.replace("val/", "test/") for key in OF_CLASSES if key != section.metric]
    names = {key: key.replace("/", "_") for key in keys if key in section.runs and section.runs[key].notna().any()}
    if not names:
        return pd.DataFrame()
    measured = {name: scaled(section.runs, key) for key, name in names.items()}
    means = estimates(section.runs[["setting"]].assign(**measured), "setting", list(measured))
    means.loc[means.index.isin(failed), [f"{name}_ci95" for name in measured]] = math.nan
    return means


@once
def pairwise(
    section: Section,
    of: str | Callable[[pd.DataFrame], pd.Series] = "score",
    split: str | None = "val",
    reference: Setting | None = None,
) -> pd.DataFrame:
    """Compare a measure of all pairs of settings, or those of a reference, as `statistics.differences` does.

    Settings of which only some runs failed to learn are left out; those of which all did say nothing about the spread
    of others. `of` is one of PER_RUN, or returns the measure of each run. For percentages of the images of a `split`,
    the resolution is one image; for other measures `split` is None.
    """
    # runs that can be compared, with what each begins with
    kinds = dict(zip(section.runs.setting, beginnings(section), strict=True))
    failed = failures(section)
    runs = section.runs[~section.runs.setting.isin(partly_failed(section).index)]

    # the comparison
    values = PER_RUN[of](section, runs) if isinstance(of, str) else of(runs)
    values = values.set_axis(pd.MultiIndex.from_arrays([runs.setting, section.repeats[runs.index]]))
    step = step_of(section, of, split) if split else 0.0
    return differences(values, kinds, step, reference, set(failed.index[failed.failed == failed["all"]]))


@once
def beginnings(section: Section) -> pd.Series:
    """Return the options of each run that determine, with its seed, its initial weights and the order of the images.

    Runs for which they are equal are paired by repeat: the seed or, if the splits vary, the split.
    """
    shared = [name for name in IDENTITY if affects(name, "start") and name not in ("seed", "split_seed")]
    return section.runs[shared].map(repr).agg(tuple, axis=1)


def resolution(runs: pd.DataFrame, split: str = "val") -> float:
    """Return the change of accuracy, in points, by one image of a split; 0 if the number of images is unknown."""
    images = runs[f"{split}_images"].astype(float).min()
    return 100 / images if images > 0 else 0.0


def step_of(section: Section, of: str | Callable[[pd.DataFrame], pd.Series], split: str = "val") -> float:
    """Return the change, in points, of a measure of `pairwise` by one image of a split.

    0 for scores that are no share of the images, such as a loss.
    """
    is_share = not isinstance(of, str) or section.metric in SHARES
    return resolution(section.runs, split) if is_share else 0.0


def rounding(section: Section) -> dict[str, float]:
    """Return the standard deviation, in points, that rounding to whole images causes in each score."""
    splits = {"score": "val", "score_last": "val", "test_score": "test"}
    return {name: step_of(section, name, split) / math.sqrt(12) for name, split in splits.items()}


def with_best(frames: Frames, section: Section, frame: pd.DataFrame) -> pd.DataFrame:
    """Compare the networks of settings with a single seed with the best one, on the test images.

    Returns a frame indexed by setting, for up to SHOWN settings: the number of images that only the best (`only_best`)
    and only this network (`only_this`) classifies correctly, the number of `images`, and `p` (McNemar's exact test,
    corrected by Holm).
    """
    # the best settings with a single seed
    single = section.runs[~section.runs.setting.duplicated(keep=False)].reset_index().set_index("setting")
    names = [setting for setting in frame.setting[frame.n > 0][:SHOWN] if setting in single.index]
    rows = {}
    if len(names) > 1 and names[0] == frame.setting[0]:
        runs = single.loc[[setting for setting in names if not frames.damage(single.run[setting])]]
        runs = runs[runs.split_seed == single.split_seed[names[0]]]  # the same test images
        tested = {run: frames.tested(run) for run in runs.run}
        right = {run: (images.target == images.predicted).to_numpy() for run, images in tested.items()}
        # without readable predictions of the best run there is nothing to compare
        for setting, run in runs.run.iloc[1:].items() if names[0] in runs.index else ():
            first, second, p = mcnemar(right[runs.run.iloc[0]], right[run])
            rows[setting] = {"only_best": first, "only_this": second, "images": len(right[run]), "p": p}
    tests = pd.DataFrame.from_dict(rows, orient="index", columns=["only_best", "only_this", "images", "p"])
    return tests.assign(p=holm(tests.p))
