"""Transfer: pretrained weights from files and downloads, fine-tuning, and SVMs, with small networks of timm's."""

import http.server
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC

from analysis import reporting as report
from analysis.frames import runs
from analysis.frames.sections import of_sweep
from analysis.themes import layers, speed
from analysis.themes import transfer as analysis_transfer
from analysis.wording.texts import language
from study import models
from study.config import Config
from study.config.setting import Setting
from study.models import pretrained
from study.record.directory import RunDirectory
from study.sweeps import definition as search
from study.system.errors import UserError
from study.training.svm import PENALTIES, load_data
from study.training.trainer import Trainer

CPU = torch.device("cpu")
NETWORK = "timm:test_efficientnet"
SWEEP = Path(__file__).parent.parent / "sweeps" / "transfer.yaml"


@pytest.fixture
def weights(tmp_path) -> Path:
    """Save a network as pretrained weights are published: of 1,000 classes, under timm's names."""
    torch.manual_seed(7)
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), path)
    return path


@pytest.fixture
def animals(tmp_path, digit_images) -> Path:
    """Make data/animals/{train,val,test}/{three,eight}/ with 40, 20 and 80 real digits each, as 32×32 PNG files."""
    images, labels = digit_images
    for name, label in (("three", 3), ("eight", 8)):
        own = iter(images[labels == label])
        for split, count in (("train", 40), ("val", 20), ("test", 80)):
            folder = tmp_path / "data" / "animals" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(next(own)).convert("RGB").resize((32, 32)).save(folder / f"{index:02d}.png")
    return tmp_path / "data" / "animals"


def options(weights: Path, **more) -> dict:
    return {
        "model": NETWORK, "dataset": "folder:animals", "data_dir": str(weights.parent / "data"), "image_size": 32,
        "weights": str(weights), "runs_dir": str(weights.parent / "runs"), "wandb": "disabled", **more,
    }  # fmt: skip


def argv(weights: Path, **more) -> list[str]:
    return [f"--{key}={value}" for key, value in options(weights, **more).items()]


def run_of(weights: Path, **more) -> RunDirectory:
    return RunDirectory.of(Config.parse(options(weights, **more)))


def begun(weights: Path, **more) -> Trainer:
    """Make a trainer that begins with the weights of a file."""
    config = Config.parse(options(weights, epochs=2, batch_size=16, **more))
    given = pretrained.read(config, print)
    return Trainer(config, load_data(config, given, CPU, print), CPU, pretraining=given)


def test_an_svm_predicts_what_a_plain_script_does(call, weights, animals):
    call("study.train", *argv(weights, finetune="svm"))
    run = run_of(weights, finetune="svm")
    summary, arrays = run.summary(), run.evaluation()

    model = timm.create_model("test_efficientnet", num_classes=0).eval()
    model.load_state_dict({k: v for k, v in load_file(weights).items() if not k.startswith("classifier.")})
    told = model.pretrained_cfg
    x, y = {}, {}
    for split in ("train", "val", "test"):
        files = sorted(animals.glob(f"{split}/*/*.png"))
        pixels = np.stack([np.asarray(Image.open(file)) for file in files]) / 255
        pixels = torch.tensor((pixels - told["mean"]) / told["std"], dtype=torch.float32).permute(0, 3, 1, 2)
        with torch.no_grad():
            x[split] = model(pixels).numpy()
        y[split] = np.array([["eight", "three"].index(file.parent.name) for file in files])
    length_one = {split: features / np.linalg.norm(features, axis=1, keepdims=True) for split, features in x.items()}
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    svms = [LinearSVC(C=c, random_state=0, fit_intercept=False, max_iter=5000) for c in PENALTIES]
    accuracies = [cross_val_score(svm, length_one["train"], y["train"], cv=folds).mean() for svm in svms]
    best = svms[accuracies.index(max(accuracies))]
    best.fit(length_one["train"], y["train"])
    predicted = best.predict(x["test"])

    assert summary["test/acc"] == np.mean(predicted == y["test"]) > 0.8
    assert (arrays["test_predictions"] == predicted).all()
    assert run.info()["svm_penalty"] == best.C
    assert np.allclose(arrays["penultimate"], x["val"], atol=2e-3)
    scores = best.decision_function(x["test"])
    odds = np.log(arrays["test_probabilities"][:, 1] / arrays["test_probabilities"][:, 0].astype(np.float32))
    assert np.corrcoef(odds, scores)[0, 1] > 0.999
    assert [row["epoch"] for row in run.history()] == [1]
    assert summary["last/val_acc"] == summary["best/val_acc"] == best.score(x["val"], y["val"])


