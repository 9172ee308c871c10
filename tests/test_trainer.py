"""The training loop, through its public methods, on real digits."""

import dataclasses

import numpy as np
import pytest
import torch

from study import data, models
from study.config import NETWORKS, Config
from study.errors import UserError
from study.trainer import Trainer

CPU = torch.device("cpu")


def digits(**values):
    return data.load(Config(dataset="digits", **values), "cpu", say=lambda text: None)


def trainer(images=None, **values) -> Trainer:
    config = Config(**{"dataset": "digits", "model": "cnn", "epochs": 3, **values})
    return Trainer(config, images or digits(), CPU)


def fit(one: Trainer, **kwargs) -> tuple[str, list[dict]]:
    rows = []
    return one.fit(rows.append, **kwargs), rows


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_learns_a_tiny_set_by_heart(name):
    few = dataclasses.replace(digits(), train=digits().train[:32])
    one = trainer(few, model=name, epochs=80, batch_size=8, optimizer="adam", lr=0.003)
    state, rows = fit(one)
    assert state == "finished"
    assert rows[-1]["train/acc"] == 1.0
    assert rows[-1]["train/loss"] < 0.1


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_well_formed(name):
    model = models.create(Config(model=name, dropout=0.5), (3, 32, 32), 10)
    images = torch.randn(4, 3, 32, 32)
    logits = model(images)
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())
    found = models.activations(model.eval(), images)
    assert torch.equal(found["logits"], model(images))
    assert all(len(tensor) == 4 and 1 < tensor.shape[1] <= 512 for tensor in found.values())


BLOCK_1, BLOCK_2, BLOCK_3 = 27 * 32, 288 * 64, 576 * 128
"""Weights of the three convolutions: 3·3·channels·filters."""


@pytest.mark.parametrize(
    ("name", "params", "multiply_adds"),
    [
        (
            "two-block",
            BLOCK_1 + 32 + BLOCK_2 + 64 + 409_700 + 1_010,
            BLOCK_1 * 32**2 + BLOCK_2 * 16**2 + 409_600 + 1000,
        ),
        ("mlp", 307_300 + 1_010, 307_200 + 1_000),
        (
            "all-conv",
            BLOCK_1 + 32 + BLOCK_2 + 64 + BLOCK_3 + 128 + 1_290,
            BLOCK_1 * 32**2 + BLOCK_2 * 16**2 + BLOCK_3 * 8**2 + 1_280 * 4**2,
        ),
    ],
)
def test_parameters_and_flops(name, params, multiply_adds):
    counted = models.count(models.create(Config(model=name), (3, 32, 32), 10), (3, 32, 32))
    assert counted == {"params": params, "param_bytes": 4 * params, "flops": 2 * multiply_adds}


def test_images_too_small_for_a_network_are_refused():
    with pytest.raises(UserError, match="cnn needs images of at least 8 px, not 4×4"):
        models.create(Config(model="cnn"), (1, 4, 4), 10)


def test_test_accuracy_is_that_of_the_weights_that_were_best_on_validation():
    one = trainer(epochs=12, lr=0.05, momentum=0.98)
    kept = []

    def keep(row):
        kept.append((row, {name: value.clone() for name, value in one.model.state_dict().items()}))

    one.fit(keep)
    row, weights = max(kept, key=lambda pair: pair[0]["val/acc"])
    assert row["epoch"] < 12, "this test needs a run whose best epoch is not its last"
    summary, arrays = one.evaluate()
    assert (summary["best/epoch"], summary["best/val_acc"]) == (row["epoch"], row["val/acc"])
    assert summary["last/val_acc"] == kept[-1][0]["val/acc"]

    model = models.create(one.config, one.data.image_shape, 10)
    model.load_state_dict(weights)
    test = one.data.test
    with torch.no_grad():
        predicted = model.eval()(one.data.normalise(test.images)).argmax(1)
    assert summary["test/acc"] == (predicted == test.labels).sum().item() / len(test)
    assert np.array_equal(arrays["test_probabilities"].argmax(1), predicted.numpy())
    wrong = set(torch.where(predicted != test.labels)[0].tolist())
    assert set(arrays["mistake_index"].tolist()) <= wrong
    assert len(arrays["mistake_index"]) == min(64, len(wrong))
    assert (np.diff(arrays["mistake_confidences"]) <= 0).all()


def test_the_test_set_is_not_looked_at_while_training():
    blind = dataclasses.replace(digits(), test=None)
    state, rows = fit(trainer(blind))
    assert (state, len(rows)) == ("finished", 3)


def same(rows):
    """Keep what does not depend on the clock."""
    return [{key: value for key, value in row.items() if not key.startswith(("time", "memory"))} for row in rows]


def test_a_seed_gives_the_same_bits():
    first, again, other = (fit(trainer(dropout=0.5, augment="crop,flip", seed=seed))[1] for seed in (1, 1, 2))
    assert same(first) == same(again)
    assert same(first) != same(other)


@pytest.mark.parametrize("stop_at", [1, 7, 18, 23, 53])
def test_going_on_from_any_batch_equals_an_undisturbed_run(tmp_path, stop_at):
    values = {"dropout": 0.5, "augment": "crop,flip", "optimizer": "adam"}
    undisturbed = trainer(**values)
    _, expected = fit(undisturbed)

    one, seen = trainer(**values), []
    state, rows = fit(
        one,
        on_batch=lambda batch, batches: seen.append(batch),
        checkpoint=lambda one: torch.save(one.state_dict(), tmp_path / "last.pt"),
        must_stop=lambda: len(seen) == stop_at,
    )
    assert state == "interrupted"
    other = trainer(**values)
    other.load(tmp_path / "last.pt")
    state, more = fit(other)
    assert state == "finished"
    assert same(rows + more) == same(expected)
    ours, theirs = other.evaluate(), undisturbed.evaluate()
    assert {k: v for k, v in ours[0].items() if k != "train_seconds"} == {
        k: v for k, v in theirs[0].items() if k != "train_seconds"
    }
    assert all(np.array_equal(ours[1][name], theirs[1][name]) for name in ours[1])


def test_a_run_that_diverges_says_so():
    state, rows = fit(trainer(lr=1e6, model="mlp"))
    assert state == "diverged"
    assert not np.isfinite(rows[-1]["train/loss"])
