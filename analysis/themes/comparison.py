"""The comparison of the settings of a section: their table, and a figure of their accuracies.

python -m analysis.summarize runs     # writes them into the report
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.frames import contrasts
from analysis.frames.contrasts import SHOWN
from analysis.frames.runs import Frames
from analysis.frames.sections import ACCURACY, Section, in_its_words, scores
from analysis.page.blocks import Block, Heading, Picture
from analysis.page.characters import Plot
from analysis.page.figures import GREY, Looks, finish, looks_of, wrapped
from analysis.page.live import Mark, about
from analysis.page.tables import Column, Table, bounded, is_within, p_column
from analysis.wording.texts import heading, named, number, plural, ranking_axis, ranking_name, shown, text
from study.config.setting import Setting

PANELS = 6
"""Most settings whose curves get a panel each in the short form; of more, a grid or the accuracies are drawn."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the table of settings, and their accuracies in a figure unless the short form has it."""
    frame = contrasts.with_images(frames, section)
    content: list[Block] = [
        Heading(text("Comparison")),
        table(section, frame, contrasts.with_best(frames, section, frame)),
    ]
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
    frame = contrasts.compare(section)
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


@in_its_words
def table(section: Section, frame: pd.DataFrame | None = None, networks: pd.DataFrame | None = None) -> Table:
    """Make the table of the results of `compare` and `with_best`."""
    frame = contrasts.compare(section) if frame is None else frame
    best = contrasts.reference(frame.set_index("setting"))
    is_first = best == frame.setting.iloc[0]  # otherwise bold would mark settings below one that cannot be compared
    columns = [
        Column("setting"),
        Column("n", 0, text=_seeds),
        Column("score", 2, bold="tied" if is_first else "", is_percentage=True),
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
        if not is_first:
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
                "interval of a difference is widened accordingly, and does not include 0 where p < 0.05. The risk of "
                "a false claim is about 5 % for the whole table, not for each row.",
                how=how,
            )
        )
        if is_first:
            notes.append(text("Bold: not shown to be worse than the best (p ≥ 0.05)."))
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
        "Differences are from {setting}, the best setting that can be compared: those above it have a single seed, or "
        "only some of their runs learned.",
        setting=shown(best),
    )


def failed_note(failed: pd.DataFrame) -> str:
    """Name the settings of which only some runs learned; `failed` has the columns of `compare`."""
    return text(
        "No interval and no comparison, because only some runs learned: {settings}. A run has not learned if it fits "
        "its training images hardly better at the end than in the first epoch.",
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
