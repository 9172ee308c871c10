"""The comparison of the settings of a section: which one is best.

python -c "from analysis.themes import comparison; from analysis.frames import runs, sections; \\
    print(comparison.compare(sections.by_dataset(runs.load('runs'))[0]))"
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.frames import runs as sources
from analysis.frames.runs import IDENTITY, Frames
from analysis.frames.sections import ACCURACY, Section, in_its_words, once, scores
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
from analysis.page.blocks import Block, Heading, Picture
from analysis.page.figures import GREY, Looks, finish, looks_of, wrapped
from analysis.page.letters import Plot
from analysis.page.live import Mark, about
from analysis.page.tables import Column, Table, bounded, is_within, p_column
from analysis.wording.texts import heading, named, number, plural, ranking_axis, ranking_name, shown, text
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


PANELS = 6
"""Most settings whose curves get a panel each in the short form; of more, a grid or the accuracies are drawn."""

COLLAPSED_ACC = 0.6
COLLAPSED_LOSS = 0.99
"""A training has collapsed if it ends below this accuracy on its training images, and with this share or more of the
loss of its first epoch.
"""


def gap_last(runs: pd.DataFrame) -> pd.Series:
    """Return the gap of each run: training minus validation accuracy at the last epoch, in points."""
    return scaled(runs, "last/train_acc") - scaled(runs, "last/val_acc")


def collapsed(section: Section) -> pd.Series:
    """Return for each run whether it fits its training images no better at the end than in its first epoch."""
    by_run = section.history.groupby("run")
    no_better = by_run["train/loss"].last() >= COLLAPSED_LOSS * by_run["train/loss"].first()
    found = no_better & (by_run["train/acc"].last() < COLLAPSED_ACC) & (by_run.size() > 1)
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


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the table of settings, and their accuracies in a figure unless the short form has it."""
    frame = with_images(frames, section)
    content: list[Block] = [Heading(text("Comparison")), table(section, frame, with_best(frames, section, frame))]
    if (frame.n > 0).sum() > 1 and picture_in_short(section) != "accuracies":
        content.append(accuracies(section, looks))
    return content


def picture_in_short(section: Section) -> str:
    """Return the name of the picture in the short form, `brief`, or of many settings the `grid` or the `accuracies`."""
    if len(section.ranked) <= PANELS:
        return "brief"
    return "grid" if section.is_grid else "accuracies"


def accuracies(section: Section, looks: Looks) -> Picture:
    """Make the picture of the accuracies of the best settings."""
    frame = compare(section)
    title = text("Accuracy of each setting: {name}", name=section.title)
    caption = (
        text(
            "Best validation accuracy: the mean over seeds with its 95 % interval (Student t); single seeds are "
            "drawn pale. The diamond is the mean test accuracy of the same weights."
        )
        if frame.n.max() > 1
        else text(
            "Best validation accuracy, one seed per setting. The diamond is the test accuracy of the same weights."
        )
    )
    return Picture("accuracies", title, ranking(frame, section.runs, title, looks, section.metric), caption)


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
    """Sort settings by their validation score, the best first."""
    return frame.reindex(section.ranked).rename_axis("setting")


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
        predictions = sources.predictions(frames, list(runs.run))
        right = {run: (group.target == group.predicted).to_numpy() for run, group in predictions.groupby("run")}
        # without readable predictions of the best run there is nothing to compare
        for setting, run in runs.run.iloc[1:].items() if names[0] in runs.index else ():
            first, second, p = mcnemar(right[runs.run.iloc[0]], right[run])
            rows[setting] = {"only_best": first, "only_this": second, "images": len(right[run]), "p": p}
    tests = pd.DataFrame.from_dict(rows, orient="index", columns=["only_best", "only_this", "images", "p"])
    return tests.assign(p=holm(tests.p))


