"""The short answer of a section: a recommendation, a line for each thing asked, one figure and one table.

python -c "from analysis.frames import runs, sections; from analysis.themes import brief; \\
    frames = runs.load('runs'); print(brief.recommendation(frames, sections.by_dataset(frames)[0]))"
"""

from collections.abc import Collection

import pandas as pd

from analysis.frames import contrasts, endings
from analysis.frames.runs import Frames
from analysis.frames.sections import ACCURACY, Section, in_its_words
from analysis.frames.statistics import ALPHA
from analysis.page import figures
from analysis.page.attempt import attempted
from analysis.page.blocks import Block, Items, Paragraph, Picture
from analysis.page.figures import Looks
from analysis.page.tables import SIGNIFICANT, Column, Table, p_words
from analysis.themes import answers, asked, comparison, confusion, costs, layers, space
from analysis.themes.protocol import FAILED
from analysis.wording.texts import mark, named, plural, shown, text
from study.config.setting import Setting

ROWS = 10
"""Most settings in the table."""

MOST_LOST = 2
"""A setting may be chosen for something else than its accuracy if the interval of what it loses ends within this many
times the smallest difference that matters."""

HARDER = {
    (True, False): mark("Training is measured with dropout, validation and the gap at the end without it."),
    (False, True): mark("Training is measured on augmented images, validation and the gap at the end on others."),
    (True, True): mark(
        "Training is measured with dropout and augmentation, validation and the gap at the end without them."
    ),
}
"""Why training may look worse than validation: whether any run has dropout, and whether any has augmentation."""

COLUMNS = ("setting", "n", "score", "best_epoch", "below", "p_holm", "test_score", "test_macro_f1", "test_balanced_acc")
"""Columns of the whole comparison that the table has too."""


@in_its_words
def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Answer the question of a section in short."""
    said = attempted(text("The answer"), lambda: recommendation(frames, section))
    return [
        said if isinstance(said, Paragraph) else Paragraph(said),
        Items(asked.lines(frames, section)),
        attempted(text("Figures"), lambda: picture(section, looks)),
        attempted(text("The comparison of the settings"), lambda: table(frames, section)),
        *_pictures(frames, section),
    ]


def _pictures(frames: Frames, section: Section) -> list[Block]:
    """Draw the best setting's confusion matrix and the t-SNE of the best settings, if the question is about them."""
    wanted = section.subjects
    found = []
    if "confusion" in wanted:
        found.append(attempted(text("The confusions"), lambda: matrix(frames, section)))
    if "features" in wanted:
        found.append(attempted(text("The layers"), lambda: layers.picture(frames, section)))
    return [block for block in found if block]


def matrix(frames: Frames, section: Section) -> Picture | None:
    """Draw the confusion matrix of the best setting; None if no predictions can be read."""
    known = confusion.of_best(frames, section)
    return confusion.picture(*known) if known else None


@in_its_words
def recommendation(frames: Frames, section: Section) -> str:
    """Say in a few sentences which setting to use, and why, or why none can be recommended, and what limits this."""
    frame = contrasts.with_images(frames, section)
    without = int((frame.n == 0).sum())
    frame = frame[frame.n > 0].set_index("setting")
    said = _recommended(frames, section, frame)
    is_said = len(frame) == 1 or frame.p_holm.isna().all()  # by the answer that stands for it
    missing = [comparison.without_result(without)] if without and not is_said else []
    return " ".join([said, *missing, *_limits(section, frame)])


def _limits(section: Section, frame: pd.DataFrame) -> list[str]:
    """Say which settings did not learn at all, and whether the runs are too short for their order to last.

    `frame` is the comparison of the settings with results, indexed by setting.
    """
    said = []
    failures = contrasts.failures(section)
    unlearned = [shown(setting) for setting in failures.index[failures.failed == failures["all"]]]
    if unlearned:
        said.append(
            plural(
                "{settings} has learned in none of its runs: it may do so with more epochs or another learning rate.",
                "{settings} have learned in none of their runs: they may do so with more epochs or another learning "
                "rate.",
                len(unlearned),
                settings=named(unlearned),
            )
        )
    longer = endings.verdicts(section)
    if len(longer) > 1 and (longer.verdict == "few").any() and longer.verdict.isin(["few", "collapsed"]).all():
        most = int(section.runs["last/epoch"].max())
        said.append(
            plural(
                "With only {n} epoch this may change: it is too few to see a trend.",
                "With only {n} epochs this may change: they are too few to see a trend.",
                most,
            )
        )

    # those that are clearly worse, but rise fast enough to become the best; trends are of the accuracy
    best = contrasts.reference(frame)
    rising = endings.overtaking(section, frame.score, best) if section.metric == ACCURACY else []
    later = [setting for setting in rising if frame.p_holm[setting] < ALPHA]
    if later:
        said.append(
            plural(
                "With more epochs the order may change: {settings} is still rising, and could reach {best}.",
                "With more epochs the order may change: {settings} are still rising, and could reach {best}.",
                len(later),
                settings=named([shown(setting) for setting in later]),
                best=shown(best),
            )
        )
    return said


