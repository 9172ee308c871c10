"""What networks see, layer by layer: t-SNE pictures, how separable the classes are, and what a cut saves and costs.

python -m analysis.summarize runs     # writes them into the report
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from analysis import confusion, embedding
from analysis.blocks import Block, Heading, Items, Paragraph, Picture
from analysis.embedding import Layer, Seen
from analysis.figures import GREY, PALETTE, Looks
from analysis.runs import Frames
from analysis.sections import LOOKED_AT, Section, best_of_settings
from analysis.statistics import estimate
from analysis.tables import Column, Table
from analysis.wording import label, named, number, sentence

LEGEND_CLASSES = 30
MARKERS = "o^sDvP*X<>"
PRICE = 1.0
"""Points of accuracy that are a low price for a cut."""

LAYER = Column("layer", text=lambda row: label(f"layer {row['layer']}"))


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the layers of the best run of each setting."""
    best = best_of_settings(section)
    seen = embedding.align(embedding.see(frames, list(best.index[:LOOKED_AT])))
    if not seen:
        return []
    trained = {run: frames.data(run)["images"]["train"] for run in seen}
    return _layers(best, seen, frames.data(best.index[0])["classes"]) + _cuts(best.loc[list(seen)], seen, trained)


def _layers(best: pd.DataFrame, seen: Mapping[str, Seen], classes: Sequence[str]) -> list[Block]:
    """Show the embeddings, and how separable each layer makes the classes."""
    (run, first), *_ = seen.items()
    frame, images, words = layers_of(best, seen), len(first.targets), confusion.words_of(best.loc[run])
    title = sentence("tsne_title", **words)
    figure = tsne_figure({_name(best.loc[run]): one for run, one in seen.items()}, classes, title)
    caption = sentence(
        "tsne_caption",
        images=images,
        perplexity=embedding.perplexity(images),
        rate=images / 12,
        components=embedding.COMPONENTS,
    )
    columns = [Column("setting"), LAYER, Column("numbers", 0), Column("knn", 1), Column("probe", 1),
               Column("silhouette", 3)]  # fmt: skip
    note = sentence("layers_note", neighbours=embedding.NEIGHBOURS, folds=embedding.FOLDS)
    return [
        Heading(label("embedding")),
        Paragraph(_separable(frame[frame.setting == best.setting[run]], _name(best.loc[run]))),
        Picture("tsne", title, figure, caption),
        Table("layers", sentence("layers_title", **words), frame, columns, [note, *confusion.looked_at(best)]),
    ]


def _cuts(best: pd.DataFrame, seen: Mapping[str, Seen], trained: Mapping[str, int]) -> list[Block]:
    """Show what cuts would save and cost, where the runs have recorded their parameters layer by layer.

    `trained` are the training images of each network: with fewer than a cut's classifier has, the cut is flattered.
    """
    run, images = best.iloc[0], len(seen[best.index[0]].targets)
    if np.isnan(run.params_logits):
        return []
    frame, probed = cuts_of(best, seen), images - images // embedding.FOLDS
    prices = _prices(run, frame[frame.setting == run.setting], probed, trained[best.index[0]])
    found: list[Block] = [Heading(label("cuts")), Items(prices)]
    if len(frame):
        columns = [Column("setting"), LAYER, Column("params", 0), Column("params_share", 1), Column("accuracy", 1),
                   Column("difference", 1)]  # fmt: skip
        more, fewer = ({one for one in trained.values() if sign * one > sign * probed} for sign in (1, -1))
        notes = [sentence("cuts_note", images=images, probed=probed)] + [
            sentence(key, counts=named([number(one, ",") for one in sorted(counts)]))
            for key, counts in (("cuts_below", more), ("cuts_above", fewer)) if counts
        ]  # fmt: skip
        title = sentence("cuts_title", **confusion.words_of(run))
        found.append(Table("cuts", title, frame, columns, notes))
    return found


def _name(run: pd.Series) -> str:
    return sentence("run", **confusion.words_of(run))


