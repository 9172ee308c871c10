"""Folders without class folders, subjects, copies of images, and what a run records of its data."""

import csv
import os
import shutil
import signal
import unicodedata
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics

from analysis.frames import runs, sections
from analysis.themes import about, brief, protocol
from study.config import Config
from study.data import dataset as data
from study.data import folder, splits
from study.data.labels import table as read_table
from study.record.directory import RunDirectory
from study.system.errors import Interrupted, UserError
from study.training.trainer import Trainer

WORDS = ("zero", "one", "two")


@pytest.fixture
def flat(tmp_path, digit_images):
    """Put 20 zeros, 20 ones and 10 twos into one folder, as `zero_p00_03.png`: the class, the subject and a number."""
    root = tmp_path / "data" / "flat"
    root.mkdir(parents=True)
    images, labels = digit_images
    for label, (word, count) in enumerate(zip(WORDS, (20, 20, 10), strict=True)):
        for index, image in enumerate(images[labels == label][:count]):
            Image.fromarray(image).save(root / f"{word}_p{label}{index // 4}_{index:02d}.png")
    return root


def config_of(root: Path, **values) -> Config:
    return Config.parse({"dataset": f"folder:{root.name}", "data_dir": str(root.parent)} | values)


def load(root: Path, said: list[str] | None = None, **values) -> data.Data:
    return data.load(config_of(root, **values), "cpu", [].append if said is None else said.append)


def write_table(root: Path, delimiter: str = ",", columns=("file", "label", "animal"), suffix: bool = True) -> None:
    """Write labels.csv with the class and the subject of each image, and one row about no image."""
    with (root / "labels.csv").open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file, delimiter=delimiter)
        rows.writerow(columns)
        for path in sorted(root.glob("*.png")):
            rows.writerow([path.name if suffix else path.stem, *path.stem.split("_")[:2]][: len(columns)])
        rows.writerow(["gone", "zero", "p00"][: len(columns)])


def paths_of(root: Path, **values) -> dict[str, set[str]]:
    """Return the names of the images of each split, found by their pixels."""
    names = {np.asarray(Image.open(path).convert("RGB")).tobytes(): path.name for path in root.rglob("*.png")}
    loaded = load(root, **values)
    return {
        name: {names[image.permute(1, 2, 0).numpy().tobytes()] for image in getattr(loaded, name).images}
        for name in splits.NAMES
    }


# labels


def test_labels_are_read_from_names_and_from_a_table(flat):
    (flat / "notes.txt").write_text("text", encoding="utf-8")
    Image.new("L", (8, 8), 3).save(flat / "12.png")
    by_name = load(flat, said := [], labels="^([a-z]+)_")
    assert by_name.classes == ("one", "two", "zero")
    assert by_name.skipped == {".txt": 1, "image without a label": 1}
    assert any("1 image without a label" in line for line in said)
    (flat / "12.png").unlink()
    for delimiter, columns, suffix, labels in (
        (",", ("file", "label", "animal"), True, "labels.csv"),
        (";", ("id", "breed"), False, "labels.csv"),
        ("\t", ("image id", "breed", "animal"), False, "labels.csv:image id,breed"),
    ):
        write_table(flat, delimiter, columns, suffix)
        by_table = load(flat, labels=labels)
        assert by_table.skipped == {".txt": 1, "row without an image": 1}
        for name in splits.NAMES:
            assert (getattr(by_table, name).images == getattr(by_name, name).images).all()
            assert (getattr(by_table, name).labels == getattr(by_name, name).labels).all()


