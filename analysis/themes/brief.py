"""The short answer of a section: a recommendation, a line for each thing asked, one figure and one table.

python -c "from analysis.frames import runs, sections; from analysis.themes import brief; \\
    frames = runs.load('runs'); print(brief.recommendation(frames, sections.by_dataset(frames)[0]))"
"""

import pandas as pd

from analysis.frames.runs import Frames
from analysis.frames.sections import Section, best_readable
from analysis.frames.statistics import ALPHA
from analysis.page import figures
from analysis.page.attempt import attempted
from analysis.page.blocks import Block, Items, Paragraph, Picture
from analysis.page.figures import Looks
from analysis.page.tables import SIGNIFICANT, Column, Table
from analysis.themes import answers, asked, comparison, confusion, costs, space
from analysis.wording.texts import mark, named, plural, shown, text
from study.config.setting import Setting

ROWS = 10
"""Most settings in the table."""

COLUMNS = ("setting", "n", "val_acc", "best_epoch", "below", "p_holm", "test_acc")
"""Columns of the whole comparison that the table has too."""

PANELS = 6
"""Most settings whose curves get a panel each; of more, the accuracies are drawn."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Answer the question of a section in short."""
    said = attempted(text("The answer"), lambda: recommendation(frames, section))
    return [
        said if isinstance(said, Paragraph) else Paragraph(said),
        Items(asked.lines(frames, section)),
        attempted(text("Figures"), lambda: picture(frames, section, looks)),
        attempted(text("The comparison of the settings"), lambda: table(frames, section)),
    ]


def recommendation(frames: Frames, section: Section) -> str:
    """Say in a sentence or two which setting to use, and why."""
    frame = comparison.with_images(frames, section)
    frame = frame[frame.n > 0].set_index("setting")
    tested = frame[frame.p_holm.notna()]

    # a single setting, or nothing that can be compared
    if len(frame) == 1 or (tested.empty and frame.n.max() > 1):
        return answers.headline(frames, section)
    if tested.empty:
        return text(
            "**{setting}** is ahead, but its lead may be luck: differences can be judged only with several seeds of "
            "each setting.",
            setting=shown(frame.index[0]),
        )

    # validation and test contradict each other
    if ((tested.test_below < 0) & (tested.p_test < ALPHA)).any():
        return text("No recommendation: the test images show the opposite of the validation images.")

    # a setting that cannot be compared comes before the recommended one, runs that diverged after it
    chosen, said = _chosen(section, frame, tested)
    best = comparison.reference(frame)
    if frame.index[0] != best:
        top = frame.iloc[0]
        message = ONLY_SEED if top.n == 1 else ONLY_SOME
        above = float(top.val_acc - frame.val_acc[best])
        first = text(message, setting=shown(frame.index[0]), other=shown(best), points=above)
        said = f"{first} {said[0].lower()}{said[1:]}"
    diverged = int((section.points.state[section.points.setting == chosen] == "diverged").sum())
    if diverged:
        said += " " + plural("{n} run of {setting} diverged.", "{n} runs of {setting} diverged.", diverged,
                             setting=shown(chosen))  # fmt: skip
    return said


ONLY_SEED = mark("**{setting}** is {points:.2f} points above {other}, but with its only seed. Among the others:")
ONLY_SOME = mark(
    "**{setting}** is {points:.2f} points above {other}, but only some of its runs learned. Among the others:"
)


