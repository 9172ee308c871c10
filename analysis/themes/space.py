"""Effects of the options of a sweep in figures: a curve, a heat map, or parallel coordinates with importances.

python -m analysis.summarize runs     # writes them into the report
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import Locator, LogLocator, MaxNLocator, NullLocator

from analysis.frames import contrasts
from analysis.frames.runs import Frames
from analysis.frames.sections import Section
from analysis.page.blocks import Block, Heading, Paragraph, Picture
from analysis.page.characters import NARROW, Plot, columns, in_lines, inches, short_names
from analysis.page.figures import GREY, PALETTE, Looks, add_lines, finish, tick_format
from analysis.themes import comparison, effects
from analysis.themes.effects import MOST_VALUES, is_numeric, ordered, sizes
from analysis.wording.texts import number, option, ranking_axis, shown_value, text

LONGEST = 32
"""At most this many columns of the value of an option in a figure."""

FEWEST_VALUES = 3
"""A single varied option is drawn as a curve if it is numeric and has at least this many values."""

TREES = 64
FOLDS = 5
REPEATS = 5
"""Number of cross-validations of the forest; one is enough for more than MANY settings."""

MANY = 100

LEAST_FIT = 0.3
"""Importances are shown only if R² of the forest is above this."""

COLOURS = LinearSegmentedColormap.from_list("accuracy", colormaps["Blues"](np.linspace(0.15, 1, 256)))
"""One hue from light to dark, which colour-blind people can read, and which keeps its meaning on a dark page."""

LOGARITHMIC = 50
"""Values of an option have a logarithmic scale if the largest is at least this many times the smallest."""

DECADES = 1000
"""A logarithmic scale has ticks at decades if it spans at least this factor, otherwise at 1, 2 and 5 too."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the effects of the varied options."""
    varied = section.varied
    frame = contrasts.compare(section)
    content: list[Block] = [Heading(text("What each option does"))]
    done = frame[frame.n > 0]

    # a single option: a curve
    if len(varied) < 2:
        if not varied or len(done) < FEWEST_VALUES or not is_numeric(done[varied[0]]):
            return []
        title = text("Accuracy by {option}: {name}", option=option(varied[0]), name=section.title)
        caption = (
            text(
                "Best validation accuracy: the mean over seeds with its 95 % interval (Student t); single seeds are "
                "drawn pale."
            )
            if done.n.max() > 1
            else text("Best validation accuracy of one seed.")
        )
        return [
            *content,
            Picture("values", title, by_value(done, section, varied[0], title), caption),
        ]

    # several options: the table of their effects
    effect = effects.measure(section)
    if not effect.empty:
        content.append(effects.table(section, effect))

    # a heat map for a small grid of two options, unless the short form has it
    if section.is_grid:
        content += [grid(section)] if comparison.picture_in_short(section) != "grid" else []

    # parallel coordinates, with the runs that the sweep stopped, and importances
    elif len(done) > 2:
        title = text("Settings by their options: {name}", name=section.title)
        stopped = section.absent[section.absent.state == "stopped"]
        stopped = stopped.assign(score=section.scores(stopped).astype(float))
        captions = [
            text(
                "One line per setting, coloured by its best validation accuracy, which has a linear scale. Values of "
                "options are evenly spaced; numbers that were drawn at random, or have many values, are placed by "
                "size, on a logarithmic scale if the largest is at least {span} times the smallest.",
                span=LOGARITHMIC,
            )
        ]
        captions += (
            [text("Dashed grey lines are runs that their sweep stopped, at the best accuracy reached until then.")]
            if len(stopped)
            else []
        )
        figure = parallel(done, varied, title, section.drawn, stopped)
        content.append(Picture("parallel", title, figure, " ".join(captions)))
        shares, fit = importance(done, [name for name in varied if done[name].astype(str).nunique() > 1])
        if fit > LEAST_FIT:
            title = text("Importance of each option: {name}", name=section.title)
            caption = text(
                "Share of each option alone in the variance of the best validation accuracy between {settings} "
                "settings: functional ANOVA of a random forest (Optuna); the rest up to 100 % is interaction. For "
                "settings that it has not seen, the forest explains {fit:.0f} % of the variance (R², cross-validated).",
                fit=100 * fit,
                settings=len(done),
            )
            content.append(Picture("importance", title, bars(shares, title), caption))
        else:
            content.append(
                Paragraph(
                    text(
                        "The importance of each option cannot be estimated from {settings} settings: a random forest "
                        "trained on some of them predicts the others hardly better than their mean (R² {fit:.2f}, "
                        "cross-validated).",
                        settings=len(done),
                        fit=fit,
                    )
                )
            )
    return content if len(content) > 1 else []


