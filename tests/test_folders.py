"""Image folders as people have them: names, layouts, depths, damaged files, rare classes, and what `predict` sees."""

import json
import os
import struct
import unicodedata
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from study.config import Config
from study.data import dataset as data
from study.data import folder, listing, pictures, splits
from study.predict import load as load_trained
from study.predict import probabilities
from study.predict import read as read_picture
from study.record.directory import RunDirectory
from study.system.errors import UserError
from study.training import evaluation

SIDE = 8


def config_of(root: Path, **values) -> Config:
    """Return the config of a data set in the folder `data` beside the runs."""
    return Config(dataset=f"folder:{root.name}", data_dir=str(root.parent), **values)


def load(root: Path, said: list[str] | None = None, **values):
    return data.load(config_of(root, **values), "cpu", [].append if said is None else said.append)


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def put_digits(tmp_path, digit_images):
    """Put real digits into class folders: `put_digits("train/one", 1, 12)`."""
    images, labels = digit_images
    own = {label: iter(images[labels == label]) for label in range(10)}

    def put_digits(place: str, label: int, count: int, suffix: str = ".png") -> Path:
        for index in range(count):
            put(tmp_path / "data" / "set" / place / f"{index:03d}{suffix}", next(own[label]))
        return tmp_path / "data" / "set"

    return put_digits


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Valid", "Test"),
        ("training_set", "validation", "test_set"),
        ("seg_train/seg_train", "dev", "seg_test/seg_test"),
        ("archive/training", "archive/val", "archive/testing"),
        ("TRAIN", "Validation_Set", "Testing"),
        ("Entrenamiento", "validacio\u0301n", "Pruebas"),
    ],
)
def test_split_folders_by_their_usual_names(put_digits, train, val, test):
    for place, count in ((train, 6), (val, 3), (test, 4)):
        root = put_digits(f"{place}/one", 1, count)
        put_digits(f"{place}/two", 2, count)
    loaded = load(root)
    assert [len(loaded.train), len(loaded.val), len(loaded.test)] == [12, 6, 8]
    assert loaded.classes == ("one", "two")


def test_class_folders_without_train_are_a_data_set(put_digits):
    put_digits("one", 1, 10)
    root = put_digits("two", 2, 10)
    (root / "logs").mkdir()
    (root / "logs" / "log.txt").write_text("text", encoding="utf-8")
    loaded = load(root)
    assert loaded.unused == () and loaded.skipped == {".txt": 1, "folder without images": 1}
    assert sum(map(len, (loaded.train, loaded.val, loaded.test))) == 20


def test_two_folders_for_one_split_and_a_missing_train_are_refused(put_digits):
    root = put_digits("val/one", 1, 3)
    put_digits("val/two", 2, 3)
    with pytest.raises(UserError, match=r"no folder .*train with class folders, but val"):
        load(root)
    put_digits("train/one", 1, 3)
    put_digits("train/two", 2, 3)
    put_digits("valid/two", 2, 3)
    with pytest.raises(UserError, match="2 folders of val images, val and valid"):
        load(root)


def test_what_is_not_used_is_named_and_counted(put_digits):
    root = put_digits("train/one", 1, 9)
    put_digits("train/two", 2, 9)
    put_digits("predict_me", 3, 2)
    put_digits("test", 4, 2)  # without class folders: no labels
    put_digits("train/__MACOSX/one", 1, 1)
    put_digits("train/one/@eaDir", 1, 1)
    for name in ("notes.txt", "more.txt", "labels.mat", "LICENSE", ".DS_Store"):
        (root / "train" / "one" / name).write_text("text", encoding="utf-8")
    said: list[str] = []
    loaded = load(root, said)
    assert loaded.classes == ("one", "two")
    assert sum(map(len, (loaded.train, loaded.val, loaded.test))) == 18
    assert set(loaded.unused) == {"predict_me", "test"}
    assert loaded.skipped == {".txt": 2, ".mat": 1, "no suffix": 1}
    assert any("2 .txt" in line for line in said)
    (other,) = (line for line in said if "neither train, val nor test" in line)
    (without,) = (line for line in said if "no class folders" in line)
    assert "predict_me" in other and "predict_me" not in without and without.endswith(": test")
    assert [".mat", 1] in loaded.describe()["skipped"]


