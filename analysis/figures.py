"""Figures: a frame in, a matplotlib figure out; nothing is read or written here.

    python -c "from analysis import runs, figures; \\
        figures.learning_curves(runs.by_dataset(runs.load('runs'))[0].history, 'digits').savefig('curves.png')"
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.statistics import estimate
from analysis.wording import label, number, shown, spoken

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F", "#8C564B", "#BCBD22")
"""Okabe and Ito's colours, told apart by most colour-blind people, and three more."""

DASHES = ("-", "--", ":", "-.")
"""Tell settings apart that share a colour."""

GREY, PALE_GREY = "#999999", "#E6E6E6"


@dataclass(frozen=True)
class Look:
    """How a setting is drawn, wherever it is."""

    color: str
    linestyle: str


Looks = Mapping[str, Look]


def look(place: int) -> Look:
    """Return the look of the n-th setting: colours first, then the same colours with other dashes."""
    return Look(PALETTE[place % len(PALETTE)], DASHES[place // len(PALETTE) % len(DASHES)])


def looks_of(settings: Sequence[str]) -> Looks:
    """Give each of these settings a look of its own."""
    return {setting: look(place) for place, setting in enumerate(settings)}


def learning_curves(history: pd.DataFrame, title: str, looks: Looks | None = None) -> Figure:
    """Draw loss and accuracy over the epochs, in training and in validation, on the same scales.

    A line per setting: the mean over seeds, with a band where there are several. `history` has columns setting,
    epoch, train/loss, val/loss, train/acc and val/acc.
    """
    settings = list(history.setting.unique())
    looks = looks or looks_of(settings)
    columns = max(1, min(4, len(settings), 110 // (6 + max(map(len, settings)))))
    figure = Figure(figsize=(10, 6.6 + 0.22 * -(-len(settings) // columns)), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="col")
    for row, split in zip(panels, ("val", "train"), strict=True):
        for axes, metric, scale in zip(row, ("loss", "acc"), (1, 100), strict=True):
            for setting in settings:
                chosen = history[history.setting == setting]
                _band(axes, chosen, f"{split}/{metric}", scale, shown(setting), looks[setting])
            finish(axes, label(f"{split}/{metric}"), label("epoch"), label(metric))
            axes.tick_params(labelbottom=True)
    panels[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = panels[0, 1].get_ylim()
    panels[0, 1].set_ylim(max(0, low), min(100, high))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=9,
        title=title, title_fontproperties={"weight": "bold", "size": 12},
    )  # fmt: skip
    return figure


def _band(axes: Axes, history: pd.DataFrame, metric: str, scale: float, name: str, drawn: Look) -> None:
    """Draw the mean of a metric over seeds, and the 95 % interval of that mean where there are several."""
    found = {epoch: estimate(values * scale) for epoch, values in history.groupby("epoch")[metric]}
    epochs, means = list(found), np.array([one.mean for one in found.values()])
    widths = np.array([one.half_width for one in found.values()])
    marker = "o" if len(epochs) == 1 else None
    axes.plot(epochs, means, linewidth=1.6, marker=marker, markersize=4, label=name,
              color=drawn.color, linestyle=drawn.linestyle)  # fmt: skip
    if not np.isnan(widths).all():
        axes.fill_between(epochs, means - widths, means + widths, color=drawn.color, alpha=0.15, linewidth=0)


def parameters_per_layer(frames: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Draw a bar for each weight layer of networks, fully connected layers in another colour.

    `frames` holds for each network columns block, layer, params, is_dense and is_weight_layer.
    """
    chosen = {model: frame[frame.is_weight_layer] for model, frame in frames.items()}
    rows = [len(frame) for frame in chosen.values()]
    figure = Figure(figsize=(9, 1.4 + 0.3 * sum(rows) + 0.7 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), sharex=True, squeeze=False, height_ratios=[count + 1 for count in rows])
    for axes, (model, frame) in zip(panels[:, 0], chosen.items(), strict=True):
        names = [
            row.block if row.layer in (row.block, "") else f"{row.block}.{row.layer}" for row in frame.itertuples()
        ]
        for is_dense, colour in ((False, PALETTE[0]), (True, PALETTE[1])):
            kind = frame.is_dense.to_numpy() == is_dense
            axes.barh(np.arange(len(frame))[kind], frame.params[kind], color=colour,
                      label=label("dense layers" if is_dense else "convolutions"))  # fmt: skip
        for place, params in enumerate(frame.params):
            axes.annotate(
                number(params, ","), (params, place), (4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.margins(x=0.12)
        finish(axes, model, label("params"), label("weight layer"))
        axes.set_yticks(range(len(names)), names)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=9,
        title=title, title_fontproperties={"weight": "bold", "size": 12},
    )  # fmt: skip
    return figure


def finish(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Give a plot its title, both labels, a grid, and numbers as the language writes them."""
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color=PALE_GREY)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(tick_format())


def tick_format() -> FuncFormatter:
    """Write the numbers on an axis with thousands separators, as the language does."""
    language = spoken()
    return FuncFormatter(lambda value, place: number(round(value, 10), ",.10g", language))
