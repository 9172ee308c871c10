"""The training loop, through its public methods, on real digits."""

import copy
import dataclasses
import itertools
import platform
import resource
import weakref
from pathlib import Path

import numpy as np
import pytest
import timm.optim
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.optim import lr_scheduler

from study import models
from study.config import Config, affects
from study.config.choices import AUGMENTATIONS, SCHEDULES
from study.config.scores import CHOOSING
from study.data import dataset as data
from study.data.memory import Memory
from study.system import devices
from study.system.errors import UserError
from study.training import evaluation, optim, step
from study.training import trainer as trainer_module
from study.training.trainer import Trainer

CPU = torch.device("cpu")
MEMORY = Memory()


def digits(device="cpu", **values):
    return data.load(Config(**{"dataset": "digits", **values}), device, say=lambda text: None, memory=MEMORY)


def trainer(images=None, device=CPU, **values) -> Trainer:
    config = Config(**{"dataset": "digits", "model": "cnn", "epochs": 3, **values})
    chosen = {"train_images": config.train_images, "seed": config.seed, "image_size": config.image_size}
    return Trainer(config, images or digits(device, **chosen), device, say=pytest.fail)


def fit(one: Trainer, **kwargs) -> tuple[str, list[dict]]:
    rows = []
    return one.fit(rows.append, **kwargs), rows


@pytest.mark.parametrize(
    ("values", "is_fused"),
    [
        ({"momentum": 0.5}, True),
        ({"momentum": 0.25, "nesterov": True}, True),
        ({"momentum": 0.0}, True),
        ({"momentum": 0.9}, False),
        ({"momentum": 0.5, "weight_decay": 0.01}, False),
        ({"momentum": 0.5, "model": "cnn"}, False),
    ],
)
def test_sgd_on_a_cpu_is_fused_where_the_bits_are_the_same(values, is_fused):
    networks = []
    for wanted in (is_fused, False):
        one = trainer(**{"model": "mlp", "lr": 0.1, **values})
        assert one.optimizer.param_groups[0]["fused"] == is_fused
        one.optimizer.param_groups[0]["fused"] = wanted
        assert fit(one)[1][-1]["val/acc"] > 0.3, "it learns: one of ten classes is right by chance"
        networks.append(one.model)
    for weights in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(*weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single-block", "two-block", "cnn", "mlp", "all-conv", "net3", "simple-cnn"])
def test_a_network_learns_a_tiny_set_by_heart(name):
    few = dataclasses.replace(digits(), train=digits().train[:32], val=digits().val[:32])
    one = trainer(few, model=name, epochs=80, batch_size=8, optimizer="adam", lr=0.003)
    state, rows = fit(one)
    assert state == "finished"
    assert rows[-1]["train/acc"] == 1.0
    assert rows[-1]["train/loss"] < 0.1


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

    again = one.evaluate()[0]
    assert again == summary, "an evaluation leaves the network as it was trained last"
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


@pytest.mark.parametrize(
    "values",
    [
        {"model": "mlp", "lr": 0.1, "momentum": 0.8, "weight_decay": 0.01},
        {"model": "mlp", "lr": 0.1, "momentum": 0.8, "nesterov": True, "label_smoothing": 0.2, "clip_norm": 0.3},
        {"model": "mlp", "optimizer": "timm:lion", "lr": 0.01, "weight_decay": 0.3},
        {"model": "mlp", "augment": "mixup,cutmix", "label_smoothing": 0.2},
        {"model": "googlenet", "lr": 0.01, "aux_weight": 0.5, "train_images": 64, "batch_size": 4},
        {"model": "googlenet", "lr": 0.01, "train_images": 64, "batch_size": 4, "class_weights": "balanced"},
        {"model": "mlp", "lr": 0.1, "label_smoothing": 0.2, "class_weights": "balanced"},
    ],
)
def test_three_steps_are_those_of_a_plain_script(values):
    one = trainer(**values)
    twin, c, shown = copy.deepcopy(one.model), one.config, []
    one.step = (lambda step: lambda *batch: (shown.append(batch), step(*batch))[1])(one.step)
    torch.manual_seed(1)
    for _ in itertools.islice(one.train_epoch(), 3):
        pass
    weights = None
    if c.class_weights:
        balanced = compute_class_weight("balanced", classes=np.arange(10), y=one.data.train.labels.numpy())
        weights = torch.from_numpy(balanced).float()
    decay = {"lr": c.lr, "weight_decay": c.weight_decay}
    if c.optimizer == "sgd":
        plain = torch.optim.SGD(twin.parameters(), momentum=c.momentum, nesterov=c.nesterov, **decay)
    else:
        plain = timm.optim.Lion(twin.parameters(), **decay)
    torch.manual_seed(trainer_module.stream_seed(c.seed, 0, "dropout"))
    for images, labels in shown:
        outputs = twin.train()(images)
        losses = [
            torch.nn.functional.cross_entropy(out, labels, weights, label_smoothing=c.label_smoothing)
            for out in (outputs if isinstance(outputs, tuple) else (outputs,))
        ]
        plain.zero_grad()
        (losses[0] + (c.aux_weight or 0) * sum(losses[1:])).backward()
        if c.clip_norm:
            torch.nn.utils.clip_grad_norm_(twin.parameters(), c.clip_norm)
        plain.step()
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one.model.parameters(), twin.parameters(), strict=True))


