"""The Pareto front of accuracy and cost: the settings on it, and its figure.

python -c "from analysis.themes import costs, pareto; from analysis.frames import runs, sections; \\
    print(pareto.front(costs.measure(sections.by_dataset(runs.load('runs'))[0]), 'params'))"
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import textalloc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter

from analysis.page.characters import Plot, inches, plain, short_names, titled
from analysis.page.figures import GREY, PALE_GREY, Looks, finish, looks_of, wrapped
from analysis.page.live import Mark, about
from analysis.wording.texts import heading, mark, ranking_axis, shown, text
from study.config.setting import Setting

AGAINST = {
    "params": mark("parameters"),
    "mflops": mark("FLOPs"),
    "epoch_seconds": mark("time"),
    "energy_wh": mark("energy"),
}
"""Costs against which accuracy is drawn, if the settings differ in them, and what each is called in a sentence."""

WIDE = 10
"""Costs are drawn on a logarithmic scale if the largest is at least this many times the smallest."""

LABELLED = 12
"""With more settings than this, only those on the front have names and colours."""

LONGEST = 45
"""At most this many columns of the name of a setting beside its point."""


def front(frame: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Return the Pareto front: settings for which no other is more accurate at the same cost or as accurate at less."""
    known = frame[frame[cost].notna()]
    costs = known[cost].map("{:.9g}".format).astype(float).to_numpy()  # equal costs have means that differ in last bits
    accuracies = known.score.to_numpy().round(6)
    better = (costs <= costs[:, None]) & (accuracies >= accuracies[:, None])
    alike = (costs == costs[:, None]) & (accuracies == accuracies[:, None])
    return known[~(better & ~alike).any(axis=1)].sort_values(cost, kind="stable")


