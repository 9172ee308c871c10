"""Confusions of settings: confusion matrices over all seeds, the most frequent confusions, the most confident mistakes.

    python -c "from analysis.frames import runs; from analysis.themes import confusion; \\
        frames = runs.load('runs'); classes = frames.data(frames.runs.index[0])['classes']; \\
        print(confusion.frequent(confusion.matrix(frames.predictions, classes)))"
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from analysis.frames.runs import Frames
from analysis.frames.sections import LOOKED_AT, Section, best_readable, once
from analysis.frames.statistics import sampling_interval
from analysis.page.blocks import Block, Gallery, Heading, Items, Paragraph, Picture
from analysis.page.characters import Plot, columns, inches, short_names, shortened, titled
from analysis.page.figures import PALE_GREY, Looks, tick_format
from analysis.page.tables import Column, Table
from analysis.wording.texts import mark, named, number, plural, shown, text
from study.config.setting import Setting

TEXT_CLASSES = 20
"""With at most this many classes, the cells of a matrix show numbers."""

LONGEST = 30
"""At most this many columns of the name of a class beside a matrix."""

WIDEST = 15
"""At most this many columns of the name of a class below a picture."""

DATASET = 40
"""At most this many columns of the name of a data set in a title."""

MISTAKES = 32
TILE = (1.1, 1.68)
"""Width and height of a mistake with its text, as multiples of an image."""

NAMED = 5
"""Number of confusions with a sentence each."""

ABSENT = 3
"""At most this many confusions that do not occur are named; more are counted."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the matrices and most frequent confusions of the best setting, and the surest mistakes of its best run."""
    # the settings that can be read
    best, left_out = best_readable(frames, section, LOOKED_AT)
    if best.empty:
        return [Heading(text("What the networks confuse")), Items(left_out)]
    run = best.index[0]
    (counts, repeats), *others = matrices(frames, section, best.head(LOOKED_AT)).values()
    words = words_over(best.loc[run], repeats)
    pairs = frequent(counts)
    content: list[Block] = [Heading(text("What the networks confuse")), Paragraph(answer(counts, words, repeats))]
    if left_out:
        content.append(Items(left_out, soft=True))

    # matrices of the best setting: counts, unless the short form shows them, and shares
    kinds = (True,) if "confusion" in section.subjects else (False, True)
    pictures = [picture(best.loc[run], counts, repeats, shares=kind) for kind in kinds]
    content.append(
        Gallery(
            pictures,
            text(
                "One row per true class, one column per predicted class; the colour grows as the square root of the "
                "share of the true class. The matrix is that of the best setting; the images of all its seeds are "
                "added up."
            ),
        )
    )

    # its most frequent confusions
    if len(pairs):
        columns = [
            Column("target"),
            Column("predicted"),
            Column("images", 0),
            Column("share", 1),
            Column("back", 0),
            Column("back_share", 1),
        ]
        content += [
            Items([_named(pair) for pair in pairs.head(NAMED).to_dict("records")]),
            Table(
                "confusions",
                text("Most frequent confusions: {setting} ({over})", **words),
                pairs,
                columns,
                [text("Pairs of classes, sorted by the number of images confused in either direction.")],
            ),
        ]

    # its most confident mistakes
    title = text("Most confident mistakes: {setting} (seed {seed})", **words_of(best.loc[run]))
    if sheet := mistakes_figure(frames.directories[run].evaluation(), title):
        content.append(
            Picture(
                "mistakes",
                title,
                sheet,
                text(
                    "Below each test image: the true class → the predicted class, and the probability that the "
                    "network gave to its prediction."
                ),
                photo=True,
            )
        )

    # matrices of the other settings
    if others:
        pictures = []
        for other, (of_other, n) in zip(best.index[1:], others, strict=False):
            title = matrix_title(best.loc[other], n, shares=True)
            name = f"confusion-{best.setting[other]}"
            pictures.append(Picture(name, title, matrix_figure(of_other, title, normalised=True)))
        content.append(
            Gallery(
                pictures,
                " ".join(
                    [text("The other settings; of each, the images of all its seeds are added up."), *looked_at(best)]
                ),
            )
        )
    return content


@once
def of_best(frames: Frames, section: Section) -> tuple[pd.Series, pd.DataFrame, int] | None:
    """Return the best run, the confusion matrix of its setting summed over its runs, and their number.

    None if no predictions can be read.
    """
    best, _ = best_readable(frames, section, limit=1)
    if best.empty:
        return None
    ((counts, repeats),) = matrices(frames, section, best.head(1)).values()
    return best.iloc[0], counts, repeats


