"""The course of training: learning curves, overfitting, the best epoch, and whether more epochs would help.

python -m analysis.summarize runs     # writes them into the report
"""

import pandas as pd

from analysis.frames import contrasts, endings
from analysis.frames.runs import Frames
from analysis.frames.sections import ACCURACY, Section
from analysis.frames.statistics import ALPHA
from analysis.page import figures
from analysis.page.blocks import Block, Heading, Items, Paragraph, Picture
from analysis.page.figures import BANDS, Looks
from analysis.page.tables import Column, Table, p_column
from analysis.wording.texts import NAMED, mark, named, number, plural, settings_named, shown, text
from study.record.metrics import scaled

RISEN = 1.1
"""The validation loss has risen again if its mean over the last epochs is this many times the lowest such mean."""

VERDICTS = {
    "rises": (
        mark("would help"),
        mark("More epochs would still help {settings}: validation accuracy is rising at the end."),
    ),
    "mixed": (
        mark("accuracy yes, loss no"),
        mark(
            "Validation accuracy is still rising at the end for {settings}, but so is the validation loss: more "
            "correct predictions, and more confidence in the wrong ones."
        ),
    ),
    "perhaps": (
        mark("perhaps"),
        mark(
            "More epochs might help {settings}: the validation loss is still falling at the end, though the accuracy "
            "shows no trend."
        ),
    ),
    "unclear": (
        mark("no trend"),
        mark("For {settings}, no trend at the end can be distinguished from noise."),
    ),
    "overfits": (
        mark("would not help"),
        mark(
            "More epochs would not help {settings}: at the end the validation loss is rising and the accuracy is not."
        ),
    ),
    "falls": (
        mark("would harm"),
        mark("More epochs would harm {settings}: validation accuracy is falling at the end."),
    ),
    "decayed": (
        mark("learning rate decayed"),
        mark(
            "For {settings}, these runs cannot show the effect of more epochs: at the end, the schedule has lowered "
            "the learning rate below a tenth of its highest value. More epochs need runs with a longer schedule."
        ),
    ),
    "early": (
        mark("stopped early"),
        mark("Early stopping ended {settings}: there was no better value during its patience."),
    ),
    "few": (
        mark("too few epochs"),
        mark("Too few epochs to see a trend: {settings}."),
    ),
    "collapsed": (
        mark("training collapsed"),
        mark("Training collapsed for {settings}: more epochs would not fix it."),
    ),
}
"""The verdicts of `endings.verdicts`, the most promising first, in a word and a sentence."""

CAUSES = {
    "open": mark(
        "**{setting}** lies {below:.2f} points below {best}, with {own:.2f} % against {other:.2f} % on training "
        "images and a gap to validation of {own_gap:.2f} points against {other_gap:.2f}. The noise is too large to "
        "tell which of the two matters more."
    ),
    "narrower": mark(
        "**{setting}** lies {below:.2f} points below {best} and learns less: {own:.2f} % on training images against "
        "{other:.2f} %. Its gap to validation is no wider ({own_gap:.2f} points against {other_gap:.2f})."
    ),
    "fits": mark(
        "**{setting}** lies {below:.2f} points below {best}, although it is more accurate on training images "
        "({own:.2f} % against {other:.2f} %): its gap to validation is wider, {own_gap:.2f} points against "
        "{other_gap:.2f}."
    ),
    "both": mark(
        "**{setting}** lies {below:.2f} points below {best}: {train:.2f} points are a lower training accuracy "
        "({own:.2f} % against {other:.2f} %) and {gap:.2f} a wider gap to validation ({own_gap:.2f} points against "
        "{other_gap:.2f}); {why}."
    ),
}
"""Why a setting is worse than the best: by its training accuracy, by its gap to validation, or by both."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the learning curves, overfitting, and whether more epochs would help."""
    # caption of the curves
    title = text("Learning curves: {name}", name=section.title)
    if not section.runs.setting.duplicated().any():
        kind = text("One seed per setting, so no band.")
    elif len(section.ranked) <= BANDS:
        kind = text("Mean over seeds; bands are 95 % intervals of the mean (Student t).")
    else:
        kind = text("Mean over seeds; the intervals are left out because there are many settings.")
    measured = text(
        "Training values are measured during training, with dropout and augmentation, so they can be worse than those "
        "of validation."
    )

    # tables, with their answers above them
    overfit = overfitting(section)
    longer = more_epochs(section)
    return [
        Heading(text("Learning curves")),
        Picture("curves", title, figures.learning_curves(section.history, title, looks), f"{kind} {measured}"),
        Heading(text("Overfitting")),
        Items([_overfitting(overfit.frame), *_causes(section, overfit.frame)]),
        overfit,
        *([Heading(text("Would more epochs help?")), Paragraph(_longer(longer.frame)), longer] if longer.rows else []),
    ]