def unbalanced() -> data.Data:
    """Return digits with some 300 zeros, 30 ones and no others for training."""
    whole = digits()
    places = [torch.where(whole.train.labels == label)[0] for label in (0, 1)]
    chosen = torch.cat([places[0], places[0], places[0][:80], places[1][:30]])
    few = {"val": whole.val[whole.val.labels < 2], "test": whole.test[whole.test.labels < 2]}
    return dataclasses.replace(whole, classes=("0", "1"), train=whole.train[chosen], **few)


def test_balanced_sampling_draws_each_class_equally_often():
    drawn = {}
    for sampling in (None, "balanced"):
        one = trainer(unbalanced(), model="mlp", sampling=sampling)
        batches = []
        one.train_batch = batches.append
        for _ in range(5):
            list(one.train_epoch())
            one.progress.batch, one.progress.epoch = 0, one.progress.epoch + 1
        labels = one.data.train.labels[torch.cat(batches)]
        assert len(labels) == 5 * len(one.data.train)
        drawn[sampling] = labels.float().mean().item()
        epochs = torch.cat(batches).view(5, -1)
        assert not (epochs[0] == epochs[1]).all()
        assert (len(epochs[0].unique()) == len(one.data.train)) == (sampling is None)
    assert drawn[None] == pytest.approx(30 / len(one.data.train)) and drawn["balanced"] == pytest.approx(0.5, abs=0.05)


def test_of_mixed_images_the_largest_share_is_to_be_predicted():
    model = torch.nn.Linear(2, 3, bias=False)
    take = step.create(model, torch.optim.SGD(model.parameters(), lr=0.0))
    images, shares = torch.randn(50, 2), torch.rand(50, 3).softmax(1)
    loss, correct = take(images, shares)
    logits = model(images)
    assert correct == (logits.argmax(1) == shares.argmax(1)).sum()
    assert loss.item() == pytest.approx(-(shares * logits.log_softmax(1)).sum(1).mean().item())


def test_a_seed_gives_the_same_bits():
    first, again, other = (fit(trainer(dropout=0.5, augment="crop,flip", seed=seed))[1] for seed in (1, 1, 2))
    assert same(first) == same(again)
    assert same(first) != same(other)


EVERYTHING = {
    "dropout": 0.5, "augment": ",".join(AUGMENTATIONS), "ema_decay": 0.9, "clip_norm": 1.0,
    "label_smoothing": 0.1, "early_stopping": 2, "decay_norm_bias": False, "weight_decay": 1e-3, "train_images": 500,
}  # fmt: skip


@pytest.mark.parametrize(
    ("stop_at", "options"),
    [
        (1, {"optimizer": "adamw", "schedule": "cosine", "warmup_epochs": 0.5}),
        (7, {"optimizer": "sgd", "nesterov": True, "schedule": "step", "step_epochs": 1, "warmup_epochs": 1}),
        (8, {"optimizer": "adam", "schedule": "onecycle", "sampling": "balanced"}),
        (13, {"optimizer": "timm:lamb", "early_stopping_metric": "val/acc", "schedule": "timm:cosine", "cycles": 2}),
        (17, {"lr": 0.3, "schedule": "timm:plateau", "step_epochs": 1, "step_factor": 0.5, "early_stopping": None}),
        (23, {"optimizer": "timm:lion", "schedule": "cosine", "alternating_flip": True, "class_weights": "balanced"}),
    ],
)
def test_going_on_from_any_batch_equals_an_undisturbed_run(tmp_path, stop_at, options):
    values = EVERYTHING | options
    undisturbed = trainer(**values)
    ended, expected = fit(undisturbed)

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
    assert state == ended
    assert same(rows + more) == same(expected)
    ours, theirs = other.evaluate(), undisturbed.evaluate()
    assert {k: v for k, v in ours[0].items() if k != "train_seconds"} == {
        k: v for k, v in theirs[0].items() if k != "train_seconds"
    }
    assert all(np.array_equal(ours[1][name], theirs[1][name]) for name in ours[1])


def test_a_checkpoint_is_written_from_time_to_time(monkeypatch):
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.02)
    written = []
    fit(trainer(epochs=5), checkpoint=lambda one: written.append(one.progress.epoch))
    assert len(written) > 2
    assert written == sorted(written)


def test_the_gap_is_that_of_training_images_of_all_classes():
    whole = digits()
    order = whole.train.labels[:200].argsort()
    one = trainer(
        dataclasses.replace(whole, train=whole.train[order], val=whole.val[:50]),
        model="mlp", epochs=60, batch_size=16, optimizer="adam", lr=0.003,
    )  # fmt: skip
    counts = []
    score = one.evaluator.score
    one.evaluator.score = lambda split: (counts.append(split.labels.unique().numel()), score(split))[1]
    fit(one)
    counts.clear()
    summary, _ = one.evaluate()
    assert summary["last/train_acc"] == 1.0 > summary["last/val_acc"]
    assert counts == [10, 10]


def test_a_last_batch_of_one_image_is_left_out():
    few = dataclasses.replace(digits(), train=digits().train[:65])
    one = trainer(few, model="mlp", epochs=1, batch_size=64)
    sizes, take = [], one.step
    one.step = lambda images, labels: (sizes.append(len(labels)), take(images, labels))[1]
    _, rows = fit(one)
    assert sizes == [64]
    assert rows[0]["train/acc"] <= 1


def test_features_are_taken_of_every_class_alike():
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([1000, 5000, 3999, 1]))
    chosen = evaluation.stratified(labels, 2000)
    assert torch.bincount(labels[chosen]).tolist() == [200, 1000, 799, 1]
    assert len(chosen.unique()) == 2000


def test_a_run_without_a_finite_validation_diverges():
    state, rows = fit(trainer(model="mlp", epochs=1, batch_size=2000, lr=1e35))
    assert state == "diverged"
    assert np.isfinite(rows[0]["train/loss"])


def test_an_unreadable_checkpoint_is_shown(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"PK cut off")
    assert not trainer().load(tmp_path / "last.pt")


def test_a_run_that_diverges_says_so():
    state, rows = fit(trainer(lr=1e6, model="mlp"))
    assert state == "diverged"
    assert not np.isfinite(rows[-1]["train/loss"])


def learning_rates(**values) -> list[float]:
    """Return the learning rate of every step of 4 epochs of 5 steps."""
    few = dataclasses.replace(digits(), train=digits().train[:320])
    one, found = trainer(few, epochs=4, model="mlp", **values), []
    take = one.step

    def step(images, labels):
        found.append(one.optimizer.param_groups[0]["lr"])
        return take(images, labels)

    one.step = step
    _, rows = fit(one)
    assert [row["lr"] for row in rows] == found[4::5], "a row holds the rate of its epoch's last step"
    return found


def test_schedules():
    assert learning_rates(lr=0.1) == [0.1] * 20
    steps = learning_rates(lr=0.1, schedule="step", step_epochs=2, step_factor=0.5)
    assert steps == pytest.approx([0.1] * 10 + [0.05] * 10)
    cosine = learning_rates(lr=0.1, schedule="cosine")
    assert cosine == pytest.approx([0.05 * (1 + np.cos(np.pi * step / 20)) for step in range(20)])
    onecycle = learning_rates(lr=0.1, schedule="onecycle")
    assert max(onecycle) == pytest.approx(0.1, rel=0.01) and onecycle.index(max(onecycle)) in (5, 6)
    assert onecycle[0] == pytest.approx(0.004) and onecycle[-1] < 0.002


@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # torch 2.7 of its own SequentialLR
@given(
    st.integers(1, 9), st.integers(1, 7), st.floats(0, 3), st.integers(1, 4),
    st.sampled_from(["none", "step", "cosine", "onecycle", "timm:poly"]),
)  # fmt: skip
def test_schedules_are_torchs(epochs, batches, warmup, step_epochs, name):
    own = {"step": {"step_epochs": step_epochs, "step_factor": 0.3}, "timm:poly": {"poly_power": step_epochs / 2}}
    own = own.get(name, {})
    own |= {} if name == "onecycle" else {"warmup_epochs": min(warmup, epochs)}
    config = Config(schedule=name, epochs=epochs, lr=0.1, **own)
    total, ours = epochs * batches, optim.schedule(config, batches)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    rise = 0 if name == "onecycle" else min(round(min(warmup, epochs) * batches), total - 1)
    theirs = {
        "none": lambda: lr_scheduler.ConstantLR(optimizer, 1.0),
        "step": lambda: lr_scheduler.StepLR(optimizer, step_epochs * batches, 0.3),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, total - rise),
        "onecycle": lambda: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=total + 1, cycle_momentum=False),
        "timm:poly": lambda: lr_scheduler.PolynomialLR(optimizer, total - rise, step_epochs / 2),
    }[name]
    if rise:
        first = lr_scheduler.LinearLR(optimizer, 1 / (rise + 1), total_iters=rise)
        theirs = lr_scheduler.SequentialLR(optimizer, [first, theirs()], milestones=[rise])
    else:
        theirs = theirs()
    for batch in range(total):
        assert 0.1 * ours(batch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-9)
        optimizer.step()
        theirs.step()


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(0, 1))
def test_cycles_are_restarts(cycles, epochs, batches, warmup):
    config = Config(schedule="timm:cosine", cycles=cycles, epochs=cycles * epochs + warmup, warmup_epochs=warmup)
    ours = optim.schedule(config, batches)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, epochs * batches)
    for batch in range(cycles * epochs * batches):
        assert ours(warmup * batches + batch) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        theirs.step()


def test_tanh_falls_from_the_learning_rate_to_almost_0():
    shares = np.array(learning_rates(lr=0.1, schedule="timm:tanh", cycles=2)) / 0.1
    expected = (1 - np.tanh(-7 + 10 * np.arange(10) / 10)) / 2  # Hsueh et al. 2018, https://arxiv.org/abs/1806.01593
    assert shares == pytest.approx([*expected, *expected])


@given(st.lists(st.sampled_from([0.5, 0.7, 0.9, np.inf]), max_size=14), st.integers(1, 3), st.integers(0, 2))
def test_a_plateau_is_torchs(losses, step_epochs, warmup):
    config = Config(schedule="timm:plateau", step_epochs=step_epochs, step_factor=0.5, warmup_epochs=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, patience=step_epochs, factor=0.5)
    history = []
    for epoch, loss in enumerate(losses):
        ours = optim.schedule(config, 3, history)
        if epoch >= warmup:
            assert {ours(3 * epoch + batch) for batch in range(3)} == {optimizer.param_groups[0]["lr"]}
            theirs.step(loss)
        history.append({"epoch": epoch + 1, "val/loss": loss})


@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet18"])
def test_bfloat16_is_float32_but_for_rounding(name):
    """Losses of the first steps agree, step by step."""
    found = {}
    for precision in ("float32", "bfloat16"):
        one = trainer(model=name, precision=precision, train_images=200, lr=0.001)
        found[precision] = losses(one, 4)
        assert one.precision == getattr(torch, precision)
        assert all(weight.dtype == torch.float32 for weight in one.model.parameters())
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.03)
    assert found["bfloat16"] != found["float32"]


def test_auto_takes_one_of_the_precisions_and_leaves_the_training_as_it_was():
    one = trainer(precision="auto", dropout=0.5, train_images=200)
    other = trainer(precision=str(one.precision).removeprefix("torch."), dropout=0.5, train_images=200)
    assert same(fit(one)[1]) == same(fit(other)[1])


