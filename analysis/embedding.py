"""What networks see: t-SNE of the layers' features, and the numbers that say how well they separate the classes.

    python -c "from analysis import embedding, runs; frames = runs.load('runs'); \\
        found = frames.features(frames.runs.index[0]); \\
        print(embedding.separability(found['penultimate'], found['targets']))"

A picture in two dimensions can mislead; the numbers are measured in the space of the features themselves.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import metadata

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from threadpoolctl import threadpool_limits

from analysis import cache, progress
from analysis.blocks import Block, Heading, Items, Paragraph, Picture
from analysis.figures import GREY, PALETTE, Looks
from analysis.runs import Frames, Section
from analysis.statistics import estimate
from analysis.tables import Column, Table
from analysis.wording import label, number, sentence, shown

LAYERS = ("intermediate", "penultimate", "logits")
"""The layers in evaluation.npz, the first of the network first."""

SETTINGS = 6
"""So many settings, the best, are looked at."""

PERPLEXITY = 30
NEIGHBOURS = 10
FOLDS = 5
REGULARIZATION = 0.1
"""C of the linear classifier: the inverse of the strength of its L2 penalty."""

COMPONENTS = 50
"""Features are reduced to so many principal components before t-SNE."""

FEWEST_IMAGES = 20
LEGEND_CLASSES = 30
MARKERS = "o^sDvP*X<>"
PRICE = 1.0
"""Points of accuracy that are a low price for a cut."""


@dataclass(frozen=True)
class Layer:
    """A layer of a run: where t-SNE puts each image (n, 2), and what `separability` says of it."""

    numbers: int
    points: np.ndarray
    knn: float
    probe: np.ndarray
    silhouette: float


@dataclass(frozen=True)
class Seen:
    """What a run makes of images: which they are, their classes, which of them it recognises, its layers by name."""

    images: np.ndarray
    targets: np.ndarray
    right: np.ndarray
    layers: dict[str, Layer]


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the layers of the best run of each setting, the settings of each data set together."""
    best = section.runs.sort_values("best/val_acc", ascending=False, kind="stable").drop_duplicates("setting")
    seen = see(frames, list(best.index[:SETTINGS]))
    best = best.loc[list(seen)]
    names = [tuple(frames.data(run)["classes"]) for run in best.index]
    found: list[Block] = []
    for (dataset, classes), group in best.groupby([best.dataset, pd.Series(names, best.index)], sort=False):
        found += _blocks(
            group, align({run: seen[run] for run in group.index}), classes, dataset.removeprefix("folder:")
        )
    return found


