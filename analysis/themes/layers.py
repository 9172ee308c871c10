"""Networks layer by layer: t-SNE figures, separability of the classes, and what a cut saves and costs.

python -m analysis.summarize runs     # writes them into the report
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.frames.runs import Frames
from analysis.frames.sections import LOOKED_AT, Section, best_with_features, once
from analysis.frames.statistics import estimate
from analysis.page.blocks import Block, Heading, Items, Paragraph, Picture
from analysis.page.figures import Looks
from analysis.page.tables import Column, Table
from analysis.themes import clouds, confusion, embedding
from analysis.themes.embedding import Seen
from analysis.wording.texts import mark, named, number, shown, text
from analysis.wording.words import LAYERS

RULE_OF_THREE = 3
"""If none of n images differs, at most this many of n do, with 95 % confidence."""

PRICE = 1.0
"""A cut that costs less than this many points of accuracy has a low price."""

FEATURES = "penultimate"
"""The layer whose features the classifier of a network sees."""

LAYER = Column("layer", text=lambda row: text(LAYERS[row["layer"]]))

CUTS = {
    "intermediate": mark("the last block of features"),
    "penultimate": mark("the layer before the last"),
}
"""What a cut leaves as the last part of a network."""

UNCUT = {
    "penultimate": mark("with the same classifier on the layer before the last"),
    "whole": mark("of the whole network"),
}
"""What a cut is compared with."""

CUTS_BELOW = mark("For a network that learned from more images ({counts}), this underestimates the accuracy of a cut.")
CUTS_ABOVE = mark("For a network that learned from fewer images ({counts}), this overestimates the accuracy of a cut.")

PRICES = {
    "none": mark("its own last layers have learned too little to estimate the drop in accuracy"),
    "low": mark("a drop of less than {points:.0f} point"),
    "high": mark("a drop of more than {points:.0f} point"),
    "unclear": mark("too few images to decide whether the drop is less than {points:.0f} point"),
    "unknown": mark(
        "its classifier learned from about {probed:,} images, the network from only {trained:,}, so the drop in "
        "accuracy is not known"
    ),
}
"""What is known of the accuracy that a cut costs."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Show the layers of the best run with features of each setting."""
    best, seen = see(frames, section)
    if not seen:
        return []
    notes = [*lacking(section, best), *confusion.looked_at(best)]
    content = _layers(best, seen, frames.data(best.index[0])["classes"], notes)
    return content + cuts(frames, section)


@once
def see(frames: Frames, section: Section) -> tuple[pd.DataFrame, dict[str, Seen]]:
    """Return the best run with features of each setting, and what the first LOOKED_AT of them see."""
    best = best_with_features(frames, section, LOOKED_AT)
    return best, embedding.align(embedding.see(frames, list(best.index[:LOOKED_AT])))


def picture(frames: Frames, section: Section) -> Picture | None:
    """Draw the t-SNE of the last features of the best settings; None if no run recorded them."""
    best, seen = see(frames, section)
    seen = {_name(best.loc[run]): images for run, images in seen.items() if FEATURES in images.layers}
    if not seen:
        return None
    title = text("t-SNE of the last features: validation images of {dataset}", **confusion.words_of(best.iloc[0]))
    figure = clouds.side_by_side(seen, FEATURES, frames.data(best.index[0])["classes"], title)
    return Picture("features", title, figure, " ".join([*lacking(section, best), *confusion.looked_at(best)]))


def lacking(section: Section, best: pd.DataFrame) -> list[str]:
    """Name the settings of a section that have no run among the best ones with features, if there are any."""
    without = [shown(setting) for setting in section.ranked if setting not in set(best.setting)]
    return [text("Without features that can be read: {settings}.", settings=named(without))] if without else []