def test_svms_of_several_seeds_cost_one_extraction_and_are_used_without_the_weights(call, weights, animals):
    said, accuracies = "", []
    for seed in range(3):
        said += call("study.train", *argv(weights, finetune="svm", seed=seed, train_images=16)).stdout
        accuracies.append(run_of(weights, finetune="svm", seed=seed, train_images=16).summary()["test/acc"])
    assert said.count("extracting the features of 280 images") == 1
    assert said.count("16 training, 40 validation and 160 test images of 3×32×32") == 3
    assert len(set(accuracies)) > 1
    run = run_of(weights, finetune="svm", seed=0, train_images=16)
    weights.unlink()
    files = sorted((animals / "test" / "three").glob("*.png"))
    lines = call("study.predict", run.path, *files).stdout.splitlines()
    recall = np.mean(run.evaluation()["test_predictions"][-80:] == 1)
    assert np.mean([": three" in line for line in lines]) == recall


def test_the_same_weights_are_the_same_run_wherever_they_lie(weights, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.read_bytes())
    one, same = Config.parse(options(weights)), Config.parse(options(copy))
    assert one.pretrained is True
    assert one.fingerprint == same.fingerprint == Config.recorded(one.model_dump()).fingerprint
    copy.write_bytes(copy.read_bytes() + b" ")
    assert Config.parse(options(copy)).fingerprint != one.fingerprint
    scratch = Config.parse(options(weights, pretrained=False))
    assert scratch.weights is None
    assert scratch.fingerprint == Config.parse(options(weights) | {"weights": None}).fingerprint
    with pytest.raises(UserError, match=r"nowhere\.pt cannot be read: No such file"):
        pretrained.read(Config.recorded(one.model_dump() | {"weights": "nowhere.pt"}), print)
    with pytest.raises(UserError, match=r"is not the file that the run names: its digest is .*, not "):
        pretrained.read(Config.recorded(one.model_dump() | {"weights": str(copy)}), print)


def broken(name: str, path: Path) -> None:
    """Write a file that is not the weights of the network, in one way or another."""
    state = load_file(path)
    changed = {
        "lacking": {key: value for key, value in state.items() if not key.startswith("blocks.3")},
        "unknown": state | {"extra.weight": torch.zeros(1)},
        "shape": state | {"conv_stem.weight": torch.zeros(5, 3, 3, 3)},
        "empty": {},
    }
    if name in changed:
        save_file(changed[name], path)
    elif name == "other file":
        path.write_text("not weights", encoding="utf-8")
    else:
        torch.save({"state_dict": state, "code": pytest.raises}, path.with_suffix(".pt"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lacking", r"does not fit timm:test_efficientnet: it lacks blocks\.3\..*, blocks\.3\..* and \d+ more"),
        ("unknown", r"does not fit timm:test_efficientnet: the network has no extra\.weight"),
        ("shape", r"does not fit timm:test_efficientnet: conv_stem\.weight \(it is 5×3×3×3, not 24×3×3×3\)"),
        ("empty", r"holds no weights"),
        ("other file", r"cannot be read as weights"),
        ("pickle", r"cannot be read as weights"),
    ],
)
def test_weights_that_do_not_fit_are_named_before_data_are_looked_for(name, message, weights):
    broken(name, weights)
    path = weights.with_suffix(".pt") if name == "pickle" else weights
    with pytest.raises(UserError, match=message):
        pretrained.read(Config.parse(options(path)), print)


def test_a_run_with_other_weights_ends_before_data_are_loaded(call, weights, animals):
    broken("shape", weights)
    out = call("study.train", *argv(weights), code=2)
    assert "does not fit" in out.stderr
    assert "images" not in out.stdout
    assert run_of(weights).state() == "missing"


def test_torchvisions_names_are_timms(tmp_path):
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=7)
    torch.save({"model": model.state_dict()}, tmp_path / "resnet18.pth")
    config = Config.parse({"model": "resnet18", "weights": str(tmp_path / "resnet18.pth")})
    given = pretrained.read(config, print)
    own = models.create(config, (3, 48, 48), 2)
    heads = pretrained.begin(own, given, config)
    assert heads == ("fc",)
    assert given.image_size == 224
    own.fc = model.fc
    images = torch.randn(2, 3, 48, 48)
    assert torch.equal(own.eval()(images), model.eval()(images))


def test_grey_images_are_seen_as_colours_were(weights):
    config = Config.parse(options(weights))
    given = pretrained.read(config, print)
    torch.manual_seed(0)
    coloured, grey = (models.create(config, (channels, 32, 32), 2).eval() for channels in (3, 1))
    for model in (coloured, grey):
        pretrained.begin(model, given, config)
        model.classifier = coloured.classifier
    images = torch.randn(4, 1, 32, 32)
    assert torch.allclose(grey(images), coloured(images.expand(-1, 3, -1, -1)), atol=1e-5)
    digits = load_data(Config.parse(options(weights, dataset="digits")), given, CPU, print)
    assert digits.image_shape == (1, 32, 32)
    assert digits.mean == (pytest.approx(255 * np.mean([0.485, 0.456, 0.406])),)


def test_a_position_is_pretrained_for_images_of_any_size(tmp_path):
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    config = Config.parse({"model": "timm:test_vit", "weights": str(tmp_path / "vit.safetensors"), "image_size": 64})
    given = pretrained.read(config, print)
    model = models.create(config, (3, 64, 64), 2)
    pretrained.begin(model, given, config)
    assert given.image_size == 64
    with pytest.raises(UserError, match=r"timm:test_vit cannot be built .* for images of 50×50"):
        pretrained.read(config.model_copy(update={"image_size": 50}), print)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


@pytest.mark.parametrize(
    "name", ["resnet18", "timm:test_resnet", "timm:test_vit", "timm:test_convnext", "timm:dla46_c"]
)
def test_the_last_layer_is_linear_in_the_features(name):
    torch.manual_seed(0)
    model = models.create(Config(model=name), (3, 64, 64), 3).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = models.activations(model, images)
        (head,) = (model.get_submodule(path) for path in pretrained.head_names(model))
        again = torch.nn.functional.linear(found["penultimate"], head.weight.flatten(1), head.bias)
        assert torch.allclose(again, model(images), atol=1e-5)