def _recommended(frames: Frames, section: Section, frame: pd.DataFrame) -> str:
    """Return the recommendation among the settings with results, which are indexed by setting."""
    # nothing that can be compared, or no difference at all
    tested = frame[frame.p_holm.notna()]
    first = frame.index[0]
    if tested.empty and len(frame) > 1 and frame.n.max() == 1 and frame.score.iloc[0] > frame.score.iloc[1]:
        return text(
            "**{setting}** is ahead, but its lead may be luck: differences can be judged only with several seeds of "
            "each setting.",
            setting=shown(first),
        )
    if tested.empty or (tested.below == 0).all():
        return answers.headline(frames, section)

    # runs that diverged or failed: none of a setting that lost half of its runs or more is recommended
    is_lost = section.points.state.isin(("diverged", *FAILED)).groupby(section.points.setting, sort=False)
    lost, asked_for = is_lost.sum(), is_lost.size()
    unsafe = lost.index[2 * lost >= asked_for]

    # what cannot be compared is above, at least where it learned
    best = contrasts.reference(frame)
    learned = section.runs[~contrasts.collapsed(section)]
    lead = section.scores(learned).groupby(learned.setting).mean().reindex(frame.index) - frame.score[best]
    is_untested = frame.p_holm.isna() & (frame.index != best) & ~frame.index.isin(unsafe)
    above = lead[(lead > section.smallest) & is_untested]
    if not above.empty:
        return plural(
            "Train more seeds of **{settings}** first: its runs that learned are {points:.2f} points above {best}, but "
            "too few to rule out luck.",
            "Train more seeds of **{settings}** first: their runs that learned are up to {points:.2f} points above "
            "{best}, but too few to rule out luck.",
            len(above),
            settings=named([shown(setting) for setting in above.index]),
            best=shown(best),
            points=float(above.max()),
        )

    # results that contradict each other
    against = tested[(tested.test_below < 0) & (tested.p_test < ALPHA)]
    if not against.empty:
        others = named([shown(setting) for setting in against.index])
        return text(
            "No recommendation: {best} is best on the validation images, but clearly worse than {others} on the test "
            "images.",
            best=shown(best),
            others=others,
        )
    better = tested[(tested.below < 0) & (tested.p_holm < ALPHA)]
    if not better.empty:
        return text(
            "No recommendation: {best} has the highest mean, but over the seeds that both have, it is clearly less "
            "accurate than {others}.",
            best=shown(best),
            others=named([shown(setting) for setting in better.index]),
        )

    # the choice, unless too many of its runs were lost
    chosen, said = _chosen(section, frame, tested, unsafe)
    if chosen in unsafe:
        return text(
            "No recommendation: {setting} has the highest accuracy, but {lost} of its {all} runs diverged or failed.",
            setting=shown(chosen),
            lost=lost[chosen],
            all=asked_for[chosen],
        )
    if lost[chosen]:
        message = text(
            "{lost} of the {all} runs of {setting} diverged or failed.",
            setting=shown(chosen),
            lost=lost[chosen],
            all=asked_for[chosen],
        )
        return f"{said} {message}"
    return said