@pytest.mark.parametrize("suffix", sorted(listing.IMAGE_SUFFIXES))
def test_every_suffix_is_read(tmp_path, digit_images, suffix):
    kinds = {".jfif": "JPEG", ".jpe": "JPEG", ".jp2": "JPEG2000", ".pbm": "PPM", ".pgm": "PPM"}
    path = tmp_path / f"digit{suffix}"
    image = Image.fromarray(digit_images[0][0]).resize((32, 32))
    image.convert("1" if suffix == ".pbm" else "L").save(path, kinds.get(suffix))
    assert pictures.read(path, None, None).shape == (32, 32, 3)


def test_links_to_folders_are_followed_and_circles_end(put_digits, tmp_path):
    root = put_digits("train/one", 1, 9)
    put_digits("train/two", 2, 9)
    (root / "train" / "one").rename(tmp_path / "elsewhere")
    (root / "train" / "one").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "train" / "two" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    files = folder.scan(root.parent, "set")
    assert len(files.files["train"]) == 18
    assert files.skipped == {"link to nowhere": 1, "link to a folder of the data set": 1}


def test_links_within_the_data_set_count_no_image_twice(put_digits):
    root = put_digits("one", 1, 9)
    put_digits("two", 2, 9)
    (root / "one" / "up").symlink_to(root, target_is_directory=True)
    (root / "two" / "beside").symlink_to(root / "one", target_is_directory=True)
    files = folder.scan(root.parent, "set")
    assert len(files.files["train"]) == 18 and files.skipped == {"link to a folder of the data set": 2}


def test_folders_outside_that_link_to_each_other_count_once(put_digits, tmp_path):
    root = put_digits("one", 1, 9)
    put_digits("two", 2, 9)
    for name, other in (("a", "b"), ("b", "a")):
        put_digits(f"../../{name}", 3, 4)
        (tmp_path / name / "other").symlink_to(tmp_path / other, target_is_directory=True)
    (root / "one" / "more").symlink_to(tmp_path / "a", target_is_directory=True)
    files = folder.scan(root.parent, "set")
    assert len(files.files["train"]) == 18 + 8 and files.skipped == {"link to a folder of the data set": 1}


def test_a_class_that_is_a_link_holds_each_image_once(put_digits, tmp_path):
    root = put_digits("one", 1, 9)
    put_digits("../../store/two", 2, 5)
    put_digits("../../store/two/more", 3, 4)
    (tmp_path / "store" / "two" / "again").symlink_to(tmp_path / "store" / "two" / "more", target_is_directory=True)
    (root / "two").symlink_to(tmp_path / "store" / "two", target_is_directory=True)
    assert len(folder.scan(root.parent, "set").files["train"]) == 18


def test_splits_below_the_classes_are_refused_and_a_class_is_no_data_set(put_digits):
    for name, label in (("cat", 1), ("dog", 2)):
        root = put_digits(f"../inside/{name}/train", label, 5).parent
        put_digits(f"../inside/{name}/test", label, 3)
        put_digits(f"../odd/{name}", label, 5)
    with pytest.raises(UserError, match=r"test, train.*train/CLASS/IMAGE"):
        folder.scan(root, "inside")
    put_digits("../odd/cat/val", 3, 3)
    put_digits("../odd/cat/more", 4, 3)
    found = folder.scan(root, "odd")
    assert found.classes == ("cat", "dog") and len(found.files["train"]) == 16
    for name, label in (("cat", 5), ("dog", 6), ("dev", 7)):  # a class called dev, in a folder beside others
        put_digits(f"../beside/images/{name}", label, 4)
    (root / "beside" / "docs").mkdir()
    (root / "odd" / "cat" / "test").mkdir()
    assert len(folder.scan(root, "beside").classes) == 3 and len(folder.scan(root, "odd").classes) == 2


