"""Where a network looks, and which training images it takes for alike."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from analysis.frames import runs, sections
from analysis.page import figures
from analysis.reporting import THEMES
from analysis.themes import explained
from analysis.wording.texts import language
from study import models
from study.config import Config
from study.data import dataset
from study.models import gradcam
from study.models.layers import Network
from study.record.directory import RunDirectory
from study.training import explain, thumbnails
from tests.test_analysis import assert_labelled

DENSE = ("mlp", "net", "net1", "net2", "net3")


def averaging(channels=6, classes=4):
    """Return a network whose logits are linear in the means of its feature maps."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, channels, 3), nn.ReLU())
    return Network(features, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)))


def test_of_averaged_maps_it_is_the_class_activation_map():
    """Zhou et al. 2016: the maps weighted by the last layer; Grad-CAM generalises it."""
    model, images, labels = averaging().train(), torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0])
    with torch.no_grad():
        wanted = torch.einsum("nchw,nc->nhw", model.features(images), model.head[2].weight[labels]).relu()
    (found,) = gradcam.heat_maps(model, images, [labels])
    assert torch.allclose(found, wanted / wanted.amax((1, 2), keepdim=True).clamp(min=1e-30), atol=1e-5)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "layer"), [("cnn", "features.block3.activation"), ("resnet18", "layer4"), ("timm:convnext_atto", "stages")]
)
def test_it_is_that_of_captum(name, layer):
    attr = pytest.importorskip("captum.attr")
    model = models.create(Config(model=name), (3, 32, 32), 10).eval()
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([1, 3, 0])
    (found,) = gradcam.heat_maps(model, images, [labels])
    layer = attr.LayerGradCam(model, model.get_submodule(layer))
    wanted = layer.attribute(images, labels, relu_attributions=True)[:, 0].detach()
    assert torch.allclose(found, wanted / wanted.amax((1, 2), keepdim=True).clamp(min=1e-30), atol=1e-5)


OFTEN = ("two-block", "all-conv", "vgg11", "mlp", "resnet18", "timm:convnext_atto", "timm:vit_tiny_patch16_224")
RARELY = [name for name in models.names() if name not in OFTEN and name != "timm:"]
RARELY += [
    f"timm:{name}" for name in ("densenet121", "swin_tiny_patch4_window7_224", "inception_v3", "mobilenetv3_large_100")
]


@pytest.mark.parametrize("name", [*OFTEN, *(pytest.param(name, marks=pytest.mark.slow) for name in RARELY)])
def test_every_network_with_feature_maps_has_them(name):
    side = {"timm:inception_v3": 128}.get(name, 32)
    fixed = 224 if "224" in name else side
    model = models.create(Config(model=name, dataset="folder:x", image_size=fixed), (3, fixed, fixed), 10)
    found = gradcam.heat_maps(model, torch.randn(2, 3, fixed, fixed), [torch.tensor([0, 1]), torch.tensor([2, 3])])
    assert (found is None) == (name in DENSE or "vit" in name)
    for maps in found or ():
        assert len(maps) == 2 and maps[0].numel() > 1
        assert maps.isfinite().all() and maps.min() >= 0 and maps.max() <= 1


def test_frozen_networks_are_explained_too():
    model = averaging().requires_grad_(False)
    assert gradcam.heat_maps(model, torch.randn(2, 3, 8, 8), [torch.tensor([0, 1])]) is not None
    assert not any(parameter.requires_grad for parameter in model.parameters())


def explained_digits(model="two-block", features=None, said=None):
    """Explain an untrained network whose first test image is a training image, and whose predictions are all 0."""
    config = Config(model=model, dataset="digits")
    data = dataset.load(config, "cpu", lambda line: None)
    data.test.images[0] = data.train.images[700]
    torch.manual_seed(0)
    network = models.create(config, data.image_shape, 10)
    logits = torch.zeros(len(data.test), 10)
    logits[:, 0] = torch.linspace(1, 2, len(logits))
    mistakes = torch.tensor([0, *torch.where(data.test.labels != 0)[0][1:9].tolist()])
    return data, explain.arrays(
        network, data, logits, mistakes, 100, pytest.fail if said is None else said.append, features
    )


