"""Draws t-SNE embeddings: of all layers of runs, of one layer of several runs, of several data sets.

    python -c "from analysis.frames import runs; from analysis.themes import clouds, embedding; \\
        frames = runs.load('runs'); run = frames.runs.index[0]; seen = embedding.see(frames, [run]); \\
        clouds.tsne_figure(seen, frames.data(run)['classes'], run).savefig('clouds.png')"
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from rich.cells import cell_len

from analysis.page.characters import NARROW, Plot, in_lines, inches, short_names, titled
from analysis.page.figures import GREY, PALETTE
from analysis.page.live import Mark, about
from analysis.themes import embedding
from analysis.themes.embedding import Layer, Seen
from analysis.wording.texts import text
from analysis.wording.words import LAYERS

LEGEND_CLASSES = 30
LONGEST = 40
"""At most this many columns of the name of a class in a legend."""

WIDEST = 20
"""At most this many columns of the name of a class within a cloud of points."""

MANY = 500
"""From this number on, points are small and drawn as one picture: less space, but blurred when it is enlarged."""

MARKERS = "o^sDvP*X<>"


def tsne_figure(rows: Mapping[str, Seen], classes: Sequence[str], title: str) -> Figure:
    """Draw the embeddings of all layers, a row of panels per run; scale and colours of classes are the same."""
    reach = _reach([layer for run in rows.values() for layer in run.layers.values()])
    figure = _figure(10.5, 4.0 * len(rows), classes, title)
    columns = [layer for layer in embedding.LAYERS if any(layer in run.layers for run in rows.values())]
    parts = figure.subfigures(len(rows), squeeze=False)[:, 0]
    for part, (name, run) in zip(parts, rows.items(), strict=True):
        part.suptitle(in_lines(name, 90), fontsize=11)
        for axes, layer in zip(part.subplots(1, len(columns)), columns, strict=True):
            if layer in run.layers:
                _panel(axes, run, layer, classes, reach, text(LAYERS[layer]).capitalize())
            else:
                _empty(axes)
    _equal_panels(figure)
    return figure


def side_by_side(runs: Mapping[str, Seen], layer: str, classes: Sequence[str], title: str) -> Figure:
    """Draw the embeddings of one layer, a panel per run; scale and colours of classes are the same."""
    reach = _reach([run.layers[layer] for run in runs.values()])
    columns = min(len(runs), 4 if len(runs) > 3 else 3)
    lines = -(-len(runs) // columns)
    figure = _figure(14.0 if columns > 3 else 10.5, 4.1 * lines, classes, title)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, run) in zip(panels, runs.items(), strict=False):
        _panel(axes, run, layer, classes, reach, in_lines(name, 45))
    for axes in panels[len(runs) :]:
        axes.remove()
    _equal_panels(figure)
    return figure


def beside_figure(runs: Mapping[str, tuple[Seen, Sequence[str]]], title: str) -> Figure:
    """Draw a column of panels per run; every run has its own classes, scale and legend."""
    # a column of panels per run
    columns = embedding.LAYERS[:-1]
    figure = Plot(figsize=(5.2 * len(runs), 10.2), layout="constrained")
    figure.suptitle(titled(title, 10), fontweight="bold", fontsize=12)
    parts = figure.subfigures(1, len(runs), squeeze=False)[0]

    # a panel per layer that the run has
    rows: dict[str, list[Axes]] = {layer: [] for layer in columns}
    for part, (name, (run, classes)) in zip(parts, runs.items(), strict=True):
        part.suptitle(in_lines(name, 50), fontsize=11)
        reach = _reach([run.layers[layer] for layer in columns if layer in run.layers])
        for axes, layer in zip(part.subplots(len(columns), 1), columns, strict=True):
            if layer in run.layers:
                _panel(axes, run, layer, classes, reach, text(LAYERS[layer]).capitalize())
                rows[layer].append(axes)
            else:
                _empty(axes)
        _legend(part, classes, characters=44)
    _equal_panels(figure)

    # panels of one layer stand at one height, that of the tallest legend
    for row in rows.values():
        bottom = max((axes.get_position().y0 for axes in row), default=0)
        for axes in row:
            place = axes.get_position()
            axes.set_position((place.x0, bottom, place.width, place.height))
    return figure


def _empty(axes: Axes) -> None:
    """Give an empty panel the size that it has with points, by blank labels."""
    axes.set(xticks=[], yticks=[], aspect="equal", title=" \n ", xlabel=" ", ylabel=" ")
    for label in (axes.title, axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(9)


def _equal_panels(figure: Figure) -> None:
    """Give all panels the size of the smallest, and remove the empty ones."""
    figure.draw_without_rendering()  # computes the layout, which it keeps
    sizes = {axes: axes.get_window_extent().width for axes in figure.axes}
    for axes, size in sizes.items():
        place = axes.get_position()
        share = min(sizes.values()) / size
        axes.set_position(place.shrunk(share, share).anchored("C", place))
        if not axes.has_data():
            axes.remove()


def _notes(run: Seen, classes: Sequence[str]) -> list[str]:
    """Say for each image of a run its class, and the predicted one if that is another."""
    pairs = zip(run.targets, run.predicted, strict=True)
    return [
        text("class {name}", name=classes[target])
        + ("" if target == predicted else "\n" + text("predicted as {name}", name=classes[predicted]))
        for target, predicted in pairs
    ]


def _reach(layers: Sequence[Layer]) -> float:
    """Return the limit of the axes of all panels."""
    return 1.05 * max(np.abs(layer.points).max() for layer in layers) or 1.0


def _figure(width: float, height: float, classes: Sequence[str], title: str) -> Figure:
    """Create a figure with a title and a legend of the classes."""
    figure = Plot(layout="constrained")
    figure.suptitle(titled(title, 10), fontweight="bold", fontsize=12)
    figure.set_size_inches(width, height + 0.5 + 0.25 * _legend(figure, classes, characters=110))
    return figure


def _legend(figure: FigureBase, classes: Sequence[str], characters: int) -> int:
    """Add a legend of the classes below a figure, in lines of at most `characters`; return the number of lines."""
    in_legend = list(enumerate(classes)) if len(classes) <= LEGEND_CLASSES else []
    names = short_names(list(classes), min(LONGEST, characters - 10))
    width = NARROW * 9 / 72
    columns = max(1, min(10, len(classes), int(characters * width / (5 * width + inches(names, 9)))))
    handles = [Line2D([], [], linestyle="", label=names[place], **_look_of(place)) for place, _ in in_legend]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return -(-len(in_legend) // columns)


def _panel(axes: Axes, run: Seen, name: str, classes: Sequence[str], reach: float, heading: str) -> None:
    """Draw the embedding of a layer; its title has the measures of separability."""
    layer = run.layers[name]
    _scatter(axes, layer.points, run.targets, classes, reach)
    images = (*classes, run.images.tobytes(), run.targets.tobytes())
    about(axes, Mark(values=layer.points.round(2), notes=_notes(run, classes), images=images, sheet=run.sheet))
    numbers = text(
        "k-NN {knn:.1f} %, linear probe {probe:.1f} %, silhouette {silhouette:.2f}",
        knn=100 * layer.knn,
        probe=100 * layer.probe.mean(),
        silhouette=layer.silhouette,
    )
    axes.set_title(f"{heading}\n{numbers}", fontsize=9)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.set_xlabel(text("t-SNE 1"), fontsize=9)
    axes.set_ylabel(text("t-SNE 2"), fontsize=9)
    axes.spines[:].set_color(GREY)


def _look_of(place: int) -> dict[str, str]:
    return {"color": PALETTE[place % len(PALETTE)], "marker": MARKERS[place // len(PALETTE) % len(MARKERS)]}


def _scatter(axes: Axes, points: np.ndarray, targets: np.ndarray, classes: Sequence[str], reach: float) -> None:
    """Draw the images of each class as points, and the names of classes at their medians if they do not touch."""
    # points, in the colour and marker of their class
    size = 5 if len(points) >= MANY else 12
    middles = {}
    names = short_names(list(classes), WIDEST)
    for place in np.unique(targets):
        middles[names[place]] = np.median(points[targets == place], axis=0)

    # in random order, so that no class covers the others; a marker at a time, which is one for the first classes
    order = np.random.default_rng(0).permutation(len(points))
    looks = pd.DataFrame([_look_of(place) for place in targets[order]])
    for marker, same in looks.groupby("marker", sort=False):
        drawn = points[order[same.index]]
        many = len(points) >= MANY
        axes.scatter(*drawn.T, s=size, linewidths=0, alpha=0.75, rasterized=many, c=same.color, marker=marker)

    # names: all of them if there is a legend too, otherwise as many as fit
    few = len(classes) <= LEGEND_CLASSES
    fontsize = 8 if few else 5
    fitting = _apart(middles, fontsize / 72 * reach / 1.5)
    if few and len(fitting) < len(middles):
        return  # the legend names them
    for name in fitting:
        axes.annotate(
            name,
            middles[name],
            ha="center",
            va="center",
            fontsize=fontsize,
            fontweight="bold" if few else None,
            path_effects=[withStroke(linewidth=2 if few else 1, foreground="white")],
            in_layout=False,
            rasterized=not few,
        )


def _apart(middles: Mapping[str, np.ndarray], size: float) -> list[str]:
    """Choose names that do not touch each other when written at their positions in a font of this size."""
    chosen: list[str] = []
    for name, middle in middles.items():
        gaps = {other: np.abs(middle - middles[other]) for other in chosen}
        if all(x > 0.32 * size * cell_len(name + other) or y > 1.1 * size for other, (x, y) in gaps.items()):
            chosen.append(name)
    return chosen