def test_layouts_that_look_like_splits(put_digits, tmp_path):
    for name, label in (("car", 1), ("ship", 2), ("train", 3)):  # a class called train
        root = put_digits(name, label, 5)
    assert folder.scan(root.parent, "set").classes == ("car", "ship", "train")
    for split in ("train", "val"):  # images beside their annotations
        for name, label in (("one", 4), ("two", 5)):
            put_digits(f"../yolo/images/{split}/{name}", label, 4)
    (tmp_path / "data" / "yolo" / "labels").mkdir()
    found = folder.scan(root.parent, "yolo")
    assert {split: len(listed) for split, listed in found.files.items()} == {"train": 8, "val": 8}
    assert found.unused == ("labels",)
    put_digits("../loose/train/one", 6, 5)
    put_digits("../loose/train/two", 7, 5)
    put_digits("../loose/train", 8, 3)
    assert folder.scan(root.parent, "loose").skipped == {"image outside the class folders": 3}


def test_data_sets_have_caches_of_their_own(put_digits):
    root = put_digits("one", 1, 9)
    put_digits("two", 2, 9)
    root.rename(root.with_name("花"))
    put_digits("../草/one", 3, 9)
    put_digits("../草/two", 4, 9)
    for name in ("花", "草"):
        load(root.with_name(name))
    assert len(list(root.parent.glob(".cache/*.pt"))) == 2
    said: list[str] = []
    load(root.with_name("花"), said)
    assert not any("decoding" in line for line in said)


def test_a_class_of_which_nothing_can_be_read_is_refused(put_digits):
    root = put_digits("one", 1, 110)
    put_digits("two", 2, 110)
    (root / "three").mkdir()
    (root / "three" / "only.png").write_bytes(b"")
    with pytest.raises(UserError, match="no training image of three"):
        load(root)


def test_photographs_of_phones_alone_are_refused_with_advice(put_digits):
    root = put_digits("one", 1, 5)
    for place in ("one", "two"):
        (root / place).mkdir(exist_ok=True)
        (root / place / "IMG_1.HEIC").write_bytes(b"")
    with pytest.raises(UserError, match=r"must hold two classes or more, not 1: .*\.heic photographs .* as JPEG"):
        load(root)


def test_class_names_compare_in_one_form_of_unicode(put_digits):
    composed, decomposed = (unicodedata.normalize(form, "niño") for form in ("NFC", "NFD"))
    root = put_digits(f"train/{decomposed}", 1, 6)
    put_digits("train/two", 2, 6)
    put_digits(f"test/{composed}", 1, 3)
    put_digits("test/two", 2, 3)
    loaded = load(root)
    assert loaded.classes == (composed, "two")
    assert len(loaded.test) == 6


