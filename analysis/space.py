"""What the options of a sweep do: each one's effect, two as a heat map, more as parallel coordinates and importance.

python -c "from analysis import runs, sections, space; \\
    print(space.effects(sections.by_dataset(runs.load('runs'))[0]))"
"""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis import comparison
from analysis.blocks import Block, Heading, Paragraph, Picture
from analysis.figures import GREY, PALETTE, Looks, finish, tick_format
from analysis.runs import Frames
from analysis.sections import Section
from analysis.statistics import ALPHA, differences, holm
from analysis.tables import Column, Table, p_column
from analysis.wording import label, named, number, option, sentence, shown_value

MOST_VALUES = 8
"""An option with more values, such as one drawn at random, has no table of effects."""

GRID_VALUES = 12
"""Options with more values, or a grid of which most is empty, are drawn as parallel coordinates, not as a heat map."""

FEWEST_VALUES = 3
"""So many values of a numeric option that alone is varied make a curve."""

TREES, FOLDS, REPEATS = 64, 5, 5

LEAST_FIT = 0.3
"""R² of a forest below which its importances say nothing."""

COLOURS = LinearSegmentedColormap.from_list("accuracy", colormaps["Blues"](np.linspace(0.15, 1, 256)))
"""From light to dark in one colour, which colour-blind people see too, and which means the same on a dark page."""

LOGARITHMIC = 50
"""Values of an option whose largest is so many times the smallest are scaled by their logarithm."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show what each of two or more varied options does."""
    varied, frame = section.varied, comparison.compare(section)
    found: list[Block] = [Heading(label("options"))]
    done = frame[frame.n > 0]
    if len(varied) < 2:
        if not varied or len(done) < FEWEST_VALUES or not is_numeric(done[varied[0]]):
            return []
        title = sentence("values_title", option=option(varied[0]), name=section.title)
        caption = sentence("values_caption" if done.n.max() > 1 else "values_caption_single")
        return [*found, Picture("values", title, by_value(done, section.runs, varied[0], title), caption)]
    effect = effects(section)
    if not effect.empty:
        found.append(_table(section, effect))
    cells = [done[name].nunique() for name in varied]
    if len(varied) == 2 and max(cells) <= GRID_VALUES and math.prod(cells) <= 2 * len(done):
        title = sentence("grid_title", name=section.title)
        caption = sentence("grid_caption" if done.n.max() > 1 else "grid_caption_single")
        found.append(Picture("grid", title, heat_map(frame, varied, title), caption))
    elif len(done) > 2:
        title = sentence("parallel_title", name=section.title)
        found.append(
            Picture("parallel", title, parallel(done, varied, title), sentence("parallel_caption", span=LOGARITHMIC))
        )
        shares, fit = importance(done, [name for name in varied if done[name].astype(str).nunique() > 1])
        if fit > LEAST_FIT:
            title = sentence("importance_title", name=section.title)
            caption = sentence("importance_caption", fit=100 * fit, settings=len(done))
            found.append(Picture("importance", title, bars(shares, title), caption))
        else:
            found.append(Paragraph(sentence("importance_none", settings=len(done), fit=fit)))
    return found


def answer(section: Section) -> list[str]:
    """Say what each of two or more varied options does, where that can be told apart."""
    effect = effects(section)
    return [] if effect.empty else [_effects(effect)]