def _layers(best: pd.DataFrame, seen: Mapping[str, Seen], classes: Sequence[str], notes: Sequence[str]) -> list[Block]:
    """Show the embeddings, and how separable the classes are in each layer."""
    # the numbers and their caption
    (run, first), *_ = seen.items()
    frame = layers_of(best, seen)
    images = len(first.targets)
    words = confusion.words_of(best.loc[run])

    # the figure, with a caption on how it was computed
    title = text("t-SNE of the layers: validation images of {dataset}", **words)
    caption = text(
        "{images:,} validation images; openTSNE, start by PCA, perplexity {perplexity}, learning rate n/12 = "
        "{rate:,.0f}, features reduced to at most {components} principal components. All panels have one scale and "
        "are rotated to match each other. Distances between groups and the sizes of groups mean little in such "
        "pictures; the numbers are measured in the features themselves.",
        images=images,
        perplexity=embedding.perplexity(images),
        rate=images / 12,
        components=embedding.COMPONENTS,
    )
    columns = [
        Column("setting"),
        LAYER,
        Column("numbers", 0),
        Column("knn", 1),
        Column("probe", 1),
        Column("silhouette", 3),
    ]

    # the logits alone have no layer to be compared with
    pictures = []
    if frame.layer.nunique() > 1:
        figure = clouds.tsne_figure({_name(best.loc[run]): layers for run, layers in seen.items()}, classes, title)
        pictures = [Picture("tsne", title, figure, caption)]
    return [
        Heading(text("What the networks see")),
        Paragraph(_separable(frame[frame.setting == best.setting[run]], _name(best.loc[run]))),
        *pictures,
        Table(
            "layers",
            text("How separable each layer makes the classes: {dataset}", **words),
            frame,
            columns,
            [_measured(), *notes],
        ),
    ]


def cuts(frames: Frames, section: Section) -> list[Block]:
    """Show what cuts of the best networks would save and cost, if the runs recorded the parameters of their layers."""
    best, seen = see(frames, section)
    trained = {run: frames.data(run)["images"]["train"] for run in seen}
    return cut(best.loc[list(seen)], seen, trained) if seen else []


def cut(best: pd.DataFrame, seen: Mapping[str, Seen], trained: Mapping[str, int]) -> list[Block]:
    """Show what cuts of these runs would save and cost, if they recorded the parameters of their layers.

    `trained` is the number of training images of each network; if it is smaller than that of the classifier of a cut,
    the accuracy of the cut is overestimated.
    """
    # only networks that recorded their parameters can be cut
    run = best.iloc[0]
    images = len(seen[best.index[0]].targets)
    if np.isnan(run.params_logits):
        return []

    # prices in words, for the best run
    frame = cuts_of(best, seen)
    probed = images - images // embedding.FOLDS
    prices = _prices(run, frame[frame.setting == run.setting], probed, trained[best.index[0]])
    if not prices and frame.empty:
        return []

    # the table, with notes on networks with more or fewer training images
    content: list[Block] = [Heading(text("What could be cut from the network")), *([Items(prices)] if prices else [])]
    if len(frame):
        columns = [
            Column("setting"),
            LAYER,
            Column("numbers", 0),
            Column("params", 0),
            Column("params_share", 1),
            Column("accuracy", 1),
            Column("difference", 1),
        ]
        more, fewer = ({count for count in trained.values() if sign * count > sign * probed} for sign in (1, -1))
        notes = [
            text(
                "A cut keeps the network up to a layer and puts a linear classifier on its features (feature maps "
                "averaged to at most 512, which can cost accuracy). Accuracy is measured on {images:,} validation "
                "images; for a cut by cross-validation, so that its classifier learns from about {probed:,} of them. "
                "Difference: from the same classifier on the layer before the last (of a cut there, from the whole "
                "network) on the same images, with its 95 % interval over images.",
                images=images,
                probed=probed,
            )
        ] + [
            text(words, counts=named([number(count, ",") for count in sorted(counts)]))
            for words, counts in ((CUTS_BELOW, more), (CUTS_ABOVE, fewer))
            if counts
        ]
        title = text("Parameters and accuracy of each cut: {dataset}", **confusion.words_of(run))
        content.append(Table("cuts", title, frame, columns, notes))
    return content