def test_unreadable_files_are_distinguished_and_all_are_listed(put_digits):
    root = put_digits("train/one", 1, 9)
    put_digits("train/two", 2, 9)
    broken = {
        "a.png": b"", "b.png": b"<!DOCTYPE html><html>", "c.png": b"version https://git-lfs.github.com/spec/v1\n",
        "d.png": b"\x89PNG broken", "e.png": b"",
    }  # fmt: skip
    for name, content in broken.items():
        (root / "train" / "one" / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        load(root)
    message = str(caught.value)
    assert "2 empty, 1 an HTML page, 1 a Git LFS pointer, 1 damaged" in message
    assert sum(name in message for name in broken) == pictures.NAMED
    listed = (root.parent / ".cache" / "set-unreadable.txt").read_text(encoding="utf-8")
    assert all(f"{name}:" in listed for name in broken) and len(listed.splitlines()) == 5


@pytest.mark.parametrize(("broken", "is_refused"), [(1, False), (3, False), (4, True)])
def test_a_few_unreadable_files_of_a_small_data_set_are_accepted(put_digits, broken, is_refused):
    root = put_digits("one", 1, 15)
    put_digits("two", 2, 15)
    for index in range(broken):
        (root / "one" / f"broken{index}.png").write_bytes(b"")
    if is_refused:
        with pytest.raises(UserError, match=r"4 files cannot be read as images.* of 34 files that is more than 10%"):
            load(root)
    else:
        loaded = load(root, said := [])
        assert len(loaded.unreadable) == broken and any("broken0.png" in line for line in said)


def test_a_replaced_picture_of_equal_size_is_another_data_set(put_digits):
    root = put_digits("train/one", 1, 9, ".bmp")  # of one size in bytes, whatever they show
    put_digits("train/two", 2, 9, ".bmp")
    before = folder.scan(root.parent, "set").digest
    one, other = (root / "train" / name / "000.bmp" for name in ("one", "two"))
    times = one.stat().st_mtime_ns
    assert folder.scan(root.parent, "set").digest == before
    one.write_bytes(other.read_bytes())
    os.utime(one, ns=(times, times))
    assert folder.scan(root.parent, "set").digest != before


def test_only_changed_files_are_read_again(put_digits):
    root = put_digits("train/one", 1, 9)
    put_digits("train/two", 2, 9)
    before = folder.scan(root.parent, "set").digest
    changed = root / "train" / "one" / "003.png"
    os.utime(changed, ns=(1, 1))
    assert folder.scan(root.parent, "set").digest == before, "the digest is of contents"
    # what is remembered of a file that has not changed is believed, of one that has it is not
    cache = root.parent / ".cache" / "set-digests.json"
    known = json.loads(cache.read_text(encoding="utf-8"))
    os.utime(changed, ns=(2, 2))
    known["train/one/003.png"][-1] = "wrong"
    cache.write_text(json.dumps(known), encoding="utf-8")
    assert folder.scan(root.parent, "set").digest == before
    known["train/one/004.png"][-1] = "wrong"
    cache.write_text(json.dumps(known), encoding="utf-8")
    assert folder.scan(root.parent, "set").digest != before


# pictures of more than 8 bits


def deep_folder(root: Path, images: np.ndarray, labels: np.ndarray, save) -> None:
    """Put images with values from 0 to 1 into class folders as files of another depth."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = root / "train" / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        save(place / f"{index:03d}", image)


def tiff(kind: type, largest: float, least: float = 0):
    def save(path: Path, image: np.ndarray) -> None:
        values = least + image * (largest - least)
        tifffile.imwrite(path.with_suffix(".tif"), values.astype(kind))

    return save


def colour_tiff(path: Path, image: np.ndarray) -> None:
    values = np.repeat((image * 4095).astype(np.uint16)[..., None], 3, axis=2)
    tifffile.imwrite(path.with_suffix(".tif"), values, photometric="rgb", compression="zlib")


def png10(path: Path, image: np.ndarray) -> None:
    Image.fromarray((image * 1023).astype(np.uint16)).save(path.with_suffix(".png"))


DEPTHS = {
    "12-bit TIFF": (tiff(np.uint16, 4095), (0, 4095)),
    "12-bit colour TIFF": (colour_tiff, (0, 4095)),
    "10-bit PNG": (png10, (0, 1023)),
    "16-bit TIFF": (tiff(np.uint16, 65535), (0, 65535)),
    "float from 0 to 1": (tiff(np.float32, 1), (0, 1)),
    "half floats": (tiff(np.float16, 1), (0, 1)),
    "int32": (tiff(np.int32, 100_000), (0, 131_071)),
    "negative int16": (tiff(np.int16, 3000, -1000), (-1000, 3000)),
}


@pytest.mark.parametrize("kind", DEPTHS)
def test_pictures_of_more_than_8_bits_have_one_range(tmp_path, digit_images, kind):
    save, expected = DEPTHS[kind]
    images, labels = digit_images[0][:40] / 255, digit_images[1][:40] % 2
    deep_folder(tmp_path / "data" / "deep", images, labels, save)
    loaded = load(tmp_path / "data" / "deep")
    assert loaded.range == expected
    assert loaded.describe()["preparation"]["range"] == list(expected)
    low, high = expected
    largest, least = {"int32": (100_000, 0), "negative int16": (3000, -1000)}.get(kind, (high, 0))
    wanted = np.sort((least + images * (largest - least) - low) * 255 / (high - low), axis=None)
    found = torch.cat([split.images[:, 0] for split in (loaded.train, loaded.val, loaded.test)]).numpy()
    assert np.abs(np.sort(found, axis=None) - wanted).max() <= 1


def png16(path: Path, values: np.ndarray) -> None:
    """Write values (height, width, 3 or, of grey and alpha, 2) as a PNG of 16 bits, which Pillow cannot."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = values.shape
    kind = {2: 4, 3: 2}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("width", [8, 12])
def test_dark_colour_pictures_of_16_bits_stay_dark_beside_bright_ones(tmp_path, digit_images, width):
    for index, image in enumerate(digit_images[0][:20]):
        wide = np.asarray(Image.fromarray(image).resize((width, 8))).astype(np.uint16)
        values = np.repeat(wide[..., None], 3, axis=2) * (16 if index % 2 else 1)
        png16(tmp_path / "data" / "deep" / f"class{index % 2}" / f"{index}.png", values)
    loaded = load(tmp_path / "data" / "deep")
    assert loaded.range == (0, 4095)
    brightest = loaded.train.images.flatten(1).amax(1)
    assert (brightest[loaded.train.labels == 0] <= 16).all() and (brightest[loaded.train.labels == 1] > 200).all()


def test_a_grey_png_of_16_bits_may_be_transparent(tmp_path):
    values = np.arange(64).reshape(8, 8) * 1000
    for name, alpha in (("opaque", 65_535), ("clear", 0)):
        png16(tmp_path / f"{name}.png", np.stack([values, np.full_like(values, alpha)], axis=-1))
    opaque, clear = (pictures.read(tmp_path / f"{name}.png", None, (0.0, 65_535.0)) for name in ("opaque", "clear"))
    assert np.array_equal(opaque[..., 0], np.rint(values / 257)) and (clear == 255).all()


def test_large_numbers_negative_bytes_and_dark_is_high(tmp_path):
    values = np.arange(64).reshape(8, 8)
    kinds = {"large": (values * 60_000_000).astype(np.uint32), "bytes": (values - 32).astype(np.int8)}
    for name, pixels in kinds.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels)
        found = pictures.read(tmp_path / f"{name}.tif", None, None)[..., 0].astype(int)
        assert (np.diff(found.flatten()) >= 0).all() and found[-1, -1] - found[0, 0] > 200, name
    tifffile.imwrite(tmp_path / "film.tif", (values * 60).astype(np.uint16), photometric="miniswhite")
    found = pictures.read(tmp_path / "film.tif", None, None)[..., 0].astype(int)
    assert (np.diff(found.flatten()) <= 0).all() and (found[0, 0], found[-1, -1]) == (255, 0)