def effects(section: Section) -> pd.DataFrame:
    """Compare the values of each of several options, averaged over combinations of the others and over seeds.

    Each value is averaged over the same combinations and, in each of them, the same seeds: the most runs of which all
    values have theirs. Returns a row per option and value: `option`, `value`, `n` (seeds), `settings` (combinations),
    `val_acc` and `gap_last`, and their differences from the option's first value, `val_acc_change` and
    `gap_last_change`, with half the width of their intervals over seeds as `…_ci95`, paired or not as those of
    `comparison.pairwise`, and p as `…_p`, corrected by Holm for the number of such differences.
    """
    runs, varied = section.runs, section.varied
    measured = runs[[*varied, "seed"]].map(str).assign(
        val_acc=100 * runs["best/val_acc"], gap_last=100 * (runs["last/train_acc"] - runs["last/val_acc"]),
        beginning=comparison.beginnings(runs),
    )  # fmt: skip
    rows = []
    for name in varied if len(varied) > 1 else []:
        values = list(dict.fromkeys(map(str, ordered(section.points[name]))))
        if len(values) > MOST_VALUES:
            continue
        chosen = _balanced(measured, name, values, [other for other in varied if other != name])
        if chosen.empty:
            continue
        settings = len(chosen.groupby(list(chosen.index.names[:-1])))
        beginnings = chosen.groupby(name).beginning.agg(frozenset)
        by_seed = chosen.groupby([name, "seed"])[["val_acc", "gap_last"]].mean()
        means, seeds = by_seed.groupby(name).mean(), by_seed.index.get_level_values("seed").nunique()
        tests = {what: differences(by_seed[what], beginnings, comparison.resolution(runs) / math.sqrt(settings))
                 for what in by_seed}  # fmt: skip
        for value in values:
            row: dict[str, object] = {"option": name, "value": value, "n": seeds, "settings": settings}
            for what, test in tests.items():
                pair = test.loc[value, values[0]] if (value, values[0]) in test.index else None
                row[what], is_first = means[what][value], value == values[0]
                row[f"{what}_change"] = math.nan if is_first else means[what][value] - means[what][values[0]]
                row[f"{what}_change_ci95"] = math.nan if pair is None else pair.half_width
                row[f"{what}_change_p"] = math.nan if pair is None else pair.p
            rows.append(row)
    columns = ["option", "value", "n", "settings", *(f"{what}{more}" for what in ("val_acc", "gap_last")
               for more in ("", "_change", "_change_ci95", "_change_p"))]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("val_acc_change_p", "gap_last_change_p"):
        tested = frame[name].notna()
        frame.loc[tested, name] = holm(frame[name][tested])
    return frame


def _balanced(measured: pd.DataFrame, name: str, values: Sequence[str], others: list[str]) -> pd.DataFrame:
    """Choose the runs of all values of an option in the same combinations of the others, each with the same seeds.

    Where some are missing, either combinations or seeds are left out, whichever keeps more; indexed by both.
    """
    whole = measured.groupby([*others, "seed"])[name].agg(lambda found: set(values) <= set(found)).unstack("seed")
    whole = whole.eq(True)
    whole = whole.loc[whole.any(axis=1), whole.any()]
    blocks = whole.loc[:, whole.all()], whole[whole.all(axis=1)]
    kept = max(blocks, key=lambda block: block.size).stack()
    indexed = measured.set_index([*others, "seed"])
    return indexed[indexed.index.isin(kept.index)]


def _table(section: Section, effect: pd.DataFrame) -> Table:
    columns = [
        Column("option", text=lambda row: option(row["option"])),
        Column("value", text=lambda row: shown_value(row["value"], row["option"])),
        Column("settings", 0), Column("n", 0),
        Column("val_acc", 2), Column("val_acc_change", 2), p_column("val_acc_change_p"),
        Column("gap_last", 2), Column("gap_last_change", 2), p_column("gap_last_change_p"),
    ]  # fmt: skip
    tested = effect.val_acc_change_p.notna().any()
    columns = [column for column in columns if tested or not column.key.endswith("_p")]
    notes = [sentence("options_note"), *([sentence("options_tests")] if tested else [])]
    return Table("options", sentence("options_title", name=section.title), effect, columns, notes)


def _effects(effect: pd.DataFrame) -> str:
    """Say which changes of one option are more than noise."""
    changes = effect[effect.val_acc_change.notna()]
    certain, first = [], effect.drop_duplicates("option").set_index("option").value
    for row in changes.itertuples():
        for what in ("val_acc", "gap_last"):
            change, half_width = getattr(row, f"{what}_change"), getattr(row, f"{what}_change_ci95")
            if getattr(row, f"{what}_change_p") < ALPHA:
                values = {"option": option(row.option), "value": shown_value(row.value, row.option)}
                values |= {"first": shown_value(first[row.option], row.option), "change": change, "spread": half_width}
                certain.append(sentence(f"effect_{what}", **values))
    if (changes.n < 2).all():
        return sentence("effects_single")
    if not certain:
        return sentence("effects_none")
    known = set(changes.option[changes.val_acc_change_p < ALPHA])
    rest = [option(name) for name in dict.fromkeys(changes.option) if name not in known]
    also = [sentence("effects_open", options=named(rest))] if rest else []
    return " ".join([sentence("effects_certain", changes=named(certain)), *also])