@in_its_words
def table(section: Section, frame: pd.DataFrame | None = None, networks: pd.DataFrame | None = None) -> Table:
    """Make the table of the results of `compare` and `with_best`."""
    frame = compare(section) if frame is None else frame
    columns = [
        Column("setting"),
        Column("n", 0, text=_seeds),
        Column("score", 2, bold="tied", is_percentage=True),
        Column("best_epoch", 1),
    ]

    # many settings without a result are only counted
    notes = []
    without = int((frame.n == 0).sum())
    if without > SHOWN or (without and section.is_search):
        frame = frame[frame.n > 0]
        notes.append(without_result(without))

    # differences from the best and their tests
    if len(frame) > 1:
        best = reference(frame.set_index("setting"))
        if best != frame.setting.iloc[0]:
            notes.append(reference_note(best))
        columns.append(Column("below", 2, text=lambda row: "" if row["setting"] == best or row["below"] < 0 else None))
    if frame.p_holm.notna().any():
        columns.append(p_column("p_holm"))
        if "below_images" in frame and frame.below_images.notna().any():
            columns.append(Column("below_images", 2, text=_over_images))
            notes.append(
                text(
                    "± images: half the 95 % interval of the difference over other validation images of the same "
                    "kind, for the same trained networks, corrected for all pairs too. It is estimated from the test "
                    "images, of which each prediction is recorded: per image, the difference between the shares of "
                    "the seeds that are right. p is about seeds only."
                )
            )
        paired = frame.paired.dropna().astype(bool)
        if paired.all():
            how = text("paired by the seeds that both settings have")
        elif paired.any():
            how = text(
                "paired by seed where two settings start from the same weights, see the images in the same order and "
                "share at least half of their seeds, otherwise Welch's"
            )
        else:
            how = text("Welch's, for unequal variances")
        notes.append(
            text(
                "Differences from the best and their t tests are {how}. How much results vary is estimated from the "
                "two settings and, to a lesser part, from all pairs of settings (moderated variances, Smyth 2004). p "
                "is corrected for all pairs of settings (Holm), because the best was picked from the same data; the "
                "interval of a difference is widened accordingly, and does not go below 0 where p < 0.05. The risk of "
                "a false claim is about 5 % for the whole table, not for each row. Bold: not shown to be worse than "
                "the best (p ≥ 0.05).",
                how=how,
            )
        )
    if networks is not None and not networks.empty:
        frame = frame.merge(networks.p.rename("p_mcnemar"), left_on="setting", right_index=True, how="left")
        columns.append(p_column("p_mcnemar", "p_mcnemar"))
        notes.append(
            text(
                "p (McNemar) compares two trained networks, not two settings: the best one and this one, by the test "
                "images that only one of them classifies correctly (exact test, corrected by Holm)."
            )
        )

    # what settings are ranked by, if it is not the accuracy
    notes = ranking_notes(section) + notes

    # test accuracy, and notes on the intervals
    columns.append(Column("test_score", 2, text=lambda row: with_interval(row, "test_score") if row["n"] > 1 else None))
    of_classes = [name for name in ("test_macro_f1", "test_balanced_acc") if name in frame]
    if of_classes:
        columns += [Column(name, 2, is_percentage=True) for name in of_classes]
        notes.append(
            text(
                "The classes are unbalanced; macro F1 and balanced accuracy, which is the mean recall, weigh every "
                "class alike."
            )
        )
    if frame.p_test.notna().any():
        columns.append(p_column("p_test", "p_test"))
        notes.append(
            text(
                "Test accuracy: ± over seeds; in brackets, the 95 % sampling interval of the test images (Wilson). p "
                "test compares it with that of the best setting, in the same way and corrected for all pairs too; it "
                "is another family, which checks the choice but does not make it."
            )
        )
    if (frame.n > 1).any():
        notes.insert(
            0,
            text(
                "Mean ± half the 95 % interval over seeds (Student t), for each setting alone: how much results vary "
                "between repeats. The ± is never smaller than rounding to whole images allows. Settings are ranked by "
                "best validation accuracy; it is the best of all epochs and so a little optimistic; the test accuracy "
                "is not."
            ),
        )
        failed = frame[frame.failed > 0]
        if not failed.empty:
            notes.append(failed_note(failed))
        notes.append(_repeats(section))
    if (frame.n == 1).any():
        notes.append(
            text(
                "A single seed says nothing about the spread between seeds, so there is no ± and no p over seeds; the "
                "brackets hold the 95 % sampling interval of the test images (Wilson)."
            )
        )
    return Table("comparison", text("Settings of {name}, the best first", name=section.title), frame, columns, notes)