def test_a_second_channel_is_transparency_only_if_the_file_says_so(tmp_path):
    two = np.stack([np.arange(64).reshape(8, 8) * 60, np.full((8, 8), 9)], axis=2).astype(np.uint16)
    tifffile.imwrite(tmp_path / "two.tif", two, photometric="minisblack", planarconfig="contig", extrasamples=[0])
    with pytest.raises(pictures.Unreadable, match="8×8×2"):
        pictures.read(tmp_path / "two.tif", None, None)
    two[..., 1] = 4095
    tifffile.imwrite(tmp_path / "clear.tif", two, photometric="minisblack", extrasamples=["unassalpha"])
    found = pictures.read(tmp_path / "clear.tif", None, (0, 4095))
    assert (found[0, 0] == 0).all() and abs(int(found[-1, -1, 0]) - 3780 * 255 // 4095) <= 1


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_tiff_of_16_bits_is_turned_upright_once(tmp_path, orientation):
    pixels = np.arange(32).reshape(8, 4).astype(np.uint16)
    tag = (274, "H", 1, orientation, True)
    for index in range(6):
        (tmp_path / "data" / "turned" / f"class{index % 2}").mkdir(parents=True, exist_ok=True)
        path = tmp_path / "data" / "turned" / f"class{index % 2}" / f"{index}.tif"
        tifffile.imwrite(path, pixels + np.uint16(index), extratags=[tag])
    loaded = load(tmp_path / "data" / "turned")
    upright = np.rot90(pixels, -1) if orientation == 6 else pixels
    assert loaded.train.images.shape[2:] == upright.shape
    found = loaded.train.images[0, 0].numpy().astype(int)
    assert (np.argsort(found, axis=None) == np.argsort(upright, axis=None)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(tmp_path, digit_images, orientation):
    tags = Image.Exif()
    tags[pictures.ORIENTATION] = orientation
    Image.fromarray(digit_images[0][0][:, :5]).save(tmp_path / "one.png", exif=tags)
    with Image.open(tmp_path / "one.png") as image:
        turned = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(pictures.read(tmp_path / "one.png", None, None), turned)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0nothing of the kind", b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\2\0\0\0a\0\0\0\0\0\0\0"],
    ids=["damaged", "text as orientation"],
)
def test_a_picture_with_damaged_exif_is_read_as_it_is(tmp_path, digit_images, suffix, exif):
    image = Image.fromarray(digit_images[0][0]).convert("RGB")
    image.save(tmp_path / f"damaged{suffix}", exif=exif)
    image.save(tmp_path / f"plain{suffix}")
    plain, damaged = (pictures.read(tmp_path / f"{name}{suffix}", None, None) for name in ("plain", "damaged"))
    assert (damaged == plain).all()