@pytest.mark.parametrize("column", ["split", "Split"])
def test_a_table_says_the_splits_and_labels_may_have_spaces(flat, column):
    files = sorted(path.name for path in flat.glob("*.png"))
    kinds = {"Train": files[::2], "validation": files[1::4], "TEST": files[3::4]}
    rows = [(name, f"{name.split('_')[0]} ", kind) for kind, own in kinds.items() for name in own]
    rows += [(name, label.strip(), kind) for name, label, kind in rows[:3]]
    lines = [f"file,label,{column}", *map(",".join, rows)]
    (flat / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    found = paths_of(flat, labels="labels.csv")
    assert [found[name] for name in splits.NAMES] == [set(own) for own in kinds.values()]
    (flat / "labels.csv").write_text("\n".join([lines[0], f"{files[0]},zero,3", *lines[2:-3]]), encoding="utf-8")
    with pytest.raises(UserError, match=rf"column {column} of labels.csv has 3 for .*write train, val or test"):
        load(flat, labels="labels.csv")
    (flat / "labels.csv").write_text("\n".join([*lines, f"{files[0]},one,test"]), encoding="utf-8")
    with pytest.raises(UserError, match=f"two splits for {files[0]}, Train and test"):
        load(flat, labels="labels.csv")


def test_a_row_may_have_more_cells_than_the_table_has_columns(flat):
    rows = [f"{path.name},{path.stem.split('_')[0]},more" for path in sorted(flat.glob("*.png"))]
    (flat / "labels.csv").write_text("\n".join(["file,label", *rows]), encoding="utf-8")
    assert load(flat, labels="labels.csv").classes == ("one", "two", "zero")


@pytest.mark.parametrize("values", [("", ""), ("0", "1")])
def test_a_column_that_names_no_split_is_none(flat, values):
    (flat / "test").mkdir()
    files = sorted(flat.glob("*.png"))
    for path in files[::5]:
        path.rename(flat / "test" / path.name)
    rows = [f"{path.name},{path.stem.split('_')[0]},{values[place % 2]}" for place, path in enumerate(files)]
    (flat / "labels.csv").write_text("\n".join(["file,label,split", *rows]), encoding="utf-8")
    assert paths_of(flat, labels="labels.csv")["test"] == {path.name for path in files[::5]}


def test_accents_match_in_either_form_of_unicode(flat):
    """Files, columns, labels and subjects, whether an accent is a character of its own or not; in any combination."""
    composed, decomposed = (unicodedata.normalize(form, "búho") for form in ("NFC", "NFD"))
    for path in sorted(flat.glob("one_*")):
        path.rename(flat / path.name.replace("one", decomposed if int(path.name[-5]) % 2 else composed))
    for form in ("NFC", "NFD"):
        rows = [
            f"fotó,{composed},niño",
            *(f"{path.name},{path.name.split('_')[0]},{path.name[-5]}" for path in flat.glob("*.png")),
        ]
        name = unicodedata.normalize("NFD", "año.csv")
        (flat / name).write_text(unicodedata.normalize(form, "\n".join(rows)), encoding="utf-8")
        for other in ("NFC", "NFD"):
            words = [unicodedata.normalize(other, word) for word in ("año.csv:fotó,búho", "niño", "^(zero|two|búho)_")]
            by_table = load(flat, labels=words[0], group_by=words[1])
            by_name = load(flat, labels=words[2])
            assert by_table.classes == by_name.classes == (composed, "two", "zero")
            assert sum(map(len, (by_table.train, by_table.val, by_table.test))) == 50
            assert not {"row without an image", "image without a label"} & {*by_table.skipped, *by_name.skipped}
            chosen = load(flat, labels=words[2], classes=f"two,{unicodedata.normalize(other, 'búho')}")
            assert chosen.classes == (composed, "two")


def test_what_is_not_used_is_named(flat):
    write_table(flat)
    lines = (flat / "labels.csv").read_text(encoding="utf-8-sig").splitlines()
    lines = [lines[0], *lines[16:], *(f"gone{index},two,p" for index in range(5))]
    (flat / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    loaded = load(flat, said := [], labels="labels.csv")
    assert loaded.skipped == {"image without a label": 15, "row without an image": 6}
    (line,) = (line for line in said if "not used" in line)
    assert "15 images without a label (one_p10_00.png, one_p10_01.png, one_p10_02.png and 12 more)" in line
    assert "6 rows without an image (gone, gone0, gone1 and 3 more)" in line
    assert loaded.describe()["examples"]["row without an image"] == ["gone", "gone0", "gone1"]


def test_classes_that_differ_in_case_and_tables_that_are_not_used_are_noted(flat):
    write_table(flat)
    (flat / "train").mkdir()
    for path in sorted(flat.glob("*.png")):
        word = path.stem.split("_")[0].replace("two", "ONE")
        (flat / word).mkdir(exist_ok=True)
        path.rename(flat / word / path.name)
    (flat / "train").rmdir()
    (flat / "one" / "IMG_1.HEIC").write_bytes(b"")
    (flat / "rest").mkdir()
    loaded = load(flat, said := [])
    assert loaded.classes == ("ONE", "one", "zero") and loaded.unused == ()
    assert loaded.skipped == {".heic": 1, "folder without images": 1}
    for words in (
        ["'ONE' and 'one' are 2 classes"],
        ["--labels labels.csv"],
        [".heic photographs", "export them as JPEG"],
        ["(rest)"],
    ):
        assert len([line for line in said if all(word in line for word in words)]) == 1, (words, said)
    load(flat, said := [], labels="labels.csv")
    assert not [line for line in said if "--labels" in line or "2 classes" in line]


def test_a_table_of_another_encoding_is_refused_with_what_to_do(flat):
    (flat / "labels.csv").write_bytes("file,label\nzero_p00_00.png,búho\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"labels.csv is not written in UTF-8; save it"):
        load(flat, labels="labels.csv")


def test_folders_named_like_splits_are_kept_with_labels_from_names(flat):
    for place, pattern in (("train", "*[0-7].png"), ("val", "*8.png")):
        (flat / place / "pictures").mkdir(parents=True)
        for path in flat.glob(pattern):
            path.rename(flat / place / "pictures" / path.name)
    loaded = load(flat, labels="([a-z]+)_")
    assert len(loaded.val) == 5 and loaded.skipped == {"image outside train, val and test": 5}
    assert len(loaded.train) + len(loaded.test) == 40


def test_other_labels_are_other_data(flat):
    write_table(flat)
    digests = {folder.digest(config_of(flat, labels=labels)) for labels in ("([a-z]+)_", "_p(.)", "labels.csv")}
    assert len(digests) == 2, "names and table give the same labels"
    text = (flat / "labels.csv").read_text(encoding="utf-8")
    (flat / "labels.csv").write_text(text.replace("two,p20", "one,p20"), encoding="utf-8")
    assert folder.digest(config_of(flat, labels="labels.csv")) not in digests


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, ["--labels"]),
        ({"labels": "[a-z]+"}, ["labels", "group in round brackets"]),
        ({"labels": "([a-z+"}, ["labels", "regular expression", "unterminated"]),
        ({"labels": "^(x+)_"}, ["labels", "matches no image", "one_p10_00.png"]),
        ({"labels": "(_)"}, ["labels", "only '_'"]),
        ({"labels": "other.csv"}, ["labels", "other.csv", "No such file"]),
        ({"labels": "labels.csv:file"}, ["labels", "two columns"]),
        ({"labels": "labels.csv:file,breed"}, ["'breed'", "file, label, animal"]),
        ({"labels": "labels.csv:animal,label"}, ["'animal'", "names no image"]),
        ({"labels": "labels.csv", "group_by": "anmal"}, ["group_by", "'anmal'", "'animal'"]),
        ({"labels": "([a-z]+)_", "group_by": "animal"}, ["group_by", "round brackets", "--labels labels.csv"]),
        ({"labels": "([a-z]+)_", "group_by": "(p[01].)"}, ["group_by", "10 of 50", "two_p20_00.png"]),
        ({"labels": "([a-z]+)_", "val_share": 1}, ["val_share", "less than 1"]),
        ({"labels": "([a-z]+)_", "val_share": 0.5, "test_share": 0.5}, ["val_share and test_share", "0.5 and 0.5"]),
        ({"dataset": "cifar10", "labels": "(a)", "test_share": 0.1}, ["labels is only for", "cifar10 has test images"]),
    ],
)
def test_mistakes_are_sentences_before_training(flat, call, values, named):
    write_table(flat)
    values = {"dataset": "folder:flat", "data_dir": str(flat.parent), "model": "mlp", "wandb": "disabled"} | values
    said = call("study.train", *(f"--{name.replace('_', '-')}={value}" for name, value in values.items()), code=2)
    assert len(said.stderr.splitlines()) == 1 and all(words in said.stderr for words in named), said.stderr
    assert not (flat.parent.parent / "runs").exists()