def beside(frames: Frames, sections: Sequence[Section]) -> list[Block]:
    """Show how separable the classes are in the best network of each data set, if there are several data sets."""
    # the best run of each data set
    best_runs: dict[str, pd.Series] = {}
    for section in sorted(sections, key=lambda each: -each.runs.groupby("setting")["best/val_acc"].mean().max()):
        best = best_with_features(frames, section, 1)
        if best.empty:
            continue
        run = best.iloc[0]
        best_runs.setdefault(f"{section.dataset} ({run.classes})" if run.classes else section.dataset, run)

    # its layers before the logits
    best = pd.DataFrame(best_runs.values()).assign(dataset=list(best_runs)).sort_values("dataset")
    seen = embedding.align(embedding.see(frames, list(best.index)))
    seen = {run: images for run, images in seen.items() if set(images.layers) - {embedding.LAYERS[-1]}}
    if len(seen) < 2:
        return []
    best = best.loc[list(seen)]
    names = {run: f"{best.dataset[run]}: {_name(best.loc[run])}" for run in seen}

    # the table and the figure
    frame = layers_of(best, seen)
    frame = frame[frame.layer != embedding.LAYERS[-1]]
    frame = frame.assign(dataset=frame.run.map(best.dataset), model=frame.run.map(best.model))
    columns = [
        Column("dataset"),
        Column("model"),
        Column("setting"),
        LAYER,
        Column("images", 0),
        Column("numbers", 0),
        Column("knn", 1),
        Column("probe", 1),
        Column("silhouette", 3),
    ]
    title = text(
        "The classes of each data set in the features of one network: {datasets}", datasets=" · ".join(best.dataset)
    )
    drawn = {names[run]: (images, frames.data(run)["classes"]) for run, images in seen.items()}
    return [
        Items([_separable(frame[frame.run == run], names[run]) for run in seen]),
        Table("layers", title, frame, columns, [_measured()]),
        Picture(
            "tsne",
            title,
            clouds.beside_figure(drawn, title),
            text(
                "t-SNE of validation images, each data set on a scale of its own. Distances between groups and the "
                "sizes of groups mean little in such pictures; the numbers are measured in the features themselves. "
                "With more classes, chance alone is right less often."
            ),
        ),
    ]


def _measured() -> str:
    return text(
        "The best run with features of each setting, on the images of the figures. k-NN: the {neighbours} nearest "
        "neighbours; linear probe: logistic regression on scaled features; both by {folds}-fold cross-validation. "
        "Silhouette: how well the features separate the classes, from −1 to 1.",
        neighbours=embedding.NEIGHBOURS,
        folds=embedding.FOLDS,
    )


def _name(run: pd.Series) -> str:
    return text("{setting} (seed {seed})", **confusion.words_of(run))


def layers_of(best: pd.DataFrame, seen: Mapping[str, Seen]) -> pd.DataFrame:
    """Return one row per run and layer, with its number of features and its measures of separability."""
    # accuracies in percent
    return pd.DataFrame(
        [
            {
                "run": run,
                "setting": best.setting[run],
                "layer": name,
                "images": len(images.targets),
                "numbers": layer.numbers,
                "knn": 100 * layer.knn,
                "probe": 100 * layer.probe.mean(),
                "silhouette": layer.silhouette,
            }
            for run, images in seen.items()
            for name, layer in images.layers.items()
        ]
    )