def ranking_notes(section: Section) -> list[str]:
    """Say what settings are ranked by, unless it is the accuracy and nothing else was asked."""
    said = []
    if section.metric != ACCURACY:
        said.append(
            text(
                "Settings are ranked by {metric}, by which each run also chose its best epoch: the best value, "
                "differences and effects are of it.",
                metric=ranking_name(),
            )
        )
    if section.metric == "val/loss":
        said.append(text("The likelihood is e^−loss: the geometric mean of the probabilities of the true classes."))
    if section.wanted not in ("", section.metric, f"best/{section.metric.replace('/', '_')}"):
        said.append(
            text(
                "The metric of the sweep is {wanted}; its runs chose their best epoch by {metric}, and settings are "
                "ranked by that.",
                wanted=section.wanted,
                metric=ranking_name(),
            )
        )
    return said


def reference_note(best: Setting) -> str:
    """Say which setting differences are from, if it is not the first one."""
    return text(
        "Differences are from {setting}, the best setting with several seeds; a setting above it has a single seed.",
        setting=shown(best),
    )


def failed_note(failed: pd.DataFrame) -> str:
    """Name the settings of which only some runs learned; `failed` has the columns of `compare`."""
    return text(
        "No interval and no comparison, because only some runs learned: {settings}.",
        settings=failed_named(failed.set_index("setting")),
    )


def without_result(count: int) -> str:
    """Count the settings that have no result."""
    return plural("{n:,} more setting has no result.", "{n:,} more settings have no result.", count)


def _repeats(section: Section) -> str:
    """Say what the repeats of a setting differ in."""
    if not section.splits_vary:
        return text(
            "Repeats differ in the seed: the initial weights and the order and augmentation of the images. The split "
            "into training, validation and test images is always the same, so no interval says how much results would "
            "vary with other images."
        )
    if section.runs.seed.nunique() > 1:
        return text(
            "Repeats differ in the seed and in the split: the initial weights, the order and augmentation of the "
            "images, and which of the images are for training, validation and test. The intervals include both "
            "(Bouthillier et al. 2021)."
        )
    return text(
        "Repeats differ in the split only: which of the images are for training, validation and test. The seed is "
        "always the same, so how much results vary with the initial weights is not included."
    )


def _over_images(row: dict) -> str | None:
    """Write half the interval over images with its sign."""
    return f"± {number(row['below_images'], '.2f')}" if row["below_images"] == row["below_images"] else None


def with_interval(row: Mapping[str, Any], key: str) -> str:
    """Write an accuracy in percent, without the sign, with its intervals: ± over seeds, in brackets over test images.

    An interval over seeds that would go beyond 0 or 100 % is in brackets too, before the other.
    """
    written = number(row[key], ".2f")
    half_width = row[f"{key}_ci95"]
    if half_width == half_width:
        is_cut = not is_within(row[key], half_width)
        written += _bracketed(*bounded(row[key], half_width)) if is_cut else f" ± {number(half_width, '.2f')}"
    low, high = (row.get(f"{key}_{bound}", math.nan) for bound in ("low", "high"))
    return written + _bracketed(low, high) if low == low else written


def _bracketed(low: float, high: float) -> str:
    """Write the ends of an interval."""
    return f" [{number(low, '.2f')}{text(',')} {number(high, '.2f')}]"