def test_a_row_that_may_be_of_two_images_or_has_two_labels_is_refused(flat):
    (flat / "again").mkdir()
    shutil.copy(flat / "zero_p00_00.png", flat / "again")
    (flat / "named.csv").write_text("file,label\nzero_p00_00,a\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"zero_p00_00, which may be again/zero_p00_00.png or zero.*write the path"):
        load(flat, labels="named.csv")
    (flat / "exact.csv").write_text("file,label\n./again\\zero_p00_00.png,a\none_p10_00,b\n", encoding="utf-8")
    assert folder.scan(flat.parent, "flat", labels="exact.csv").files["train"][0] == ("again/zero_p00_00.png", 0)
    (flat / "twice.csv").write_text("file,label\none_p10_00,a\none_p10_00.png,b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"two labels for one_p10_00.png, a and b"):
        load(flat, labels="twice.csv")


# subjects and shares


def test_all_images_of_a_subject_are_on_one_side(flat):
    write_table(flat)
    for values in (
        {"labels": "([a-z]+)_", "group_by": "_(p[0-9]+)_"},
        {"labels": "labels.csv", "group_by": "animal"},
    ):
        names = paths_of(flat, **values)
        subjects = {split: {name.split("_")[1] for name in own} for split, own in names.items()}
        assert sum(map(len, subjects.values())) == len(set.union(*subjects.values())) == 13
        assert all(len({name.split("_")[0] for name in own}) == 3 for own in names.values())
        recorded = load(flat, **values).describe()["subjects"]
        assert recorded["train"] == len(subjects["train"]) and recorded["val and train"] == 0


def test_subjects_in_folders_are_found_by_a_pattern_with_a_slash(tmp_path, flat):
    root = tmp_path / "data" / "nested"
    for path in flat.glob("*.png"):
        word, subject, _ = path.stem.split("_")
        (root / word / subject).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / word / subject)
    files = folder.scan(root.parent, "nested", group_by="/(p[0-9]+)/")
    assert len(set(files.subjects.values())) == 13
    assert files.digest != files.contents == folder.scan(root.parent, "nested").digest


def test_subjects_of_given_splits_are_counted_where_they_are_in_two(flat):
    for place, pattern in (("train", "*[0-5].png"), ("val", "*[67].png"), ("test", "*[89].png")):
        for path in flat.glob(pattern):
            (flat / place / path.stem.split("_")[0]).mkdir(parents=True, exist_ok=True)
            path.rename(flat / place / path.stem.split("_")[0] / path.name)
    said: list[str] = []
    loaded = load(flat, said, group_by="_(p[0-9]+)_")
    assert loaded.subjects == {
        "train": 10, "val": 5, "test": 5, "val and train": 3, "test and train": 2, "test and val": 2,
    }  # fmt: skip
    (line,) = (line for line in said if "3 of 5 subjects of val are in train too" in line)
    assert line.endswith(": p01, p11, p21")


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(1, 12), min_size=3, max_size=12), min_size=2, max_size=6), st.integers(0, 5))
def test_groups_stay_whole_and_classes_of_three_groups_are_in_every_split(sizes, seed):
    labels = np.concatenate([np.full(sum(own), label) for label, own in enumerate(sizes)])
    groups = np.repeat(np.arange(sum(map(len, sizes))), [size for own in sizes for size in own])
    order = np.random.default_rng(seed).permutation(len(labels))
    plan = splits.plan({"train": labels[order]}, "abcdef"[: len(sizes)], seed=seed, groups=groups[order])
    found = {name: set(groups[order][index]) for name, (_, index) in plan.parts.items()}
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == groups.max() + 1
    assert all(set(own.tolist()) == set(range(len(sizes))) for own in plan.labels.values())
    one_each = splits.plan({"train": labels}, "abcdef"[: len(sizes)], seed=seed, groups=np.arange(len(labels)))
    plain = splits.plan({"train": labels}, "abcdef"[: len(sizes)], seed=seed)
    assert all((one_each.parts[name][1] == plain.parts[name][1]).all() for name in splits.NAMES)