def picture(run: pd.Series, counts: pd.DataFrame, repeats: int, shares: bool = False) -> Picture:
    """Draw the matrix of a setting, summed over its runs, of which `run` is one."""
    title = matrix_title(run, repeats, shares)
    name = "confusion-shares" if shares else "confusion-counts"
    return Picture(name, title, matrix_figure(counts, title, normalised=shares))


def matrices(frames: Frames, section: Section, best: pd.DataFrame) -> dict[Setting, tuple[pd.DataFrame, int]]:
    """Return the confusion matrix of each setting of these runs, summed over its runs, and the number of these.

    Runs whose predictions cannot be read are left out; all must have the same classes.
    """
    classes = frames.data(best.index[0])["classes"]
    by_setting = section.runs.groupby("setting", sort=False).groups
    found = {}
    for setting in best.setting:
        tested = [of_run for run in by_setting[setting] if (of_run := frames.tested(run)) is not None]
        found[setting] = matrix(pd.concat(tested), classes), len(tested)
    return found


def matrix(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Count how often each class (row) is predicted as each class (column), in the order of `classes`.

    `predictions` has columns target and predicted, indices into `classes`.
    """
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (predictions.target.to_numpy(), predictions.predicted.to_numpy()), 1)
    return pd.DataFrame(counts, index=list(classes), columns=list(classes))


def shares(counts: pd.DataFrame) -> pd.DataFrame:
    """Divide each row of a matrix by its sum, in percent; rows of classes without images are NaN."""
    return 100 * counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0)


def rates(counts: pd.DataFrame, repeats: int = 1) -> pd.DataFrame:
    """Return one row per class in the order of the matrix: images, accuracy (recall) and precision in percent.

    The matrix is summed over `repeats` runs; `images` are those of one. `accuracy_low` and `accuracy_high` are the 95 %
    sampling interval (Wilson), as in `statistics.sampling_interval`. Classes without images have no accuracy (NaN),
    classes that are never predicted have no precision.
    """
    # shares of correct predictions, among the images of a class and among its predictions
    right = np.diag(counts)
    images = counts.sum(axis=1).to_numpy()
    predicted = counts.sum(axis=0).to_numpy()
    accuracy, precision = (
        np.divide(100 * right, of, where=of > 0, out=np.full(len(of), np.nan)) for of in (images, predicted)
    )

    # interval of the accuracy
    bounds = [
        sampling_interval(hits / n, n / repeats) if n else (np.nan, np.nan)
        for hits, n in zip(right, images, strict=True)
    ]
    low, high = 100 * np.array(bounds).T
    columns = {
        "class": counts.index,
        "images": images if repeats == 1 else np.rint(images / repeats).astype(int),
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "precision": precision,
    }
    return pd.DataFrame(columns)


def frequent(counts: pd.DataFrame, limit: int = 10) -> pd.DataFrame:
    """Return the pairs of classes that are confused most often, counting both directions.

    Columns: `target`, `predicted`, the number of `images` of the target that are predicted as the other class, and
    their `share` of the images of the target in percent; `back` and `back_share`, the same in the reverse direction,
    which is the less frequent one.
    """
    # count both directions of every pair
    number_of = counts.to_numpy()
    share = shares(counts).to_numpy()
    names = counts.index
    first, second = np.triu_indices(len(number_of), k=1)
    both = number_of[first, second] + number_of[second, first]
    order = np.argsort(-both, kind="stable")[: min(limit, np.count_nonzero(both))]

    # the more frequent direction comes first
    swapped = number_of[first, second] < number_of[second, first]
    target = np.where(swapped, second, first)[order]
    predicted = np.where(swapped, first, second)[order]
    columns = {
        "target": names[target],
        "predicted": names[predicted],
        "images": number_of[target, predicted],
        "share": share[target, predicted],
        "back": number_of[predicted, target],
        "back_share": share[predicted, target],
    }
    return pd.DataFrame(columns)


def looked_at(best: pd.DataFrame) -> list[str]:
    """Report the number of settings if not all of them are shown, and which ones are."""
    if len(best) <= LOOKED_AT:
        return []
    if list(best.place[:LOOKED_AT]) == list(range(LOOKED_AT)):
        message = mark("Only the {shown} best of {count} settings on validation are shown.")
    else:
        message = mark("Only {shown} of {count} settings are shown: the best of each network first.")
    return [text(message, shown=LOOKED_AT, count=len(best))]


def words_of(run: pd.Series) -> dict[str, object]:
    """Return the values that a title needs of a run."""
    return {
        "setting": shown(run.setting),
        "seed": run.seed,
        "dataset": shortened(run.dataset.removeprefix("folder:"), DATASET),
    }


def words_over(run: pd.Series, repeats: int) -> dict[str, object]:
    """Return the values that a title needs of the setting of a run, of which several runs are summed."""
    over = text("seed {seed}", seed=run.seed) if repeats == 1 else text("sum over {n} seeds", n=repeats)
    return words_of(run) | {"over": over}


def matrix_title(run: pd.Series, repeats: int, shares: bool = False) -> str:
    """Return the title of the confusion matrix of a run's setting, of counts or of shares, over several runs."""
    words = words_over(run, repeats)
    if shares:
        return text("Confusion matrix of {dataset}, % of each true class: {setting} ({over})", **words)
    return text("Confusion matrix of {dataset}, test images: {setting} ({over})", **words)


def answer(counts: pd.DataFrame, words: Mapping[str, object], repeats: int = 1) -> str:
    """Report the classes with the lowest accuracy and precision, and the confusions that do not occur.

    Also report if the lowest accuracy may be due to chance. The matrix is summed over `repeats` runs.
    """
    # mistakes in all
    by_class = rates(counts, repeats).set_index("class")
    images = int(counts.to_numpy().sum())
    mistakes = counts - np.diag(np.diag(counts))
    wrong = int(mistakes.to_numpy().sum())
    if not wrong:
        return text(
            "{setting}, the best setting ({over}), misclassifies none of {images:,} test images.",
            images=images,
            **words,
        )

    # the worst classes, and the classes that they are confused with most often
    worst, imprecise = (by_class[by_class[name] == by_class[name].min()] for name in ("accuracy", "precision"))
    taken = mistakes.loc[worst.index].sum().sort_values(ascending=False, kind="stable")
    taken = taken[taken > 0].head(2)
    parts = [
        plural(
            "{setting}, the best setting ({over}), misclassifies {wrong:,} of {images:,} test images. The class that "
            "it recognises worst is **{worst}** ({accuracy:.1f} %), most often confused with {taken}. Its least "
            "reliable prediction is **{imprecise}** (precision {precision:.1f} %).",
            "{setting}, the best setting ({over}), misclassifies {wrong:,} of {images:,} test images. The classes "
            "that it recognises worst are **{worst}** ({accuracy:.1f} % each), most often confused with {taken}. Its "
            "least reliable prediction is **{imprecise}** (precision {precision:.1f} %).",
            len(worst),
            wrong=wrong,
            images=images,
            worst=named(list(worst.index)),
            accuracy=worst.accuracy.iloc[0],
            imprecise=named(list(imprecise.index)),
            precision=by_class.precision.min(),
            taken=text(" or ").join(f"{name} ({number(count, ',')})" for name, count in taken.items()),
            **words,
        )
    ]

    # chance is possible if the interval of the lowest accuracy contains the accuracy of all images
    high = worst.accuracy_high.max()
    overall = 100 * (images - wrong) / images
    if high >= overall:
        parts.append(
            plural(
                "This class may be worst by chance: the 95 % sampling interval (Wilson) of its accuracy reaches "
                "{high:.1f} %, while the accuracy on all test images is {overall:.1f} %.",
                "These classes may be worst by chance: the 95 % sampling interval (Wilson) of each accuracy reaches "
                "{high:.1f} %, while the accuracy on all test images is {overall:.1f} %.",
                len(worst),
                high=high,
                overall=overall,
            )
        )
    present = by_class.images > 0
    return " ".join([*parts, _absent(mistakes.loc[present, present])])


def _absent(mistakes: pd.DataFrame) -> str:
    """Report the confusions that do not occur; `mistakes` is a matrix with a diagonal of zeros."""
    empty = (mistakes == 0).to_numpy() & ~np.eye(len(mistakes), dtype=bool)
    cells = int(empty.sum())
    pairs = int(np.triu(empty & empty.T).sum())
    if not cells:
        return text("Every class is predicted as every other class at least once, so no cell of the matrix is empty.")
    if cells <= ABSENT:
        names = mistakes.index
        absent = [
            text("{target} predicted as {predicted}", target=names[a], predicted=names[b])
            for a, b in np.argwhere(empty)
        ]
        return text("Every kind of mistake occurs except {cells}.", cells=named(absent))
    return plural(
        "{cells:,} kinds of mistake never occur (empty cells of the matrix). Of the {all:,} pairs of classes, {n:,} "
        "is never confused in either direction.",
        "{cells:,} kinds of mistake never occur (empty cells of the matrix). Of the {all:,} pairs of classes, {n:,} "
        "are never confused in either direction.",
        pairs,
        cells=cells,
        all=len(mistakes) * (len(mistakes) - 1) // 2,
    )


def _named(pair: Mapping[str, object]) -> str:
    return (
        text(
            "**{target}** predicted as **{predicted}**: {images:,} ({share:.1f} % of its images); {predicted} "
            "predicted as {target}: {back:,} ({back_share:.1f} %)",
            **pair,
        )
        if pair["back"]
        else text(
            "**{target}** predicted as **{predicted}**: {images:,} ({share:.1f} % of its images); never the other way "
            "round",
            **pair,
        )
    )


def matrix_figure(counts: pd.DataFrame, title: str, normalised: bool = False) -> Figure:
    """Draw a confusion matrix, coloured by the share of the true class, with counts or shares in percent as text.

    The colour grows as the square root of the share, so that rare confusions are visible. With more than TEXT_CLASSES
    classes there is no text.
    """
    # names longer than usual get the room that they need beside the cells
    size = len(counts)
    share = shares(counts).fillna(0).to_numpy()
    with_text = size <= TEXT_CLASSES
    side = 2.6 + 0.4 * size if with_text else min(15.0, 4 + 0.1 * size)
    names = short_names(list(counts.index), LONGEST)
    more = max(0.0, inches(names, _name_size(size)) - 0.9)
    figure = Plot(figsize=(side + 0.9 + more, side + more), layout="constrained")
    axes = figure.subplots()

    # cells with text, or lines after every tenth class
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100))
    if with_text:
        for row, column in np.ndindex(size, size):
            count = counts.iat[row, column]
            written = number(share[row, column], ".1f") if normalised and count else number(count, ",")
            colour = "white" if share[row, column] > 30 else "#222222" if count else "#BBBBBB"
            axes.text(column, row, written, ha="center", va="center", color=colour, fontsize=8, in_layout=False)
    else:
        for line in np.arange(9.5, size, 10):
            axes.axhline(line, color=PALE_GREY, linewidth=0.5)
            axes.axvline(line, color=PALE_GREY, linewidth=0.5)

    # names, title and labels
    _name_classes(axes, names)
    axes.set_title(titled(title, side), fontweight="bold", fontsize=11)
    axes.set_xlabel(text("Predicted class"))
    axes.set_ylabel(text("True class"))
    axes.spines[:].set_visible(False)

    # colour bar
    bar = figure.colorbar(image, shrink=0.8, ticks=[0, 1, 5, 10, 20, 40, 60, 80, 100])
    bar.ax.yaxis.set_major_formatter(tick_format())
    bar.minorticks_off()
    bar.set_label(text("Share of the true class (%)"))
    bar.outline.set_visible(False)
    return figure


