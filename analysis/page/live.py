"""What a reader can point at in a figure: the settings and values of its lines and points, for the script of the page.

    python -c "from analysis.frames import runs, sections; from analysis.page import figures, live; \\
        figure = figures.learning_curves(sections.by_dataset(runs.load('runs'))[0].history, 'digits'); \\
        live.give_ids(figure); figure.draw_without_rendering(); print(live.readings(figure))"

A function that draws says what an artist shows with `about(artist, Mark(setting, values))`. `report.js` shows the value
beside the pointer, hides what belongs to a setting when its button above the figure is clicked, and gives the axes of a
zoomed figure the numbers of what is in view.
"""

import hashlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, NullLocator

from analysis.wording.texts import shown
from study.config.setting import Setting

DIGITS = 6
"""Significant digits of the values."""


@dataclass(frozen=True)
class Mark:
    """What an artist shows: a setting, or none, and its values.

    `values` are rows of x and y, and of half the width of the interval of y if there is one; without rows, the artist
    is only hidden with its setting. `notes` are the lines beside the pointer in place of the numbers, one text per row.
    `what` names y, in place of the label of its axis. Rows of marks with the same `images` show the same images, which
    are on the `sheet`, a JPEG file (`study.training.thumbnails`), if there is one.
    """

    setting: Setting | str | None = None
    values: np.ndarray | None = None
    notes: Sequence[str] = ()
    images: Hashable = None
    sheet: bytes = b""
    what: str = ""


def about(artist: Artist, *marks: Mark) -> None:
    """Record what an artist shows; a collection of lines has a mark for each line."""
    artist.marks = marks


def give_ids(figure: Figure) -> None:
    """Give the artists with marks the ids of their elements; to be called before the figure is drawn."""
    for place, artist in enumerate(_marked(figure)):
        artist.set_gid(f"{'text_' if isinstance(artist, Text) else ''}mark{place}")
    for place, axes in enumerate(figure.axes):
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_gid(f"{axis.axis_name}{place}")


def _marked(figure: Figure) -> list[Artist]:
    return [artist for artist in figure.findobj() if getattr(artist, "marks", ())]


def readings(figure: Figure) -> dict[str, Any]:
    """Return what the marks of a figure show that has its ids and its layout, as JSON; empty without marks.

    `panels` have their box in the units of the SVG, what `_axis` says of x and y, and the labels of these; `settings`
    their name, colour and dashes; `marks` their element, setting, panel, values and notes, which are places in these
    lists and in `notes`, and the name of their sheet of images.
    """
    panels: dict[Axes, int] = {}
    settings: dict[str, int] = {}
    looks: dict[str, dict[str, str]] = {}
    notes: dict[str, int] = {}
    images: dict[Hashable, int] = {}
    marks = []
    for artist in _marked(figure):
        for child, mark in enumerate(artist.marks):
            # the element, which is a child of a collection of lines, and its setting with the first look that it has
            entry: dict[str, Any] = {"id": artist.get_gid()}
            if len(artist.marks) > 1:
                entry["child"] = child
            if mark.setting is not None:
                name = shown(mark.setting)
                entry["setting"] = _place(settings, name)
                looks[name] = looks.get(name) or _look(artist)

            # its values
            if mark.values is not None:
                entry["panel"] = _place(panels, artist if isinstance(artist, Axes) else artist.axes)
                entry["values"] = _rounded(mark.values)
                entry["line"] = _is_line(artist)
            if mark.what:
                entry["what"] = mark.what
            if mark.notes:
                entry["notes"] = [_place(notes, note) for note in mark.notes]
            if mark.images:
                entry["images"] = _place(images, mark.images)
            if mark.sheet:
                entry["sheet"] = _name(mark.sheet)
            marks.append(entry)
    named = [{"name": name, **looks[name]} for name in settings]
    content = {"panels": list(map(_panel, panels)), "settings": named, "marks": marks, "notes": list(notes)}
    return content if marks else {}


def sheets(figure: Figure) -> dict[str, bytes]:
    """Return the sheets of images of a figure by the names that `readings` has for them, each once."""
    marks = [mark for artist in _marked(figure) for mark in artist.marks]
    return {_name(mark.sheet): mark.sheet for mark in marks if mark.sheet}


def _name(sheet: bytes) -> str:
    return hashlib.sha256(sheet).hexdigest()[:16]


def _place(places: dict[Any, int], key: Hashable) -> int:
    """Return the place of a key in a list without repetitions, to which it is added if it is new."""
    return places.setdefault(key, len(places))


def _is_line(artist: Artist) -> bool:
    """Return whether the values of an artist are joined by a line."""
    return isinstance(artist, LineCollection) or (isinstance(artist, Line2D) and artist.get_linestyle() != "None")


def _look(artist: Artist) -> dict[str, str]:
    """Return the colour and the dashes of a line; of other artists nothing."""
    if isinstance(artist, LineCollection):
        return {"color": to_hex(artist.get_color()[0])}
    if isinstance(artist, Line2D):
        return {"color": to_hex(artist.get_color()), "dash": artist.get_linestyle()}
    return {}


def _rounded(values: np.ndarray) -> list[list[float | None]]:
    """Round values to DIGITS; what is not finite becomes None, and an interval that is not known is left out."""
    rows = [[float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in row] for row in values]
    return [row[:2] if len(row) > 2 and row[2] is None else row for row in rows]


def _panel(axes: Axes) -> dict[str, Any]:
    """Return where a panel lies in the SVG, whose points count from the top left, and what its axes show."""
    box = axes.get_window_extent()
    figure = axes.get_figure(root=True)
    points = 72 / figure.dpi
    corners = (box.x0, figure.bbox.height - box.y1, box.x1, figure.bbox.height - box.y0)
    return {
        "box": [round(corner * points, 2) for corner in corners],
        "x": _axis(axes.xaxis),
        "y": _axis(axes.yaxis),
        "labels": [axes.get_xlabel(), axes.get_ylabel()],
    }


def _axis(axis: Axis) -> list[Any]:
    """Return the limits of an axis, whether it is logarithmic, its element, and the places and names of its ticks.

    An axis of numbers has an element and no names: its ticks may be anywhere. Of others the element is "".
    """
    shown = [*map(float, axis.get_view_interval()), axis.get_scale() == "log"]
    if not isinstance(axis.get_major_locator(), FixedLocator | NullLocator):
        return [*shown, axis.get_gid(), []]
    names = [" ".join(label.get_text().split()) for label in axis.get_ticklabels()]
    return [*shown, "", [[float(value), name] for value, name in zip(axis.get_majorticklocs(), names, strict=False)]]