@pytest.mark.parametrize(("share", "is_said"), [(0.24, False), (0.04, True)])
def test_a_share_that_subjects_cannot_meet_is_said(flat, share, is_said):
    said = []
    loaded = load(flat, said, labels="([a-z]+)_", group_by="_(p[0-9]+)_", val_share=share)
    (line,) = [line for line in said if f"instead of {share:.0%}" in line] or [""]
    assert bool(line) == is_said == (len(loaded.val) > 1 + 50 * share)
    assert is_said == (f"val has {len(loaded.val)} of 50 images" in line)


def test_shares_are_of_all_images(flat):
    loaded = load(flat, labels="([a-z]+)_", val_share=0.3, test_share=0.1)
    assert [len(loaded.train), len(loaded.val), len(loaded.test)] == [30, 15, 5]
    digits = data.load(Config(dataset="digits", val_share=0.1, test_share=0.2), "cpu", print)
    assert [len(digits.val), len(digits.test)] == [180, 359]
    assert Config(dataset="digits").fingerprint != Config(dataset="digits", val_share=0.2).fingerprint
    (flat / "train").mkdir()
    (flat / "test").mkdir()
    for index, path in enumerate(sorted(flat.glob("*.png"))):
        path.rename(flat / ("test" if index % 5 == 0 else "train") / path.name)
    with pytest.raises(UserError, match="test images of its own"):
        load(flat, labels="([a-z]+)_", test_share=0.1)