def layers_of(best: pd.DataFrame, seen: Mapping[str, Seen]) -> pd.DataFrame:
    """Return a row per setting and layer: how many numbers it has, and how separable they make the classes."""
    rows = [
        {"setting": best.setting[run], "layer": name, "numbers": layer.numbers, "knn": 100 * layer.knn,
         "probe": 100 * layer.probe.mean(), "silhouette": layer.silhouette}
        for run, one in seen.items()
        for name, layer in one.layers.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def cuts_of(best: pd.DataFrame, seen: Mapping[str, Seen]) -> pd.DataFrame:
    """Return a row per setting and layer after which a cut would save parameters, and one for the whole network.

    Columns: setting, layer, `params` of what is kept with a linear classifier on it, `params_share` of the whole in
    percent, `accuracy` on the images (of the linear classifier by cross-validation; of the whole, its own), and
    `difference` from the whole in points with `difference_ci95`, the half-width of its 95 % interval over images.
    Parameters that only training uses do not count.
    """
    rows = []
    for run, one in seen.items():
        whole, classes, setting = best.params_logits[run], len(np.unique(one.targets)), best.setting[run]
        cuts = []
        for name in [name for name in one.layers if name != embedding.LAYERS[-1]]:
            layer = one.layers[name]
            params = best[f"params_{name}"][run] + (layer.numbers + 1) * classes
            if params < whole:  # not so either where a run did not record it
                lost = estimate(100.0 * (layer.probe.astype(float) - one.right))
                cuts.append(
                    {"setting": setting, "layer": name, "params": params, "params_share": 100 * params / whole,
                     "accuracy": 100 * layer.probe.mean(), "difference": lost.mean, "difference_ci95": lost.half_width}
                )  # fmt: skip
        if cuts:
            rows += [*cuts, {"setting": setting, "layer": "whole", "params": whole, "params_share": 100.0,
                             "accuracy": 100 * one.right.mean()}]  # fmt: skip
    return pd.DataFrame(rows, columns=["setting", "layer", "params", "params_share", "accuracy", "difference",
                                       "difference_ci95"])  # fmt: skip


def _separable(layers: pd.DataFrame, name: str) -> str:
    """Say how separable the classes are, layer by layer."""
    words = {key: label("then").join(number(value, spec) for value in layers[key])
             for key, spec in (("knn", ".1f"), ("probe", ".1f"), ("silhouette", ".2f"))}  # fmt: skip
    return sentence("separable", run=name, **words)


def _prices(run: pd.Series, cuts: pd.DataFrame, probed: int, trained: int) -> list[str]:
    """Say what cuts of a run's network save and cost, as far as these images tell.

    The classifiers of the cuts learn from `probed` images, the network learned from `trained`.
    """
    said = []
    for row in cuts[cuts.layer != "whole"].itertuples():
        low, high = row.difference - row.difference_ci95, row.difference + row.difference_ci95
        price = "none" if low > 0 else "low" if low > -PRICE else "high" if high < -PRICE else "unclear"
        price = "flattered" if trained < probed and price != "high" else price
        said.append(
            sentence(
                "cut", run=_name(run), layer=label(f"layer {row.layer}"), params=row.params, whole=run.params_logits,
                share=row.params_share, accuracy=row.accuracy, own=cuts.accuracy.iloc[-1], difference=row.difference,
                half_width=row.difference_ci95,
                price=sentence(f"price_{price}", points=PRICE, probed=probed, trained=trained),
            )
        )  # fmt: skip
    last = run.params_logits - run.params_penultimate
    share = 100 * last / run.params_logits
    return [*said, sentence("last_layer", run=_name(run), params=last, whole=run.params_logits, share=share)]


def tsne_figure(rows: Mapping[str, Seen], classes: Sequence[str], title: str) -> Figure:
    """Draw the embeddings of all layers, a row of panels per run, on one scale and with the same look for a class."""
    reach = _reach([layer for one in rows.values() for layer in one.layers.values()])
    figure = _figure(10.5, 4.0 * len(rows), classes, title)
    columns = [layer for layer in embedding.LAYERS if any(layer in one.layers for one in rows.values())]
    parts = figure.subfigures(len(rows), squeeze=False)[:, 0]
    for part, (name, one) in zip(parts, rows.items(), strict=True):
        part.suptitle(name, fontsize=11)
        for axes, layer in zip(part.subplots(1, len(columns)), columns, strict=True):
            if layer in one.layers:
                _panel(axes, one.layers[layer], one.targets, classes, reach, label(f"layer {layer}").capitalize())
            else:
                axes.remove()
    return figure


def side_by_side(runs: Mapping[str, Seen], layer: str, classes: Sequence[str], title: str) -> Figure:
    """Draw the embeddings of one layer, a panel per run, on one scale and with the same look for a class."""
    reach = _reach([one.layers[layer] for one in runs.values()])
    columns = min(len(runs), 4 if len(runs) > 3 else 3)
    lines = -(-len(runs) // columns)
    figure = _figure(14.0 if columns > 3 else 10.5, 4.1 * lines, classes, title)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, one) in zip(panels, runs.items(), strict=False):
        _panel(axes, one.layers[layer], one.targets, classes, reach, textwrap.fill(name, 45))
    for axes in panels[len(runs) :]:
        axes.remove()
    return figure


def _reach(layers: Sequence[Layer]) -> float:
    """Return how far the axes of all panels reach."""
    return 1.05 * max(np.abs(layer.points).max() for layer in layers) or 1.0


def _figure(width: float, height: float, classes: Sequence[str], title: str) -> Figure:
    """Begin a figure with a title and a legend of the classes."""
    in_legend = list(enumerate(classes)) if len(classes) <= LEGEND_CLASSES else []
    columns = max(1, min(10, len(classes), 110 // (5 + max(map(len, classes)))))
    height += 0.5 + 0.25 * -(-len(in_legend) // columns)
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontweight="bold", fontsize=12)
    handles = [Line2D([], [], linestyle="", label=name, **_look_of(place)) for place, name in in_legend]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure


def _panel(axes: Axes, found: Layer, targets: np.ndarray, classes: Sequence[str], reach: float, heading: str) -> None:
    """Draw an embedding, with the numbers of its separability in its title."""
    _scatter(axes, found.points, targets, classes, reach)
    numbers = sentence("panel", knn=100 * found.knn, probe=100 * found.probe.mean(), silhouette=found.silhouette)
    axes.set_title(f"{heading}\n{numbers}", fontsize=9)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.set_xlabel(label("tsne_1"), fontsize=9)
    axes.set_ylabel(label("tsne_2"), fontsize=9)
    axes.spines[:].set_color(GREY)


def _look_of(place: int) -> dict[str, str]:
    return {"color": PALETTE[place % len(PALETTE)], "marker": MARKERS[place // len(PALETTE) % len(MARKERS)]}


def _scatter(axes: Axes, points: np.ndarray, targets: np.ndarray, classes: Sequence[str], reach: float) -> None:
    """Draw the images of each class, and names in their middle where they do not touch."""
    size = 12 if len(points) < 500 else 5
    middles = {}
    for place in np.unique(targets):
        mine = points[targets == place]
        middles[classes[place]] = np.median(mine, axis=0)
        axes.scatter(*mine.T, s=size, linewidths=0, alpha=0.75, rasterized=True, **_look_of(place))
    few = len(classes) <= LEGEND_CLASSES
    fontsize = 8 if few else 5
    fitting = _apart(middles, fontsize / 72 * reach / 1.5)
    if few and len(fitting) < len(middles):
        return  # the legend names them
    for name in fitting:
        axes.annotate(
            name, middles[name], ha="center", va="center", fontsize=fontsize, fontweight="bold" if few else None,
            path_effects=[withStroke(linewidth=2 if few else 1, foreground="white")], in_layout=False,
            rasterized=not few,
        )  # fmt: skip


def _apart(middles: Mapping[str, np.ndarray], size: float) -> list[str]:
    """Choose names that can be written at their places, in letters of this size, without touching each other."""
    chosen: list[str] = []
    for name, middle in middles.items():
        gaps = {other: np.abs(middle - middles[other]) for other in chosen}
        if all(x > 0.32 * size * len(name + other) or y > 1.1 * size for other, (x, y) in gaps.items()):
            chosen.append(name)
    return chosen