def test_only_the_head_of_a_frozen_network_changes(weights, animals):
    one = begun(weights, finetune="head", augment="flip")
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    one.fit(lambda row: None)
    changed = {name for name, value in one.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_a_pretrained_body_learns_more_slowly_and_after_a_warm_up(weights, animals):
    one = begun(weights, body_lr_factor=0.25, decay_norm_bias=False, weight_decay=0.1)
    rates = []
    take = one.step
    one.step = lambda *batch: (rates.append([group["lr"] for group in one.optimizer.param_groups]), take(*batch))[1]
    groups = one.optimizer.param_groups
    names = {id(parameter): name for name, parameter in one.model.named_parameters()}
    assert sum(len(group["params"]) for group in groups) == len(names)
    for group in groups:
        in_head = {names[id(parameter)].startswith("classifier.") for parameter in group["params"]}
        assert in_head == {group["lr"] == 0.001}
        assert (group["weight_decay"] == 0) == all(parameter.ndim < 2 for parameter in group["params"])
    rows = []
    one.fit(rows.append)
    first, last = rates[0], rates[-1]
    assert first == pytest.approx([rate / (one.batches + 1) for rate in last])
    assert sorted(set(last)) == pytest.approx([0.00025, 0.001])
    assert rows[-1]["lr"] == pytest.approx(0.001)
    assert not torch.equal(one.model.conv_stem.weight, load_file(weights)["conv_stem.weight"])


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_batch_norm_keeps_the_statistics_of_the_pretraining_unless_told(batch_statistics, weights, animals):
    one = begun(weights, batch_statistics=batch_statistics)
    one.fit(lambda row: None)
    now, before = one.model.state_dict(), load_file(weights)
    kept = [torch.equal(now[name], before[name]) for name in now if name.endswith(("running_mean", "running_var"))]
    assert all(kept) != batch_statistics
    assert any(kept) != batch_statistics


def test_fine_tuning_goes_on_where_it_was_cut_off(weights, animals, tmp_path):
    whole, cut, again = (begun(weights, finetune="head") for _ in range(3))
    whole.fit(lambda row: None)
    cut.fit(lambda row: None, must_stop=lambda: cut.progress.iterations == 7)
    torch.save(cut.state_dict(), tmp_path / "last.pt")
    assert again.load(tmp_path / "last.pt")
    again.fit(lambda row: None)
    assert all(torch.equal(a, b) for a, b in zip(whole.best_weights.values(), again.best_weights.values(), strict=True))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Serve a folder as the hub of weights does, and let nothing else be asked."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def end_headers(self):
            self.send_header("ETag", '"1"')
            self.send_header("X-Repo-Commit", "0" * 40)
            super().end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{constants.ENDPOINT}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    yield folder
    server.shutdown()
    server.server_close()


def test_weights_are_downloaded_through_timm(hub, weights):
    where = hub / "timm/test_efficientnet.r160_in1k/resolve/main"
    where.mkdir(parents=True)
    (where / "model.safetensors").write_bytes(weights.read_bytes())
    said = []
    given = pretrained.read(Config(model=NETWORK, pretrained=True), said.append)
    assert given.source == "timm test_efficientnet.r160_in1k"
    assert given.image_size == 160
    assert given.digest == pretrained.read(Config.parse(options(weights)), print).digest
    assert "downloaded" in said[0]


def test_a_download_that_cannot_be_had_says_how_to_do_without(hub, call, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    out = call("study.train", "--model=resnet18", "--pretrained", "--wandb=disabled", "--dataset=digits", code=2)
    (line,) = out.stderr.splitlines()
    assert line.startswith("error: the pretrained weights of resnet18 cannot be downloaded (")
    assert "download the weights of timm/resnet18.tv_in1k" in line and "--weights FILE" in line
    assert "training images" not in out.stdout
    with pytest.raises(UserError, match=r"timm has no pretrained weights for timm:botnet50ts_256; .*--weights FILE"):
        pretrained.read(Config(model="timm:botnet50ts_256", pretrained=True), print)


def test_the_sweep_has_four_ways_whatever_is_put_in_their_place(weights):
    sweep = search.read(SWEEP)
    values = {key: str(value) for key, value in options(weights).items() if key not in ("runs_dir", "wandb")}
    points = sweep.replaced(values | {"train_images": "16", "classes": "", "epochs": "2"}).points()
    configs = [point.config for point in points]
    found = [(c.pretrained, c.finetune, c.augment, c.epochs, c.weights_digest) for c in configs if c.seed == 0]
    digest = Config.parse(options(weights)).weights_digest
    assert found == [
        (False, None, (), 2, None), (True, "svm", (), 1, digest), (True, "all", (), 2, digest),
        (True, "all", ("flip", "crop"), 2, digest),
    ]  # fmt: skip
    assert len(points) == 12


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "cnn", "pretrained": True}, "model cnn has no pretrained"),
        ({"finetune": "svm", "epochs": 3}, "finetune svm has no epochs"),
        ({"finetune": "svm", "lr": 0.1}, "finetune svm has no lr"),
        ({"finetune": "svm", "optimizer": "sgd"}, "a network with finetune svm has no optimizer"),
        ({"finetune": "svm", "early_stopping": 3}, "finetune svm has no early_stopping"),
        ({"finetune": "svm", "augment": "flip"}, "finetune svm has no augment"),
        ({"finetune": "head", "body_lr_factor": 0.5}, "a network with finetune head has no body_lr_factor"),
        ({"finetune": "tail"}, "finetune must be 'all', 'head' or 'svm', not 'tail'"),
        ({"pretrained": False, "finetune": "head"}, "a network from scratch has no finetune; it needs --pretrained"),
        ({"stem": "cifar"}, "a pretrained network keeps its own stem"),
        ({"pretrained": False, "weights_digest": "0123"}, "weights_digest needs --pretrained"),
        ({"weights": "nowhere.pt"}, "nowhere.pt cannot be read: No such file"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(values, message):
    with pytest.raises(UserError, match=message):
        Config.parse({"model": NETWORK, "pretrained": True} | values)


WAYS = ("pretrained=False", "finetune=svm", "finetune=all", "finetune=all augment=flip,crop", "finetune=head",
        "finetune=head lr=0.05")  # fmt: skip


@pytest.mark.slow
def test_the_report_compares_the_ways(call, weights, animals, tmp_path):
    values = options(weights, epochs=3, batch_size=16, train_images=40)
    for seed in (0, 1):
        for way in WAYS:
            call(
                "study.train",
                *(f"--{key}={value}" for key, value in values.items()),
                f"--seed={seed}",
                f"--setting={way}",
            )
    text = SWEEP.read_text(encoding="utf-8")
    sweep_file = tmp_path / "ways.yaml"
    fixed = {key: {"value": value} for key, value in values.items()}
    parameters = fixed | {"setting": {"values": list(WAYS)}, "seed": {"values": [0, 1]}}
    sweep_file.write_text(yaml.safe_dump(yaml.safe_load(text) | {"parameters": parameters}), encoding="utf-8")
    frames = runs.load(tmp_path / "runs")
    (section,) = of_sweep(frames, search.read(sweep_file))
    assert section.missing == []

    _, said, table, picture = analysis_transfer.blocks(frames, section, {})
    frame = table.frame.set_index("setting")
    assert len(said.texts) == 3
    assert {str(setting): way for setting, way in frame.way.items()} == {
        "pretrained False": "scratch", "finetune svm": "svm", "finetune all": "tuned",
        "finetune all, augment flip,crop": "augmented", "finetune head": "head", "finetune head, lr 0.05": "head",
    }  # fmt: skip
    titles = [" ".join(axes.get_title().split("k-NN")[0].split()) for axes in picture.figure.axes]
    assert len(titles) == 4 and {"from scratch", "fine-tuned", "fine-tuned with augmentation"} < set(titles)
    (frozen,) = (title for title in titles if "SVM" in title)  # the features of a frozen body are drawn once
    assert "pretrained features + linear SVM" in frozen and "frozen body, new head (finetune head, lr 0.05)" in frozen
    assert ("not depend on the seed" in " ".join(table.notes)) == bool(analysis_transfer.seedless(section))
    level = section.runs.assign(**{"best/val_acc": 0.5, "test/acc": 0.5})
    assert analysis_transfer.seedless(replace(section, runs=level)) == [Setting((("finetune", "svm"),))]
    level["test/acc"] = level.seed / 10
    assert analysis_transfer.seedless(replace(section, runs=level)) == []
    for setting, runs_of_setting in section.runs.groupby("setting"):
        histories = [frames.directories[run].history() for run in runs_of_setting.index]
        last = np.mean([100 * history[-1]["val/acc"] for history in histories])
        best = np.mean([max(100 * row["val/acc"] for row in history) for history in histories])
        assert (frame.score_last[setting], frame.score[setting]) == (pytest.approx(last), pytest.approx(best))
        assert frame.train_seconds[setting] == pytest.approx(runs_of_setting.train_seconds.mean())
    reaches = {(axes.get_xlim(), axes.get_ylim()) for axes in picture.figure.axes}
    assert len(reaches) == 1
    with language("es"):
        spanish = analysis_transfer.blocks(frames, section, {})
    assert not set(said.texts) & set(spanish[1].texts)
    scratch = replace(section, runs=section.runs[section.runs.pretrained.eq(False)])
    assert analysis_transfer.blocks(frames, scratch, {}) == []
    assert speed.table(replace(section, runs=section.runs[section.runs.finetune == "svm"])) is None
    (looks,) = report.looks_of([section])
    for theme in set(report.THEMES) - {layers.blocks}:
        theme(frames, section, looks)


def test_features_that_hardly_vary_in_training_do_not_decide(call, weights, animals):
    """Train on pictures that are nearly black: what a few features make of the bright test images is new to the SVM."""
    for path in (*animals.glob("train/*/*.png"), *animals.glob("val/*/*.png")):
        Image.fromarray(np.asarray(Image.open(path)) // 32).save(path)
    call("study.train", *argv(weights, finetune="svm"))
    assert run_of(weights, finetune="svm").summary()["test/loss"] < 1.5


def test_one_rare_class_does_not_keep_c_from_being_cross_validated(call, weights, animals):
    for split in ("train", "val", "test"):
        (animals / split / "rare").mkdir()
        (animals / split / "three" / "00.png").rename(animals / split / "rare" / "00.png")
    call("study.train", *argv(weights, finetune="svm"))
    run = run_of(weights, finetune="svm")
    assert run.summary()["test/acc"] > 0.8 and run.info()["svm_penalty"] in PENALTIES