def draw(frame: pd.DataFrame, against: Sequence[str], title: str, looks: Looks | None = None) -> Figure:
    """Draw validation accuracy against costs, with the Pareto front; `frame` is the result of `measure`."""
    # a panel per cost
    looks = looks or looks_of(list(frame.setting))
    columns = min(2, len(against))
    rows = -(-len(against) // columns)
    figure = Plot(figsize=(5.5 * columns if columns > 1 else 8, 0.4 + 4.4 * rows), layout="constrained")
    figure.suptitle(titled(title, figure.get_figwidth()), fontweight="bold", fontsize=12)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, cost in zip(panels, against, strict=False):
        # the front, and a point per setting
        best = front(frame, cost)
        axes.step(best[cost], best.score, where="post", color=GREY, linewidth=1.5, linestyle="--", zorder=1)
        for row in frame.to_dict("records"):
            is_best = row["setting"] in set(best.setting)
            color = looks[row["setting"]].color if is_best or len(frame) <= LABELLED else PALE_GREY
            (point,) = axes.plot(
                row[cost],
                row["score"],
                "o",
                color=color,
                markersize=8,
                markeredgecolor="black" if is_best else "none",
                zorder=3 if is_best else 2,
            )
            about(point, Mark(row["setting"], np.array([[row[cost], row["score"], row.get("score_ci95", np.nan)]])))

        # scale, labels, and room for names
        wide = frame[cost].max() >= WIDE * frame[cost].min()
        axes.set_xscale("log" if wide else "linear")
        panel = text("Accuracy against {cost}", cost=text(AGAINST[cost])) if len(against) > 1 else ""
        finish(axes, panel, heading(cost), ranking_axis())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(labelleft=True)
        axes.margins(0.18, 0.14)
    for axes in panels[len(against) :]:
        axes.remove()

    # names are placed last, when the layout is known: beside the points or, if there is no room, as numbers
    shares = dict(zip(panels, against, strict=False))
    fronts = pd.concat([front(frame, cost) for cost in against]).setting
    labelled = [setting for setting in frame.setting if len(frame) <= LABELLED or setting in set(fronts)]
    names = short_names([shown(setting) for setting in labelled], LONGEST)
    if not _name_points(figure, shares, frame, dict(zip(labelled, names, strict=True))):
        _list(figure, labelled, looks)
        numbers = {setting: str(place) for place, setting in enumerate(labelled, 1)}
        _name_points(figure, shares, frame, numbers, at_all=True)
    return figure


def _list(figure: Plot, settings: Sequence[Setting], looks: Looks) -> None:
    """Add a legend that numbers the settings."""
    handles = [Line2D([], [], linestyle="", marker="o", color=looks[setting].color) for setting in settings]
    entries = [f"{place}  {wrapped(setting)}" for place, setting in enumerate(settings, 1)]
    across = max(1, min(3, int(figure.get_figwidth() / (0.6 + inches(entries, 8)))))
    lines = -(-len(entries) // across) * max(entry.count("\n") + 1 for entry in entries)
    figure.set_figheight(figure.get_figheight() + 0.2 + 0.17 * lines)
    figure.legend(handles, entries, loc="outside lower center", ncols=across, frameon=False, fontsize=8)
    figure.lay_out_again()


def _name_points(
    figure: Plot, shares: Mapping[Axes, str], frame: pd.DataFrame, names: Mapping[Setting, str], at_all: bool = False
) -> bool:
    """Write the names beside the points of all panels, so that none covers another name, its line or a point.

    With more settings than LABELLED, each panel names those of its front. If a name has no room, none is written,
    unless `at_all`; return whether they are written.
    """
    figure.draw_without_rendering()
    written = []
    for axes, cost in shares.items():
        # names must not cover the points or the line of the front
        steps = front(frame, cost)
        named = frame[frame[cost].notna()] if len(frame) <= LABELLED else steps
        with plain():  # the names are measured before the figure is drawn
            _, _, *drawn = textalloc.allocate(
                axes,
                named[cost].to_numpy(),
                named.score.to_numpy(),
                [names[setting] for setting in named.setting],
                x_scatter=frame[cost].to_numpy(),
                y_scatter=frame.score.to_numpy(),
                textsize=8,
                linecolor=GREY,
                x_lines=[steps[cost].repeat(2).to_numpy()[1:]],
                y_lines=[steps.score.repeat(2).to_numpy()[:-1]],
                linewidth=0.7,
                min_distance=0.02,
                max_distance=0.4,
                draw_all=at_all,
                avoid_label_lines_overlap=True,
            )
        if all(drawn[0]):
            drawn = _untangled(axes, named[[cost, "score"]].to_numpy(), *drawn)
        written += zip(named.setting, *drawn, strict=True)

    # all of them or none
    has_room = at_all or all(words for _, words, _ in written)
    for setting, *drawn in written:
        for artist in filter(None, drawn):
            if has_room:
                about(artist, Mark(setting))
            else:
                artist.remove()
    return has_room


def _untangled(
    axes: Axes, points: np.ndarray, words: Sequence[Text], lines: Sequence[Line2D | None]
) -> tuple[list[Text], list[Line2D | None]]:
    """Exchange the places of two names of the same length where that shortens the lines to their points (n, 2).

    Else the names of two points that nearly touch could stand in the wrong order. Returns the texts and lines anew.
    """
    # find the names to exchange
    names = [one.get_text() for one in words]
    anchors = axes.transData.transform([one.get_position() for one in words])
    away = np.linalg.norm(axes.transData.transform(points)[:, None] - anchors, axis=-1)
    places = list(range(len(names)))
    for a, b in combinations(places.copy(), 2):
        exchanged = away[a, places[b]] + away[b, places[a]]
        if len(names[a]) == len(names[b]) and exchanged < away[a, places[a]] + away[b, places[b]] - 0.5:
            places[a], places[b] = places[b], places[a]

    # write each name at its place, and draw its line from its point
    words, lines = [words[place] for place in places], [lines[place] for place in places]
    for name, point, one, line in zip(names, points, words, lines, strict=True):
        one.set_text(name)
        if line is not None:
            line.set_data(*np.array([line.get_xydata()[0], point]).T)
    return words, lines
