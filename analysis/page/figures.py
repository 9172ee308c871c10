"""Figures: functions from a frame to a matplotlib figure, which read and write no files.

    python -c "from analysis.frames import runs, sections; from analysis.page import figures; \\
        history = sections.by_dataset(runs.load('runs'))[0].history; \\
        figures.learning_curves(history, 'digits').savefig('curves.png')"
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from rich.cells import cell_len

from analysis.frames.statistics import estimates
from analysis.page.characters import Plot, in_lines, shortened, titled
from analysis.page.live import Mark, about
from analysis.wording.texts import heading, number, plural, shown, spoken, text
from study.record.metrics import METRICS

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F", "#8C564B", "#BCBD22")
"""Okabe and Ito's colours, which most colour-blind people can distinguish, and three more."""

DASHES = ("-", "--", ":", "-.")
"""Line styles that distinguish settings with the same colour."""

CURVES = ("train/loss", "val/loss", "train/acc", "val/acc")

LIVE = 100
"""At most this many grey curves are lines that a reader can point at: the page of 2,000 would have 46 MB more."""

DRAWN = 12
"""At most this many settings, the best ones, are drawn in their own colours."""

BANDS = 6
"""With more settings than this, intervals are not drawn because they would hide the lines."""

NAME_WIDTH = 45
"""Characters in a line of the name of a setting."""

NAME_LINES = 6
"""At most this many lines of the name of a setting."""

PANEL_WIDTH = 28
"""At most this many columns in a line of the title of a small panel."""

GREY = "#999999"
PALE_GREY = "#E6E6E6"


@dataclass(frozen=True)
class Look:
    """Colour and line style of a setting in all figures."""

    color: str
    linestyle: str


Looks = Mapping[str, Look]