def overfitting(section: Section) -> Table:
    """Compare the gaps between training and validation."""
    # losses have three decimals, accuracies two, epochs one
    columns = [Column("setting"), *(Column(key, 3 if "loss" in key else 2) for key in endings.GAPS)]
    columns = [Column(column.key, 1) if column.key == "val_loss_min_epoch" else column for column in columns]
    frame = endings.gaps(section).drop(columns="val_loss_min_epoch_ci95")
    title = text("Training against validation: {name}", name=section.title)
    return Table(
        "overfitting",
        title,
        frame,
        columns,
        [
            text(
                "Gap: accuracy on training images (at most as many as there are validation images) minus accuracy on "
                "validation images, both without dropout or augmentation, at the epoch with the best validation "
                "accuracy and at the last epoch. Loss gap: validation minus training. The wider the gap, the more of "
                "what was learned holds for the training images only."
            )
        ],
    )


def more_epochs(section: Section) -> Table:
    """Show for each setting whether more epochs would help; see `endings.verdicts`."""
    frame = endings.verdicts(section)
    columns = [
        Column("setting"),
        Column("epochs", 1),
        Column("best_epoch", 1, header=text("Best epoch")),
        Column("acc_slope", 3),
        p_column("acc_slope_p"),
        Column("loss_slope", 4),
        p_column("loss_slope_p"),
        Column("gain", 2),
        Column("verdict", text=lambda row: text(VERDICTS[row["verdict"]][0])),
    ]
    notes = [
        text(
            "Trend: slope of a line through the last 30 % of the epochs (four or more) of each run with {fewest} "
            "epochs or more; ± half the interval over seeds, with moderated variances. A trend counts if its p is "
            "below 0.05; p (Holm) and ± are corrected for all settings. From twice the epochs: what a power law "
            "fitted to the whole validation curve would gain; an upper estimate, because a network that begins to "
            "overfit falls behind it.",
            fewest=endings.FEWEST,
        )
    ]
    if (frame.n == 1).any():
        notes.append(
            text(
                "For a single seed, the interval is that of the line's fit; it ignores the variation between seeds "
                "and that consecutive epochs are similar."
            )
        )
    return Table(
        "epochs", text("Best epoch and the trend at the end: {name}", name=section.title), frame, columns, notes
    )


def _overfitting(frame: pd.DataFrame) -> str:
    """Report the widest and narrowest gap, rising validation losses, and collapsed trainings."""
    # gaps
    gaps = frame.gap_last.dropna()
    if gaps.empty:
        return text("The runs have no training accuracy at the last epoch that could be compared with validation.")

    # the widest and the narrowest
    wide, narrow = (frame.loc[place] for place in (gaps.idxmax(), gaps.idxmin()))
    sentences = [
        text(
            "At the end, {setting} is {points:.2f} points more accurate on training images than on validation images.",
            setting=shown(wide.setting),
            points=float(wide.gap_last),
        )
        if len(frame) == 1
        else text(
            "At the end, the gap between training and validation accuracy is on average widest for {wide} "
            "({points:.2f} points) and narrowest for {narrow} ({fewer:.2f}).",
            wide=shown(wide.setting),
            points=float(wide.gap_last),
            narrow=shown(narrow.setting),
            fewer=float(narrow.gap_last),
        )
    ]
    if wide.gap_last <= 0:  # no gap at all
        sentences = [
            text(
                "At the end, no setting is more accurate on training images than on validation images: in the "
                "accuracy, none shows overfitting."
            )
            if len(frame) > 1
            else text(
                "At the end, {setting} is {points:.2f} points less accurate on training images than on validation "
                "images: in the accuracy, it shows no overfitting.",
                setting=shown(wide.setting),
                points=-float(wide.gap_last),
            )
        ]

    # settings whose validation loss rises again, the largest rise first
    rising = frame[
        (frame.rise > RISEN)
        & ~(frame.loss_slope < 0)
        & (frame.val_loss_last > frame.val_loss_min)
        & (frame.loss_gap_last > 0)
        & (frame.collapsed == 0)
    ]
    rising = rising.loc[(rising.val_loss_last / rising.val_loss_min).sort_values(ascending=False).index]
    if not rising.empty:
        texts = [
            text(
                "{setting} from {low:.3f} at epoch {epoch:.0f} to {high:.3f} at the end",
                setting=shown(row.setting),
                low=row.val_loss_min,
                epoch=row.val_loss_min_epoch,
                high=row.val_loss_last,
            )
            for row in rising.itertuples()
        ]
        sentences.append(
            text(
                "The validation loss rises again after its lowest value, the sign of overfitting: {settings}.",
                settings=named(texts),
            )
        )

    # collapsed trainings
    collapsed = frame[frame.collapsed > 0]
    if not collapsed.empty and (collapsed.collapsed == 1).all():
        sentences.append(
            text(
                "Training collapsed, or never started, in all runs of {settings}: at the end they fit their training "
                "images no better than in the first epoch. A lower learning rate usually helps.",
                settings=named([shown(setting) for setting in collapsed.setting]),
            )
        )
    elif not collapsed.empty:
        texts = [f"{shown(row.setting)} ({number(100 * row.collapsed, '.0f')} %)" for row in collapsed.itertuples()]
        sentences.append(
            text(
                "Training collapsed, or never started, in part of the runs, here in percent of each setting: "
                "{settings}. At the end these runs fit their training images no better than in the first epoch. A "
                "lower learning rate usually helps.",
                settings=named(texts),
            )
        )
    return " ".join(sentences)


