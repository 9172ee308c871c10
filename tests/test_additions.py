"""How few places an addition touches: a copy of the code gets one of each kind, and trains a sweep with all of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from study import models
from study.config import choices

ROOT = Path(__file__).parent.parent

ADDED = {
    "an option": [
        (
            "study/config/options.py",
            "    epochs: int =",
            '    added_gain: float = _option(1.0, "training", RESULT, "factor of the learning rate", gt=0)\n',
        ),
        (
            "study/training/trainer.py",
            "            progress.lr = config.lr * factor",
            "            factor *= config.added_gain\n",
        ),
        ("analysis/wording/words.py", '    "epochs": mark("epochs"),', '    "added_gain": mark("added gain"),\n'),
    ],
    "an augmentation": [
        ("study/config/choices.py", '    "cutout": {', '    "added_invert": {"added_invert_share": 0.5},\n'),
        (
            "study/config/options.py",
            "    cutout_share: float",
            '    added_invert_share: float | None = _option(None, "augmentation", RESULT, "share of images", gt=0)\n',
        ),
        (
            "study/data/augment.py",
            '    "cutout": _cutout',
            '    "added_invert": lambda images, share, generator: torch.where(\n'
            "        _uniform(images, generator).view(-1, 1, 1, 1) < 2 * share - 1, 255 - images, images\n"
            "    ),\n",
        ),
    ],
    "a metric per epoch": [
        ("study/record/metrics.py", '    Metric("lr"),', '    Metric("time/batches"),\n'),
        (
            "study/training/trainer.py",
            '            "memory/peak_mb": peak,',
            '            "time/batches": self.batches,\n',
        ),
    ],
    "a score": [
        (
            "study/config/scores.py",
            'SCORES: "dict',
            "def added_variety(logits, labels):\n"
            "    return logits.argmax(1).bincount(minlength=4).gt(0).float().mean()\n\n\n",
        ),
        (
            "study/config/scores.py",
            '    "val/top5": partial',
            '    "val/added_variety": added_variety,\n',
        ),
    ],
    "a data set": [
        ("study/config/choices.py", '    "pets": DataSet', '    "added_stripes": DataSet(8),\n'),
        (
            "study/data/sources.py",
            '    if config.dataset == "pets":',
            '    if config.dataset == "added_stripes":\n'
            "        labels = torch.arange(200) % 2\n"
            "        images = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)\n"
            "        images[labels == 1, :, ::2] = 200\n"
            '        return Source({"train": (images, labels)}, ("plain", "striped"))\n',
        ),
    ],
    "a sweep method": [
        (
            "study/sweeps/file.py",
            "from study.sweeps import distributions as space",
            "from study.sweeps import added_ends\n",
        ),
        ("study/sweeps/file.py", '    "random": random.METHOD,', '    "added_ends": added_ends.METHOD,\n'),
    ],
}
"""For each kind its changes: the file, the line before which something is put, and what is put there.

Their names are none that anybody would give to an addition of their own.
"""

FILES = {
    "an option": 3, "an augmentation": 3, "a metric per epoch": 2, "a score": 1, "a data set": 2, "a sweep method": 2,
}  # fmt: skip
"""Number of files of code that each kind may touch, a new one included."""

ENDS = '''"""The first and the last point of a grid."""

from study.sweeps import grid
from study.sweeps.method import Method


def points(parameters, run_cap):
    every = list(grid.points(parameters, None))
    return [every[0], every[-1]]


METHOD = Method(points, size=lambda parameters, run_cap: 2, is_search=False)
'''


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Copy the code and put everything of ADDED into it, each kind in its number of files."""
    folder = tmp_path_factory.mktemp("house")
    for tree in ("study", "analysis"):
        shutil.copytree(ROOT / tree, folder / tree, ignore=shutil.ignore_patterns("__pycache__"))
    for kind, changes in ADDED.items():
        for name, before, line in changes:
            text = (folder / name).read_text(encoding="utf-8")
            assert text.count(before) == 1, f"{name} has no single {before!r}"
            (folder / name).write_text(text.replace(before, line + before), encoding="utf-8")
        touched = {name for name, _, _ in changes if name.endswith(".py")}
        if kind == "a sweep method":
            (folder / "study" / "sweeps" / "added_ends.py").write_text(ENDS, encoding="utf-8")
            touched.add("study/sweeps/added_ends.py")
        assert len(touched) <= FILES[kind], f"{kind} touches {touched}"
    return folder