def test_a_training_image_is_most_like_itself():
    data, arrays = explained_digits()
    assert arrays["alike_index"].shape == (explain.MISTAKES, explain.ALIKE)
    assert arrays["alike_index"][0, 0] == 700 and arrays["alike_similarity"][0, 0] == pytest.approx(1, abs=1e-5)
    assert (np.diff(arrays["alike_similarity"], axis=1) <= 1e-6).all(), "the most alike first"
    assert (arrays["alike_images"][0, 0] == data.train.images[700].numpy()).all()
    assert arrays["alike_targets"][0, 0] == data.train.labels[700]
    assert arrays["mistake_maps"].shape == (explain.MISTAKES, 2, 4, 4) and arrays["mistake_maps"].dtype == np.uint8
    assert list(arrays["right_targets"]) == [0], "only this class is ever predicted"
    assert data.test.labels[arrays["right_index"]].tolist() == [0]


def test_known_features_are_used_and_a_perceptron_has_no_maps():
    generator = torch.Generator().manual_seed(0)
    data, _ = explained_digits()
    known = {name: torch.randn(len(getattr(data, name)), 7, generator=generator) for name in ("train", "test")}
    known["train"][33] = 3 * known["test"][0]
    data, arrays = explained_digits("mlp", known)
    assert arrays["alike_index"][0, 0] == 33 and "mistake_maps" not in arrays and "right_maps" not in arrays


def test_a_network_that_cannot_be_explained_loses_no_result(monkeypatch):
    def fail(*args):
        raise RuntimeError("no gradient")

    monkeypatch.setattr(gradcam, "heat_maps", fail)
    said = []
    _, arrays = explained_digits(said=said)
    assert arrays == {} and said == ["without explanations of the mistakes: RuntimeError: no gradient"]


@pytest.mark.parametrize("model", ["two-block", "mlp"])
def test_a_run_stores_what_the_report_draws(call, tmp_path, model):
    words = ["--model", model, "--dataset", "digits", "--epochs", "2", "--runs-dir", "runs", "--wandb", "disabled"]
    call("study.train", *words)
    (path,) = (tmp_path / "runs").glob("*/evaluation.npz")
    arrays = RunDirectory(path.parent).evaluation()
    assert ("mistake_maps" in arrays) == (model != "mlp") and "alike_images" in arrays
    figure = explained.figure(arrays, "Title")
    assert_labelled(figure)
    tiles = {"two-block": 6 * explain.MISTAKES + 2 * len(arrays.get("right_maps", ())), "mlp": 4 * explain.MISTAKES}
    maps = {"two-block": 2 * explain.MISTAKES + len(arrays.get("right_maps", ())), "mlp": 0}
    assert len(figure.axes[0].images) == tiles[model] + maps[model]

    # in the whole report, in both languages; a file without these arrays is read as before
    assert explained.blocks in THEMES
    for lang, heading in (("en", "Where the networks look"), ("es", "Dónde miran las redes")):
        with language(lang):
            assert [block.text for block in theme(tmp_path)[:1]] == [heading]
    new = ("mistake_maps", "right_", "alike_")
    RunDirectory(path.parent).write_evaluation({k: v for k, v in arrays.items() if not k.startswith(new)})
    assert theme(tmp_path) == []


def theme(folder):
    """Return the blocks of the only section of the runs in a folder."""
    frames = runs.load(folder / "runs")
    (section,) = sections.by_dataset(frames)
    return explained.blocks(frames, section, figures.looks_of(section.ranked))


def test_large_images_are_stored_small():
    images = torch.randint(256, (2, 3, 192, 144), dtype=torch.uint8)
    small = thumbnails.small(images, explain.SIDE)
    assert small.shape == (2, 3, 96, 72) and small.dtype == torch.uint8
    assert abs(small.float().mean() - images.float().mean()) < 1


def test_a_sheet_has_all_images_row_by_row():
    colours = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 250], [0, 0, 0]], dtype=torch.uint8)
    split = dataset.Split(colours[:, :, None, None].expand(5, 3, 64, 96), torch.zeros(5))
    with Image.open(io.BytesIO(thumbnails.sheet(split))) as sheet:
        assert (sheet.format, sheet.mode, sheet.size) == ("JPEG", "RGB", (3 * 32, 2 * 21))
        pixels = np.asarray(sheet).astype(int)
    found = [pixels[10 + 21 * (place // 3), 16 + 32 * (place % 3)] for place in range(5)]
    assert np.abs(np.array(found) - colours.numpy()).max() < 10
