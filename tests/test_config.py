"""Config: one class for argv, files, sweeps, W&B and the run's identity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study import models
from study.config import Config, is_identity
from study.config.argv import parse_words, parser, read_argv, read_command
from study.config.choices import AUGMENTATIONS, NETWORKS, OPTIMIZERS, SCHEDULES, own_options
from study.config.scores import CHOOSING
from study.data import augment
from study.system.errors import UserError
from study.system.process import Parser
from study.training import optim

FROZEN = {
    (): "4968e83bec",
    (("dropout", 0.5),): "1d37f914cf",
    (("model", "cnn"), ("dropout", 0.5)): "c48429b43b",
    (("model", "mlp"), ("epochs", 50), ("seed", 3)): "431be6d05f",
    (("model", "all-conv"), ("dataset", "digits")): "e28104a6e9",
    (("dataset", "folder:pets"), ("image_size", 64)): "4a76361996",
    (("augment", "flip,crop"), ("seed", 1)): "5079bb01e4",
    (("optimizer", "adam"), ("lr", 0.001)): "aa989f1e61",
    (("momentum", 0.5), ("lr", 0.005), ("batch_size", 10)): "283841bc16",
    (("filters", "16,32"), ("hidden", "64"), ("weight_decay", 0.0005), ("split_seed", 7)): "ec7f7bd4c4",
}
"""Fingerprints of released configs: one that changes needs a new RESULTS_VERSION."""


def from_argv(*argv: str) -> Config:
    return Config.parse(read_argv(parser("test", ""), list(argv)))


@pytest.mark.parametrize(("values", "fingerprint"), FROZEN.items())
def test_fingerprints_are_frozen(values, fingerprint):
    assert Config.parse(dict(values)).fingerprint == fingerprint


def test_argv_as_wandb_agent_passes_it():
    config = from_argv(
        "--lr=0.2", "--batch_size=64.0", "--keep-weights", "False", "--augment=flip,crop", "--seed", "1",
        "--_wandb_internal=1", "--model=cnn", "--dropout=5e-1", "--hidden=None",
    )  # fmt: skip
    assert (config.lr, config.batch_size, config.keep_weights, config.seed) == (0.2, 64, False, 1)
    assert (config.augment, config.dropout, config.hidden) == (("flip", "crop"), 0.5, (100,))
    assert from_argv("--keep-weights").keep_weights is True


def test_where_a_run_is_to_be_can_be_left_to_the_environment(monkeypatch):
    usual = from_argv("--seed=1")
    monkeypatch.setenv("STUDY_RUNS_DIR", "kept")
    monkeypatch.setenv("STUDY_DATA_DIR", "pictures")
    config = from_argv("--seed=1", "--data-dir=others")
    assert (config.runs_dir, config.data_dir, usual.runs_dir) == ("kept", "others", "runs")
    assert config.fingerprint == usual.fingerprint


def test_the_same_config_from_text_and_from_values():
    text = {"model": "cnn", "dropout": "0.50", "epochs": "3.0", "augment": " crop ,flip,flip", "lr": "1e-2"}
    values = {"model": "cnn", "dropout": 0.5, "epochs": 3, "augment": ["flip", "crop"], "lr": 0.01}
    assert Config.parse(text) == Config.parse(values)


MODEL_NAMES = [*sorted(set(NETWORKS) - {"timm:"}), "timm:convnext_atto"]
OPTIMIZER_NAMES = ["sgd", "adam", "adamw", "timm:lion"]
CONFIGS = st.fixed_dictionaries(
    {"model": st.sampled_from(MODEL_NAMES), "optimizer": st.sampled_from(OPTIMIZER_NAMES)},
    optional={
        "dropout": st.floats(0, 0.99),
        "epochs": st.integers(1, 500),
        "lr": st.floats(1e-9, 10),
        "weight_decay": st.floats(0, 1),
        "seed": st.integers(0, 2**31),
        "image_size": st.integers(1, 1024),
        "augment": st.lists(st.sampled_from(sorted(AUGMENTATIONS))).map(",".join),
        "dataset": st.sampled_from(["digits", "cifar10", "folder:x"]),
        "schedule": st.sampled_from(sorted(SCHEDULES)),
        "early_stopping": st.none() | st.integers(1, 9),
        "clip_norm": st.none() | st.floats(0.1, 10),
    },
).map(lambda values: {k: v for k, v in values.items() if k != "dropout" or k in own_options(NETWORKS, values["model"])})
SIDE = 32  # which every network takes
CONFIGS = CONFIGS.map(lambda values: values | {"image_size": max(SIDE, values.get("image_size", SIDE))})


@given(CONFIGS, st.sampled_from(["runs_dir", "data_dir", "notes", "tags"]), st.text(min_size=1))
def test_identity(values, note, text):
    config = Config.parse(values)
    as_text = {key: str(value) for key, value in config.model_dump().items() if value is not None}
    assert Config.parse(as_text) == config == Config.parse(config.model_dump())
    assert Config.parse(values | {note: text}).fingerprint == config.fingerprint
    assert Config.parse(values | {"device": "cpu", "threads": 3}).fingerprint == config.fingerprint
    other_seed = Config.parse(values | {"seed": config.seed + 1})
    assert other_seed.group == config.group
    assert other_seed.fingerprint != config.fingerprint
    assert Config.parse(values | {"epochs": config.epochs + 1}).group != config.group


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--dropuot=0.5"], "unknown option '--dropuot'; did you mean '--dropout'?"),
        (["--dropout=1.5"], "dropout must be less than 1.0, not '1.5'"),
        (["--epochs=-1"], "epochs must be at least 1, not '-1'"),
        (["--epochs", "-1"], "epochs must be at least 1, not '-1'"),
        (["--epochs=2.5"], "epochs must be a whole number, not '2.5'"),
        (["--lr=fast"], "lr must be a number, not 'fast'"),
        (["--lr=nan"], "lr must be a finite number, not 'nan'"),
        (["--lr"], "lr needs a value, such as --lr=…"),
        (["--keep-weights=perhaps"], "keep_weights must be True or False, not 'perhaps'"),
        (["--model=two-blok"], "unknown model 'two-blok'; did you mean 'two-block'?"),
        (["--model=CNN"], "unknown model 'CNN'; did you mean 'cnn'?"),
        (["--dataset=cifar"], "unknown data set 'cifar'; did you mean 'cifar10'?"),
        (["--augment=flip,flop"], "unknown augmentation 'flop'; did you mean 'flip'?"),
        (
            ["--model=all-conv", "--hidden=10"],
            "model all-conv has no hidden; it has activation, batch_norm, dropout, filters",
        ),
        (["--optimizer=adam", "--momentum=0.5"], "optimizer adam has no momentum; only sgd has it"),
        (["--model=cnn", "--filters=32"], "filters of cnn must be as many as its blocks, such as 32,64,128, not 32"),
        (["--hidden=a"], "hidden must be whole numbers from 1 separated by commas, such as 32,64, not 'a'"),
        (
            ["two-block"],
            "unexpected word 'two-block'; options are written --name=value or --name value, lists with commas",
        ),
        (["--device=tpu"], "device must be auto, cpu, mps, cuda or cuda:N, not 'tpu'"),
        (["--rotate-degrees=5"], "augment none has no rotate_degrees; only rotate has it"),
        (["--learning-rate=1"], "unknown option '--learning-rate'; did you mean '--lr'?"),
        (["--epoch=1"], "unknown option '--epoch'; did you mean '--epochs'?"),
        (["--groupby", "patient"], "unknown option '--groupby'; did you mean '--group-by'?"),
        (
            ["--augment=flip,crop", "--cutout-share=.5"],
            "augment flip,crop has no cutout_share; only cutout has it",
        ),
        (
            ["--schedule=onecycle", "--warmup-epochs=1"],
            "schedule onecycle has no warmup_epochs; "
            "only none, step, cosine, timm:plateau, timm:poly, timm:cosine, timm:tanh have it",
        ),
        (
            ["--model=cnn", "--weights=setup.cfg"],
            "model cnn has no weights; only resnet18, resnet34, resnet50, timm:NAME have it",
        ),
        (
            ["--project=mine/cifar"],
            "project must have no /, \\, #, ?, % or : and at most 128 characters (W&B's rule), not 'mine/cifar'",
        ),
        (["--epochs=2", "--warmup-epochs=3"], "warmup_epochs must be at most epochs, 2, not 3"),
        (["--nesterov", "--momentum=0"], "nesterov needs a momentum greater than 0"),
        (
            ["--class-weights=balanced", "--sampling=balanced"],
            "class_weights and sampling together would compensate twice for classes of different sizes: leave out one "
            "of them",
        ),
        (
            ["--early-stopping=2", "--early-stopping-metric=loss"],
            "unknown early_stopping_metric 'loss'; known are: " + ", ".join(CHOOSING),
        ),
        (["--model=vgg11", "--dataset=digits"], "vgg11 needs images of at least 32 px, not 8×8"),
        (["--model=cnn", "--image-size=4"], "cnn needs images of at least 8 px, not 4×4"),
        (["--dataset=pets"], "pets are photographs of many sizes; give --image-size, such as 224"),
        (["--setting=fast"], "setting takes key=value pairs, such as model=mlp epochs=50, not 'fast'"),
    ],
)
def test_a_mistake_is_one_sentence(argv, message):
    with pytest.raises(UserError) as caught:
        from_argv(*argv)
    assert str(caught.value) == message


def test_lists_are_read_as_they_are_typed_and_as_wandb_agent_writes_them():
    for text in ("64,32", "[64, 32]", [64, 32], (64.0, 32.0)):
        assert Config.parse({"model": "mlp", "hidden": text}).hidden == (64, 32)
    for text in ("cat,dog", "['cat', 'dog']", ["dog", "cat"]):
        assert Config.parse({"classes": text}).classes == ("cat", "dog")
    assert Config.parse({"classes": 7, "dataset": "folder:years"}).classes == ("7",)
    with pytest.raises(UserError, match=r"^augment must be a list .*not 'flip\\ncrop'$"):
        Config.parse({"augment": "flip\ncrop"})


def test_the_home_folder_is_expanded_within_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pt").write_bytes(b"weights")
    config = Config.parse({"setting": "model=resnet18 weights=~/w.pt data_dir=~/d"})
    assert (config.weights, config.data_dir) == (f"{tmp_path}/w.pt", f"{tmp_path}/d")
    assert config.weights_digest == Config.parse({"model": "resnet18", "weights": "~/w.pt"}).weights_digest


@pytest.mark.parametrize(
    ("argv", "pairs", "words"),
    [
        (["--set", "a=1", "b=2", "x.yaml"], ["a=1", "b=2"], ["x.yaml"]),
        (["x.yaml", "--set", "a=1", "y.yaml"], ["a=1"], ["x.yaml", "y.yaml"]),
        (["--set", "a=1", "--set=a=2", "x.yaml"], ["a=1", "a=2"], ["x.yaml"]),
        (["--set", "a=1", "--", "x.yaml"], ["a=1"], ["x.yaml"]),
        (["--set", "a", "x.yaml"], ["a"], ["x.yaml"]),
    ],
)
def test_set_takes_pairs_and_leaves_other_words(argv, pairs, words):
    options = Parser("test")
    options.add_argument("files", nargs="*")
    options.add_argument("--set", action="append", default=[])
    args, more = parse_words(options, argv)
    assert (args.set, [*args.files, *more]) == (pairs, words)


def test_setting_overrides_what_stands_beside_it():
    config = Config.parse({"setting": "model=mlp epochs=50", "epochs": 30})
    assert (config.model, config.epochs) == ("mlp", 50)
    assert config.fingerprint == Config.parse({"model": "mlp", "epochs": 50}).fingerprint


def test_names_are_those_of_the_registries():
    assert sorted(models.names()) == sorted(NETWORKS)
    assert sorted(augment.NAMES) == sorted(AUGMENTATIONS)
    assert {*optim.OPTIMIZERS, "timm:"} == set(OPTIMIZERS)


def test_every_option_is_explained():
    text = parser("test", "").format_help()
    for name, field in Config.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description
        is_note = field.json_schema_extra["group"] in ("execution", "records") or name == "weights"
        assert is_identity(name) != is_note, "what is computed or how it is recorded"


@pytest.mark.parametrize("dataset", ["folder:anna's #1", "folder:a;b,c?d[e]*", "folder:mis gatos"])
def test_a_run_has_a_name_that_wandb_and_file_systems_take(dataset):
    assert not set(":;,#?/'[]*") & set(Config(dataset=dataset).run_name)


@pytest.mark.parametrize("name", ["force", "dry_run"])
def test_a_switch_is_on_or_off(name):
    option = f"--{name.replace('_', '-')}"
    for words, value in (([], False), ([option], True), ([f"{option}=yes"], True), ([option, "False"], False)):
        assert getattr(read_command(words), name) is value
    with pytest.raises(UserError, match=f"{name} must be True or False, not 'maybe'"):
        read_command([f"{option}=maybe"])