def look(place: int) -> Look:
    """Return the look of the n-th setting: first all colours, then the same colours with other line styles."""
    return Look(PALETTE[place % len(PALETTE)], DASHES[place // len(PALETTE) % len(DASHES)])


def looks_of(settings: Sequence[str]) -> Looks:
    """Return a different look for each of these settings."""
    return {setting: look(place) for place, setting in enumerate(settings)}


def add_lines(axes: Axes, lines: Sequence[np.ndarray], **style: Any) -> LineCollection:
    """Draw many lines, as (x, y) rows or as heights at 0, 1, 2 …, as one object: much faster than each alone."""
    points = [line if line.ndim == 2 else np.column_stack([np.arange(len(line)), line]) for line in lines]
    drawn = LineCollection(points, **{"capstyle": "projecting", **style})
    if points:
        axes.add_collection(drawn)
        axes.autoscale_view()
    return drawn


def _means(history: pd.DataFrame) -> pd.DataFrame:
    """Return the means of CURVES over seeds with their intervals, of the epochs that all seeds of a setting have."""
    history = history.astype({"setting": "category"})  # many epochs have few settings
    means = estimates(history, ["setting", "epoch"], CURVES)
    repeats = history.groupby("setting", observed=True).run.nunique()
    counts = history.groupby(["setting", "epoch"], sort=False, observed=True)["val/acc"].count()
    return means[counts == repeats.reindex(means.index.get_level_values("setting")).to_numpy()]


def learning_curves(history: pd.DataFrame, title: str, looks: Looks | None = None) -> Figure:
    """Draw loss and accuracy over the epochs, in training and in validation, on the same scales.

    One line per setting: the mean over seeds, up to the last epoch that all seeds have, with its 95 % interval if there
    are several seeds and at most BANDS settings. Beyond DRAWN settings, the others are grey; more than LIVE of them are
    drawn as one picture. The loss axis ends at twice the highest loss of the best quarter of the settings, so that a
    diverging one does not flatten the others; it is logarithmic if the validation loss falls below a tenth of its
    highest value.
    `history` has columns run, setting, epoch, train/loss, val/loss, train/acc and val/acc.
    """
    looks = looks or looks_of(list(history.setting.unique()))
    means = _means(history)

    # the best settings get colours
    ranked = list(means["val/acc"].groupby("setting").max().sort_values(ascending=False).index)
    coloured = [setting for setting in history.setting.unique() if setting in ranked[:DRAWN]]

    others = {*ranked[DRAWN:]}
    grey = {setting: rows for setting, rows in means.groupby(level="setting", sort=False) if setting in others}
    epochs = {setting: rows.index.get_level_values("epoch") for setting, rows in grey.items()}

    # the figure is as high as its legend needs
    longest = max(cell_len(shown(setting)) for setting in coloured)
    columns = max(1, min(4, len(coloured), 110 // (6 + min(NAME_WIDTH, longest))))
    lines = max(wrapped(setting).count("\n") + 1 for setting in coloured)
    figure = Plot(figsize=(10, 6.8 + 0.22 * lines * -(-len(coloured) // columns)), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="col")

    # one panel per split and metric
    for row, split in zip(panels, ("val", "train"), strict=True):
        for axes, metric in zip(row, ("loss", "acc"), strict=True):
            name = f"{split}/{metric}"
            scale = METRICS[name].scale
            for setting in coloured:
                values = scale * means.loc[setting, [name, f"{name}_ci95"]]
                _band(axes, values, setting, looks[setting], len(coloured) <= BANDS, label=wrapped(setting))
            others = {setting: np.column_stack([epochs[setting], scale * rows[name]]) for setting, rows in grey.items()}
            lines = add_lines(axes, list(others.values()), color=PALE_GREY, linewidth=1, zorder=1)
            if len(others) <= LIVE:
                about(lines, *(Mark(setting, values, what=_named(name)) for setting, values in others.items()))
            else:
                lines.set_rasterized(True)
            finish(axes, heading(name), text("Epoch"), heading(metric))
            axes.tick_params(labelbottom=True)

    # limits of the epochs and accuracies
    panels[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    if history.epoch.max() == 1:
        panels[0, 0].set_xlim(0, 2)
    low, high = panels[0, 1].get_ylim()
    panels[0, 1].set_ylim(max(0, low), min(100, high))

    # limits and scale of the losses
    losses = means[["val/loss", "train/loss"]].max(axis=1).groupby("setting").max()[ranked]
    highest = min(panels[0, 0].get_ylim()[1], 2 * losses[: -(-len(losses) // 4)].max())
    falls = means.loc[coloured, "val/loss"]
    if falls.min() > 0 and falls.max() > 10 * falls.min():
        for axes in panels[:, 0]:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(tick_format())
            axes.yaxis.set_minor_formatter(NullFormatter())
        panels[0, 0].set_ylim(top=highest)
    else:
        panels[0, 0].set_ylim(0, highest)

    # one legend above all panels
    handles, labels = panels[0, 0].get_legend_handles_labels()
    if ranked[DRAWN:]:
        handles.append(panels[0, 0].plot([], [], color=PALE_GREY)[0])
        labels.append(plural("{n:,} other", "{n:,} others", len(ranked) - DRAWN))
    legend = figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        title=titled(title, figure.get_figwidth()),
        title_fontproperties={"weight": "bold", "size": 12},
    )
    legend.get_title().set_multialignment("center")
    for entries in (legend.legend_handles, legend.get_texts()):
        for setting, entry in zip(coloured, entries, strict=False):
            about(entry, Mark(setting))
    return figure


def _band(axes: Axes, values: pd.DataFrame, setting: str, drawn: Look, banded: bool, label: str = "") -> None:
    """Draw the mean of a setting over the epochs with its interval, if there is one; `values` has the two columns."""
    marker = "o" if len(values) == 1 else None
    mean = values.iloc[:, 0]
    half_width = values.iloc[:, 1]
    (line,) = axes.plot(
        mean, linewidth=1.7, marker=marker, markersize=4, label=label, color=drawn.color, linestyle=drawn.linestyle
    )
    about(line, Mark(setting, np.column_stack([values.index, mean, half_width]), what=_named(mean.name)))
    if banded and half_width.notna().any():
        band = axes.fill_between(
            values.index, mean - half_width, mean + half_width, color=drawn.color, alpha=0.15, linewidth=0
        )
        about(band, Mark(setting))


def _named(metric: str) -> str:
    """Return the name of a metric with its unit."""
    return text("{what} (%)", what=heading(metric)) if METRICS[metric].unit == "%" else heading(metric)


def parameters_per_layer(frames: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Draw a bar for each weight layer of several networks, fully connected layers in another colour.

    `frames` maps each network to a frame with columns block, layer, params, is_dense and is_weight_layer.
    """
    # one panel per network, as high as it has layers
    kinds = ((False, PALETTE[0], text("convolutions")), (True, PALETTE[1], text("fully connected")))
    chosen = {model: frame[frame.is_weight_layer] for model, frame in frames.items()}
    rows = [len(frame) for frame in chosen.values()]
    figure = Plot(figsize=(9, 1.4 + 0.3 * sum(rows) + 0.7 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), sharex=True, squeeze=False, height_ratios=[count + 1 for count in rows])
    for axes, (model, frame) in zip(panels[:, 0], chosen.items(), strict=True):
        names = [
            row.block if row.layer in (row.block, "") else f"{row.block}.{row.layer}" for row in frame.itertuples()
        ]
        # a bar per layer, coloured by its kind, with its number
        for is_dense, colour, _ in kinds:
            kind = frame.is_dense.to_numpy() == is_dense
            axes.barh(np.arange(len(frame))[kind], frame.params[kind], color=colour)
        for place, params in enumerate(frame.params):
            axes.annotate(
                number(params, ","), (params, place), (4, 0), textcoords="offset points", va="center", fontsize=8
            )

        # names of the layers
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.margins(x=0.12)
        finish(axes, model, text("Parameters"), text("Weight layer"))
        axes.set_yticks(range(len(names)), names)
        axes.xaxis.set_major_locator(MaxNLocator(6))

    # one legend above all panels
    figure.legend(
        handles=[Patch(color=colour, label=label) for _, colour, label in kinds],
        loc="outside upper center",
        ncols=2,
        frameon=False,
        fontsize=9,
        title=titled(title, figure.get_figwidth()),
        title_fontproperties={"weight": "bold", "size": 12},
    )
    return figure


def wrapped(setting: str, width: int = NAME_WIDTH) -> str:
    """Break the name of a setting into lines of at most `width`; a very long name loses its middle."""
    return in_lines(shortened(shown(setting), NAME_LINES * width), width)


def finish(axes: Axes, title: str, x_label: str, y_label: str, numbers: str = "xy") -> None:
    """Set the title, both labels and the grid of a plot, and format the numbers of the axes named in `numbers`."""
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color=PALE_GREY)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    for name in numbers:
        getattr(axes, f"{name}axis").set_major_formatter(tick_format())


def tick_format() -> FuncFormatter:
    """Return a formatter of the numbers on an axis, with the separators of the current language."""
    language = spoken()
    return FuncFormatter(lambda value, place: number(round(value, 10), ",.10g", language))


def curves_by_setting(history: pd.DataFrame, settings: Sequence[str], title: str, looks: Looks) -> Figure:
    """Draw the training and the validation curve of each setting in a panel of its own, accuracy above loss.

    Lines are means over seeds, up to the last epoch that all seeds have, with their 95 % interval.
    """
    means = _means(history)

    # accuracy beside loss for two settings, above it for four; of more, only the accuracy
    metrics = ("acc", "loss") if len(settings) <= 4 else ("acc",)
    places = [(setting, metric) for metric in metrics for setting in settings]
    across = len(places) if len(places) <= 4 else -(-len(places) // 2)
    down = -(-len(places) // across)
    figure = Plot(figsize=(2.7 * max(2, across), 2.5 * down + 0.5), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, squeeze=False).ravel()
    for axes, (setting, metric) in zip(panels, places, strict=False):
        first = panels[metrics.index(metric) * len(settings)]
        if axes is not first:
            axes.sharey(first)
        for split, drawn in (("val", Look(looks[setting].color, "-")), ("train", Look(GREY, "--"))):
            name = f"{split}/{metric}"
            values = METRICS[name].scale * means.loc[setting, [name, f"{name}_ci95"]]
            _band(axes, values, setting, drawn, banded=True)
        finish(axes, wrapped(setting, PANEL_WIDTH), text("Epoch"), heading(metric))
        axes.tick_params(labelbottom=True)
        axes.title.set_fontsize(9)
    for axes in panels[len(places) :]:
        axes.remove()
    panels[0].xaxis.set_major_locator(MaxNLocator(4, integer=True))
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(max(0, low), min(100, high))
    figure.suptitle(titled(title, figure.get_figwidth()), fontweight="bold", fontsize=11)
    lines = [Line2D([], [], color=GREY, linestyle="--"), Line2D([], [], color="black")]
    names = [text("training"), text("validation")]
    figure.legend(lines, names, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure
