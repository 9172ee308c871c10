"""python -m analysis.anatomy, as it is used."""

import csv
import io
import re

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from analysis.anatomy import layers, with_sums
from analysis.page import figures
from study import models
from study.config import Config
from study.models.layers import Network, activations, convolution

GROUPS = {
    "Conv1": 38_720, "Conv2": 221_440, "Conv3": 1_475_328, "Conv4": 5_899_776, "Conv5": 7_079_424,
    "fc1": 102_764_544, "fc2": 16_781_312, "fc3": 4_097_000,
}  # fmt: skip


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def cells(text: str) -> list[list[str]]:
    """Read the table of a terminal, each header in one line."""
    header, body = ([line.split(edge)[1:-1] for line in text.splitlines() if line.startswith(edge)] for edge in "┃│")
    header = ["".join(lines) for lines in zip(*header, strict=True)]
    return [[" ".join(cell.split()) for cell in line] for line in [header, *body]]


def test_vgg16_is_that_of_the_paper(call):
    *found, total = rows(call("analysis.anatomy", "vgg16", "--format=csv").stdout)
    assert {row["block"]: int(row["params"]) for row in found if row["level"] == "block"} == GROUPS
    assert (total["level"], total["params"], total["param_bits"]) == ("total", "138357544", "4427441408")
    assert float(total["param_mb"]) == pytest.approx(553.430, abs=5e-4)
    single = [row for row in found if row["level"] == "layer"] + found[-3:]
    assert sum(int(row["params"]) for row in single) == 138_357_544
    assert next(row["output"] for row in single if row["block"] == "Conv5" and row["layer"] == "pool") == "512×7×7"
    text = call("analysis.anatomy", "vgg16").stdout
    assert text.startswith("vgg16, for images of 3×224×224 and 1,000 classes")
    last = [line for line in text.splitlines() if "│" in line][-1]
    assert all(number in last for number in ("138,357,544", "4,427,441,408", "553.430"))


def test_the_table_of_the_vgg_paper(call):
    found = rows(call("analysis.anatomy", "vgg", "--table", "--format=csv").stdout)
    assert [round(float(row["params_millions"])) for row in found] == [133, 133, 133, 134, 138, 144]
    assert [row["weight_layers"] for row in found] == ["11", "11", "13", "16", "16", "19"]
    markdown = call("analysis.anatomy", "vgg", "--table", "--format=md").stdout
    assert "| vgg16 (D) | 16 | 138,357,544 | 138 | 553.430 | 89.4 |" in markdown


def test_blocks_have_the_output_of_the_whole_block(call):
    found = rows(call("analysis.anatomy", "googlenet", "--format=csv").stdout)
    outputs = {row["block"]: row["output"] for row in found if row["level"] == "block"}
    assert outputs["inception3a"] == "256×28×28"
    assert outputs["inception4e"] == "832×14×14"
    assert outputs["inception5b"] == "1024×7×7"
    assert outputs["aux1"] == ""


def test_what_is_only_numbered_is_named_by_its_kind(monkeypatch):
    def tiny(config: Config, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        features = convolution(config, image_shape[0], 32, 3, activations(config), padding=1, pool=2)
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 16), nn.Linear(16, classes))
        return Network(features, head)

    monkeypatch.setitem(models.NETWORKS, "cnn", tiny)
    sums = with_sums(layers(Config(model="cnn"), (3, 32, 32), 10))
    assert [*sums.block] == ["conv", "pool", "mean", "linear", "linear", "Total"]
    assert [*sums.output] == ["32×32×32", "32×16×16", "32×1×1", "16", "10", ""]


def test_weight_layers_are_those_on_the_longest_path(call):
    networks = {"alexnet": 8, "vgg11-lrn": 11, "googlenet": 22, "resnet18": 18, "resnet34": 34, "resnet50": 50,
                "timm:densenet121": 121, "timm:inception_v3": 48}  # fmt: skip
    text = call("analysis.anatomy", *networks, "--table", "--format=csv").stdout
    assert [int(row["weight_layers"]) for row in rows(text)] == list(networks.values())