@pytest.mark.parametrize("colour", [5, (10, 200, 30)])
def test_images_of_one_even_colour_are_refused(tmp_path, colour):
    for index in range(12):
        path = tmp_path / "data" / "even" / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L" if colour == 5 else "RGB", (8, 8), colour).save(path)
    with pytest.raises(UserError, match="has a single colour"):
        load(tmp_path / "data" / "even")


# rare classes


@given(st.lists(st.integers(1, 40), min_size=2, max_size=30), st.integers(0, 5))
def test_classes_of_three_images_are_in_every_split(counts, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    names = [f"class{place}" for place in range(len(counts))]
    if max(counts) < 3:
        with pytest.raises(UserError, match="three images"):
            splits.plan({"train": labels}, names, seed=seed)
        return
    plan = splits.plan({"train": labels}, names, seed=seed)
    found = {name: np.bincount(own, minlength=len(counts)) for name, own in plan.labels.items()}
    assert (sum(found.values()) == counts).all()
    for place, count in enumerate(counts):
        assert found["train"][place] >= 1
        if count >= 3:
            assert found["val"][place] >= 1 and found["test"][place] >= 1
        assert (names[place] in plan.untested) == (count < 3)
    # in proportion: no split is off by more than its rounding and the images that rare classes are given
    for name, share in (("test", 0.2), ("val", 0.16)):
        given = sum(1 - share * count for count in counts if share * count < 1)
        assert all(abs(own - share * count) <= 2 + given for own, count in zip(found[name], counts, strict=True))
    everything = np.sort(np.concatenate([index for _, index in plan.parts.values()]))
    assert (everything == np.arange(len(labels))).all()


@given(st.lists(st.integers(1, 30), min_size=2, max_size=20), st.data())
def test_a_draw_of_training_images_keeps_one_of_each_class(counts, draw):
    labels = np.repeat(np.arange(len(counts)), counts)
    count = draw.draw(st.integers(len(counts), len(labels)))
    _, held = splits.hold_out(labels, count, seed=0, leave=0)
    assert len(held) == count
    assert Counter(labels[held].tolist()).keys() == set(range(len(counts)))


def test_a_class_of_two_images_is_named_as_untested(put_digits):
    root = put_digits("train/rare", 3, 2)
    put_digits("train/one", 1, 15)
    put_digits("train/two", 2, 15)
    said: list[str] = []
    loaded = load(root, said)
    assert loaded.untested == ("rare",)
    assert any("rare" in line for line in said)
    assert {loaded.classes[label] for label in loaded.train.labels.tolist()} == {"one", "rare", "two"}
    kept = load(root, train_images=3).train.labels.tolist()
    assert sorted(kept) == [0, 1, 2]


def test_an_empty_side_is_refused_before_anything_is_decoded(put_digits, call, tmp_path):
    root = put_digits("train/one", 1, 1)
    put_digits("train/two", 2, 1)
    argv = ["--dataset=folder:set", f"--data-dir={root.parent}", "--wandb=disabled", "--epochs=1", "--model=mlp"]
    said = call("study.train", *argv, code=2)
    assert "1 of one, 1 of two" in said.stderr and "val and test" in said.stderr and "decod" not in said.stdout
    assert not list((tmp_path / "runs").glob("*/run.json"))
    put_digits("train/one", 1, 12)
    put_digits("train/two", 2, 12)
    put_digits("train/three", 3, 12)
    put_digits("test/three", 3, 5)
    said = call("study.train", *argv, "--classes=one,two", code=2)
    assert "the test folder" in said.stderr and "one, two" in said.stderr and "decod" not in said.stdout


# what predict sees


@pytest.mark.parametrize(
    ("side", "image_size", "kind"),
    [(8, 32, "small"), (40, 32, "large"), (32, 32, "equal"), (40, 32, "wide"), (12, 32, "deep")],
)
def test_predict_sees_what_was_evaluated(tmp_path, call, digit_images, side, image_size, kind):
    """Every test image, whether it is enlarged in training, reduced when it is decoded, or of 12 bits."""
    images, labels = digit_images
    root = tmp_path / "data" / "set"
    for split, chosen in (("train", range(60)), ("val", range(60, 90)), ("test", range(90, 150))):
        for index in chosen:
            width = side + index % 3 if kind == "wide" else side
            image = Image.fromarray(images[index]).resize((width, side))
            place = root / split / f"class{labels[index] % 2}"
            if kind == "deep":
                place.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(place / f"{index:03d}.tif", np.asarray(image).astype(np.uint16) * 16)
            else:
                put(place / f"{index:03d}.png", np.asarray(image))
    values = {
        "dataset": "folder:set", "data_dir": str(root.parent), "image_size": image_size, "model": "single-block",
        "epochs": 2, "runs_dir": str(tmp_path / "runs"), "wandb": "disabled",
    }  # fmt: skip
    call("study.train", *(f"--{key}={value}" for key, value in values.items()))
    run = RunDirectory.of(Config(**values))
    model, prepared, config = load_trained(str(run.path))
    told = run.info()["data"]["preparation"]
    assert told["resized_to"] == image_size and told["depth"] == (12 if kind == "deep" else 8)
    assert told["stored_size"] == ([side, side] if kind in ("small", "deep") else [32, 32])
    assert told["range"] == ([0, 4095] if kind == "deep" else None)
    paths = [root / path for path, _ in folder.of(config).files["test"]]
    images = [read_picture(str(path), prepared) for path in paths]
    found = probabilities(model, prepared, config, images, torch.device("cpu")).numpy()
    assert np.abs(found - run.evaluation()["test_probabilities"]).max() < 1e-3
    said = call("study.predict", run.path, *paths[:3]).stdout
    assert [line.split(": ")[0] for line in said.splitlines()] == [str(path) for path in paths[:3]]


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = Config.parse({"data_dir": "~/images", "runs_dir": "~/runs"})
    assert (config.data_dir, config.runs_dir) == (f"{tmp_path}/images", f"{tmp_path}/runs")


def test_of_equal_epochs_the_one_with_the_lower_loss_is_kept(put_digits, call, tmp_path):
    for label, name in enumerate(("zero", "one", "two")):
        root = put_digits(f"train/{name}", label, 20)
        put_digits(f"val/{name}", label, 4)
        put_digits(f"test/{name}", label, 4)
    values = {"dataset": "folder:set", "data_dir": str(root.parent), "model": "mlp", "epochs": 8, "wandb": "disabled",
              "runs_dir": str(tmp_path / "runs")}  # fmt: skip
    call("study.train", *(f"--{key}={value}" for key, value in values.items()))
    run = RunDirectory.of(Config(**values))
    highest = max(row["val/acc"] for row in run.history())
    equal = [row for row in run.history() if row["val/acc"] == highest]
    best = min(equal, key=lambda row: row["val/loss"])
    assert len(equal) > 1 and best is not equal[0]
    assert (run.summary()["best/epoch"], run.summary()["best/val_loss"]) == (best["epoch"], best["val/loss"])


def test_a_sample_is_spread_over_each_class():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    chosen = evaluation.stratified(labels, 20)
    for label, count in ((0, 12), (1, 6), (2, 2)):
        places = chosen[labels[chosen] == label]
        members = torch.where(labels == label)[0]
        assert len(places) == count
        # one of each of `count` equal stretches
        stretches = (places - members[0]) * count // len(members)
        assert stretches.tolist() == list(range(count))


@pytest.mark.parametrize("place", ["", "train"])
def test_images_without_class_folders_are_named(call, tmp_path, place):
    folder = tmp_path / "data" / "flat" / place
    folder.mkdir(parents=True)
    for index in range(3):
        Image.new("RGB", (8, 8)).save(folder / f"{index}.png")
    said = call("study.train", "--dataset=folder:flat", "--image-size=8", "--dry-run", code=2).stderr
    assert f"{Path('data', 'flat', place)} holds images" in " ".join(said.split())
