"""The words that a report uses and not every reader knows, with a definition and a source each.

python -c "from analysis.themes import glossary; print(glossary.terms([]))"
"""

from collections.abc import Sequence

from analysis.frames.sections import ACCURACY, Section
from analysis.page.blocks import Terms
from analysis.wording.texts import mark, ranked_by, text

WIKIPEDIA = "https://en.wikipedia.org/wiki/"

SCORE = (
    mark("Best val acc, test acc"),
    mark(
        "The best validation accuracy of all epochs, by which settings are ranked; it is a little optimistic. The "
        "test accuracy is that of the same weights on images used only once."
    ),
    "",
    "",
)
"""The entry that says what settings are ranked by."""

ENTRIES: tuple[tuple[str, str, str, str], ...] = (
    (
        mark("± and [ , ]"),
        mark(
            "Half the width, or the ends, of a 95 % interval. Of one setting: over its seeds (Student t). Of a "
            "difference: simultaneous, that is corrected for all pairs of the section, so that it includes 0 "
            "exactly where p ≥ 0.05."
        ),
        WIKIPEDIA + "Confidence_interval",
        "seeds",
    ),
    SCORE,
    (
        mark("Bold, clearly, undecided"),
        mark(
            "Bold: the best setting, and all that are not shown to be worse. Clearly: p < 0.05 after the correction, "
            "a risk of about 5 % for each family of comparisons, such as those of the accuracy. As good: the interval "
            "of the difference lies within the smallest difference that matters. Undecided: neither."
        ),
        "",
        "seeds",
    ),
    (
        mark("p (Holm)"),
        mark(
            "The p value corrected for the number of comparisons: if there were no differences at all, how often one "
            "of them would be as clear as this one or clearer."
        ),
        WIKIPEDIA + "Holm%E2%80%93Bonferroni_method",
        "seeds",
    ),
    (
        mark("Paired and Welch's t test"),
        mark(
            "Settings that begin with the same weights and see the images in the same order are compared seed by seed "
            "(paired); others by Welch's test, which does not assume equal variances."
        ),
        WIKIPEDIA + "Welch%27s_t-test",
        "seeds",
    ),
    (
        mark("Moderated variance"),
        mark(
            "How much results vary is estimated from the two settings and, to a lesser part, from all pairs of the "
            "section (Smyth 2004): with few seeds, two settings alone say little about it."
        ),
        "https://doi.org/10.2202/1544-6115.1027",
        "seeds",
    ),
    (
        mark("On these images"),
        mark(
            "With other images of the same kind, the difference could vary more than with other seeds, so the claim "
            "holds for these images."
        ),
        "",
        "seeds",
    ),
    (
        mark("Gap"),
        mark(
            "Accuracy on training images minus accuracy on validation images, both without dropout and augmentation. "
            "The wider it is, the more of what was learned holds for the training images only (overfitting)."
        ),
        WIKIPEDIA + "Overfitting",
        "",
    ),
    (
        mark("Twice the epochs"),
        mark(
            "What a power law fitted to the whole validation curve would gain; of a network that begins to overfit it "
            "is an upper estimate."
        ),
        "https://doi.org/10.1109/TPAMI.2022.3220744",
        "epochs",
    ),
    (
        mark("McNemar's test"),
        mark("Compares two trained networks by the test images that only one of them classifies correctly."),
        WIKIPEDIA + "McNemar%27s_test",
        "more",
    ),
    (
        mark("Wilson interval"),
        mark("The 95 % sampling interval of a share of images, such as the brackets of a test result."),
        WIKIPEDIA + "Binomial_proportion_confidence_interval",
        "",
    ),
    (
        mark("Pareto front"),
        mark("The settings for which no other is better at the same cost or less."),
        WIKIPEDIA + "Pareto_front",
        "more",
    ),
    (
        mark("Linear probe, k-NN, silhouette"),
        mark(
            "How well the features of a layer separate the classes: the accuracy of a linear classifier and of the "
            "nearest neighbours on them (cross-validated), and how compact the classes are, from −1 to 1."
        ),
        WIKIPEDIA + "Silhouette_(clustering)",
        "features",
    ),
    (
        mark("t-SNE"),
        mark(
            "A picture of features in two dimensions that keeps neighbours together; distances between groups and "
            "their sizes mean little."
        ),
        WIKIPEDIA + "T-distributed_stochastic_neighbor_embedding",
        "features",
    ),
)
"""Terms, definitions, addresses, and what a term is about: comparing several `seeds`, what a question asks, or `more`
than the short form; of those without, the short form always has them."""


def terms(sections: Sequence[Section]) -> tuple[Terms, Terms]:
    """Return the terms of the short form, and those that only the rest of the report uses.

    Without any setting of several seeds, those of their comparison are left out. What settings are ranked by is
    explained once for each metric that the sections have.
    """
    several = not sections or any(section.runs.setting.duplicated().any() for section in sections)
    metrics = dict.fromkeys(section.metric for section in sections) or (ACCURACY,)
    in_short = {"", "seeds"}.union(*(section.subjects for section in sections))
    short, rest = [], []
    for entry in ENTRIES:
        term, words, link, about = entry
        for metric in metrics if entry is SCORE else (ACCURACY,):
            with ranked_by(metric):
                if several or about != "seeds":
                    (short if about in in_short else rest).append((text(term), text(words), link))
    return Terms(short), Terms(rest)
