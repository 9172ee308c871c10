"""Every network: its size to the unit, one step of training, what it refuses.

python -m tests.test_models > tests/networks.json    # after a change of a network that was meant
"""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from analysis.anatomy import layers, native
from study import models
from study.config import Config
from study.config.choices import ACTIVATIONS, NETWORKS, SMALLEST_SIDES
from study.models.layers import AveragePool, Block, averaging
from study.system.errors import UserError
from study.training import step

NAMES = [
    *(name for name in NETWORKS if name != "timm:"),
    *("timm:convnext_atto", "timm:densenet121", "timm:efficientnet_lite0", "timm:inception_v3"),
    "timm:vit_tiny_patch16_224",
]
LARGE = ("vgg13", "vgg16", "vgg19", "googlenet", "resnet34", "resnet50")
"""Networks of which a test takes seconds, and which are built as their smaller relatives are."""

FROZEN = Path(__file__).with_name("networks.json")


def size(name: str) -> dict[str, int]:
    """Count a network at the size it was designed for."""
    frame = layers(Config(model=name), *native(name))
    return {key: int(frame[key].sum()) for key in ("params", "flops", "activations")}


def small(name: str, **values) -> tuple[torch.nn.Module, torch.Tensor]:
    """Build a network for the smallest images that suit it, and draw a batch of them."""
    side = {"timm:inception_v3": 75}.get(name, 32)
    torch.manual_seed(0)
    model = models.create(Config(model=name, **values), (3, side, side), 10)
    return model, torch.randn(4, 3, side, side)