def _chosen(
    section: Section, frame: pd.DataFrame, tested: pd.DataFrame, unsafe: Collection[Setting]
) -> tuple[Setting, str]:
    """Choose among the settings that can be compared: the setting, and a sentence with the reason.

    Of settings that are not clearly less accurate than the best, none of `unsafe` is chosen for something else.
    """
    # the best one is clearly better
    best = contrasts.reference(frame)
    tied = tested[tested.p_holm >= ALPHA]
    if tied.empty:
        closest = tested.loc[tested.below.idxmin()]
        why = asked.reasons(section, best, list(tested.index))
        values = {
            "setting": shown(best),
            "lead": _lead(closest),
            "besides": text(", and {why}", why=why[0]) if why else "",
        }
        if len(tested) < len(frame) - 1:
            return best, plural(
                "Use **{setting}**: it is clearly more accurate than the only setting that can be compared with it, by "
                "{lead}{besides}.",
                "Use **{setting}**: it is clearly more accurate than the {n} settings that can be compared with it "
                "(smallest lead: {lead}){besides}.",
                len(tested),
                **values,
            )
        return best, plural(
            "Use **{setting}**: it is clearly more accurate than the other setting, by {lead}{besides}.",
            "Use **{setting}**: it is clearly more accurate than the {n} others (smallest lead: {lead}){besides}.",
            len(tested),
            **values,
        )

    # something else decides between it and those that cannot be much less accurate, nor are on the test images
    bound = tied.below + tied.below_ci95 <= MOST_LOST * section.smallest
    near = tied.index[bound & ~((tied.test_below > 0) & (tied.p_test < ALPHA)) & ~tied.index.isin(unsafe)]
    for setting in [best, *near]:
        others = [other for other in (best, *tied.index) if other != setting]
        why = asked.reasons(section, setting, others)
        if why and setting == best:
            message = text("Use **{setting}**: no setting is clearly more accurate, and {why}.", setting=shown(best),
                           why=why[0])  # fmt: skip
            return best, message
        if why:
            row = tied.loc[setting]
            return setting, text(
                "Use **{setting}**: its accuracy is not clearly below the highest ({points:.2f} ± {spread:.2f} points "
                "less than {best}), and {why}.",
                setting=shown(setting),
                why=why[0],
                points=float(row.below),
                spread=float(row.below_ci95),
                best=shown(best),
            )

    # nothing decides
    values = {"setting": shown(best), "settings": named([shown(other) for other in tied.index])}
    if best != frame.index[0]:
        said = text(
            "Accuracy does not decide: of the settings that can be compared, **{setting}** has the highest mean, but "
            "is not clearly better than {settings}.",
            **values,
        )
    elif (tied.below <= 0).any():
        said = text(
            "Accuracy does not decide: the mean of **{setting}** is not clearly higher than that of {settings}.",
            **values,
        )
    else:
        said = text(
            "Accuracy does not decide: **{setting}** has the highest mean, but is not clearly better than {settings}.",
            **values,
        )
    worse = tested.index[tested.p_holm < ALPHA]
    if len(worse):
        said += " " + text("Clearly less accurate: {settings}.", settings=asked.common(worse, frame.index))
    undecided = tied[tied.below.abs() + tied.below_ci95 >= section.smallest]
    return best, " ".join([said, *([answers.needed(section, best, undecided)] if len(undecided) else [])])


def _lead(row: pd.Series) -> str:
    """Write by how much the best setting is clearly better: with its interval or, if that ends at 0, with p."""
    points, spread = float(row.below), float(row.below_ci95)
    if round(spread, 2) < round(points, 2):
        return text("{points:.2f} ± {spread:.2f} points", points=points, spread=spread)
    return text("{points:.2f} points, {p}", points=points, p=p_words(float(row.p_holm)))


def picture(section: Section, looks: Looks) -> Picture:
    """Draw the comparison: the curves of each setting if they are few, otherwise a grid or all accuracies."""
    settings = section.ranked
    kind = comparison.picture_in_short(section)
    if kind == "brief":
        title = text("Training and validation of each setting: {name}", name=section.title)
        repeated = section.runs.setting.duplicated().any()
        caption = [text("Lines: mean over seeds; bands: 95 % intervals.")] if repeated else []
        harder = (section.runs.dropout.astype(float).gt(0).any(), section.runs.augment.map(bool).any())
        if harder in HARDER:
            caption.append(text(HARDER[harder]))
        figure = figures.curves_by_setting(section.history, settings, title, looks)
        return Picture("brief", title, figure, " ".join(caption))
    return space.grid(section) if kind == "grid" else comparison.accuracies(section, looks)


INTERVALS = {
    True: mark(
        "Test: first the 95 % interval over seeds (± or brackets), then in brackets that over the test images (Wilson)."
    ),
    False: mark("Test: in brackets the 95 % interval over the test images (Wilson)."),
}
"""Which intervals stand behind a test score, if any setting has several seeds, and if none has."""


@in_its_words
def table(frames: Frames, section: Section) -> Table:
    """Make the table of at most ROWS settings: accuracy, difference from the best, overfitting and costs."""
    frame = contrasts.compare(section)
    kept = frame[frame.n > 0].head(ROWS).copy()
    measured = asked.gaps(section)
    kept = kept.merge(measured, on="setting", how="left").merge(
        costs.measure(section)[["setting", "params", "epoch_seconds"]], on="setting", how="left"
    )
    full = {column.key: column for column in comparison.table(section, frame).columns}
    columns = [full[key] for key in COLUMNS if key in full]
    columns += [
        column
        for column in (Column("gap_last", 2), Column("params", 0), Column("epoch_seconds", SIGNIFICANT))
        if kept[column.key].notna().any()
    ]

    # notes: which interval is which, what differences are from, settings without an interval, and the rest
    notes = comparison.ranking_notes(section)
    if "test_score_low" in kept and kept.test_score_low.notna().any():
        notes.append(text(INTERVALS[bool((kept.n > 1).any())]))
    best = contrasts.reference(frame.set_index("setting"))
    if best != frame.setting.iloc[0]:
        notes.append(comparison.reference_note(best))
    failed = kept[kept.failed > 0]
    if not failed.empty:
        notes.append(comparison.failed_note(failed))
    rest = int((frame.n > 0).sum()) - len(kept)
    if rest:
        notes.append(
            plural(
                "One more setting is in the table of the whole report.",
                "{n} more settings are in the table of the whole report.",
                rest,
            )
        )
    return Table("brief", text("Settings of {name}, the best first", name=section.title), kept, columns, notes)
