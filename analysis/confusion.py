"""What networks confuse: matrices, the accuracy and precision of each class, frequent confusions, confident mistakes.

    python -c "from analysis import confusion, runs; frames = runs.load('runs'); run = frames.runs.index[0]; \\
        print(confusion.per_class(confusion.matrix(frames.predictions, frames.data(run)['classes'])))"
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from analysis import runs
from analysis.blocks import Block, Gallery, Heading, Items, Paragraph, Picture
from analysis.figures import PALE_GREY, Looks, finish, tick_format
from analysis.runs import Frames, Section
from analysis.statistics import sampling_interval
from analysis.tables import Column, Table
from analysis.wording import label, number, sentence, shown
from study.errors import UserError, nearest
from study.run_directory import RunDirectory

OTHERS = 5
"""So many settings beside the best are shown."""

TEXT_CLASSES = 20
"""Up to so many classes, the cells of a matrix hold numbers."""

DRAWN_CLASSES = 30
"""So many classes, the least accurate, are drawn; the table holds all."""

MISTAKES = 32
TILE = (1.1, 1.68)
"""Width and height of a mistake with its text, in images."""

NAMED = 5
"""So many confusions are named in a sentence each."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Say what the best run of each setting confuses, the settings of each data set together."""
    best = section.runs.sort_values("best/val_acc", ascending=False, kind="stable").drop_duplicates("setting")
    predictions = runs.predictions(frames, list(best.index))
    classes = pd.Series([tuple(frames.data(run)["classes"]) for run in best.index], best.index)
    found: list[Block] = []
    for (_, names), group in best.groupby([best.dataset, classes], sort=False):
        matrices = {run: matrix(predictions[predictions.run == run], names) for run in group.index}
        found += _confused(frames, group, matrices) + _by_class(frames, group, matrices, looks)
    return found