def cuts_of(best: pd.DataFrame, seen: Mapping[str, Seen]) -> pd.DataFrame:
    """Return one row per setting and layer after which a cut would save parameters, and one for the whole network.

    Columns: setting, layer, `numbers` (features, none for the whole network), `params` of the remaining network with a
    linear classifier, `params_share` of the whole in percent, `accuracy` on the images (cross-validated for a cut), and
    `difference` in points with `difference_ci95`, half the width of its 95 % interval over images. It is from the same
    kind of classifier on the layer before the last, because what that lacks of the whole network is due to the
    classifier; for a cut there, or without this layer, it is from the whole network. `uncut` says which, and
    `uncut_accuracy` is its accuracy. Parameters that only training uses are not counted.
    """
    rows = []
    for run, images in seen.items():
        # cuts that save parameters
        whole = best.params_logits[run]
        classes = len(np.unique(images.targets))
        setting = best.setting[run]
        cuts = []
        last = images.layers.get(FEATURES)
        for name in [name for name in images.layers if name != embedding.LAYERS[-1]]:
            layer = images.layers[name]
            params = best[f"params_{name}"][run] + (layer.numbers + 1) * classes
            if params < whole:  # False for NaN, if a run did not record it
                uncut, what = (last.probe, FEATURES) if last and name != FEATURES else (images.right, "whole")
                lost = estimate(100.0 * (layer.probe.astype(float) - uncut))
                cuts.append(
                    {
                        "setting": setting,
                        "layer": name,
                        "numbers": layer.numbers,
                        "params": params,
                        "params_share": 100 * params / whole,
                        "accuracy": 100 * layer.probe.mean(),
                        "uncut": what,
                        "uncut_accuracy": 100 * uncut.mean(),
                        "difference": lost.mean,
                        "difference_ci95": lost.half_width or 100 * RULE_OF_THREE / lost.n,
                    }
                )

        # the same classifier in place of the last layer, and the whole network
        if cuts:
            all_of_it = {"setting": setting, "params": whole, "params_share": 100.0}
            rows += cuts
            if last and cuts[-1]["layer"] != FEATURES:
                features = {"layer": FEATURES, "numbers": last.numbers, "accuracy": 100 * last.probe.mean()}
                rows.append(all_of_it | features)
            rows.append(all_of_it | {"layer": "whole", "accuracy": 100 * images.right.mean()})
    columns = ["setting", "layer", "numbers", "params", "params_share", "accuracy", "uncut", "uncut_accuracy"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "difference_ci95"])


def _separable(layers: pd.DataFrame, name: str) -> str:
    """Report how separable the classes are, layer by layer."""
    words = {
        key: text(" → ").join(number(value, spec) for value in layers[key])
        for key, spec in (("knn", ".1f"), ("probe", ".1f"), ("silhouette", ".2f"))
    }
    return text(
        "From layer to layer of {run}: linear probe **{probe} %**; k-NN {knn} %; silhouette {silhouette}.",
        run=name,
        **words,
    )


def _prices(run: pd.Series, cuts: pd.DataFrame, probed: int, trained: int) -> list[str]:
    """Report what cuts of the network of a run save and cost.

    The classifiers of the cuts learn from `probed` images, the network learned from `trained`.
    """
    sentences = []
    for row in cuts[cuts.difference.notna()].itertuples():
        # the price, as far as its interval allows a decision
        low = row.difference - row.difference_ci95
        high = row.difference + row.difference_ci95
        price = "none" if low > 0 else "low" if low > -PRICE else "high" if high < -PRICE else "unclear"
        if trained < probed and price != "high":
            price = "unknown"
        sentences.append(
            text(
                "Cut after {layer}, {run} keeps **{params:,.0f}** of {whole:,.0f} parameters ({share:.1f} %) and "
                "recognises **{accuracy:.1f} %** instead of {own:.1f} % {uncut} ({difference:+.1f} ± {half_width:.1f} "
                "points): {price}.",
                run=_name(run),
                layer=text(CUTS[row.layer]),
                params=row.params,
                whole=run.params_logits,
                share=row.params_share,
                accuracy=row.accuracy,
                own=row.uncut_accuracy,
                uncut=text(UNCUT[row.uncut]),
                difference=row.difference,
                half_width=row.difference_ci95,
                price=text(PRICES[price], points=PRICE, probed=probed, trained=trained),
            )
        )

    # the share of the last layer in the parameters
    if np.isnan(run.params_penultimate):
        return sentences
    last = run.params_logits - run.params_penultimate
    share = 100 * last / run.params_logits
    return [
        *sentences,
        text(
            "The last layer of {run} alone has {params:,.0f} of {whole:,.0f} parameters ({share:.2f} %).",
            run=_name(run),
            params=last,
            whole=run.params_logits,
            share=share,
        ),
    ]