def _causes(section: Section, frame: pd.DataFrame) -> list[str]:
    """Split the difference of settings from the best into lower training accuracy and a wider gap to validation.

    Only settings that are proven to be worse are considered, by their accuracy. The larger part is named only if the
    difference between the two parts is proven.
    """
    if section.metric != ACCURACY:
        return []
    compared = contrasts.compare(section).set_index("setting")
    best = contrasts.reference(compared)

    # training accuracy plus gap: its difference between two settings is that between the two parts
    both = contrasts.pairwise(
        section, lambda runs: 2 * scaled(runs, "best/train_acc") - scaled(runs, "best/val_acc"), reference=best
    )
    by_setting = frame.set_index("setting")
    sentences = []
    for setting, below in compared.below[compared.p_holm < ALPHA].items():
        if below > 0:
            # the two parts
            own = by_setting.loc[setting]
            other = by_setting.loc[best]
            train = other.train_acc_best - own.train_acc_best
            gap = own.gap_best - other.gap_best
            values = {"own": own.train_acc_best, "other": other.train_acc_best, "train": train, "gap": gap}
            values |= {"own_gap": own.gap_best, "other_gap": other.gap_best, "below": below}

            # the sentence depends on which part is larger
            parts = both.loc[best, setting]
            is_open = not parts.holm < ALPHA
            kind = "open" if is_open else "narrower" if gap < 0 else "fits" if train < 0 else "both"
            why = (
                text("the wider gap is the larger part")
                if gap > train
                else text("the lower training accuracy is the larger part")
            )
            sentences.append(text(CAUSES[kind], setting=shown(setting), best=shown(best), why=why, **values))

    # the others are counted
    if len(sentences) > NAMED:
        rest = plural(
            "{n:,} more setting is clearly worse (p < 0.05); its gap is in the table.",
            "{n:,} more settings are clearly worse (p < 0.05); their gaps are in the table.",
            len(sentences) - NAMED,
        )
        return [*sentences[:NAMED], rest]
    return sentences


def _longer(frame: pd.DataFrame) -> str:
    """Report which settings would benefit from more epochs."""
    # one sentence per verdict
    sentences = []
    for verdict, (_, said) in VERDICTS.items():
        settings = list(frame.setting[frame.verdict == verdict])
        if settings:
            names = settings_named(settings, len(frame))
            sentences.append(text(said, settings=names))

    # the largest gain per epoch
    rising = frame[frame.verdict.isin(["rises", "mixed"])]
    if not rising.empty:
        top = rising.loc[rising.acc_slope.idxmax()]
        values = {"slope": top.acc_slope, "spread": top.acc_slope_ci95, "window": top.window}
        values["setting"] = shown(top.setting)
        sentences.append(
            text(
                "Over its last {window:.0f} epochs {setting} gains {slope:.3f} ± {spread:.3f} points per epoch; such "
                "gains shrink as training goes on.",
                **values,
            )
            if len(rising) == 1
            else text(
                "Over its last {window:.0f} epochs {setting} gains {slope:.3f} ± {spread:.3f} points per epoch, the "
                "most; such gains shrink as training goes on.",
                **values,
            )
        )

    # the gain that a setting without a trend may have all the same
    flat = frame[frame.verdict.isin(["unclear", "perhaps"])]
    if flat.gain.notna().any():
        top = flat.loc[flat.gain.add(flat.gain_ci95.fillna(0)).idxmax()]
        spread = f" ± {number(top.gain_ci95, '.2f')}" if top.gain_ci95 == top.gain_ci95 else ""
        sentences.append(
            text(
                "A slow rise may be missed. Of the settings without a clear trend, {setting} could gain most from "
                "twice the epochs: {gain:.2f}{spread} points, extrapolated from its whole curve, unless it begins to "
                "overfit.",
                setting=shown(top.setting),
                gain=top.gain,
                spread=spread,
            )
        )
    return " ".join(sentences)
