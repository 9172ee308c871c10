"""The benefit of pretraining: training from scratch, features of a frozen network and fine-tuning, compared.

python -c "from analysis.frames import runs, sections; from analysis.themes import transfer; \\
    print(transfer.compare(sections.by_dataset(runs.load('runs'))[0], {}))"
"""

from collections.abc import Callable, Mapping

import pandas as pd

from analysis.frames import contrasts
from analysis.frames.runs import Frames
from analysis.frames.sections import Section, best_with_features
from analysis.frames.statistics import ALPHA, estimates
from analysis.page.blocks import Block, Heading, Items, Picture
from analysis.page.figures import Looks
from analysis.page.tables import SIGNIFICANT, Column, Table, p_words
from analysis.themes import clouds, embedding
from analysis.themes.embedding import Seen
from analysis.themes.speed import is_timed
from analysis.wording.texts import mark, named, shown, text
from analysis.wording.words import LAYERS

LAYER = "penultimate"
"""The features whose separability is compared: the input of the last layer."""

WAYS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "scratch": lambda runs: ~runs.pretrained.eq(True),
    "svm": lambda runs: runs.finetune == "svm",
    "head": lambda runs: runs.finetune == "head",
    "tuned": lambda runs: (runs.finetune == "all") & ~runs.augment.map(bool),
    "augmented": lambda runs: (runs.finetune == "all") & runs.augment.map(bool),
}
"""Ways to use a network, with the runs of each; every run has exactly one way."""

NAMES = {
    "scratch": mark("from scratch"),
    "svm": mark("pretrained features + linear SVM"),
    "head": mark("frozen body, new head"),
    "tuned": mark("fine-tuned"),
    "augmented": mark("fine-tuned with augmentation"),
}
"""Names of the ways."""

SHOWN = 8
"""At most this many settings, the best ones, are embedded; the table has all of them."""

QUESTIONS = {
    mark(
        "Pretrained or from scratch? **{setting}** against **{other}**, {difference:+.2f} points [{low:.2f}, "
        "{high:.2f}], {p}: {result}."
    ): (("svm", "head", "tuned", "augmented"), ("scratch",)),
    mark(
        "Fine-tuned or frozen? **{setting}** against **{other}**, {difference:+.2f} points [{low:.2f}, {high:.2f}], "
        "{p}: {result}."
    ): (("tuned",), ("svm", "head")),
    mark(
        "Fine-tuned with augmentation or without? **{setting}** against **{other}**, {difference:+.2f} points "
        "[{low:.2f}, {high:.2f}], {p}: {result}."
    ): (("augmented",), ("tuned",)),
}
"""Questions with their answers, and the two groups of ways whose best settings are compared to answer each."""


def blocks(frames: Frames, section: Section, looks: Looks) -> list[Block]:
    """Compare the ways to use a pretrained network, if the section has any."""
    if not section.runs.pretrained.eq(True).any():
        return []

    # the features of the best settings
    best = best_with_features(frames, section, SHOWN).setting[:SHOWN]
    seen = embedding.see(frames, list(best.index))
    seen = {run: images for run, images in seen.items() if LAYER in images.layers}
    names = way_names(section)

    # the answers and the table
    frame = compare(section, {best[run]: images for run, images in seen.items()})
    columns = [
        Column("way", text=lambda row: text(NAMES[row["way"]])),
        Column("setting"),
        Column("n", 0),
        Column("score_last", 2, is_percentage=True),
        Column("score", 2, is_percentage=True),
        Column("test_score", 2, is_percentage=True),
        Column("probe", 1),
        Column("silhouette", 3),
        Column("train_seconds", SIGNIFICANT),
    ]

    # columns with values; a note on settings whose seeds give the same result
    columns = [column for column in columns if frame[column.key].notna().any()]
    layer = text(LAYERS[LAYER])
    notes = [
        text(
            "Differences are in the best validation accuracy. Test accuracy is that of the best epoch. Linear probe "
            "and silhouette measure how separable the classes are in the features themselves ({layer}) of the best "
            "run of each setting. Seconds are those of a whole training with its validation; those of an SVM include "
            "the extraction of its features, even if other runs share them.",
            layer=layer,
        )
    ]
    if same := seedless(section):
        notes.append(
            text(
                "All seeds of {settings} gave the same result: the classifier learns from the same images with every "
                "seed, so here it does not depend on the seed, and its ± comes only from rounding to whole images.",
                settings=named([names[setting] for setting in same]),
            )
        )
    content: list[Block] = [
        Heading(text("What pretraining is worth")),
        *([Items(found)] if (found := answers(section)) else []),
        Table("transfer", text("From scratch, frozen, fine-tuned: {name}", name=section.title), frame, columns, notes),
    ]

    # the embeddings side by side; settings with the same features share a panel
    if len(seen) > 1:
        title = text("t-SNE of each way, {layer}: {name}", layer=layer, name=section.title)
        panels: dict[int, list[str]] = {}
        for run, images in seen.items():
            panels.setdefault(id(images.layers[LAYER]), []).append(run)
        classes = frames.data(best.index[0])["classes"]
        aligned = embedding.align({runs[0]: seen[runs[0]] for runs in panels.values()})
        drawn = {"; ".join(names[best[run]] for run in runs): aligned[runs[0]] for runs in panels.values()}
        figure = clouds.side_by_side(drawn, LAYER, classes, title)
        content.append(
            Picture(
                "transfer-tsne",
                title,
                figure,
                text(
                    "The best run of each setting on the same validation images, on one scale and rotated to match "
                    "each other; settings with the same features share a panel. The numbers are measured in the "
                    "features themselves, because a picture in two dimensions can mislead."
                ),
            )
        )
    return content