# copies


def copied(flat: Path) -> Path:
    """Put the images into class folders, with a copy of half of them in another format, hence of other bytes."""
    root = flat.parent / "copies"
    for index, path in enumerate(sorted(flat.glob("*.png"))):
        (root / path.stem.split("_")[0]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.stem.split("_")[0])
        if index % 2:
            Image.open(path).save(root / path.stem.split("_")[0] / f"{path.stem}.bmp")
    return root


def test_copies_are_kept_on_one_side_of_a_new_split(flat):
    root = copied(flat)
    loaded = load(root, said := [])
    images = [{image.numpy().tobytes() for image in getattr(loaded, name).images} for name in splits.NAMES]
    assert sum(map(len, images)) == len(set.union(*images)) == 50
    counts = Counter(loaded.copies)
    assert counts["train"] + counts["val"] + counts["test"] == 25 and counts["val in train"] == 0
    assert loaded.is_joined and any("keeps together" in line for line in said)
    named = loaded.describe()["examples"]["train"]
    assert len(named) == 3 and all(
        pair.replace(".bmp", ".png").split(" = ")[0] == pair.split(" = ")[-1].replace(".bmp", ".png") for pair in named
    )
    assert any(f"{named[-1]} and {counts['train'] - 3} more" in line for line in said)


def test_images_without_copies_are_split_as_before(flat):
    loaded = load(flat, labels="([a-z]+)_")
    assert not loaded.is_joined and loaded.copies == {}
    plan = splits.plan({"train": np.repeat([0, 1, 2], [20, 10, 20])}, loaded.classes)
    assert loaded.test.labels.tolist() == plan.labels["test"].tolist()


def test_copies_in_given_splits_are_counted(flat):
    root = flat.parent / "given"
    for index, path in enumerate(sorted(flat.glob("*.png"))):
        place = root / ("train", "val", "test")[index % 3] / path.stem.split("_")[0]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    for path in sorted((root / "train" / "one").glob("*.png"))[:3]:
        shutil.copy(path, root / "val" / "one" / f"copy-{path.name}")
    shutil.copy(next((root / "train" / "two").glob("*.png")), root / "test" / "one" / "wrong.png")
    loaded = load(root, said := [])
    assert {name: count for name, count in loaded.copies.items() if count} == {
        "val in train": 3, "test in train": 1, "other labels": 2,
    }  # fmt: skip
    (line,) = (line for line in said if "3 of 20 val images are in train too" in line)
    pairs = [pair.split(" = ") for pair in line.split("too: ")[1].split(", ")]
    assert len(pairs) == 3 and all(one == other.replace("train/one/", "val/one/copy-") for one, other in pairs)
    (line,) = (line for line in said if "2 images have a copy with another label" in line)
    one, other = line.split("label: ")[1].split(" = ")
    assert {one.split("/")[1], other.split("/")[1]} == {"one", "two"} and "test/one/wrong.png" in (one, other)
    assert len(load(root).train) == 17, "what is given is kept"