def _blocks(best: pd.DataFrame, seen: Mapping[str, Seen], classes: Sequence[str], dataset: str) -> list[Block]:
    names = {run: sentence("run", setting=shown(row.setting), seed=row.seed) for run, row in best.iterrows()}
    images = len(seen[best.index[0]].targets)
    title = sentence("tsne_title", dataset=dataset)
    caption = sentence(
        "tsne_caption", images=images, perplexity=perplexity(images), rate=images / 12, components=COMPONENTS
    )
    layers, cuts = layers_of(best, seen), cuts_of(best, seen)
    layer = Column("layer", text=lambda row: label(f"layer {row['layer']}"))
    first = layers[layers.setting == best.setting.iloc[0]]
    found: list[Block] = [
        Heading(label("embedding")),
        Paragraph(_separable(first, names[best.index[0]])),
        Picture("tsne", title, tsne_figure({names[run]: seen[run] for run in names}, classes, title), caption),
        Table(
            "layers", sentence("layers_title", dataset=dataset), layers,
            [Column("setting"), layer, Column("numbers", 0), Column("knn", 1), Column("probe", 1),
             Column("silhouette", 3)],
            [sentence("layers_note", neighbours=NEIGHBOURS, folds=FOLDS)],
        ),
    ]  # fmt: skip
    if prices := _prices(best.iloc[0], cuts[cuts.setting == best.setting.iloc[0]], names[best.index[0]]):
        found += [Heading(label("cuts")), Items(prices)]
    if len(cuts):
        found += [
            Table(
                "cuts", sentence("cuts_title", dataset=dataset), cuts,
                [Column("setting"), layer, Column("params", 0), Column("params_share", 1), Column("accuracy", 1),
                 Column("difference", 1)],
                [sentence("cuts_note", images=images, learnt=images - images // FOLDS)],
            ),
        ]  # fmt: skip
    return found


def see(frames: Frames, names: Sequence[str]) -> dict[str, Seen]:
    """Embed and measure the layers of runs, several at a time; what was measured before comes from the cache.

    Runs with too few images, or of a single class, are left out.
    """
    arrays = {run: frames.directories[run].evaluation() for run in names}
    arrays = {run: one for run, one in arrays.items() if _is_enough(one["feature_targets"])}
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = {
            (run, layer): pool.submit(_look, one[layer], one["feature_targets"])
            for run, one in arrays.items()
            for layer in LAYERS
        }
        for task in progress.as_completed(tasks.values(), "t-SNE"):
            task.result()
    return {
        run: Seen(
            one["feature_index"],
            one["feature_targets"],
            one["logits"].argmax(1) == one["feature_targets"],
            {layer: tasks[run, layer].result() for layer in LAYERS},
        )
        for run, one in arrays.items()
    }


def _is_enough(targets: np.ndarray) -> bool:
    _, members = np.unique(targets, return_counts=True)
    return len(targets) >= FEWEST_IMAGES and (members >= 2).sum() >= 2


def _look(features: np.ndarray, targets: np.ndarray) -> Layer:
    """Embed and measure one layer, or take it from the cache."""
    said = json.dumps([PERPLEXITY, COMPONENTS, NEIGHBOURS, FOLDS, REGULARIZATION, features.shape, str(features.dtype),
                       metadata.version("openTSNE"), metadata.version("scikit-learn")])  # fmt: skip
    digest = hashlib.sha256(said.encode() + features.tobytes() + targets.tobytes()).hexdigest()
    found = cache.arrays("layers", digest, lambda: {"points": tsne(features), **separability(features, targets)})
    return Layer(features.shape[1], found["points"], float(found["knn"]), found["probe"], float(found["silhouette"]))


def perplexity(images: int) -> int:
    """Return the perplexity for so many images: 30, or less than a third of them."""
    return min(PERPLEXITY, (images - 1) // 3)


def tsne(features: np.ndarray, jobs: int = 1) -> np.ndarray:
    """Embed features (n, numbers) in two dimensions (n, 2), by openTSNE from a start by PCA.

    The learning rate is n / 12 (Belkina et al. 2019).
    """
    from openTSNE import TSNE
    from sklearn.decomposition import PCA

    features = _finite(features)
    if not features.std(axis=0).any():
        return np.zeros((len(features), 2))
    reduced = PCA(min(COMPONENTS, *features.shape), svd_solver="full").fit_transform(features)
    embedded = TSNE(
        perplexity=perplexity(len(features)), learning_rate=len(features) / 12, initialization="pca",
        neighbors="exact", negative_gradient_method="bh", n_jobs=jobs, random_state=0,
    ).fit(reduced)  # fmt: skip
    return np.asarray(embedded)


def separability(features: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Measure how well features (n, numbers) separate classes, without the network's own last layer.

    `knn`: the accuracy of the nearest neighbours; `probe` (n,): whether a linear classifier (logistic regression on
    scaled features) is right about each image; both by cross-validation. `silhouette` of the classes, from -1 to 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import silhouette_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = _finite(features)
    _, members = np.unique(targets, return_counts=True)
    often = np.isin(targets, np.flatnonzero(np.bincount(targets) >= 2))
    folds = min(FOLDS, int(members[members >= 2].min()))
    splits = StratifiedKFold(folds, shuffle=True, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARIZATION, max_iter=5000))
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, often.sum() // 2))
    probe, near = (np.zeros(len(targets), bool) for _ in range(2))
    for right, classifier in ((probe, linear), (near, neighbours)):
        right[often] = cross_val_predict(classifier, features[often], targets[often], cv=splits) == targets[often]
    silhouette = silhouette_score(features, targets)
    return {"knn": np.float64(near.mean()), "probe": probe, "silhouette": np.float64(silhouette)}


def _finite(features: np.ndarray) -> np.ndarray:
    return np.nan_to_num(features.astype(np.float32), posinf=6.5e4, neginf=-6.5e4)


def align(seen: Mapping[str, Seen]) -> dict[str, Seen]:
    """Turn and mirror all embeddings of the same images to lie like the first run's layer before the last.

    Distances within each embedding stay as they are (orthogonal Procrustes).
    """
    from scipy.linalg import orthogonal_procrustes

    first = next(iter(seen.values()))
    wanted = _centred(first.layers["penultimate"].points)
    aligned = {}
    for run, one in seen.items():
        same = np.array_equal(one.images, first.images) and np.array_equal(one.targets, first.targets)
        layers = {}
        for name, layer in one.layers.items():
            points = _centred(layer.points)
            layers[name] = replace(layer, points=points @ orthogonal_procrustes(points, wanted)[0] if same else points)
        aligned[run] = replace(one, layers=layers)
    return aligned


def _centred(points: np.ndarray) -> np.ndarray:
    return points - points.mean(0)


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
        for name in LAYERS[:-1]:
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


def _prices(run: pd.Series, cuts: pd.DataFrame, name: str) -> list[str]:
    """Say what cuts of a network save and cost, as far as these images tell."""
    if np.isnan(run.params_logits):
        return []
    said = []
    for row in cuts[cuts.layer != "whole"].itertuples():
        low, high = row.difference - row.difference_ci95, row.difference + row.difference_ci95
        price = "low" if low > -PRICE else "high" if high < -PRICE else "unclear"
        said.append(
            sentence(
                "cut", run=name, layer=label(f"layer {row.layer}"), params=row.params, whole=run.params_logits,
                share=row.params_share, accuracy=row.accuracy, own=cuts.accuracy.iloc[-1], difference=row.difference,
                half_width=row.difference_ci95, price=sentence(f"price_{price}", points=PRICE),
            )
        )  # fmt: skip
    last = run.params_logits - run.params_penultimate
    share = 100 * last / run.params_logits
    return [*said, sentence("last_layer", run=name, params=last, whole=run.params_logits, share=share)]


def tsne_figure(rows: Mapping[str, Seen], classes: Sequence[str], title: str) -> Figure:
    """Draw the embeddings of all layers, a row of panels per run, on one scale and with the same look for a class."""
    reach = 1.05 * max(np.abs(layer.points).max() for one in rows.values() for layer in one.layers.values()) or 1.0
    in_legend = list(enumerate(classes)) if len(classes) <= LEGEND_CLASSES else []
    columns = max(1, min(10, len(classes), 110 // (5 + max(map(len, classes)))))
    height = 0.5 + 4.0 * len(rows) + 0.25 * -(-len(in_legend) // columns)
    figure = Figure(figsize=(10.5, height), layout="constrained")
    figure.suptitle(title, fontweight="bold", fontsize=12)
    parts = figure.subfigures(len(rows), squeeze=False)[:, 0]
    for part, (name, one) in zip(parts, rows.items(), strict=True):
        part.suptitle(name, fontsize=11)
        for axes, (layer, found) in zip(part.subplots(1, len(LAYERS)), one.layers.items(), strict=True):
            _scatter(axes, found.points, one.targets, classes, reach)
            numbers = sentence(
                "panel", knn=100 * found.knn, probe=100 * found.probe.mean(), silhouette=found.silhouette
            )
            axes.set_title(f"{label(f'layer {layer}').capitalize()}\n{numbers}", fontsize=9)
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
            axes.set_xlabel(label("tsne_1"), fontsize=9)
            axes.set_ylabel(label("tsne_2"), fontsize=9)
            axes.spines[:].set_color(GREY)
    handles = [Line2D([], [], linestyle="", label=name, **_look_of(place)) for place, name in in_legend]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure


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
        )  # fmt: skip


def _apart(middles: Mapping[str, np.ndarray], size: float) -> list[str]:
    """Choose names that can be written at their places, in letters of this size, without touching each other."""
    chosen: list[str] = []
    for name, middle in middles.items():
        gaps = {other: np.abs(middle - middles[other]) for other in chosen}
        if all(x > 0.32 * size * len(name + other) or y > 1.1 * size for other, (x, y) in gaps.items()):
            chosen.append(name)
    return chosen