def losses(one: Trainer, steps: int) -> list[float]:
    """Return the loss of each of the first steps."""
    train, sums = one.train_batch, [0.0]

    def train_batch(indices):
        train(indices)
        sums.append(one.progress.sums[0].item() / len(indices))

    one.train_batch = train_batch
    for _ in itertools.islice(one.train_epoch(), steps):
        pass
    return np.diff(sums).tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    "options",
    [
        {"model": "resnet18", "lr": 1e-3},
        {"optimizer": "adam", "schedule": "onecycle", "dropout": 0.5},
        {**EVERYTHING, "optimizer": "adamw", "schedule": "cosine", "warmup_epochs": 0.5, "train_images": None},
        {**EVERYTHING, "optimizer": "sgd", "nesterov": True, "schedule": "step", "step_epochs": 1, "model": "netconv",
         "image_size": 16, "train_images": None},
        {"model": "googlenet", "lr": 1e-3},
        {"model": "googlenet", "lr": 1e-3, "image_size": 28},
        {"compile": True},
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:TensorFloat32:UserWarning")
def test_a_cuda_graph_computes_what_single_kernels_do(options, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    cuda = torch.device("cuda")
    plain = trainer(device=cuda, cuda_graph=False, **{**options, "compile": False})
    captured = trainer(device=cuda, **options)
    taken = captured.train_batch
    assert losses(captured, 15) == pytest.approx(losses(plain, 15), rel=5e-3 if captured.config.compile else 1e-6)
    assert taken.graph is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_cannot_be_captured_goes_on_without_a_graph():
    said, dropped = [], torch.zeros(10, device="cuda")

    def function(indices):
        torch.nn.functional.dropout(indices.float(), 0.5)
        dropped.add_(0.5 * indices.sum().item())  # waits for the device, which no capture can

    captured = step.Captured(function, 10, torch.device("cuda", 0), say=said.append)
    for _ in range(step.Captured.PLAIN_CALLS + 3):
        captured(torch.ones(10, dtype=torch.int64, device="cuda"))
    assert captured.graph is None and len(said) == 1 and "without CUDA graphs" in said[0]
    assert dropped[0].item() == 5 * (step.Captured.PLAIN_CALLS + 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_graph_goes_on_from_a_checkpoint(tmp_path):
    cuda, options = torch.device("cuda"), EVERYTHING | {"optimizer": "adamw", "schedule": "cosine", "lr": 1e-3}
    expected = fit(trainer(device=cuda, **options))[1]
    one, seen = trainer(device=cuda, **options), []
    rows = fit(
        one,
        on_batch=lambda batch, batches: seen.append(batch),
        checkpoint=lambda one: torch.save(one.state_dict(), tmp_path / "last.pt"),
        must_stop=lambda: len(seen) == 11,
    )[1]
    other = trainer(device=cuda, **options)
    other.load(tmp_path / "last.pt")
    rows += fit(other)[1]
    for metric, tolerance in (("train/loss", 0.02), ("val/loss", 0.02), ("lr", 1e-6)):
        assert [row[metric] for row in rows] == pytest.approx([row[metric] for row in expected], rel=tolerance)


@pytest.mark.parametrize("schedule", sorted(set(SCHEDULES) - {"onecycle"}))
def test_warm_up_rises_to_the_learning_rate_and_goes_on(schedule):
    rates = learning_rates(lr=0.1, schedule=schedule, warmup_epochs=1)
    assert rates[:6] == pytest.approx([0.1 * (step + 1) / 6 for step in range(6)])
    assert rates[6:] == sorted(rates[6:], reverse=True)


def test_mirror_images_count_as_much():
    one = trainer(model="mlp", flip_test=True, epochs=1)
    fit(one)
    images = one.data.normalise(one.data.test.images)
    with torch.inference_mode():
        expected = (one.model.eval()(images) + one.model(images.flip(-1))) / 2
    found = one.evaluate()[1]["test_probabilities"]
    assert np.allclose(found, expected.softmax(1).numpy(), atol=1e-3)


def test_alternating_flips_mirror_each_image_in_every_second_epoch(tmp_path):
    values = {"model": "mlp", "epochs": 2, "augment": "flip", "alternating_flip": True, "batch_size": 100}
    one, other = trainer(**values), trainer(**values)
    shown = seen(one)
    fit(
        one, checkpoint=lambda one: torch.save(one.state_dict(), tmp_path / "last.pt"),
        must_stop=lambda: len(shown) == 14,
    )  # fmt: skip
    assert one.progress.epoch == 1 and one.progress.batch > 0, "cut off in the second epoch"
    other.load(tmp_path / "last.pt")
    more = seen(other)
    fit(other)
    first, second = {}, {}
    for indices, images in shown + more:
        for index, image in zip(indices.tolist(), images, strict=True):
            (second if index in first else first)[index] = image
    originals = one.data.normalise(one.data.train.images)
    assert len(first) == len(second) == len(originals)
    assert all(torch.equal(first[index], second[index].flip(-1)) for index in first)
    mirrored = sum(not torch.equal(first[index], originals[index]) for index in first) / len(first)
    assert 0.4 < mirrored < 0.6


def seen(one: Trainer) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Let a trainer keep the indices and the images of each batch."""
    kept, train_batch, step = [], one.train_batch, one.step

    def keep(indices):
        kept.append([indices])
        train_batch(indices)

    def keep_images(images, labels):
        kept[-1].append(images.clone())
        return step(images, labels)

    one.train_batch, one.step = keep, keep_images
    return kept


def test_an_optimizer_computes_as_its_own_device_does_after_another_ones_checkpoint(tmp_path):
    one = trainer(model="mlp", epochs=1)
    fit(one)
    state = one.state_dict()
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = True
    torch.save(state, tmp_path / "last.pt")
    other = trainer(model="mlp", epochs=1)
    assert other.load(tmp_path / "last.pt")
    assert not any(group["fused"] for group in other.optimizer.param_groups)


@pytest.mark.parametrize("metric", CHOOSING)
def test_early_stopping_waits_so_many_epochs(metric):
    one = trainer(model="mlp", epochs=500, lr=1.0, early_stopping=3, early_stopping_metric=metric)
    state, rows = fit(one)
    assert state == "stopped"
    best = (min if metric == "val/loss" else max)(row[metric] for row in rows)
    first = next(row["epoch"] for row in rows if row[metric] == best)
    assert len(rows) == first + 3
    assert one.config.metric == "val/acc" and {key for key in rows[0] if key in CHOOSING} == {
        "val/acc", "val/loss", metric,
    }  # fmt: skip


def test_the_moving_average_is_what_is_validated_and_kept():
    one = trainer(model="mlp", ema_decay=0.99, epochs=2)
    expected = {name: value.clone() for name, value in one.model.state_dict().items()}
    take, updates = one.step, 0

    def step(images, labels):
        nonlocal updates
        result = take(images, labels)
        updates += 1
        decay = min(0.99, (1 + updates) / (10 + updates))
        for name, value in one.model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
        return result

    one.step = step
    fit(one)
    kept = one.evaluator.model.state_dict()
    assert all(torch.allclose(kept[name], expected[name], atol=1e-6) for name in expected)
    assert not torch.allclose(kept["head.fc2.weight"], one.model.state_dict()["head.fc2.weight"], atol=1e-4)
    assert one.best_weights.keys() == one.model.state_dict().keys()


def test_weight_decay_spares_norms_and_biases_on_request():
    groups = trainer(model="mlp", weight_decay=0.1, decay_norm_bias=False).optimizer.param_groups
    assert [(group["weight_decay"], {p.ndim for p in group["params"]}) for group in groups] == [(0.1, {2}), (0.0, {1})]


def test_an_optimizer_that_timm_does_not_have_is_a_mistake():
    with pytest.raises(UserError, match="timm has no optimizer 'lionn'; did you mean 'lion'"):
        trainer(optimizer="timm:lionn")


def test_what_a_run_held_is_freed_for_the_next_one():
    one = trainer()
    fit(one)
    network = weakref.ref(one.model)
    del one
    devices.release("cpu")
    assert network() is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep freed memory")
def test_memory_that_a_run_kept_is_given_back_after_it():
    pages = Path("/proc/self/statm")

    def megabytes() -> float:
        return int(pages.read_text(encoding="utf-8").split()[1]) * resource.getpagesize() / 1e6

    devices.pick("cpu")
    devices.release("cpu")
    before = megabytes()
    tensor = torch.ones(100_000_000, dtype=torch.uint8)
    del tensor
    assert megabytes() > before + 90, "memory for the next step is kept"
    devices.release("cpu")
    assert megabytes() < before + 10


@pytest.mark.parametrize(
    ("name", "value"),
    {
        "activation": "elu", "softmax_output": True, "dropout": 0.5, "epochs": 3, "label_smoothing": 0.1,
        "optimizer": "adam", "lr": 0.1, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1,
        "decay_norm_bias": False, "clip_norm": 1.0, "ema_decay": 0.9, "schedule": "cosine", "early_stopping": 2,
        "augment": "flip,crop,rotate,noise", "flip_test": True, "batch_norm": True, "hidden": "50", "batch_size": 16,
        "train_images": 200, "image_size": 16, "filters": "8,16,32",
    }.items(),
)  # fmt: skip
def test_what_is_paired_by_seed_begins_alike(name, value):
    def beginning(**options):
        made = trainer(**{"model": "cnn", "train_images": 100, "batch_size": 32} | options)
        weights = [value.clone() for value in made.model.state_dict().values()]
        made.train_batch = (order := []).append
        for _ in made.train_epoch():
            pass
        images = made.data.train.images[torch.cat(order)]
        return [*weights, *map(len, order), images]

    def alike(one, other):
        return one.shape == other.shape and torch.equal(one, other) if torch.is_tensor(one) else one == other

    one, other = beginning(), beginning(**{name: value})
    assert (len(one) == len(other) and all(map(alike, one, other))) != affects(name, "start")
