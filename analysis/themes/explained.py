"""Where a network looks in its most confident mistakes, and the training images that are most similar to it.

    python -c "from analysis.frames import runs; from analysis.themes import explained; \\
        d = next(iter(runs.load('runs').directories.values())); \\
        explained.figure(d.evaluation(), 'Mistakes').savefig('mistakes.png')"

The arrays of evaluation.npz that this shows are described in `study/training/explain.py`; older runs have none.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.frames.runs import Frames
from analysis.frames.sections import Section, best_readable
from analysis.page.blocks import Block, Heading, Picture
from analysis.page.characters import Plot, in_lines, shortened
from analysis.page.figures import Looks
from analysis.themes import confusion
from analysis.wording.texts import number, text

STEP = (1.12, 1.5)
"""Width and height of a picture with its text, as multiples of the picture."""

HEAD = 17
"""At most this many columns in a line of the name of a column of pictures."""

WIDEST = 15
"""At most this many columns of the name of a class below a picture."""

OPAQUE = 0.75
"""Opacity of the parts of an image that speak most for a class."""

Arrays = Mapping[str, np.ndarray]


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the explained predictions of the best run, if it has recorded them."""
    best, _ = best_readable(frames, section, 1)
    if best.empty:
        return []
    arrays = frames.directories[best.index[0]].evaluation()
    title = text("Explained predictions: {setting} (seed {seed})", **confusion.words_of(best.iloc[0]))
    drawn = figure(arrays, title)
    if drawn is None:
        return []
    return [Heading(text("Where the networks look")), Picture("explained", title, drawn, _caption(arrays), photo=True)]


def _caption(arrays: Arrays) -> str:
    """Describe what the figure shows."""
    said = [
        text(
            "Each row begins with one of the most confident mistakes: below it the true class → the predicted class, "
            "and the probability that the network gave to its prediction."
        )
    ]
    if "mistake_maps" in arrays:
        height, width = arrays["mistake_maps"].shape[-2:]
        said.append(
            text(
                "Red marks the parts of an image that support the class named below it (Grad-CAM: the gradients of "
                "its logit in the last feature maps, {height}×{width}; each map is scaled to its own maximum). The "
                "last row shows correct predictions.",
                height=height,
                width=width,
            )
        )
    if "alike_images" in arrays:
        said.append(
            text(
                "The training images are the most similar ones to the network, of at most 10,000: below each, its "
                "class and the cosine similarity of the features before the last layer."
            )
        )
    return " ".join(said)


def figure(arrays: Arrays, title: str) -> Figure | None:
    """Draw a row for each explained mistake of evaluation.npz, and one of right predictions; None if there are none."""
    maps, alike, right = (arrays.get(name, ()) for name in ("mistake_maps", "alike_images", "right_maps"))
    mistakes = max(len(maps), len(alike))
    if not mistakes and not len(right):
        return None

    # as many columns as the longest row, and a name above each
    columns = [text("Test image")]
    if len(maps) or len(right):
        columns += [text("For the true class"), text("For the predicted class")]
    columns += [text("Similar training image")] * (alike.shape[1] if len(alike) else 0)
    lines = mistakes + bool(len(right))
    size = (0.6 + 1.35 * len(columns), 1.3 + 1.35 * STEP[1] / STEP[0] * lines)
    drawn = Plot(figsize=(max(5.0, size[0]), size[1]), layout="constrained")
    axes = drawn.subplots()

    # mistakes, and right predictions as pairs of an image and its map
    for line in range(mistakes):
        _draw_mistake(axes, arrays, line)
    names = arrays["class_names"]
    if mistakes and len(right):
        words = text("Right predictions, each with its map")
        axes.text(0, STEP[1] * mistakes - 0.04, words, va="bottom", fontsize=8, in_layout=False)
    for place in range(min(len(right), len(columns) // 2)):
        label = _named(names, arrays["right_targets"][place])
        sure = f"{number(100 * arrays['right_confidences'][place], '.1f')} %"
        _draw(axes, (mistakes, 2 * place), arrays["right_images"][place], f"{label}\n{sure}")
        _draw(axes, (mistakes, 2 * place + 1), arrays["right_images"][place], label, right[place])

    # title and labels
    axes.set_xlim(-0.06, STEP[0] * len(columns) - 0.06)
    axes.set_ylim(STEP[1] * lines - 0.1, -0.06)
    axes.xaxis.tick_top()
    wrapped = [in_lines(name, HEAD) for name in columns]
    axes.set_xticks([STEP[0] * place + 0.5 for place in range(len(columns))], wrapped, fontsize=8)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontweight="bold", fontsize=11)
    axes.set_xlabel(text("Image, and what explains its prediction"))
    axes.set_ylabel(text("Most confident mistake first"))
    return drawn


def _draw_mistake(axes: Axes, arrays: Arrays, line: int) -> None:
    """Draw a mistake, its maps and the training images that are most alike, as far as they are recorded."""
    names = arrays["class_names"]
    image = arrays["mistake_images"][line]
    target = _named(names, arrays["mistake_targets"][line])
    predicted = _named(names, arrays["mistake_predictions"][line])
    sure = f"{number(100 * arrays['mistake_confidences'][line], '.1f')} %"
    _draw(axes, (line, 0), image, f"{target}\n→ {predicted}\n{sure}")
    place = 1
    if "mistake_maps" in arrays:
        for label, heat in zip((target, predicted), arrays["mistake_maps"][line], strict=True):
            _draw(axes, (line, place), image, label, heat)
            place += 1
    if "alike_images" in arrays:
        parts = (arrays[f"alike_{part}"][line] for part in ("images", "targets", "similarity"))
        for other, label, similarity in zip(*parts, strict=True):
            _draw(axes, (line, place), other, f"{_named(names, label)}\n{number(similarity, '.2f')}")
            place += 1


def _named(names: np.ndarray, label: int) -> str:
    return shortened(str(names[label]), WIDEST)


def _draw(axes: Axes, place: tuple[int, int], image: np.ndarray, words: str, heat: np.ndarray | None = None) -> None:
    """Draw an image with its text at a row and column, and on it a map in red, if there is one."""
    left, top = STEP[0] * place[1], STEP[1] * place[0]
    extent = (left, left + 1, top + 1, top)
    pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
    smooth = "nearest" if image.shape[-1] < 64 else "antialiased"
    axes.imshow(pixels, extent=extent, cmap="gray", vmin=0, vmax=255, interpolation=smooth)
    if heat is not None:
        shares = heat / 255
        colours = colormaps["autumn_r"](shares)
        colours[..., 3] = OPAQUE * shares
        axes.imshow(colours, extent=extent, interpolation="bilinear")
    axes.text(left + 0.5, top + 1.04, words, ha="center", va="top", fontsize=7, linespacing=1.15, in_layout=False)