def matrix(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Count how often each class (row) is taken for each (column), in the order of `classes`.

    `predictions` has columns target and predicted, indices into `classes`.
    """
    found = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(found, (predictions.target.to_numpy(), predictions.predicted.to_numpy()), 1)
    return pd.DataFrame(found, index=list(classes), columns=list(classes))


def shares(counts: pd.DataFrame) -> pd.DataFrame:
    """Divide each row of a matrix by its sum, in percent; NaN for a class without images."""
    return 100 * counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0)


def per_class(counts: pd.DataFrame) -> pd.DataFrame:
    """Return a row per class in the matrix's order: images, accuracy (recall) and precision in percent.

    `accuracy_low` and `accuracy_high` bound the 95 % sampling interval (Wilson). NaN: a class without images, or
    never predicted.
    """
    right, images, predicted = np.diag(counts), counts.sum(axis=1).to_numpy(), counts.sum(axis=0).to_numpy()
    accuracy, precision = (np.divide(100 * right, of, where=of > 0, out=np.full(len(of), np.nan))
                           for of in (images, predicted))  # fmt: skip
    bounds = [sampling_interval(hits / n, n) if n else (np.nan, np.nan) for hits, n in zip(right, images, strict=True)]
    low, high = 100 * np.array(bounds).T
    columns = {"class": counts.index, "images": images, "accuracy": accuracy, "accuracy_low": low,
               "accuracy_high": high, "precision": precision}  # fmt: skip
    return pd.DataFrame(columns)


def frequent(counts: pd.DataFrame, limit: int = 10) -> pd.DataFrame:
    """Return the pairs of classes that are confused most often, both ways together, the more frequent way first.

    Columns: `target`, `predicted`, `images` of the one taken for the other, their `share` of the target's images in
    percent; `back` and `back_share`, the same the other way round.
    """
    found, share, names = counts.to_numpy(), shares(counts).to_numpy(), counts.index
    one, other = np.triu_indices(len(found), k=1)
    both = found[one, other] + found[other, one]
    order = np.argsort(-both, kind="stable")[: min(limit, np.count_nonzero(both))]
    swapped = found[one, other] < found[other, one]
    target, predicted = np.where(swapped, other, one)[order], np.where(swapped, one, other)[order]
    columns = {"target": names[target], "predicted": names[predicted],
               "images": found[target, predicted], "share": share[target, predicted],
               "back": found[predicted, target], "back_share": share[predicted, target]}  # fmt: skip
    return pd.DataFrame(columns)


def read_accuracies(path: str | Path) -> pd.Series:
    """Read the accuracy of each class in percent: from a CSV file with columns class and accuracy, or of a run.

    Raises UserError where it is neither.
    """
    path = Path(path)
    if path.is_dir():
        arrays = RunDirectory(path).evaluation()
        tested = pd.DataFrame({"target": arrays["test_targets"], "predicted": arrays["test_predictions"]})
        return per_class(matrix(tested, arrays["class_names"].tolist())).set_index("class").accuracy.rename(path.name)
    try:
        found = pd.read_csv(path, dtype={"class": str}, skipinitialspace=True).set_index("class").accuracy.astype(float)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, AttributeError):
        raise UserError(f"{path} must be a run's directory, or CSV with columns class and accuracy (in %)") from None
    if found.index.has_duplicates or not found.between(0, 100).all() or not found.max() > 1:
        raise UserError(f"{path} must give each class once, with its accuracy in percent, such as 89.6")
    return found.rename(path.stem)


def check_classes(given: pd.Series, frames: Frames) -> None:
    """Raise UserError where given accuracies name a class that no run knows."""
    infos = [directory.info() for directory in frames.directories.values()]
    known = sorted({name for info in infos for name in info.get("data", {}).get("classes", ())})
    for name in given.index.difference(known):
        raise UserError(f"no run knows the class {name!r} of {given.name}; {nearest(name, known)}")


def _confused(frames: Frames, best: pd.DataFrame, matrices: Mapping[str, pd.DataFrame]) -> list[Block]:
    """Show the matrices, the frequent confusions of the best setting by name, and its confident mistakes."""
    run = best.index[0]
    counts, words = matrices[run], _words(best, run)
    pairs = frequent(counts)
    found: list[Block] = [Heading(label("confusion")), Paragraph(_answer(counts, words))]
    titles = [sentence(f"matrix_{kind}", **words) for kind in ("counts", "shares")]
    pictures = [
        Picture(f"confusion-{kind}", title, matrix_figure(counts, title, normalised=kind == "shares"))
        for kind, title in zip(("counts", "shares"), titles, strict=True)
    ]
    found.append(Gallery(pictures, sentence("matrix_caption")))
    if len(pairs):
        columns = [Column("target"), Column("predicted"), Column("images", 0), Column("share", 1), Column("back", 0),
                   Column("back_share", 1)]  # fmt: skip
        found += [
            Items([_named(pair) for pair in pairs.head(NAMED).to_dict("records")]),
            Table("confusions", sentence("confusions_title", **words), pairs, columns, [sentence("confusions_note")]),
        ]
    sheet = mistakes_figure(frames.directories[run].evaluation(), sentence("mistakes_title", **words))
    if sheet:
        title = sentence("mistakes_title", **words)
        found.append(Picture("mistakes", title, sheet, sentence("mistakes_caption"), photo=True))
    if others := list(best.index[1 : OTHERS + 1]):
        pictures = []
        for other in others:
            title = sentence("matrix_shares", **_words(best, other))
            name = f"confusion-{best.setting[other]}"
            pictures.append(Picture(name, title, matrix_figure(matrices[other], title, normalised=True)))
        left_out = len(best) - 1 - len(others)
        caption = sentence("others_some", shown=len(others), left_out=left_out) if left_out else sentence("others_all")
        found.append(Gallery(pictures, caption))
    return found


def _words(best: pd.DataFrame, run: str) -> dict[str, object]:
    """Return what a title says of a run."""
    row = best.loc[run]
    dataset = row.dataset.removeprefix("folder:")
    return {"setting": shown(row.setting), "seed": row.seed, "dataset": dataset}


def _answer(counts: pd.DataFrame, words: Mapping[str, object]) -> str:
    """Say which class is recognised worst, what it is taken for, and which is predicted wrongly most often."""
    rates = per_class(counts).set_index("class")
    wrong = int(counts.to_numpy().sum() - np.diag(counts).sum())
    if not wrong:
        return sentence("confusion_none", images=int(rates.images.sum()), **words)
    worst, imprecise = rates.accuracy.idxmin(), rates.precision.idxmin()
    taken = counts.loc[worst].drop(worst).sort_values(ascending=False, kind="stable")
    taken = taken[taken > 0].head(2)
    return sentence(
        "confusion_answer", wrong=wrong, images=int(rates.images.sum()), worst=worst, accuracy=rates.accuracy[worst],
        taken=label("or").join(f"{name} ({number(count, ',')})" for name, count in taken.items()),
        imprecise=imprecise, precision=rates.precision[imprecise], **words,
    )  # fmt: skip


def _named(pair: Mapping[str, object]) -> str:
    return sentence("confused" if pair["back"] else "confused_one_way", **pair)


def _by_class(frames: Frames, best: pd.DataFrame, matrices: Mapping[str, pd.DataFrame], looks: Looks) -> list[Block]:
    """Show the accuracy and precision of each class: of the best setting, against the others and what was given."""
    run, words = best.index[0], _words(best, best.index[0])
    rates = {best.setting[one]: per_class(counts) for one, counts in matrices.items()}
    frame = rates[best.setting[run]]
    columns = [Column("class"), Column("images", 0), Column("accuracy", 1), Column("precision", 1)]
    given = frames.given
    if given is not None and not given.index.isin(frame["class"]).any():
        given = None
    notes = [sentence("per_class_note")]
    if given is not None:
        frame = frame.assign(given=given.reindex(frame["class"]).to_numpy())
        frame["difference"] = frame.accuracy - frame.given
        columns += [Column("given", 1, header=str(given.name)), Column("difference", 1)]
        notes.append(sentence("given_note", name=given.name))
    found: list[Block] = [
        Heading(label("per_class")),
        Table("per-class", sentence("per_class_title", **words), frame, columns, notes),
    ]
    drawn = dict(list(rates.items())[: OTHERS + 1])
    title = sentence("per_class_figure", dataset=words["dataset"])
    caption = sentence("per_class_caption")
    if len(frame) > DRAWN_CLASSES:
        caption += " " + sentence("per_class_worst", shown=DRAWN_CLASSES)
    found.append(Picture("class-accuracy", title, per_class_figure(drawn, given, title, looks), caption))
    if len(rates) > 1:
        found.append(_settings_table(drawn, rates, words))
    return found


def _settings_table(drawn: Mapping[str, pd.DataFrame], rates: Mapping[str, pd.DataFrame], words: Mapping) -> Table:
    """Make the table of each class's accuracy in each setting; the CSV file holds all settings, and precisions."""
    first = next(iter(rates.values()))
    accuracies = {setting: one.accuracy for setting, one in rates.items()}
    precisions = {f"precision, {setting}": one.precision for setting, one in rates.items()}
    frame = pd.DataFrame({"class": first["class"], "images": first.images, **accuracies, **precisions})
    columns = [Column("class"), *(Column(setting, 1, header=shown(setting)) for setting in drawn)]
    title = sentence("per_class_settings", dataset=words["dataset"])
    return Table("per-class-settings", title, frame, columns, [sentence("per_class_settings_note")])


def matrix_figure(counts: pd.DataFrame, title: str, normalised: bool = False) -> Figure:
    """Draw a confusion matrix, coloured by the share of the true class; the cells say counts, or shares in percent.

    The colour grows as the square root of the share, so that rare confusions are seen; where there are too many classes
    for text it alone tells.
    """
    size, share = len(counts), shares(counts).fillna(0).to_numpy()
    with_text = size <= TEXT_CLASSES
    side = 2.6 + 0.4 * size if with_text else min(15.0, 4 + 0.1 * size)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100))
    if with_text:
        for row, column in np.ndindex(size, size):
            count = counts.iat[row, column]
            text = number(share[row, column], ".1f") if normalised and count else number(count, ",")
            colour = "white" if share[row, column] > 30 else "#222222" if count else "#BBBBBB"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8, in_layout=False)
    else:
        for line in np.arange(9.5, size, 10):
            axes.axhline(line, color=PALE_GREY, linewidth=0.5)
            axes.axvline(line, color=PALE_GREY, linewidth=0.5)
    _name_classes(axes, list(counts.index))
    axes.set_title(textwrap.fill(title, round(9 * side), break_on_hyphens=False), fontweight="bold", fontsize=11)
    axes.set_xlabel(label("predicted"))
    axes.set_ylabel(label("target"))
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, shrink=0.8, ticks=[0, 1, 5, 10, 20, 40, 60, 80, 100])
    bar.ax.yaxis.set_major_formatter(tick_format())
    bar.minorticks_off()
    bar.set_label(label("share"))
    bar.outline.set_visible(False)
    return figure