def ways(section: Section) -> pd.Series:
    """Return the way of each setting, one of WAYS."""
    runs = section.runs
    of_run = pd.Series("", runs.index).case_when([(is_way(runs), way) for way, is_way in WAYS.items()])
    return of_run.groupby(runs.setting).first()


def way_names(section: Section) -> dict[str, str]:
    """Name each setting by its way, followed by the setting if several have the same way."""
    of_setting = ways(section)
    words = {way: text(NAMES[way]) for way in WAYS}
    alone = ~of_setting.duplicated(keep=False)
    return {
        setting: words[way] if alone[setting] else text("{way} ({setting})", way=words[way], setting=shown(setting))
        for setting, way in of_setting.items()
    }


def seedless(section: Section) -> list[str]:
    """Return the settings of SVMs whose seeds all gave the same result, because they learn from the same images."""
    svms = section.runs[WAYS["svm"](section.runs)].groupby("setting")
    results = svms[["best/val_acc", "test/acc"]].nunique().max(axis=1)
    return [setting for setting in section.ranked if setting in results.index[(results == 1) & (svms.size() > 1)]]


def compare(section: Section, seen: Mapping[str, Seen]) -> pd.DataFrame:
    """Return one row per setting, the best validation score first.

    Columns: `way` (one of WAYS), `setting`, `n`; `score_last`, `score` (best epoch) and `test_score` in percent, with
    half the width of their intervals over seeds as `…_ci95`; `probe` in percent and `silhouette` of the features, for
    settings in `seen`; `train_seconds` of the runs chosen by `speed.is_timed`.
    """
    # means over seeds
    runs = section.runs
    measured = pd.DataFrame(
        {
            "setting": runs.setting,
            "score_last": section.scores(runs, "last"),
            "score": section.scores(runs),
            "test_score": section.scores(runs, "test"),
            "train_seconds": runs["train_seconds"].where(is_timed(section)),
        }
    )
    frame = estimates(measured, "setting", list(measured.columns[1:]), contrasts.rounding(section))
    frame["n"] = runs.groupby("setting").size()
    frame["way"] = ways(section)

    # separability of the features
    layers = {setting: images.layers[LAYER] for setting, images in seen.items()}
    frame["probe"] = pd.Series({setting: 100 * layer.probe.mean() for setting, layer in layers.items()}, dtype=float)
    frame["silhouette"] = pd.Series({setting: layer.silhouette for setting, layer in layers.items()}, dtype=float)
    return contrasts.in_order(section, frame).reset_index()


def answers(section: Section) -> list[str]:
    """Report whether pretraining, fine-tuning and augmentation help."""
    pairs = contrasts.pairwise(section)
    of_setting = ways(section)
    names = way_names(section)
    sentences = []
    for question, asked in QUESTIONS.items():
        # the best setting of each group of ways
        a, b = (next((setting for setting in section.ranked if of_setting[setting] in group), None) for group in asked)
        if (a, b) in pairs.index and pairs.holm[a, b] == pairs.holm[a, b]:  # not NaN
            # their difference, and whether it is proven
            pair = pairs.loc[a, b]
            result = text("more than noise (p < 0.05)") if pair.holm < ALPHA else text("may be noise")
            sentences.append(
                text(
                    question,
                    setting=names[a],
                    other=names[b],
                    result=result,
                    difference=pair.difference,
                    low=pair.difference - pair.half_width,
                    high=pair.difference + pair.half_width,
                    p=p_words(pair.holm),
                )
            )
    if sentences or of_setting.nunique() < 2:
        return sentences
    if section.runs.setting.duplicated().any():
        return [text("No two of these ways can be compared.")]
    return [text("With one seed, there is no evidence that one way is better than another.")]
