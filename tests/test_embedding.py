"""What networks see: embeddings and separability of features, on scikit-learn's digits."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.themes import clouds, embedding, layers
from tests.test_analysis import assert_labelled, text_of


@pytest.fixture(scope="module")
def digits(digit_images):
    """Return the pixels of 200 digits as features, and their classes."""
    images, labels = digit_images
    return images[:200].reshape(200, -1).astype(np.float16), labels[:200]


def seen(points, targets, images=None):
    layer = embedding.Layer(64, points, 0.9, np.ones(len(points), bool), 0.2)
    images = np.arange(len(points)) if images is None else images
    return embedding.Seen(images, targets, targets, dict.fromkeys(embedding.LAYERS, layer))


def test_tsne_keeps_classes_together_and_is_repeatable(digits):
    features, targets = digits
    points = embedding.tsne(features)
    assert points.shape == (200, 2)
    assert embedding.separability(points, targets)["knn"] > 0.85
    assert np.array_equal(points, embedding.tsne(features))


@given(st.integers(embedding.FEWEST_IMAGES, 5000))
def test_perplexity_stays_below_a_third_of_the_images(images):
    assert 1 <= embedding.perplexity(images) <= 30 and embedding.perplexity(images) < images / 3


def test_separability_tells_features_from_noise(digits):
    features, targets = digits
    found = embedding.separability(features, targets)
    assert found["knn"] > 0.85 and found["probe"].mean() > 0.85 and found["silhouette"] > 0.1
    noise = embedding.separability(np.random.default_rng(0).normal(size=features.shape), targets)
    assert noise["knn"] < 0.3 and noise["probe"].mean() < 0.3 and noise["silhouette"] < 0.05


def test_strange_features_are_measured_too(digits):
    features, targets = digits
    features, targets = features.copy(), targets.copy()
    features[0, 0], features[1, 1] = np.inf, -np.inf
    targets[5] = 10  # a class with a single image cannot be learnt from the others
    found = embedding.separability(features, targets)
    assert not found["probe"][5] and found["probe"].mean() > 0.8
    assert np.isfinite(embedding.tsne(features[:20])).all()
    dead = np.zeros((40, 7), np.float16)
    assert np.array_equal(embedding.tsne(dead), np.zeros((40, 2)))
    assert embedding.separability(dead, np.arange(40) % 2)["knn"] <= 0.6


def test_embeddings_of_the_same_images_are_turned_alike(digits):
    points, (_, targets) = np.random.default_rng(0).normal(size=(200, 2)), digits
    turned = points @ np.array([[0.6, 0.8], [0.8, -0.6]]) + 3  # turned, mirrored and moved
    found = embedding.align({"a": seen(points, targets), "b": seen(turned, targets),
                             "c": seen(turned, targets, np.arange(200) + 1)})  # fmt: skip
    a, b, c = (one.layers["penultimate"].points for one in found.values())
    assert np.allclose(a, points - points.mean(0))
    assert np.allclose(b, a)
    assert np.allclose(c, turned - turned.mean(0)), "other images are not"


@pytest.mark.parametrize("classes", [10, 100])
def test_a_row_of_panels_per_run_on_one_scale(classes):
    random = np.random.default_rng(0)
    targets = np.arange(300) % classes
    middles = random.normal(size=(classes, 2))
    rows = {name: seen(scale * (middles[targets] + 0.05 * random.normal(size=(300, 2))), targets)
            for name, scale in (("one", 10), ("two", 20))}  # fmt: skip
    names = [f"class {index}" for index in range(classes)]
    figure = clouds.tsne_figure(rows, names, "t-SNE")
    assert len(figure.axes) == 6 and len({axes.get_xlim() + axes.get_ylim() for axes in figure.axes}) == 1
    assert_labelled(figure)
    assert "t-SNE" in text_of(figure)
    shown = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert len(figure.legends[0].get_texts()) == (10 if classes == 10 else 0)
    assert shown <= set(names) and (classes == 10 or len(shown) > 20)


def test_a_cut_is_counted_where_it_saves(digits):
    _, targets = digits
    one = seen(np.zeros((200, 2)), targets)
    best = pd.DataFrame({"setting": ["s"], "params_intermediate": [1000.0], "params_penultimate": [9000.0],
                         "params_logits": [9650.0]}, index=["a"])  # fmt: skip
    cuts = layers.cuts_of(best, {"a": one})
    assert cuts.layer.tolist() == ["intermediate", "penultimate", "whole"]
    assert cuts.params.tolist() == [1000 + 65 * 10, 9650, 9650], "a classifier in place of the last layer saves nothing"
    assert cuts.accuracy.tolist() == [100, 100, 100] and cuts.difference[0] == 0
    assert cuts.difference_ci95[0] == 300 / len(one.targets), "the rule of three: no image differs"

    # what the same classifier does not recognise from the layer before the last is no price of the cut
    both, one_only = (
        replace(one, layers=one.layers | {
            name: replace(one.layers[name], probe=one.layers[name].probe & (np.arange(200) >= 20)) for name in names
        })
        for names in (("intermediate", "penultimate"), ("intermediate",))
    )  # fmt: skip
    assert layers.cuts_of(best, {"a": both}).difference[0] == 0
    assert layers.cuts_of(best, {"a": one_only}).difference[0] == pytest.approx(-10)
    small = layers.cuts_of(best.assign(params_penultimate=2000.0), {"a": both})
    assert small.uncut.tolist()[:2] == ["penultimate", "whole"] and small.difference.tolist()[:2] == [0, -10]
    assert layers.cuts_of(best.assign(params_logits=np.nan), {"a": one}).empty


@pytest.mark.parametrize(
    ("trained", "price", "note"),
    [(50, "learned from about 160 images, the network from only 50", "overestimates the accuracy of a cut"),
     (5000, "too few images to decide", "underestimates the accuracy of a cut")],
)  # fmt: skip
def test_a_cut_is_said_to_be_flattered_where_its_classifier_learned_from_more_images(digits, trained, price, note):
    _, targets = digits
    one = seen(np.zeros((200, 2)), targets)
    for layer in one.layers.values():
        layer.probe[:2] = False  # 1 % of the images: a price that is not known to be less than a point
    best = pd.DataFrame({"setting": ["s"], "params_intermediate": [1000.0], "params_penultimate": [9000.0],
                         "params_logits": [9650.0], "seed": [0], "dataset": ["digits"]}, index=["a"])  # fmt: skip
    _, prices, table = layers.cut(best, {"a": one}, {"a": trained})
    assert price in prices.texts[0]
    assert note in " ".join(table.notes)


@pytest.mark.parametrize(("members", "enough"), [([10, 9], False), ([10, 10], True), ([30], False), ([2] * 50, False)])
def test_too_few_images_are_not_looked_at(members, enough):
    assert embedding.is_enough(np.repeat(np.arange(len(members)), members)) == enough


def test_a_layer_is_looked_at_once(digits, monkeypatch):
    first = embedding.look_at(*digits)
    monkeypatch.setattr(embedding, "tsne", lambda features: pytest.fail("it is in the cache"))
    again = embedding.look_at(*digits)
    assert np.array_equal(first.points, again.points) and np.array_equal(first.probe, again.probe)
    assert (first.numbers, first.knn, first.silhouette) == (again.numbers, again.knn, again.silhouette)


def test_the_same_features_are_looked_at_once_though_rounded_otherwise(digits, monkeypatch):
    features, targets = digits
    others = {"svm": features * (1 + 1e-4), "tuned": features[:, ::-1]}
    arrays = {
        run: {"logits": found, "penultimate": found, "intermediate": found, "feature_targets": targets,
              "feature_index": np.arange(200)}
        for run, found in {"head": features, **others}.items()
    }  # fmt: skip
    frames = SimpleNamespace(
        directories={run: SimpleNamespace(evaluation=lambda run=run: arrays[run]) for run in arrays}
    )
    monkeypatch.setattr(embedding, "tsne", lambda features: np.zeros((200, 2)))
    head, svm, tuned = (one.layers["penultimate"] for one in embedding.see(frames, list(arrays)).values())
    assert head is svm and head is not tuned


def test_threads_of_scikit_learn_that_share_the_filters_of_warnings_raise_no_false_alarm(digits):
    features, targets = digits
    arrays = {
        "feature_index": np.arange(200), "feature_targets": targets, "penultimate": features,
        "logits": np.eye(10, dtype=np.float16)[targets],
    }  # fmt: skip
    frames = SimpleNamespace(directories={"run": SimpleNamespace(evaluation=lambda: arrays)})
    said = []
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *args, **options: said.append(str(message))
        warnings.resetwarnings()  # what one thread does while another looks
        embedding.see(frames, ["run"])
        warnings.warn("another", stacklevel=1)
    assert said == ["another"]