@pytest.mark.parametrize(("name", "frozen"), json.loads(FROZEN.read_text(encoding="utf-8")).items())
def test_sizes_are_the_frozen_ones(name, frozen):
    assert size(name) == frozen


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in NAMES])
def test_a_step_of_training(name, tmp_path):
    model, images = small(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    take = step.create(model.train(), optimizer, aux_weight=0.3)
    outputs = []
    hook = model.register_forward_hook(lambda model, given, output: outputs.append(output))
    loss, correct = take(images, torch.arange(4))
    hook.remove()
    logits = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    assert loss.isfinite()
    assert correct == (logits.argmax(1) == torch.arange(4)).sum()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
        assert parameter.grad.any(), path

    torch.save(model.state_dict(), tmp_path / "weights.pt")
    again, _ = small(name)
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    with torch.inference_mode():
        found = models.activations(model.eval(), images)
        assert found["logits"].shape == (4, 10)
        assert torch.equal(found["logits"], again.eval()(images))
        assert torch.equal(found["logits"], model(images))
    assert all(len(tensor) == 4 and tensor.isfinite().all() for tensor in found.values())
    assert 1 < found["intermediate"].shape[1] <= 512


COUNTED = [
    ({"model": "simple-cnn"}, (1, 28, 28), 10, 813_802),
    ({"model": "alexnet"}, (3, 32, 32), 10, 6_199_498),
    ({"model": "net"}, (3, 32, 32), 10, 12_735_542),
    ({"model": "netconv"}, (3, 32, 32), 10, 105_566),
    ({"model": "vgg16", "batch_norm": True}, (3, 224, 224), 10, 134_309_962),
    ({"model": "vgg16", "batch_norm": True}, (3, 32, 32), 10, 33_646_666),
    ({"model": "vgg11"}, (3, 224, 224), 1000, 132_863_336),
    ({"model": "vgg11-lrn"}, (3, 224, 224), 1000, 132_863_336),
    ({"model": "vgg13"}, (3, 224, 224), 1000, 133_047_848),
    ({"model": "vgg16-1x1"}, (3, 224, 224), 1000, 133_638_952),
    ({"model": "vgg16"}, (3, 224, 224), 1000, 138_357_544),
    ({"model": "vgg19"}, (3, 224, 224), 1000, 143_667_240),
    ({"model": "resnet18"}, (3, 224, 224), 1000, 11_689_512),
    ({"model": "resnet50"}, (3, 224, 224), 1000, 25_557_032),
    ({"model": "googlenet"}, (3, 224, 224), 1000, 13_004_888),
    ({"model": "googlenet", "aux_weight": 0}, (3, 224, 224), 1000, 6_624_904),
]


@pytest.mark.parametrize(("values", "shape", "classes", "params"), COUNTED)
def test_parameters_are_those_of_the_sources(values, shape, classes, params):
    with torch.device("meta"):
        model = models.create(Config(**values), shape, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert models.count(model, shape)["params"] == params


def test_a_network_that_is_in_one_table_only_is_refused_with_the_other_table(monkeypatch):
    monkeypatch.setattr(models, "NETWORKS", {})
    with pytest.raises(UserError, match=r"NETWORKS in study/models/__init__.py lacks it$"):
        models.create(Config(model="cnn"), (3, 32, 32), 10)
    with pytest.raises(UserError, match=r"unknown model 'xyz'.*study/config/choices\.py"):
        Config.parse({"model": "xyz"})


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


@pytest.mark.parametrize(
    ("name", "given", "smallest"),
    [
        *((name, smallest - 1, smallest) for name, smallest in SMALLEST_SIDES.items()),
    ],
)
def test_images_too_small_for_a_network_are_refused(name, given, smallest):
    with pytest.raises(UserError, match=f"^{name} needs images of at least {smallest} px, not {given}×{given}$"):
        models.create(Config(model=name), (3, given, given), 10)
    models.create(Config(model=name), (3, smallest, smallest), 10)


def test_a_network_that_timm_lacks_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'resnet10t'"):
        models.create(Config(model="timm:resnet10x"), (3, 32, 32), 10)


@pytest.mark.parametrize("name", ["cnn", "netconv", "net1", "alexnet", "vgg11"])
def test_options_of_a_network(name):
    plain, images = small(name)
    for activation in ACTIVATIONS:
        options = {"activation": activation, "batch_norm": True, "dropout": 0.1, "softmax_output": True}
        model, _ = small(name, **options, hidden="16,8")  # without the many weights of the fully connected layers
        kinds = {type(module).__name__.lower() for module in model.modules()}
        assert activation.replace("_", "") in kinds
        assert kinds & {"batchnorm1d", "batchnorm2d"}
        assert torch.allclose(model.eval()(images).sum(1), torch.ones(4))
        assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.1}
    wider, _ = small(name, hidden="16,8")
    assert models.count(wider, (3, 32, 32))["params"] < models.count(plain, (3, 32, 32))["params"]


@given(st.integers(0, 2**40), st.sampled_from([torch.float32, torch.bfloat16]), st.sampled_from([2, 3]))
def test_pooling_before_relu_is_the_same_to_the_bit(seed, dtype, size):
    torch.manual_seed(seed)
    block = Block(torch.nn.Identity(), torch.nn.ReLU(), torch.nn.MaxPool2d(size))
    images = (torch.randn(3, 4, 9, 10) * 2).round().to(dtype)  # few values: many are equal
    results = []
    for training in (True, False):
        given = images.clone().requires_grad_()
        pooled = block.train(training)(given)
        pooled.backward(torch.arange(pooled.numel()).view_as(pooled).to(dtype))
        results.append((pooled, given.grad))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_activations_of_a_list_are_taken_in_turn():
    model, _ = small("net3")
    kinds = [
        type(module).__name__ for module in model.modules() if type(module).__name__ in ("ReLU", "ELU", "LeakyReLU")
    ]
    assert kinds == ["ReLU", "ELU", "LeakyReLU", "ReLU", "ELU"]


@pytest.mark.parametrize(
    ("name", "after"),
    [("net", [5]), ("net1", [2, 5]), ("net2", [1, 3, 5, 7, 9]), ("net3", [3]), ("mlp", [1]), ("alexnet", [0, 1])],
)
def test_dropout_stands_where_the_sources_have_it(name, after):
    model, _ = small(name)
    found, place = [], 0
    for module in model.modules():
        place += isinstance(module, torch.nn.Linear)
        if isinstance(module, torch.nn.Dropout):
            found.append(place)
    assert found == after


@pytest.mark.parametrize(("stem", "side", "expected"), [("auto", 64, 64), ("auto", 65, 33), ("imagenet", 32, 16)])
def test_a_cifar_stem_keeps_small_images_large(stem, side, expected):
    for name in ("resnet18", "timm:resnet10t", "googlenet"):
        with torch.device("meta"):
            model = models.create(Config(model=name, stem=stem), (1, side, side), 10)
            sides = []
            first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
            first.register_forward_hook(lambda _, given, result, sides=sides: sides.append(result.shape[-1]))
            model.eval()(torch.zeros(2, 1, side, side))
        assert sides == [expected]


def test_a_stem_that_cannot_be_changed_is_refused():
    with pytest.raises(UserError, match="timm:mixer_s16_224 has no stem that can be changed"):
        models.create(Config(model="timm:mixer_s16_224", stem="cifar"), (3, 32, 32), 10)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 8))
def test_average_pool_is_torchs(height, width, side):
    maps = torch.randn(2, 3, height, width)
    expected = torch.nn.functional.adaptive_avg_pool2d(maps, side)
    torch.testing.assert_close(averaging(height, side) @ maps @ averaging(width, side).T, expected)
    torch.testing.assert_close(AveragePool(side)(maps), expected)


@pytest.mark.parametrize(
    ("values", "behind"),
    [
        # 320 + 9,248 in the convolutions; 6272 × 128 + 128 and 128 × 10 + 10 in the layers after them
        ({"model": "simple-cnn"}, {"intermediate": 9_568, "penultimate": 812_512, "logits": 813_802}),
        ({"model": "resnet18"}, {"intermediate": 11_168_832, "penultimate": 11_168_832, "logits": 11_173_962}),
    ],
)
def test_parameters_behind_each_layer(values, behind):
    shape = (1, 28, 28) if values["model"] == "simple-cnn" else (3, 32, 32)
    model = models.create(Config(**values), shape, 10).train()
    frozen = next(model.parameters()).requires_grad_(False)
    assert models.count_behind(model, shape) == {f"params_{name}": count for name, count in behind.items()}
    assert model.training and not frozen.requires_grad


def test_auxiliary_heads_are_behind_no_layer():
    model = models.create(Config(model="googlenet"), (3, 32, 32), 10)
    heads = sum(part.numel() for name, part in model.named_parameters() if name.startswith("aux"))
    assert (
        models.count_behind(model, (3, 32, 32))["params_logits"] == models.count(model, (3, 32, 32))["params"] - heads
    )


def measured(model: nn.Module, images: torch.Tensor) -> tuple[dict[str, int], dict[str, torch.Tensor], list[str]]:
    """Measure a network as before a training, and return its sizes, what it computes for images, and what is said."""
    said = []
    sizes = models.measure(model, images, 10, "this network", said.append)
    with torch.inference_mode():
        return sizes, models.activations(model.eval(), images), said


@pytest.mark.parametrize(
    ("name", "side"), [("test_vit3", 64), ("pit_ti_224", 224), ("crossvit_tiny_240", 240), ("coat_tiny", 64)]
)
def test_every_kind_of_transformer_is_measured_in_full(name, side):
    model = models.create(Config(model=f"timm:{name}", stem="imagenet"), (3, side, side), 10)
    images = torch.randn(2, 3, side, side)
    sizes, found, said = measured(model, images)
    assert not said
    counted = {"params", "param_bytes", "flops", "params_intermediate", "params_penultimate", "params_logits"}
    assert sizes.keys() == counted
    assert 0 < sizes["params_intermediate"] <= sizes["params_logits"] <= sizes["params"]
    assert {layer: len(rows) for layer, rows in found.items()} == dict.fromkeys(LAYERS, 2)
    assert torch.allclose(found["logits"], model(images), atol=1e-5)


LAYERS = ("logits", "penultimate", "intermediate")


