"""Scores beyond accuracy, from the probabilities of the test images: ranking, calibration, accuracy against coverage.

python -c "from analysis.frames import runs, sections; from analysis.themes import scores; \\
    frames = runs.load('runs'); print(scores.measure(frames, sections.by_dataset(frames)[0]))"
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.frames import contrasts
from analysis.frames.runs import Frames
from analysis.frames.sections import LOOKED_AT, Section, once
from analysis.frames.statistics import Estimate, estimate, estimates
from analysis.page.blocks import Block, Heading, Paragraph, Picture
from analysis.page.characters import Plot, shortened, titled
from analysis.page.figures import GREY, Looks, finish, wrapped
from analysis.page.live import Mark, about
from analysis.page.tables import Column, Table
from analysis.wording.texts import mark, number, protected, shown, text
from study.config.setting import Setting

SHOWN = 10
"""At most this many settings, the best ones, are in the table."""

BINS = 15
"""Number of bins of the calibration, each with equally many images (adaptive: Nguyen and O'Connor 2015)."""

CLOSE = 1.0
"""Probabilities agree with the accuracy if they differ by less than this on average, in points."""

COVERAGE = 0.8
"""Share of the images, the surest ones, on which an accuracy is measured too."""

MANY_CLASSES = 20
"""With at least this many classes, top-k is top-5; otherwise it is top-2."""

CURVES = 10
"""At most this many classes, those with the smallest areas, have curves of their own."""

SCORES = {
    "top_k": mark("Top-k (%)"),
    "macro_f1": mark("Macro F1 (%)"),
    "balanced": mark("Balanced acc (%)"),
    "auc": mark("ROC area"),
    "average_precision": mark("PR area"),
    "nll": mark("NLL"),
    "brier": mark("Brier score"),
    "ece": mark("ECE (%)"),
    "sure": mark("Acc of the most confident 80 % (%)"),
}
"""Headers of the scores; they are measured for each run on its test images."""

DIGITS = {"top_k": 2, "macro_f1": 2, "balanced": 2, "auc": 4, "average_precision": 4, "nll": 3, "brier": 3, "ece": 2,
          "sure": 2}  # fmt: skip


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the scores of each setting, and the calibration, coverage, ROC and PR curves of the best ones."""
    by_run = measure(frames, section)
    if by_run.empty:
        return []
    content: list[Block] = [Heading(text("Beyond accuracy")), table(section, by_run)]
    drawn = {setting: pooled for setting in section.ranked[:LOOKED_AT] if (pooled := _pooled(frames, section, setting))}
    if not drawn:
        return content

    best = next(iter(drawn))
    content.insert(1, Paragraph(_surer(shown(best), estimate(by_run.surer[by_run.setting == best].astype(float)))))

    # the figures
    classes = [protected(str(name)) for name in frames.data(section.runs.index[0])["classes"]]
    title = text("Calibration on the test images: {name}", name=section.title)
    caption = text(
        "Each point is one of {bins} groups of equally many images, sorted by the probability of the predicted class; "
        "on the line, this equals the accuracy. Below: how often each probability occurs. The images of all seeds are "
        "added up.",
        bins=BINS,
    )
    content.append(Picture("calibration", title, calibration_figure(drawn, title, looks), caption))
    title = text("Accuracy against coverage: {name}", name=section.title)
    caption = text("Accuracy on the share of the test images for which each network is most confident.")
    content.append(Picture("coverage", title, coverage_figure(drawn, title, looks), caption))
    title = text("ROC and precision against recall: {setting}", setting=shown(best))
    caption = text("One class against all others, and the mean over the classes in black; areas in brackets.")
    content.append(Picture("roc", title, roc_figure(*drawn[best], classes, title), caption))
    return content


def _surer(setting: str, surer: Estimate) -> str:
    """Say whether a network is surer of its predictions than it is right, in points, with an interval over seeds."""
    values = {"setting": setting, "points": abs(surer.mean), "spread": surer.half_width}
    if surer.n < 2:
        return text(
            "{setting} gives its predictions a probability that is {points:+.1f} points from its accuracy (one seed).",
            setting=setting,
            points=surer.mean,
        )
    if abs(surer.mean) + surer.half_width < CLOSE:
        return text("The probabilities of {setting} agree with its accuracy on average.", setting=setting)
    if abs(surer.mean) <= surer.half_width:
        return text("It is not clear whether {setting} is overconfident.", setting=setting)
    if surer.mean > 0:
        return text(
            "{setting} is overconfident: on average its probabilities are {points:.1f} ± {spread:.1f} points above "
            "its accuracy.",
            **values,
        )
    return text(
        "{setting} is underconfident: on average its probabilities are {points:.1f} ± {spread:.1f} points below its "
        "accuracy.",
        **values,
    )


@once
def measure(frames: Frames, section: Section) -> pd.DataFrame:
    """Return `setting` and the SCORES of each run of the SHOWN best settings, NaN without recorded probabilities.

    Scores in percent, but for the areas, NLL (the test loss) and the Brier score. `surer` is by how many points the
    probabilities of the predicted classes are above the accuracy. Empty if no predictions can be read.
    """
    rows = {}
    for run in section.runs.index[section.runs.setting.isin(section.ranked[:SHOWN])]:
        tested = frames.tested(run)
        if tested is not None:
            count = len(frames.data(run)["classes"])
            probabilities = frames.probabilities(run)
            rows[run] = {
                "setting": section.runs.setting[run],
                "nll": section.runs["test/loss"][run],
                **of_classes(tested.target.to_numpy(), tested.predicted.to_numpy(), count),
                **(of_probabilities(probabilities, tested.target.to_numpy()) if probabilities is not None else {}),
            }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["setting", *SCORES, "surer"])


def of_classes(targets: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, float]:
    """Return macro F1 and balanced accuracy in percent (the mean recall), over the classes that have images."""
    pairs = np.ravel_multi_index((targets, predicted), (classes, classes))  # a product of bytes would overflow
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    present = counts.sum(axis=1) > 0
    right, own, said = (values[present] for values in (counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)))
    return {"macro_f1": 100 * float((2 * right / (own + said)).mean()), "balanced": 100 * float((right / own).mean())}


def of_probabilities(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the scores of probabilities, images by classes, and the true classes."""
    classes = probabilities.shape[1]
    one_hot = np.eye(classes)[targets]
    sure = np.argsort(-confidences(probabilities), kind="stable")[: max(1, round(COVERAGE * len(targets)))]
    scores = {
        "brier": float(((probabilities - one_hot) ** 2).sum(axis=1).mean()),
        "ece": 100 * calibration_error(probabilities, targets),
        "sure": 100 * float(hits(probabilities, targets)[sure].mean()),
        "surer": 100 * float(confidences(probabilities).mean() - hits(probabilities, targets).mean()),
        **areas(probabilities, targets),
    }
    if classes > 2:
        k = 5 if classes >= MANY_CLASSES else 2
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        scores["top_k"] = 100 * float((best == targets[:, None]).any(axis=1).mean())
    return scores


def areas(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the areas under the ROC and the PR curve, one class against all others, as means over the classes."""
    return areas_of_classes(probabilities, targets).mean().to_dict()


def areas_of_classes(probabilities: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """Return `auc` and `average_precision` of each class, which is the index; without classes of no or all images.

    Both follow from ranks, equal probabilities included: the first as Mann and Whitney's U, the second as the mean
    precision at each image of the class, which is scikit-learn's average precision.
    """
    ranks = pd.DataFrame(probabilities).rank().to_numpy()
    # number of images with this probability or a higher one
    at_least = pd.DataFrame(probabilities).rank(method="max", ascending=False).to_numpy()
    found = {}
    for c in np.unique(targets):
        own = targets == c
        n, others = own.sum(), (~own).sum()
        if others:
            area = (ranks[own, c].sum() - n * (n + 1) / 2) / (n * others)
            precision = pd.Series(probabilities[own, c]).rank(method="max", ascending=False) / at_least[own, c]
            found[int(c)] = area, precision.mean()
    return pd.DataFrame.from_dict(found, orient="index", columns=["auc", "average_precision"], dtype=float)


def confidences(probabilities: np.ndarray) -> np.ndarray:
    """Return the probability of the predicted class of each image."""
    return probabilities.max(axis=1)


def hits(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return whether the class with the highest probability is the true one, for each image."""
    return probabilities.argmax(axis=1) == targets


def bins(probabilities: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """Return the mean `confidence`, the `accuracy` and the number of `images` of BINS groups of equally many images."""
    confidence = confidences(probabilities)
    order = np.argsort(confidence, kind="stable")
    right = hits(probabilities, targets)
    groups = [group for group in np.array_split(order, BINS) if len(group)]
    rows = [(confidence[group].mean(), right[group].mean(), len(group)) for group in groups]
    return pd.DataFrame(rows, columns=["confidence", "accuracy", "images"])


def calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy over `bins`."""
    groups = bins(probabilities, targets)
    return float(np.average((groups.confidence - groups.accuracy).abs(), weights=groups.images))


def _pooled(frames: Frames, section: Section, setting: Setting) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the probabilities and true classes of the test images of all runs of a setting that recorded them."""
    found = []
    for run in section.runs.index[section.runs.setting == setting]:
        probabilities, tested = frames.probabilities(run), frames.tested(run)
        if probabilities is not None and tested is not None:
            found.append((probabilities, tested.target.to_numpy()))
    return tuple(map(np.concatenate, zip(*found, strict=True))) if found else None


def table(section: Section, by_run: pd.DataFrame) -> Table:
    """Make the table of scores: means over seeds with their intervals."""
    names = [name for name in SCORES if by_run[name].notna().any()]
    frame = estimates(by_run.astype(dict.fromkeys(names, float)), "setting", names)
    frame = contrasts.in_order(section, frame).dropna(how="all").reset_index()
    columns = [Column("setting"), *(Column(name, DIGITS[name], header=text(SCORES[name])) for name in names)]
    notes = [
        text(
            "Means over seeds. Top-k: top-5 with {many} classes or more, otherwise top-2. Macro F1 and balanced "
            "accuracy (mean recall) weigh every class alike. ROC and PR area: one class against all others, mean over "
            "the classes. NLL: mean cross-entropy of the test images. Brier score: mean squared error of the "
            "probabilities (0 is best). ECE: mean distance between probability and accuracy in {bins} groups of "
            "equally many images; chance alone makes it larger than 0.",
            many=MANY_CLASSES,
            bins=BINS,
        )
    ]
    return Table("scores", text("Scores of {name} on the test images", name=section.title), frame, columns, notes)


def calibration_figure(drawn: Mapping[Setting, tuple[np.ndarray, np.ndarray]], title: str, looks: Looks) -> Figure:
    """Draw accuracy against the probability of the predicted class, and below it how often each probability occurs."""
    figure = Plot(figsize=(7, 7), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    above.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=1)
    for setting, pooled in drawn.items():
        style = {"color": looks[setting].color, "linestyle": looks[setting].linestyle}
        groups = bins(*pooled)
        points = 100 * groups[["confidence", "accuracy"]].to_numpy()
        (line,) = above.plot(*points.T, marker="o", markersize=4, label=wrapped(setting), **style)
        about(line, Mark(setting, points))
        shares, edges = np.histogram(100 * confidences(pooled[0]), bins=20, range=(0, 100))
        about(below.stairs(100 * shares / shares.sum(), edges, **style), Mark(setting))
    finish(above, title, text("Probability of the predicted class (%)"), text("Accuracy (%)"))
    above.title.set_fontweight("bold")
    above.tick_params(labelbottom=True)
    finish(
        below,
        text("How often each probability occurs"),
        text("Probability of the predicted class (%)"),
        text("Images (%)"),
    )
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def coverage_figure(drawn: Mapping[Setting, tuple[np.ndarray, np.ndarray]], title: str, looks: Looks) -> Figure:
    """Draw the accuracy of the share of the images about which each network is surest."""
    figure = Plot(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    for setting, pooled in drawn.items():
        order = np.argsort(-confidences(pooled[0]), kind="stable")
        right = hits(*pooled)[order]
        share = 100 * np.arange(1, len(right) + 1) / len(right)
        accuracy = 100 * right.cumsum() / np.arange(1, len(right) + 1)
        shown_points = np.unique(np.linspace(len(right) // 20, len(right) - 1, 200).astype(int))
        points = np.column_stack([share, accuracy])[shown_points]
        look = looks[setting]
        (line,) = axes.plot(*points.T, color=look.color, label=wrapped(setting), linestyle=look.linestyle)
        about(line, Mark(setting, points))
    finish(axes, title, text("Share of the images, most confident first (%)"), text("Accuracy (%)"))
    axes.title.set_fontweight("bold")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def curves_of_class(probabilities: np.ndarray, own: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the ROC curve and the curve of precision over recall of a class as shares, by the names of their areas.

    `own` says which images are of the class. Equal probabilities are one point. scikit-learn's curves are the same,
    but its import takes longer than a report of a hundred runs.
    """
    order = np.argsort(-probabilities, kind="stable")
    taken = np.append(np.flatnonzero(np.diff(probabilities[order])), len(order) - 1) + 1
    found = np.cumsum(own[order])[taken - 1]
    recall = np.append(0, found / own.sum())
    return {
        "auc": (np.append(0, (taken - found) / (~own).sum()), recall),
        "average_precision": (recall, np.append(1, found / taken)),
    }


def roc_figure(probabilities: np.ndarray, targets: np.ndarray, classes: list[str], title: str) -> Figure:
    """Draw the ROC and the PR curve of the classes with the smallest areas, and the mean over all classes."""
    grid = np.linspace(0, 1, 101)
    figure = Plot(figsize=(10, 5.4), layout="constrained")
    figure.suptitle(titled(title, 10), fontweight="bold", fontsize=12)
    kinds = (
        ("auc", text("ROC"), text("False positives (%)"), text("True positives (%)")),
        ("average_precision", text("Precision and recall"), text("Recall (%)"), text("Precision (%)")),
    )
    by_class = areas_of_classes(probabilities, targets)
    of_class = {c: curves_of_class(probabilities[:, c], targets == c) for c in by_class.index}
    for axes, (area, name, x_label, y_label) in zip(figure.subplots(1, 2), kinds, strict=True):
        # the curve of each class on a grid
        sizes = by_class[area]
        curves = {c: np.interp(grid, *found[area]) for c, found in of_class.items()}

        # the worst classes, and the mean
        labels = []
        for c in sizes.sort_values(kind="stable").index[:CURVES]:
            labels.append(f"{shortened(classes[c], 20)} ({number(sizes[c], '.3f')})")
            axes.plot(100 * grid, 100 * curves[c], linewidth=1, color=f"C{c % 10}")
        labels.append(text("mean ({area:.3f})", area=float(sizes.mean())))
        axes.plot(100 * grid, 100 * np.mean(list(curves.values()), axis=0), color="black", linewidth=2)
        finish(axes, name, x_label, y_label)
        place = "outside left lower" if area == "auc" else "outside right lower"
        figure.legend(axes.lines[: len(labels)], labels, loc=place, frameon=False, fontsize=8)
    return figure