def grid(section: Section) -> Picture:
    """Make the picture of a grid of two options: the mean best validation accuracy in each cell."""
    frame = contrasts.compare(section)
    title = text("Validation accuracy over two options: {name}", name=section.title)
    caption = (
        text(
            "Best validation accuracy in percent: mean over seeds ± half the 95 % interval. Cells without a "
            "result are empty."
        )
        if frame.n.max() > 1
        else text("Best validation accuracy of one seed, in percent. Cells without a result are empty.")
    )
    return Picture("grid", title, heat_map(frame, section.varied, title), caption)


def heat_map(frame: pd.DataFrame, varied: list[str], title: str) -> Figure:
    """Draw the best validation accuracy over the values of two options; `frame` is from `contrasts.compare`.

    Cells of combinations without a result are empty.
    """
    # accuracies and intervals as a grid
    rows, across = varied if frame[varied[0]].nunique() >= frame[varied[1]].nunique() else varied[::-1]
    heights = ordered(frame[rows])
    widths = ordered(frame[across])
    grid, spreads = np.full((2, len(heights), len(widths)), np.nan)
    for row in frame.to_dict("records"):
        place = (heights.index(row[rows]), widths.index(row[across]))
        grid[place] = row["score"]
        spreads[place] = row["score_ci95"]

    # names that do not fit below their columns are broken into lines
    lefts, belows = (
        short_names([shown_value(name, value) for value in values], LONGEST)
        for name, values in ((rows, heights), (across, widths))
    )
    lefts = [text.replace(", ", ",\n") for text in lefts]
    lines = max(text.count("\n") + 1 for text in lefts)
    width = min(14, 3.6 + 1.15 * len(widths) + max(0.0, inches(lefts, 10) - 1))
    room = max(8, int(12 * (width - 2.6 - inches(lefts, 10)) / len(widths)))
    belows = [in_lines(text.replace(", ", ",\n") if len(text) > room else text, room) for text in belows]
    height = 1.7 + max(0.55, 0.2 * lines) * len(heights) + 0.17 * max(text.count("\n") for text in belows)

    # cells with their text, light on dark
    figure = Plot(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(grid, cmap=COLOURS, aspect="auto")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for row, column in np.argwhere(~np.isnan(grid)):
        spread = spreads[row, column]
        words = number(grid[row, column], ".2f") + ("" if math.isnan(spread) else f" ± {number(spread, '.2f')}")
        axes.text(
            column, row, words, ha="center", va="center", color="white" if grid[row, column] > middle else "black"
        )

    # labels, names and colour bar
    finish(axes, title, option(across), option(rows), numbers="")
    axes.grid(visible=False)
    axes.set_xticks(range(len(widths)), belows)
    axes.set_yticks(range(len(heights)), lefts)
    axes.spines[:].set_visible(False)
    _colour_bar(figure, axes, image)
    return figure


def by_value(frame: pd.DataFrame, section: Section, name: str, title: str) -> Figure:
    """Draw the best validation accuracy over the values of a numeric option: mean, 95 % interval, single seeds.

    `frame` is from `contrasts.compare`.
    """
    # means and single seeds
    frame = frame.assign(**{name: sizes(frame[name])}).sort_values(name)
    figure = Plot(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    if frame.n.max() > 1:
        runs = section.runs
        places = runs.setting.map(frame.set_index("setting")[name])
        axes.plot(places, section.scores(runs), "o", color=PALETTE[0], alpha=0.35, markersize=5)
    axes.errorbar(frame[name], frame.score, frame.score_ci95, fmt="o-", color=PALETTE[0], capsize=3, linewidth=1.7)

    # scale and ticks
    is_log = _is_logarithmic(frame[name])
    axes.set_xscale("log" if is_log else "linear")
    finish(axes, title, option(name), ranking_axis())
    if _is_by_size(frame[name], section.drawn):
        axes.xaxis.set_major_locator(_locator(frame[name], is_log))
    else:
        axes.set_xticks(frame[name])
    axes.xaxis.set_minor_locator(NullLocator())
    return figure


def parallel(
    frame: pd.DataFrame, varied: list[str], title: str, drawn: Sequence[str] = (), stopped: pd.DataFrame | None = None
) -> Figure:
    """Draw a line per setting through the values of its options to its validation accuracy, the best on top.

    `frame` is from `contrasts.compare`, `drawn` is that of the section, `stopped` are its stopped points with their
    `score`.
    """
    # values are written to the right of their axes: the longest determines the distance of the axes
    keys = [*varied, "score"]
    rows = pd.concat([frame.sort_values("score")[keys], *([] if stopped is None else [stopped[keys]])])
    scaled = [_scaled(rows[name], _is_by_size(rows[name], [*drawn, "score"])) for name in keys]
    longest = max(inches(ticks.values(), 9) for _, ticks in scaled)
    figure = Plot(figsize=(min(16, 3 + max(1.7, longest + 0.2) * len(varied)), 5.5), layout="constrained")
    axes = figure.subplots()

    # an axis per option, with its values
    scale = ScalarMappable(Normalize(frame.score.min(), frame.score.max()), COLOURS)
    places = np.empty(rows.shape)
    for place, (heights, ticks) in enumerate(scaled):
        places[:, place] = heights
        axes.axvline(place, color=GREY, linewidth=1, zorder=0)
        axes.plot([place] * len(ticks), list(ticks), "_", color=GREY, zorder=4)
        for height, tick in ticks.items():
            box = {"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1}
            axes.text(place + 0.03, height, tick, fontsize=9, va="center", bbox=box, zorder=5)

    # a line per setting, and dashed lines for stopped runs
    colours = scale.to_rgba(rows.score[: len(frame)].to_numpy(dtype=float))
    add_lines(axes, places[: len(frame)], color=colours, linewidth=2, alpha=0.85)
    add_lines(axes, places[len(frame) :], linestyle="--", color=GREY, linewidth=1, zorder=1)

    # labels, names and colour bar
    finish(axes, title, text("Option"), text("Value, numbers from low to high"), numbers="")
    axes.grid(visible=False)
    names = [*map(option, varied), ranking_axis().removesuffix(" (%)")]
    room = 0.85 * figure.get_figwidth() / len(names)  # inches of a name
    words = [word for name in names for word in name.split()]
    size = min(10.0, 10 * room / inches(words, 10))  # no word is broken
    width = max(columns(words), int(72 * room / (NARROW * size)))
    axes.set_xticks(range(len(keys)), [in_lines(name, width) for name in names], fontsize=size)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(varied) + 0.35)
    axes.spines[:].set_visible(False)
    _colour_bar(figure, axes, scale)
    return figure


def _scaled(values: pd.Series, by_size: bool) -> tuple[np.ndarray, dict[float, str]]:
    """Scale the values of an option to 0 … 1, by size or evenly; return the heights, and the texts by height."""
    different = ordered(values)
    name = str(values.name)

    # evenly spaced
    if not by_size or len(different) == 1:
        heights = {value: place / max(1, len(different) - 1) for place, value in enumerate(different)}
        written = different if len(different) <= MOST_VALUES else [different[0], different[-1]]
        names = short_names([shown_value(name, _short(value)) for value in written], LONGEST)
        texts = {heights[value]: text for value, text in zip(written, names, strict=True)}
        return np.array([heights[value] for value in values]), texts

    # by size, with texts at round numbers
    numbers = sizes(values).to_numpy(dtype=float)
    low = numbers.min()
    high = numbers.max()
    is_log = name != "score" and _is_logarithmic(numbers)
    ticks = _locator(numbers, is_log).tick_values(low, high)
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    scale = np.log if is_log else np.asarray
    heights = (scale(np.r_[numbers, ticks]) - scale(low)) / (scale(high) - scale(low))
    texts = [shown_value(name, _short(float(tick))) for tick in ticks]
    return heights[: len(numbers)], dict(zip(heights[len(numbers) :], texts, strict=True))


def _is_by_size(values: pd.Series, drawn: Sequence[str]) -> bool:
    """Return whether values are numbers that were drawn at random or are many, so that they are placed by size."""
    return is_numeric(values) and (values.name in drawn or values.nunique() > MOST_VALUES)


def _locator(numbers: Iterable[float], is_log: bool) -> Locator:
    """Return a locator of ticks at round numbers."""
    if not is_log:
        return MaxNLocator(5, steps=(1, 2, 5, 10))
    return LogLocator(subs=(1,) if max(numbers) >= DECADES * min(numbers) else (1, 2, 5))


def _short(value: Any) -> Any:
    """Round a float to six significant digits, and write it without a fraction if it has none."""
    if not isinstance(value, float):
        return value
    rounded = float(f"{value:g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e6 else rounded


def _is_logarithmic(values: Iterable[float]) -> bool:
    """Return whether values span so many orders of magnitude that they have a logarithmic scale."""
    return min(values) > 0 and max(values) >= LOGARITHMIC * min(values)


def importance(frame: pd.DataFrame, varied: list[str]) -> tuple[pd.Series, float]:
    """Return the share of each option in the variance of the validation accuracy between settings, and R².

    The shares are the effects of single options in a functional ANOVA of a random forest (Hutter, Hoos and Leyton-Brown
    2014; Optuna's implementation); the rest up to 1 is interaction. R² is that of such a forest on settings that it has
    not seen, the mean of several cross-validations; it is 0 or less if the forest predicts no better than the mean.
    """
    import optuna
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold, cross_val_predict

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    # R² by cross-validation
    numeric = {name: is_numeric(frame[name]) for name in varied}
    options = {name: sizes(frame[name]) if numeric[name] else frame[name].astype(str) for name in varied}
    inputs = pd.get_dummies(pd.DataFrame(options)).to_numpy(float)
    target = frame.score.to_numpy(float)
    forest = RandomForestRegressor(TREES, random_state=0)
    repeats = REPEATS if len(frame) <= MANY else 1
    folds = [KFold(min(FOLDS, len(frame)), shuffle=True, random_state=repeat) for repeat in range(repeats)]
    fits = [r2_score(target, cross_val_predict(forest, inputs, target, cv=fold)) for fold in folds]
    fit = np.mean(fits) if np.ptp(target) > 0 else 0.0

    # importances of a study with the settings as its trials
    ranges = {
        name: optuna.distributions.FloatDistribution(min(values), max(values), log=_is_logarithmic(values))
        if numeric[name]
        else optuna.distributions.CategoricalDistribution(list(dict.fromkeys(values)))
        for name, values in options.items()
    }
    study = optuna.create_study(direction="maximize")
    for place, value in enumerate(target):
        params = {name: values.iloc[place] for name, values in options.items()}
        study.add_trial(optuna.create_trial(params=params, distributions=ranges, value=value))

    # effects of single options
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    return pd.Series(evaluator.evaluate(study, params=varied), dtype=float).sort_values(), float(fit)


def bars(shares: pd.Series, title: str) -> Figure:
    """Draw the importance of each option, in percent."""
    figure = Plot(figsize=(10, 1.4 + 0.4 * len(shares)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh([option(name) for name in shares.index], 100 * shares, color=PALETTE[0])
    axes.bar_label(drawn, [number(100 * share, ".0f") for share in shares], padding=4)
    finish(axes, title, text("Share of the variance between settings (%)"), text("Option"), numbers="x")
    axes.grid(visible=False, axis="y")
    return figure


def _colour_bar(figure: Figure, axes: Axes, scale: ScalarMappable) -> None:
    bar = figure.colorbar(scale, ax=axes, shrink=0.9)
    bar.ax.yaxis.set_major_formatter(tick_format())
    bar.set_label(ranking_axis())
    bar.outline.set_visible(False)