def failed_named(frame: pd.DataFrame) -> str:
    """Name settings of which some runs failed to learn; `frame` has their `failed` runs of `n`, by setting."""
    return named(
        [
            text("{setting} ({failed} of {n} runs failed to learn)", setting=shown(setting), failed=row.failed, n=row.n)
            for setting, row in frame.iterrows()
        ]
    )


def _seeds(row: dict) -> str | None:
    """Write the number of seeds with a result, if some are missing."""
    return text("{n} of {asked}", n=row["n"], asked=row["asked"]) if 0 < row["n"] < row["asked"] else None


def ranking(
    frame: pd.DataFrame, runs: pd.DataFrame, title: str, looks: Looks | None = None, metric: str = ACCURACY
) -> Figure:
    """Draw the best validation accuracy of each setting (mean, 95 % interval, single seeds) and its test accuracy.

    If settings are ranked by another `metric`, it. `frame` is the result of `compare`, `runs` are those of the section.
    """
    # the figure is as high as the names of the settings need
    frame = frame[frame.n > 0][:SHOWN]
    looks = looks or looks_of(list(frame.setting))
    lines = max(wrapped(setting).count("\n") + 1 for setting in frame.setting)
    figure = Plot(figsize=(10, 1.6 + (0.2 + 0.16 * lines) * len(frame)), layout="constrained")
    axes = figure.subplots()

    # one row of points per setting: its seeds, their mean, and the test accuracy
    for place, row in enumerate(frame.to_dict("records")):
        setting = row["setting"]
        color = looks[setting].color
        seeds = runs[runs.setting == setting]
        accuracies = scores(seeds, metric).to_numpy(dtype=float)
        if len(accuracies) > 1:
            rows = np.column_stack([accuracies, np.full(len(accuracies), place)])
            (dots,) = axes.plot(*rows.T, "o", color=color, alpha=0.35, markersize=5)
            notes = [
                f"{text('seed')} {seed}: {number(acc, '.2f')} %"
                for seed, acc in zip(seeds.seed, accuracies, strict=True)
            ]
            about(dots, Mark(setting, rows, notes))
        mean = axes.errorbar(
            row["score"], place, xerr=_half_width(row), fmt="o", color=color, markersize=8, linewidth=2
        )
        (tested,) = axes.plot(
            row["test_score"], place, "D", color=color, markerfacecolor="white", markersize=6, zorder=3
        )
        for bar in mean.get_children():
            about(bar, Mark(setting))
        about(mean.lines[0], Mark(setting, np.array([[row["score"], place]]), [_reading(row, "score")]))
        about(tested, Mark(setting, np.array([[row["test_score"], place]]), [_reading(row, "test_score")]))

    # legend, names and limits
    axes.plot([], [], "o", color=GREY, markersize=8, label=ranking_axis().removesuffix(" (%)"))
    axes.plot([], [], "D", color=GREY, markerfacecolor="white", markersize=6, label=text("Test accuracy"))
    axes.set_yticks(range(len(frame)), [wrapped(setting) for setting in frame.setting])
    axes.set_ylim(len(frame) - 0.5, -0.5)
    finish(
        axes,
        title,
        text("Accuracy (%)") if metric == ACCURACY else ranking_axis(),
        text("Setting"),
        numbers="x",
    )
    axes.grid(visible=False, axis="y")
    low, high = axes.get_xlim()
    axes.set_xlim(max(0, low), min(100.5, high))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _reading(row: dict, key: str) -> str:
    """Write an accuracy of a setting with its interval."""
    spread = row.get(f"{key}_ci95", math.nan)
    value = number(row[key], ".2f") + ("" if math.isnan(spread) else f" ± {number(spread, '.2f')}")
    return f"{heading(key)}: {value}"


def _half_width(row: dict) -> list[list[float]] | None:
    """Return the two halves of the error bar of a setting, cut off at 0 and 100 %; None without an interval."""
    if math.isnan(row["score_ci95"]):
        return None
    low, high = bounded(row["score"], row["score_ci95"])
    return [[row["score"] - low], [high - row["score"]]]