def test_a_run_begun_on_another_split_is_not_resumed(flat, call):
    root = copied(flat)
    values = {
        "dataset": "folder:copies", "data_dir": str(root.parent), "model": "mlp", "epochs": 2, "wandb": "disabled",
        "runs_dir": str(flat.parent.parent / "runs"),
    }  # fmt: skip
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    call("study.train", *argv)
    directory = RunDirectory.of(Config(**values))
    info = directory.info()
    assert info["data_digest"].endswith(folder.JOINED)
    assert "was trained before" in call("study.train", *argv).stdout

    # as an earlier version left it, which did not keep copies together
    before = {name: value for name, value in info.items() if name not in ("state", "ended")}
    earlier = before | {"data_digest": info["data_digest"].removesuffix(folder.JOINED)}
    directory.write_info(earlier)
    (directory.path / "best.pt").rename(directory.path / "last.pt")
    assert "another split" in call("study.train", *argv, code=2).stderr


def test_a_run_begun_on_a_split_that_copies_do_not_change_is_resumed(flat, call):
    # a split that keeps the only copy together by chance
    (flat / "one_copy.png").write_bytes(sorted(flat.glob("one_*.png"))[0].read_bytes())
    values = {"labels": "([a-z]+)_", "split_seed": 0}
    while load(flat, **values).is_moved:
        values["split_seed"] += 1
    loaded = load(flat, **values)
    assert loaded.is_joined and loaded.copies

    # a run of an earlier version, which did not know copies, with the checkpoint of its last epoch
    values |= {"dataset": "folder:flat", "data_dir": str(flat.parent), "model": "mlp", "epochs": 2}
    values |= {"wandb": "disabled", "runs_dir": str(flat.parent.parent / "runs")}
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    directory = RunDirectory.of(Config(**values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "evaluate", Mock(side_effect=Interrupted(signal.SIGTERM)))
        call("study.train", *argv, code=143)
    earlier = directory.info() | {"data_digest": directory.info()["data_digest"].removesuffix(folder.JOINED)}
    directory.write_info({name: value for name, value in earlier.items() if name not in ("state", "error", "ended")})
    assert directory.state() == "interrupted"
    call("study.train", *argv)
    assert directory.state() == "finished" and directory.info()["data_digest"] == earlier["data_digest"]


# what is recorded and printed


def test_images_of_each_class_are_recorded_and_printed_once(flat, call):
    values = {
        "dataset": "folder:flat", "data_dir": str(flat.parent), "model": "mlp", "epochs": 2, "wandb": "disabled",
        "labels": "([a-z]+)_", "runs_dir": str(flat.parent.parent / "runs"),
    }  # fmt: skip
    said = call("study.train", *(f"--{name.replace('_', '-')}={value}" for name, value in values.items())).stdout
    known = RunDirectory.of(Config(**values)).info()["data"]
    assert known["images_per_class"] == {"train": [13, 6, 13], "val": [3, 2, 3], "test": [4, 2, 4]}
    assert said.count("two 6/2/2, one 13/3/4, zero 13/3/4") == 1


def test_data_are_looked_at_without_a_training(flat, call):
    (flat / "12.png").write_bytes((flat / "zero_p00_00.png").read_bytes())
    words = ["--dataset=folder:flat", f"--data-dir={flat.parent}", "--labels=([a-z]+)_", "--wandb=disabled"]
    said = call("study.train", *words, "--dry-run").stdout.splitlines()
    assert any("1 image without a label (12.png)" in line for line in said)
    assert [line.split() for line in said[-4:-1]] == [["one", "13", "3", "4"], ["two", "6", "2", "2"],
                                                      ["zero", "13", "3", "4"]]  # fmt: skip
    assert not (flat.parent.parent / "runs").exists()
    assert "no class 'tow'" in call("study.train", *words, "--classes=one,tow", "--dry-run", code=2).stderr
    assert "--dry-run" in call("study.train", *words, "--check", code=2).stderr


# unbalanced classes


def test_scores_that_weigh_classes_alike_are_logged_and_reported_if_classes_are_unbalanced(flat, call, tmp_path):
    runs_dir = tmp_path / "runs"
    words = ["--dataset=folder:flat", f"--data-dir={flat.parent}", "--labels=([a-z]+)_", "--model=mlp", "--epochs=3",
             "--wandb=disabled", f"--runs-dir={runs_dir}"]  # fmt: skip
    said = call("study.train", *words, "--class-weights=balanced").stdout
    call("study.train", *words, "--sampling=balanced")
    for path in runs_dir.glob("mlp-*"):
        run = RunDirectory(path)
        arrays, summary = run.evaluation(), run.summary()
        scored = arrays["test_targets"], arrays["test_predictions"]
        assert summary["test/macro_f1"] == pytest.approx(metrics.f1_score(*scored, average="macro", zero_division=0))
        assert summary["test/balanced_acc"] == pytest.approx(metrics.balanced_accuracy_score(*scored))
        assert {"val/macro_f1", "val/balanced_acc"} <= run.history()[0].keys()
    assert said.count("macro_f1") == 4 and "balanced_acc" in said.splitlines()[-2]
    frames = runs.load(runs_dir)
    (section,) = sections.by_dataset(frames)
    keys = [column.key for column in brief.table(frames, section).columns]
    assert {"test_macro_f1", "test_balanced_acc"} <= set(keys)
    assert any("balanced: from 6 training images (two) to 13" in line for line in about.data(frames, section))

    sizes = protocol.class_sizes(frames)
    assert sizes.values.tolist()[1] == ["folder:flat", "two", 6, 2, 2] and len(sizes) == 3

    call("study.train", "--dataset=digits", *words[1:2], *words[3:])
    (path,) = runs_dir.glob("mlp-digits*")
    assert not {"test/macro_f1", "val/macro_f1"} & {*RunDirectory(path).summary(), *RunDirectory(path).history()[0]}


# what predict writes


def test_predictions_of_a_folder_agree_with_the_evaluation(flat, call, tmp_path):
    """The classes and probabilities of all test images and of all validation images, in the order of their paths."""
    root = tmp_path / "data" / "given"
    for index, path in enumerate(sorted(flat.glob("*.png"))):
        place = root / ("train", "train", "val", "test")[index % 4] / path.stem.split("_")[0]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    values = {
        "dataset": "folder:given", "data_dir": str(root.parent), "model": "single-block", "epochs": 3,
        "wandb": "disabled", "runs_dir": str(tmp_path / "runs"),
    }  # fmt: skip
    call("study.train", *(f"--{name.replace('_', '-')}={value}" for name, value in values.items()))
    run = RunDirectory.of(Config(**values))
    arrays = run.evaluation()
    logits = arrays["logits"].astype(np.float64)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for split, wanted in (("test", arrays["test_probabilities"]), ("val", softmax)):
        said = call("study.predict", run.path, root / split, "--out", tmp_path / "all.csv", "--top=3")
        assert f"{len(wanted)} of {len(wanted)} images" in said.stdout
        with (tmp_path / "all.csv").open(encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        assert [row["file"] for row in rows] == sorted(str(path) for path in (root / split).rglob("*.png"))
        found = np.array(
            [[next(float(row[f"probability_{k}"]) for k in (1, 2, 3) if row[f"class_{k}"] == name)
              for name in arrays["class_names"]] for row in rows]
        )  # fmt: skip
        assert np.abs(found - wanted).max() < 2e-3
        assert [row["class_1"] for row in rows] == [arrays["class_names"][place] for place in found.argmax(1)]
    assert (found.argmax(1) == softmax.argmax(1)).all()
    lines = call("study.predict", run.path, root / "val", "--top=1").stdout.splitlines()
    assert len(lines) == len(softmax) and all(line.count("%") == 1 for line in lines)


def test_files_that_cannot_be_read_are_named_and_the_others_written(flat, call, tmp_path):
    argv = ["--dataset=folder:flat", f"--data-dir={flat.parent}", "--labels=([a-z]+)_", "--model=mlp", "--epochs=1",
            "--wandb=disabled"]  # fmt: skip
    call("study.train", *argv)
    (run,) = (tmp_path / "runs").glob("mlp-*")
    (flat / "broken.png").write_bytes(b"nothing")
    said = call("study.predict", run, flat, f"--out={tmp_path / 'all.csv'}", code=2)
    assert "broken.png cannot be read" in said.stderr and "50 of 51 images; those that cannot be read, 1" in said.stdout
    assert "" not in (said.stdout + said.stderr).splitlines()
    content = (tmp_path / "all.csv").read_text(encoding="utf-8")
    assert len(content.splitlines()) == 51 and content.startswith("\ufefffile,"), "Excel needs the mark to show accents"
    assert "must end in .csv" in call("study.predict", run, flat, "--out=all.xlsx", code=2).stderr


def test_files_of_a_folder_that_are_no_pictures_are_named_and_a_wrong_run_has_a_hint(flat, call, tmp_path):
    argv = ["--dataset=folder:flat", f"--data-dir={flat.parent}", "--labels=([a-z]+)_", "--model=mlp", "--epochs=1",
            "--wandb=disabled"]  # fmt: skip
    for seed in (0, 1):
        call("study.train", *argv, f"--seed={seed}")
    first, second = (next((tmp_path / "runs").glob(f"mlp-flat-s{seed}-*")) for seed in (0, 1))
    (flat / "x.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (flat / "notes.txt").write_text("text", encoding="utf-8")
    said = call("study.predict", first, flat)
    assert len(said.stdout.splitlines()) == 50
    assert all(words in said.stderr for words in ("1 .heic (", "x.HEIC)", "export them as JPEG", "1 .txt ("))
    assert "export it as JPEG" in call("study.predict", first, flat / "x.HEIC", code=2).stderr
    (tmp_path / "phone").mkdir()
    shutil.copy(flat / "x.HEIC", tmp_path / "phone")
    assert "no images: .heic photographs" in call("study.predict", first, tmp_path / "phone", code=2).stderr

    os.utime(first / "run.json", (2e9, 2e9))
    for written, meant in (
        ("runs", [f"such as {Path('runs', first.name)}"]),
        ("runs/mlp-flat-s1", [second.name]),
        (second.name, [str(Path("runs", second.name))]),
        ("mlp-flat", [f"{first.name}, runs/{second.name}?"]),
        (f"runs/{second.name[:-3]}xyz", [f"mean runs/{second.name}?"]),
        (second / "best.pt", [f"mean {second}?"]),
        ("nothing", ["it has no run.json"]),
    ):
        error = call("study.predict", written, flat, code=2).stderr
        assert len(error.splitlines()) == 1 and all(words in error for words in meant), error


def test_a_row_of_a_table_is_about_the_image_whose_path_agrees(tmp_path):
    """A path that is exactly an image's is that image; one of another folder is none; a header is needed."""

    def found(text, *paths):
        (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
        table = read_table(tmp_path, "labels.csv", paths)
        return {path: row["label"] for path, row in table.rows.items()}, len(table.unmatched)

    head = "file,label\n"
    assert found(head + "1.jpg,cat", "1.jpg", "thumbs/1.jpg") == ({"1.jpg": "cat"}, 0)
    assert found(head + "a/1.jpg,cat\nb/1.jpg,dog", "a/1.jpg") == ({"a/1.jpg": "cat"}, 1)
    assert found(head + "/kaggle/a/1.jpg,cat\n", "a/1.jpg", "b/1.jpg") == ({"a/1.jpg": "cat"}, 0)
    assert found(head + "train/1,cat\n", "1.jpg") == ({"1.jpg": "cat"}, 0)
    with pytest.raises(UserError, match="header"):
        found("1.jpg,cat\n2.jpg,dog\n", "1.jpg", "2.jpg")