def _chosen(section: Section, frame: pd.DataFrame, tested: pd.DataFrame) -> tuple[Setting, str]:
    """Choose among the settings that can be compared: the setting, and a sentence with the reason."""
    # the best one is clearly better
    best = comparison.reference(frame)
    tied = tested[tested.p_holm >= ALPHA]
    if tied.empty:
        closest = tested.loc[tested.below.idxmin()]
        values = {"setting": shown(best), "points": float(closest.below), "spread": float(closest.below_ci95)}
        why = asked.reasons(section, best, list(tested.index))
        besides = text(", and {why}", why=why[0]) if why else ""
        return best, plural(
            "Use **{setting}**: it is clearly more accurate than the other setting, by {points:.2f} ± {spread:.2f} "
            "points{besides}.",
            "Use **{setting}**: it is clearly more accurate than the {n} others, than the closest by {points:.2f} ± "
            "{spread:.2f} points{besides}.",
            len(tested), **values, besides=besides,
        )  # fmt: skip

    # something else decides between it and those that are about as accurate
    near = tied[tied.below.abs() <= section.smallest].index
    for setting in [best, *near]:
        others = [other for other in (best, *tied.index) if other != setting]
        why = asked.reasons(section, setting, others)
        if why and setting == best:
            message = text("Use **{setting}**: no setting is clearly more accurate, and {why}.", setting=shown(best),
                           why=why[0])  # fmt: skip
            return best, message
        if why:
            row = tied.loc[setting]
            values = {"points": float(row.below), "spread": float(row.below_ci95), "best": shown(best)}
            return setting, text(
                "Use **{setting}**: its accuracy is not clearly below the highest ({points:.2f} ± {spread:.2f} points "
                "less than {best}), and {why}.",
                setting=shown(setting), why=why[0], **values,
            )  # fmt: skip

    # nothing decides
    said = text(
        "Accuracy does not decide: **{setting}** has the highest mean, but is not clearly better than {settings}.",
        setting=shown(best),
        settings=named([shown(other) for other in tied.index]),
    )
    worse = tested.index[tested.p_holm < ALPHA]
    if len(worse):
        said += " " + text("Clearly less accurate: {settings}.", settings=asked.common(worse, frame.index))
    return best, said


def picture(frames: Frames, section: Section, looks: Looks) -> Picture:
    """Draw what the question is about: the confusion matrix, the curves of each setting, a grid, or all accuracies."""
    settings = section.ranked
    if "confusion" in asked.asks(section) and len(settings) == 1:
        best, _ = best_readable(frames, section)
        if not best.empty:
            (counts, repeats), *_ = confusion.matrices(frames, section, best.head(1)).values()
            title = text("Confusion matrix of {dataset}, test images: {setting} ({over})",
                         **confusion.words_over(best.iloc[0], repeats))  # fmt: skip
            return Picture("brief", title, confusion.matrix_figure(counts, title, normalised=False))
    if len(settings) <= PANELS:
        title = text("Training and validation of each setting: {name}", name=section.title)
        caption = (
            text("Lines: mean over seeds; bands: 95 % intervals.") if section.runs.setting.duplicated().any() else ""
        )
        history = section.history
        return Picture("brief", title, figures.curves_by_setting(history, settings, title, looks), caption)
    frame = comparison.compare(section)
    if space.is_grid(section):
        title = text("Validation accuracy over two options: {name}", name=section.title)
        return Picture("brief", title, space.heat_map(frame, section.varied, title))
    title = text("Accuracy of each setting: {name}", name=section.title)
    return Picture("brief", title, comparison.ranking(frame, section.runs, title, looks))


def table(frames: Frames, section: Section) -> Table:
    """Make the table of at most ROWS settings: accuracy, difference from the best, overfitting and costs."""
    frame = comparison.compare(section)
    kept = frame[frame.n > 0].head(ROWS).copy()
    measured = asked.gaps(section)
    kept = kept.merge(measured, on="setting", how="left").merge(
        costs.measure(section)[["setting", "params", "epoch_seconds"]], on="setting", how="left"
    )
    full = {column.key: column for column in comparison.table(section, frame).columns}
    columns = [
        full[key] for key in ("setting", "n", "val_acc", "best_epoch", "below", "p_holm", "test_acc") if key in full
    ]
    columns += [
        column
        for column in (Column("gap_last", 2), Column("params", 0), Column("epoch_seconds", SIGNIFICANT))
        if kept[column.key].notna().any()
    ]
    rest = int((frame.n > 0).sum()) - len(kept)
    notes = [plural("One more setting is in the whole table.", "{n} more settings are in the whole table.", rest)]
    return Table("brief", text("Settings of {name}, the best first", name=section.title), kept, columns,
                 notes if rest else [])  # fmt: skip