def run(folder: Path, *words: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_one_of_each_kind_is_added_and_used(house):
    spec = {
        "method": "added_ends",
        "metric": {"name": "val/added_variety", "goal": "maximize"},
        "parameters": {
            "model": {"value": "mlp"},
            "dataset": {"value": "added_stripes"},
            "augment": {"value": "added_invert"},
            "epochs": {"value": 2},
            "added_gain": {"values": [1.0, 2.0, 3.0]},
            "seed": {"values": [0, 1]},
        },
    }
    (house / "added.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    run(house, "-m", "study.sweep", "run", "added.yaml")
    infos = [json.loads(path.read_text(encoding="utf-8")) for path in house.glob("runs/*/run.json")]
    assert [info["state"] for info in infos] == ["finished"] * 2
    assert {(info["config"]["added_gain"], info["config"]["seed"]) for info in infos} == {(1.0, 0), (3.0, 1)}
    histories = [path.read_text(encoding="utf-8").splitlines() for path in house.glob("runs/*/history.jsonl")]
    assert {json.loads(row)["lr"] for rows in histories for row in rows} == {0.01, 0.03}, "the option is used"
    assert {info["config"]["added_invert_share"] for info in infos} == {0.5}
    assert len({info["fingerprint"] for info in infos}) == 2, "the option is part of what a run computes"
    code = "from analysis.frames import runs; print(runs.load('runs').history['time/batches'].tolist())"
    assert json.loads(run(house, "-c", code)) == [2.0] * 4
    code = (
        "from analysis import compare, load, sections; "
        "(section,) = sections(load('runs')); frame = compare(section); "
        "print([section.metric, sorted(frame.val_added_variety), sorted(frame.test_added_variety)])"
    )
    ranked, val, test = json.loads(run(house, "-c", code).replace("'", '"'))
    assert ranked == "val/added_variety" and {*val, *test} <= {25.0, 50.0}, "one or two of four"
    assert "added gain 3.0" in run(house, "-c", "from study.sweep import main; main(['status', 'added.yaml'])")


def shapeless(config, image_shape, classes):
    """Forget to return the network."""


ADDED_INVERT = {"augment": "added_invert"}
HALVES = [
    (ADDED_INVERT, None, ["AUGMENTATIONS of study/config/choices.py"]),
    (
        ADDED_INVERT,
        (choices.AUGMENTATIONS, "added_invert", {"added_share": 0.5}),
        ["added_share", "study/config/options.py"],
    ),
    (
        ADDED_INVERT,
        (choices.AUGMENTATIONS, "added_invert", {}),
        ["added_invert", "COLOURING in study/data/augment.py"],
    ),
    ({"model": "added"}, None, ["NETWORKS of study/config/choices.py"]),
    ({"model": "mlp"}, (models.NETWORKS, "mlp", None), ["NETWORKS in study/models/__init__.py"]),
    ({"model": "mlp"}, (models.NETWORKS, "mlp", shapeless), ["'mlp'", "return a network", "None"]),
    ({"metric": "val/added_score"}, None, ["SCORES of study/config/scores.py"]),
]
"""Options, a row of a table that is added or, with None, missing, and what the command must say."""


@pytest.mark.parametrize(("options", "row", "words"), HALVES)
def test_what_a_half_done_addition_lacks_is_named(options, row, words, request, call, tmp_path):
    if row:
        table, name, content = row
        before = dict(table)
        request.addfinalizer(lambda: (table.clear(), table.update(before)))  # in the same order
        table.pop(name) if content is None else table.update({name: content})
    options = {"model": "mlp", "dataset": "digits", "epochs": 1, "wandb": "disabled"} | options
    said = call("study.train", *(f"--{name}={value}" for name, value in options.items()), code=2).stderr
    assert all(word in said for word in words) and said.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))