def _name_classes(axes: Axes, names: list[str]) -> None:
    """Name every class on both axes, or some where there are more than can be read."""
    step = -(-len(names) // 120)
    ticks = range(0, len(names), step)
    shortest = max(map(len, names)) <= 2 and len(names) <= TEXT_CLASSES
    size = 10 if len(names) <= TEXT_CLASSES else max(5, 9 - len(names) // 20)
    tilt = {"rotation": 0, "ha": "center"} if shortest else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    if len(names) > TEXT_CLASSES:
        tilt = {"rotation": 90, "ha": "center"}
    axes.set_xticks(ticks, [names[tick] for tick in ticks], fontsize=size, **tilt)
    axes.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=size)


def per_class_figure(rates: Mapping[str, pd.DataFrame], given: pd.Series | None, title: str, looks: Looks) -> Figure:
    """Draw the accuracy of each class in each setting, with its interval, the first setting's worst class at the top.

    Given accuracies are hollow diamonds.
    """
    first = next(iter(rates.values()))
    order = first.accuracy.sort_values(kind="stable").index[:DRAWN_CLASSES]
    rows = np.arange(len(order))
    figure = Figure(figsize=(8, 1.6 + (0.2 + 0.06 * len(rates)) * len(order) + 0.1 * len(rates)), layout="constrained")
    axes = figure.subplots()
    apart = np.linspace(-0.3, 0.3, len(rates)) if len(rates) > 1 else [0.0]
    for place, ((setting, one), shift) in enumerate(zip(rates.items(), apart, strict=True)):
        at, look = one.loc[order], looks[setting]
        axes.hlines(rows + shift, at.accuracy_low, at.accuracy_high, color=look.color, linewidth=1, alpha=0.5)
        axes.plot(at.accuracy, rows + shift, "osv^DP"[place % 6], color=look.color, markersize=5, label=shown(setting))
    if given is not None:
        values = given.reindex(first["class"][order]).to_numpy()
        axes.plot(values, rows, "D", markerfacecolor="none", color="black", markersize=8, label=str(given.name))
    finish(axes, "", label("accuracy"), label("class"))
    axes.set_yticks(rows, list(first["class"][order]))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title(title, fontweight="bold", fontsize=11)
    figure.legend(loc="outside lower center", ncols=2 if len(rates) > 1 else 1, frameon=False, fontsize=9)
    return figure


def mistakes_figure(arrays: Mapping[str, np.ndarray], title: str) -> Figure | None:
    """Draw the most confident mistakes of evaluation.npz, each with its true class, the predicted one and how sure."""
    images = arrays["mistake_images"][:MISTAKES]
    if not len(images):
        return None
    names = arrays["class_names"]
    columns = min(8, len(images))
    lines = -(-len(images) // columns)
    figure = Figure(figsize=(10, 0.9 + 1.95 * lines), layout="constrained")
    axes = figure.subplots()
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        left, top = TILE[0] * column, TILE[1] * row
        pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
        axes.imshow(pixels, extent=(left, left + 1, top + 1, top), cmap="gray", vmin=0, vmax=255,
                    interpolation="nearest" if image.shape[-1] < 64 else "antialiased")  # fmt: skip
        target, predicted = names[arrays["mistake_targets"][place]], names[arrays["mistake_predictions"][place]]
        sure = number(100 * arrays["mistake_confidences"][place], ".1f")
        text = f"{_short(target)}\n→ {_short(predicted)}\n{sure} %"
        axes.text(left + 0.5, top + 1.06, text, ha="center", va="top", fontsize=8, linespacing=1.25, in_layout=False)
    axes.set_xlim(-0.05, TILE[0] * columns - 0.05)
    axes.set_ylim(TILE[1] * lines, -0.05)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontweight="bold", fontsize=11)
    axes.set_xlabel(label("mistakes_across"))
    axes.set_ylabel(label("mistakes_down"))
    return figure


def _short(name: str, limit: int = 15) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"