def is_numeric(values: pd.Series) -> bool:
    """Tell whether all values of an option are numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def ordered(values: pd.Series) -> list:
    """Return the values that occur: numbers in order, others as they come."""
    found = list(dict.fromkeys(values))
    return sorted(found) if is_numeric(values) else found


def heat_map(frame: pd.DataFrame, varied: list[str], title: str) -> Figure:
    """Draw the best validation accuracy over the values of two options; `frame` is what `comparison.compare` returns.

    Combinations without a result are empty.
    """
    rows, columns = varied if frame[varied[0]].nunique() >= frame[varied[1]].nunique() else varied[::-1]
    heights, widths = ordered(frame[rows]), ordered(frame[columns])
    grid, spreads = np.full((2, len(heights), len(widths)), np.nan)
    for row in frame.to_dict("records"):
        place = heights.index(row[rows]), widths.index(row[columns])
        grid[place], spreads[place] = row["val_acc"], row["val_acc_ci95"]
    figure = Figure(figsize=(min(12, 3.6 + 1.15 * len(widths)), 1.7 + 0.55 * len(heights)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(grid, cmap=COLOURS, aspect="auto")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for row, column in np.argwhere(~np.isnan(grid)):
        spread = spreads[row, column]
        text = number(grid[row, column], ".2f") + ("" if math.isnan(spread) else f" ± {number(spread, '.2f')}")
        axes.text(column, row, text, ha="center", va="center", color="white" if grid[row, column] > middle else "black")
    finish(axes, title, option(columns), option(rows), numbers="")
    axes.grid(visible=False)
    axes.set_xticks(range(len(widths)), [shown_value(str(value), columns) for value in widths])
    axes.set_yticks(range(len(heights)), [shown_value(str(value), rows) for value in heights])
    axes.spines[:].set_visible(False)
    _colour_bar(figure, axes, image)
    return figure


def by_value(frame: pd.DataFrame, runs: pd.DataFrame, name: str, title: str) -> Figure:
    """Draw the best validation accuracy over the values of a numeric option: mean, 95 % interval, each seed.

    `frame` is what `comparison.compare` returns, `runs` a section's.
    """
    frame = frame.assign(**{name: frame[name].astype(float)}).sort_values(name)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    if frame.n.max() > 1:
        places = runs.setting.map(frame.set_index("setting")[name])
        axes.plot(places, 100 * runs["best/val_acc"], "o", color=PALETTE[0], alpha=0.35, markersize=5)
    axes.errorbar(frame[name], frame.val_acc, frame.val_acc_ci95, fmt="o-", color=PALETTE[0], capsize=3, linewidth=1.7)
    axes.set_xscale("log" if _is_logarithmic(frame[name]) else "linear")
    finish(axes, title, option(name), sentence("percent", what=label("val/acc")))
    axes.set_xticks(frame[name])
    axes.xaxis.set_minor_locator(NullLocator())
    return figure


def parallel(frame: pd.DataFrame, varied: list[str], title: str) -> Figure:
    """Draw a line per setting through its values of the options to its validation accuracy, the best on top.

    `frame` is what `comparison.compare` returns.
    """
    figure = Figure(figsize=(min(13, 3 + 1.7 * len(varied)), 5.5), layout="constrained")
    axes = figure.subplots()
    columns = [*(frame[name] for name in varied), frame.val_acc.round(2)]
    places = np.column_stack([_places(values) for values in columns])
    scale = ScalarMappable(Normalize(frame.val_acc.min(), frame.val_acc.max()), COLOURS)
    for row in np.argsort(frame.val_acc.to_numpy()):
        axes.plot(places[row], color=scale.to_rgba(frame.val_acc.iloc[row]), linewidth=2, alpha=0.85)
    for place, values in enumerate(columns):
        axes.axvline(place, color=GREY, linewidth=1, zorder=0)
        heights, found = dict(zip(values, places[:, place], strict=True)), ordered(values)
        for value in found if len(found) <= MOST_VALUES else [found[0], found[-1]]:
            text = shown_value(f"{value:g}" if isinstance(value, float) else str(value))
            box = {"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1}
            axes.text(place + 0.03, heights[value], text, fontsize=9, va="center", bbox=box, zorder=5)
    finish(axes, title, label("option"), label("value_scale"), numbers="")
    axes.grid(visible=False)
    names = [*map(option, varied), label("val/acc")]
    axes.set_xticks(range(len(columns)), [textwrap.fill(name, 14 if len(names) < 7 else 9) for name in names])
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(varied) + 0.35)
    axes.spines[:].set_visible(False)
    _colour_bar(figure, axes, scale)
    return figure


def _places(values: pd.Series) -> np.ndarray:
    """Place values between 0 and 1: many numbers by their size, others evenly."""
    found = ordered(values)
    if len(found) > MOST_VALUES and is_numeric(values):
        sizes = np.array(values, dtype=float)
        sizes = np.log(sizes) if _is_logarithmic(values) else sizes
        return (sizes - sizes.min()) / np.ptp(sizes)
    return np.array([found.index(value) for value in values]) / max(1, len(found) - 1)


def _is_logarithmic(values: pd.Series) -> bool:
    return min(values) > 0 and max(values) >= LOGARITHMIC * min(values)


def importance(frame: pd.DataFrame, varied: list[str]) -> tuple[pd.Series, float]:
    """Return the share of each option in the variance of the validation accuracy over settings, and how sure it is.

    The shares are Optuna's functional ANOVA of a random forest (Hutter, Hoos and Leyton-Brown 2014), the effects of
    single options; what they leave of 1 is interaction. How sure: R² of such a forest on settings that it has not
    seen, the mean of several divisions; 0 or less where it predicts no better than the mean.
    """
    import optuna
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold, cross_val_predict

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    numeric = {name: is_numeric(frame[name]) for name in varied}
    given = {name: frame[name].astype(float if numeric[name] else str) for name in varied}
    inputs = pd.get_dummies(pd.DataFrame(given)).to_numpy(float)
    target = frame.val_acc.to_numpy(float)
    forest = RandomForestRegressor(TREES, random_state=0)
    folds = [KFold(min(FOLDS, len(frame)), shuffle=True, random_state=repeat) for repeat in range(REPEATS)]
    fits = [r2_score(target, cross_val_predict(forest, inputs, target, cv=one)) for one in folds]
    fit = np.mean(fits) if np.ptp(target) > 0 else 0.0
    ranges = {
        name: optuna.distributions.FloatDistribution(min(values), max(values), log=_is_logarithmic(values))
        if numeric[name]
        else optuna.distributions.CategoricalDistribution(list(dict.fromkeys(values)))
        for name, values in given.items()
    }
    study = optuna.create_study(direction="maximize")
    for place, value in enumerate(target):
        params = {name: values.iloc[place] for name, values in given.items()}
        study.add_trial(optuna.create_trial(params=params, distributions=ranges, value=value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    return pd.Series(evaluator.evaluate(study, params=varied), dtype=float).sort_values(), float(fit)


def bars(shares: pd.Series, title: str) -> Figure:
    """Draw the importance of each option, in percent."""
    figure = Figure(figsize=(10, 1.4 + 0.4 * len(shares)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh([option(name) for name in shares.index], 100 * shares, color=PALETTE[0])
    axes.bar_label(drawn, [number(100 * share, ".0f") for share in shares], padding=4)
    finish(axes, title, label("variance_share"), label("option"), numbers="x")
    axes.grid(visible=False, axis="y")
    return figure


def _colour_bar(figure: Figure, axes: Axes, scale: ScalarMappable) -> None:
    bar = figure.colorbar(scale, ax=axes, shrink=0.9)
    bar.ax.yaxis.set_major_formatter(tick_format())
    bar.set_label(sentence("percent", what=label("val/acc")))
    bar.outline.set_visible(False)
