"""Accuracy of each class over all seeds: of the best setting, of the other settings, and from another source.

python -c "from analysis.themes import confusion, per_class; print(per_class.read_accuracies('sweeps/resnet-best.csv'))"
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.frames.runs import TESTED, Frames
from analysis.frames.sections import LOOKED_AT, Section, best_readable
from analysis.frames.statistics import estimate
from analysis.page.blocks import Block, Heading, Picture
from analysis.page.characters import Plot, inches, short_names, shortened
from analysis.page.figures import Looks, finish, wrapped
from analysis.page.live import Mark, about
from analysis.page.tables import Column, Table
from analysis.themes import confusion
from analysis.wording.texts import named, number, plural, shown, text
from study.config.setting import Setting
from study.record.directory import RunDirectory
from study.system.errors import UserError, nearest

LONGEST = 40
"""At most this many columns of the name of a class in a figure."""

MOST_SETTINGS = 100
"""At most this many settings, the best ones, are in the file of the accuracies of classes."""

DRAWN_CLASSES = 30
"""At most this many classes, the least accurate ones, are drawn; the table has all of them."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show accuracy and precision of each class, for the best setting, the others, and those of another source."""
    # rates of each setting, over all its seeds
    best, left_out = best_readable(frames, section, MOST_SETTINGS)
    if best.empty:
        return []  # the theme of the confusions reports why
    matrices = confusion.matrices(frames, section, best[:MOST_SETTINGS])
    rates = {setting: confusion.rates(counts, n) for setting, (counts, n) in matrices.items()}
    first = best.setting.iloc[0]
    repeats = matrices[first][1]
    words = confusion.words_over(best.iloc[0], repeats)
    frame = rates[first]

    # the table of the best setting, with the spread over seeds, and the difference from given accuracies
    columns = [Column("class"), Column("images", 0), Column("accuracy", 1), Column("precision", 1)]
    if repeats > 1:
        frame = frame.assign(over_seeds=over_seeds(frames, section, first, frame["class"]))
        columns.insert(3, Column("over_seeds", 1, header=text("± over seeds")))
    given = frames.given
    if given is not None and not given.index.isin(frame["class"]).any():
        given = None
    notes = [
        text(
            "Accuracy is the share of a class that is recognised (recall), with its 95 % sampling interval (Wilson); "
            "precision is the share of correct predictions among the images predicted to be of the class."
        ),
    ]
    if repeats > 1:
        notes.append(
            text(
                "Accuracy and precision are those of the images of all {n} seeds added up, so the accuracy is the "
                "mean over seeds; ± over seeds is half its 95 % interval (Student t). Neither interval is "
                "corrected for the number of classes.",
                n=repeats,
            )
        )
    untested = list(frame["class"][frame.images == 0])
    absent = [
        plural(
            "There are no test images of {names}: the accuracy of this class is unknown.",
            "There are no test images of {names}: the accuracies of these classes are unknown.",
            len(untested),
            names=named(untested),
        )
    ] * bool(untested)
    notes += [*absent, *left_out]
    if given is not None:
        frame = frame.assign(given=given.reindex(frame["class"]).to_numpy())
        frame["difference"] = frame.accuracy - frame.given
        columns += [Column("given", 1, header=str(given.name)), Column("difference", 1)]
        notes.append(text("{name}: accuracies from elsewhere. Difference: accuracy minus these.", name=given.name))
    content: list[Block] = [
        Heading(text("Accuracy of each class")),
        Table("per-class", text("Each class: {setting} ({over})", **words), frame, columns, notes),
    ]

    # the figure and the table of several settings
    drawn = dict(list(rates.items())[:LOOKED_AT])
    title = text("Accuracy of each class on the test images of {dataset}", dataset=words["dataset"])
    captions = [
        text("Lines are 95 % sampling intervals (Wilson). Classes are sorted by the accuracy of the best setting.")
    ]
    if len(frame) - len(untested) > DRAWN_CLASSES:
        captions.append(
            text("Only the {shown} least accurate classes are shown; the table has all of them.", shown=DRAWN_CLASSES)
        )
    captions += [*absent, *confusion.looked_at(best)]
    figure = accuracy_figure(drawn, given, title, looks)
    content.append(Picture("class-accuracy", title, figure, " ".join(captions)))
    if len(rates) > 1:
        content.append(_settings_table(best, drawn, rates))
    return content


def over_seeds(frames: Frames, section: Section, setting: Setting, classes: Sequence[str]) -> list[float]:
    """Return half the 95 % interval over seeds (Student t) of the accuracy of each class of a setting, in points."""
    tested = [frames.tested(run) for run in section.runs.index[section.runs.setting == setting]]
    by_run = [confusion.rates(confusion.matrix(of_run, classes)) for of_run in tested if of_run is not None]
    accuracies = np.array([of_run.accuracy for of_run in by_run])
    images = np.mean([of_run.images for of_run in by_run], axis=0)
    return [
        estimate(values, 100 / (n * math.sqrt(12)) if n else 0.0).half_width
        for values, n in zip(accuracies.T, images, strict=True)
    ]