def test_a_comparison_answers_and_draws(call, tmp_path):
    text = call("analysis.anatomy", "cnn", "all-conv", "--compare").stdout
    assert "cnn has 299,158 parameters, 1.197 MB, 68.8 % of them in fully connected layers" in text
    assert "all-conv has 94,538 parameters, 0.378 MB, 0.0 % of them in fully connected layers" in text
    assert "cnn has 3.16 times as many parameters as all-conv" in text
    for suffix in ("png", "svg", "pdf"):
        assert (tmp_path / "report" / f"anatomy-cnn-all-conv.{suffix}").stat().st_size > 5_000
    spanish = call("analysis.anatomy", "cnn", "all-conv", "--compare", "--lang=es").stdout
    assert "68,8 % en capas totalmente conectadas" in spanish


def test_colours_of_the_legend_are_those_of_the_bars():
    """Also where the first network has layers of one kind only."""
    layers = {"block": ["a", "b"], "layer": "", "params": [10, 20], "is_weight_layer": True}
    for kinds in ((False, True), (True, False)):
        frames = {str(kind): pd.DataFrame(layers | {"is_dense": kind}) for kind in kinds}
        figure = figures.parameters_per_layer(frames, "Parameters")
        bars = {kind: axes.patches[0].get_facecolor() for kind, axes in zip(kinds, figure.axes, strict=True)}
        assert [entry.get_facecolor() for entry in figure.legends[0].legend_handles] == [bars[False], bars[True]]


@pytest.mark.parametrize("argv", [["vgg16"], ["vgg", "--table"], ["resnet50", "--lang=es"]])
def test_a_narrow_terminal_goes_without_columns_not_without_digits(call, monkeypatch, argv):
    whole = cells(call("analysis.anatomy", *argv).stdout)
    monkeypatch.setenv("FORCE_COLOR", "1")
    for width in (50, 90, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        text = re.sub(r"\x1b\[[\d;]*m", "", call("analysis.anatomy", *argv).stdout)
        shown = cells(text)
        assert width < 80 or all(len(line) <= width for line in text.splitlines())
        assert {"Layer", "Network", "Kind", "Output", "Parameters", "Weights (MB)"} & {*whole[0]} <= {*shown[0]}
        assert {"Capa", "Tipo", "Salida", "Parámetros", "Pesos (MB)"} & {*whole[0]} <= {*shown[0]}
        assert ("--format csv" in " ".join(text.split())) == (shown[0] != whole[0])
        places = [whole[0].index(name) for name in shown[0] if name not in ("Kind", "Tipo")]  # these may be two lines
        narrow = [[row[shown[0].index(whole[0][place])] for place in places] for row in shown]
        assert [row for row in narrow if row[0]] == [[row[place] for place in places] for row in whole], width


@pytest.mark.parametrize("form", ["text", "md", "tex"])
def test_what_is_empty_is_empty_in_spanish_too(call, form):
    text = call("analysis.anatomy", "cnn", "--lang=es", f"--format={form}").stdout
    assert "Total" in text and "ningun" not in text


def test_options_of_the_network_count(call):
    def params(*options) -> int:
        return int(rows(call("analysis.anatomy", *options, "--format=csv").stdout)[-1]["params"])

    assert params("mlp", "--hidden=10", "--image-size=8", "--channels=1") == 64 * 10 + 10 + 110
    assert params("mlp", "--hidden=10", "--image-size=8", "--channels=1", "--classes=2") == 64 * 10 + 10 + 22
    assert params("googlenet", "--aux-weight=0") == params("googlenet", "--aux_weight", "0") == 6_624_904
    assert params("googlenet") == 13_004_888
    assert params("cnn") + 2 * (32 + 64 + 128 + 100) == params("cnn", "--batch-norm") == params("cnn", "--batch_norm=1")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["cn"], "unknown model 'cn'; did you mean 'cnn'?"),
        (["vgg16", "--image-size=8"], "vgg16 needs images of at least 32 px, not 8×8"),
        (["cnn", "--stem=cifar"], "model cnn has no stem"),
        (["cnn", "mlp"], "several networks need --table, --compare or --code"),
        (["cnn", "--batchnorm"], "unknown option '--batchnorm'; did you mean '--batch-norm'?"),
        (["cnn", "--batch-norm=maybe"], "batch_norm must be True or False, not 'maybe'"),
        (["cnn", "--filters"], "filters needs a value, such as --filters=…"),
        (["cnn", "--compare"], "--compare needs two networks or more"),
    ],
)
def test_a_mistake_is_one_sentence(call, argv, message):
    assert message in call("analysis.anatomy", *argv, code=2).stderr


@pytest.mark.parametrize(
    "name", ["cnn", "alexnet", "googlenet", "resnet18", "timm:vit_tiny_patch16_224", "timm:xcit_nano_12_p16_224"]
)
def test_flops_are_those_that_torch_counts(name):
    with torch.device("meta"):
        model = models.create(Config(model=name), (3, 32, 32), 10)
        with FlopCounterMode(display=False) as counter:
            model.eval()(torch.zeros(1, 3, 32, 32))
    assert sum(models.flops(model, (3, 32, 32)).values()) == counter.get_total_flops()


def test_flops_of_attention_count_on_a_cpu():
    """By hand: 12 blocks of 197 tokens of width 192, the cutting of 196 patches, and the head."""
    model = models.create(Config(model="timm:vit_tiny_patch16_224"), (3, 224, 224), 10)
    weights = 192 * 3 * 192 + 192 * 192 + 2 * 4 * 192 * 192
    block = 2 * 197 * weights + 2 * 2 * 197**2 * 192
    assert sum(models.flops(model, (3, 224, 224)).values()) == 12 * block + 2 * 196 * 192 * 768 + 2 * 192 * 10


@pytest.mark.parametrize(
    "model", ["single-block", "cnn", "mlp", "all-conv", "net1", "netconv", "simple-cnn", "alexnet"]
)
def test_the_code_of_a_network_computes_what_the_network_does(call, model):
    """The printed class takes the network's weights in their order, and gives the same logits."""
    code = call("analysis.anatomy", model, "--code", "--dropout=0.3", *["--batch-norm=True"] * (model == "cnn")).stdout
    names: dict = {}
    exec(code, names)
    (written,) = (value for value in names.values() if isinstance(value, type) and issubclass(value, nn.Module))
    shape = (1, 28, 28) if model == "simple-cnn" else (3, 32, 32)
    options = {"dropout": 0.3, "batch_norm": model == "cnn"}
    network = models.create(Config(model=model, **options), shape, 10)
    typed = written()
    typed.load_state_dict(dict(zip(typed.state_dict(), network.state_dict().values(), strict=True)))
    images = torch.randn(2, *shape)
    assert torch.equal(typed.eval()(images), network.eval()(images))
    assert [type(layer) for layer in typed.modules() if not [*layer.children()]] == [
        type(layer) for layer in network.modules() if not [*layer.children()]
    ]


def test_parameters_are_derived(call):
    """The formula of each layer gives its number of parameters."""
    for model in ("cnn", "resnet18", "vgg16"):
        derived = [row for row in rows(call("analysis.anatomy", model, "--format=csv").stdout) if row["derivation"]]
        assert derived
        for row in derived:
            assert eval(row["derivation"].replace("·", "*")) == int(row["params"]), row
    code = call("analysis.anatomy", "resnet18", "--code").stdout
    assert "class ResNet(nn.Module)" in code and "class BasicBlock(nn.Module)" in code
    assert "(3·3·64 + 1)·128" in call("analysis.anatomy", "cnn", "--format=md").stdout