def _name_classes(axes: Axes, names: list[str]) -> None:
    """Name the classes on both axes; of many classes only some, so that the names can be read."""
    step = -(-len(names) // 120)
    ticks = range(0, len(names), step)
    shortest = columns(names) <= 2 and len(names) <= TEXT_CLASSES
    size = _name_size(len(names))
    tilt = {"rotation": 0, "ha": "center"} if shortest else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    if len(names) > TEXT_CLASSES:
        tilt = {"rotation": 90, "ha": "center"}
    axes.set_xticks(ticks, [names[tick] for tick in ticks], fontsize=size, **tilt)
    axes.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=size)


def _name_size(classes: int) -> int:
    """Return the font size of the names for a number of classes, in points."""
    return 10 if classes <= TEXT_CLASSES else max(5, 9 - classes // 20)


def mistakes_figure(arrays: Mapping[str, np.ndarray], title: str) -> Figure | None:
    """Draw the most confident mistakes of evaluation.npz with true class, predicted class and probability."""
    # there may be no mistakes
    images = arrays.get("mistake_images", ())[:MISTAKES]
    if not len(images):
        return None

    # a grid of tiles in one plot
    names = arrays["class_names"]
    across = min(8, len(images))
    lines = -(-len(images) // across)
    figure = Plot(figsize=(10, 0.9 + 1.95 * lines), layout="constrained")
    axes = figure.subplots()

    # each image with its text below
    for place, image in enumerate(images):
        row, column = divmod(place, across)
        left = TILE[0] * column
        top = TILE[1] * row
        pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
        axes.imshow(
            pixels,
            extent=(left, left + 1, top + 1, top),
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="nearest" if image.shape[-1] < 64 else "antialiased",
        )
        target = names[arrays["mistake_targets"][place]]
        predicted = names[arrays["mistake_predictions"][place]]
        confidence = number(100 * arrays["mistake_confidences"][place], ".1f")
        words = f"{shortened(target, WIDEST)}\n→ {shortened(predicted, WIDEST - 2)}\n{confidence} %"
        axes.text(left + 0.5, top + 1.06, words, ha="center", va="top", fontsize=8, linespacing=1.25, in_layout=False)

    # title and labels, without ticks
    axes.set_xlim(-0.05, TILE[0] * across - 0.05)
    axes.set_ylim(TILE[1] * lines, -0.05)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontweight="bold", fontsize=11)
    axes.set_xlabel(text("Most confident mistake first"))
    axes.set_ylabel(text("less confident mistakes below"))
    return figure