def read_accuracies(path: str | Path) -> pd.Series:
    """Read the accuracy of each class in percent, from a CSV file with columns class and accuracy or from a run.

    Raises UserError if the path is neither.
    """
    # the directory of a run
    path = Path(path)
    if path.is_dir():
        arrays = RunDirectory(path).evaluation(TESTED)
        tested = pd.DataFrame({"target": arrays["test_targets"], "predicted": arrays["test_predictions"]})
        counts = confusion.matrix(tested, arrays["class_names"].tolist())
        return confusion.rates(counts).set_index("class").accuracy.rename(path.name)

    # a CSV file
    try:
        frame = pd.read_csv(path, dtype=str, skipinitialspace=True, keep_default_na=False)
        accuracies = frame.set_index("class").accuracy.astype(float)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, AttributeError):
        raise UserError(f"{path} must be a run's directory, or CSV with columns class and accuracy (in %)") from None

    # accuracies between 0 and 1 are most likely not in percent
    if accuracies.index.has_duplicates or not accuracies.between(0, 100).all() or not accuracies.max() > 1:
        raise UserError(f"{path} must give each class once, with its accuracy in percent, such as 89.6")
    return accuracies.rename(path.stem)


def check_classes(given: pd.Series, frames: Frames) -> None:
    """Raise UserError if given accuracies name a class that no run has."""
    infos = [frames.info(run) for run in frames.directories]
    known = sorted({name for info in infos for name in info.get("data", {}).get("classes", ())})
    for name in given.index.difference(known):
        raise UserError(f"no run knows the class {name!r} of {given.name}; {nearest(name, known)}")


def _settings_table(best: pd.DataFrame, drawn: Mapping[str, pd.DataFrame], rates: Mapping[str, pd.DataFrame]) -> Table:
    """Make the table of the accuracy of each class in each setting; the CSV file has more settings, and precisions."""
    first = next(iter(rates.values()))
    accuracies = {setting: frame.accuracy for setting, frame in rates.items()}
    precisions = {f"precision, {setting}": frame.precision for setting, frame in rates.items()}
    frame = pd.DataFrame({"class": first["class"], "images": first.images, **accuracies, **precisions})
    columns = [Column("class"), *(Column(setting, 1, header=shown(setting)) for setting in drawn)]
    title = text(
        "Accuracy of each class (%) by setting: {dataset}", dataset=confusion.words_of(best.iloc[0])["dataset"]
    )
    notes = [
        text("Means over all seeds of each setting; the best setting first. The CSV file also has the precisions."),
        *confusion.looked_at(best),
    ]
    if len(best) > len(rates):
        notes.append(
            text("The CSV file has the {shown} best of {settings} settings.", shown=len(rates), settings=len(best))
        )
    return Table("per-class-settings", title, frame, columns, notes)


def accuracy_figure(rates: Mapping[str, pd.DataFrame], given: pd.Series | None, title: str, looks: Looks) -> Figure:
    """Draw the accuracy of each class in each setting with its interval, sorted by the accuracy of the first setting.

    Given accuracies are hollow diamonds. Classes without a test image are left out.
    """
    # rows are the least accurate classes; long names get more room
    first = next(iter(rates.values()))
    order = first.accuracy.dropna().sort_values(kind="stable").index[:DRAWN_CLASSES]
    rows = np.arange(len(order))
    names = short_names(list(first["class"][order]), LONGEST)
    width = 8 + max(0.0, inches(names, 10) - 1.5)
    figure = Plot(
        figsize=(width, 1.6 + (0.2 + 0.06 * len(rates)) * len(order) + 0.1 * len(rates)), layout="constrained"
    )

    # one marker per class and setting, settings shifted so that they do not overlap
    axes = figure.subplots()
    apart = np.linspace(-0.3, 0.3, len(rates)) if len(rates) > 1 else [0.0]
    for place, ((setting, frame), shift) in enumerate(zip(rates.items(), apart, strict=True)):
        chosen = frame.loc[order]
        look = looks[setting]
        points = np.column_stack([chosen.accuracy, rows + shift])
        ends = (chosen.accuracy_low, chosen.accuracy_high)
        bars = axes.hlines(points[:, 1], *ends, color=look.color, linewidth=1, alpha=0.5)
        (dots,) = axes.plot(*points.T, "osv^DP"[place % 6], color=look.color, markersize=5, label=wrapped(setting))
        about(bars, Mark(setting))
        notes = [f"{name}: {number(accuracy, '.1f')} %" for name, accuracy in zip(names, chosen.accuracy, strict=True)]
        about(dots, Mark(setting, points, notes))
    if given is not None:
        values = given.reindex(first["class"][order]).to_numpy()
        axes.plot(
            values, rows, "D", markerfacecolor="none", color="black", markersize=8, label=shortened(given.name, LONGEST)
        )

    # labels and legend
    finish(axes, "", text("Accuracy (%)"), text("Class"))
    axes.set_yticks(rows, names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title(title, fontweight="bold", fontsize=11)
    figure.legend(loc="outside lower center", ncols=2 if len(rates) > 1 else 1, frameon=False, fontsize=9)
    return figure