class Plain(nn.Module):
    """Two convolutions and two linear layers, under names of their own, put together in `forward`."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.pool, self.relu, self.features = nn.MaxPool2d(2), nn.ReLU(), 8
        self.hidden, self.out = nn.LazyLinear(16), nn.Linear(16, 10)

    def forward(self, images):
        maps = self.pool(self.relu(self.second(self.pool(self.relu(self.first(images))))))
        return self.out(self.relu(self.hidden(maps.flatten(1))))


class Attending(nn.Module):
    """Self-attention over the rows of an image."""

    def __init__(self):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 10)

    def forward(self, images):
        rows = images[:, 0]
        return self.out(self.attention(rows, rows, rows)[0].mean(1))


class Formula(nn.Module):
    """A matrix product without a layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 10))

    def forward(self, images):
        return images.flatten(1) @ self.weight


class Batched(nn.Sequential):
    """A linear layer that takes no single image."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images):
        if len(images) == 1:
            raise ValueError("a single image")
        return super().forward(images)


ROW = 2 * 8 * 24 * 8 + 2 * 2 * 8 * 8 * 8 + 2 * 8 * 8 * 8
"""FLOPs of attention over 8 rows of 8 numbers: keys, queries and values; the products; the projection."""


@pytest.mark.parametrize(
    ("network", "intermediate", "penultimate", "flops", "left_out"),
    [
        (Plain, 32, 16, 2 * (9 * 4 * 64 + 36 * 8 * 16 + 32 * 16 + 160), 0),
        (lambda: nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))), 144, 144,
         2 * (9 * 4 * 36 + 1440), 0),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 64, 64, 2 * 640, 0),
        (Attending, 8, 8, ROW + 2 * 80, 0),
        (Formula, None, None, 2 * 640, 2),
        (Batched, 64, 64, None, 2),
    ],
)  # fmt: skip
def test_any_module_that_returns_logits_is_measured(
    network, intermediate, penultimate, flops, left_out, monkeypatch, digit_images
):
    monkeypatch.setitem(models.NETWORKS, "cnn", lambda config, image_shape, classes: network())
    model = models.create(Config(model="cnn"), (1, 8, 8), 10)
    images = torch.from_numpy(digit_images[0][:5, None] / 255).float()
    sizes, found, said = measured(model, images)
    assert sizes["params"] == sum(parameter.numel() for parameter in model.parameters())
    assert sizes.get("flops") == flops
    widths = {name: found[name].shape[1] if name in found else None for name in LAYERS}
    assert widths == {"logits": 10, "penultimate": penultimate, "intermediate": intermediate}
    assert len(said) == bool(left_out)
    assert sum(text.count("(") for text in said) == left_out
    counted = {name.removeprefix("params_") for name in sizes if name.startswith("params_")}
    assert counted == (set(found) if flops else set())


def test_measuring_leaves_a_network_and_the_random_numbers_as_they_were():
    class Noisy(Plain):
        def forward(self, images):
            return super().forward(images + torch.randn(()))

    torch.manual_seed(0)
    model, images = Noisy(), torch.randn(3, 1, 8, 8)
    model(images)  # makes the lazy layer
    model.first.eval().requires_grad_(False)
    numbers, flags = torch.get_rng_state(), [(module.training, vars(module).keys()) for module in model.modules()]
    models.measure(model, images, 10, "this network", pytest.fail)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert [(module.training, vars(module).keys()) for module in model.modules()] == flags
    assert [name for name, one in model.named_parameters() if not one.requires_grad] == ["first.weight", "first.bias"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("output", [lambda images: images.flatten(1), lambda images: (images, images)])
def test_a_network_without_logits_is_refused(output):
    class Wrong(Plain):
        def forward(self, images):
            return output(super().forward(images)[:, :7])

    with pytest.raises(UserError, match=r"^this network must return logits of shape \(images, 10\), not "):
        model = Wrong()
        model(torch.randn(3, 1, 8, 8))
        models.measure(model, torch.randn(3, 1, 8, 8), 10, "this network", print)


if __name__ == "__main__":
    print(json.dumps({name: size(name) for name in NAMES}, indent=1))
