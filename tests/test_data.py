"""Data sets as tensors, splits and batches."""

import os
import re
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from study.config import Config
from study.data import dataset as data
from study.data import folder, pictures
from study.data.memory import Memory
from study.system import files as cache
from study.system.errors import UserError


def load(memory=None, say=lambda text: None, **values):
    return data.load(Config(**values), "cpu", say=say, memory=memory)


def digest(split):
    """Return each image with its label as bytes."""
    return [image.numpy().tobytes() + bytes([label]) for image, label in zip(split.images, split.labels, strict=True)]


def test_digits_are_split_in_proportion_and_whole(digit_images):
    digits = load(dataset="digits")
    splits = (digits.train, digits.val, digits.test)
    assert [len(split) for split in splits] == [1151, 287, 359]
    images, labels = digit_images
    whole = sorted(image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True))
    assert sorted(key for split in splits for key in digest(split)) == whole
    for split in splits:
        share = torch.bincount(split.labels) / len(split)
        assert (share - torch.bincount(torch.from_numpy(labels)) / len(labels)).abs().max() < 0.01


def test_the_split_is_fixed_by_split_seed_alone():
    first = digest(load(dataset="digits").val)
    assert digest(load(dataset="digits", seed=5).val) == first
    assert digest(load(dataset="digits", split_seed=1).val) != first


def test_normalised_training_images_have_mean_0_and_deviation_1():
    digits = load(dataset="digits")
    images = digits.normalise(digits.train.images)
    assert images.mean().item() == pytest.approx(0, abs=1e-4)
    assert images.std().item() == pytest.approx(1, abs=1e-3)


def test_a_folder_is_decoded_once(photo_folder, digit_images):
    values = {"dataset": "folder:photos", "data_dir": str(photo_folder.parent)}
    photos = load(**values)
    assert photos.classes == ("one", "two")
    assert [len(photos.train), len(photos.val), len(photos.test)] == [26, 6, 8]
    assert photos.image_shape == (3, 16, 16)
    cache = next((photo_folder.parent / ".cache").glob("*.pt"))
    written = cache.stat().st_mtime_ns
    assert digest(load(**values).train) == digest(photos.train)
    assert cache.stat().st_mtime_ns == written

    Image.new("RGB", (16, 16), "red").save(photo_folder / "train" / "one" / "00.png")
    reds = [image for image in load(**values).train.images if (image[0] == 255).all()]
    assert len(list((photo_folder.parent / ".cache").glob("*.pt"))) == 1
    assert len(reds) <= 1


def test_a_memory_keeps_the_data_set_that_was_loaded_last(photo_folder):
    memory = Memory()
    photos = {"dataset": "folder:photos", "data_dir": str(photo_folder.parent)}

    def place(**values) -> int:
        return load(memory, **values).val.images.data_ptr()

    first = load(memory, dataset="digits", seed=0)
    assert place(dataset="digits", seed=1) == first.val.images.data_ptr()
    assert load(dataset="digits").val.images.data_ptr() != first.val.images.data_ptr()
    assert place(dataset="digits", split_seed=1) != first.val.images.data_ptr()
    here = load(memory, **photos)
    assert place(**photos) == here.val.images.data_ptr()
    Image.new("RGB", (16, 16), "red").save(photo_folder / "train" / "one" / "00.png")
    assert place(**photos) != here.val.images.data_ptr(), "its files have changed"


def test_labels_stay_with_their_images(photo_folder):
    for name, colour in (("one", (10, 0, 0)), ("two", (20, 0, 0))):
        for path in (photo_folder / "train" / name).iterdir():
            image = Image.new("RGB", (16, 16), colour)
            image.putpixel((0, 0), (255, 255, 255))
            image.save(path)
    photos = load(dataset="folder:photos", data_dir=str(photo_folder.parent))
    order = torch.randperm(len(photos.train))
    for split in (photos.train.take(order), photos.val, photos.test):
        for batch in split.batches(4):
            assert (batch.images[:, 0, 5, 5] == 10 * (batch.labels + 1)).all()


def test_photographs_of_any_size_and_mode(photo_folder):
    train = photo_folder / "train" / "one"
    Image.new("L", (40, 20), 128).save(train / "grey.jpg")
    Image.new("P", (30, 30)).save(train / "palette.png")
    Image.new("CMYK", (25, 50)).save(train / "cmyk.jpg")
    values = {"dataset": "folder:photos", "data_dir": str(photo_folder.parent)}
    with pytest.raises(UserError, match=r"differ in size .*--image-size N"):
        load(**values)
    assert load(**values, image_size=12).train.images.shape[1:] == (3, 12, 12)


def test_batches_are_resized_to_image_size():
    digits = load(dataset="digits", image_size=32)
    assert digits.image_shape == (1, 32, 32)
    assert digits.resize(digits.train.images[:5]).shape == (5, 1, 32, 32)


def test_what_is_wrong_with_a_folder_is_said(photo_folder, tmp_path):
    values = {"dataset": "folder:photos", "data_dir": str(photo_folder.parent)}
    with pytest.raises(UserError, match=r"there is no folder .*nothing;"):
        load(dataset="folder:nothing", data_dir=str(tmp_path))
    (photo_folder / "train" / "three").mkdir()
    with pytest.raises(UserError, match="three holds no images"):
        load(**values)
    (photo_folder / "train" / "three").rmdir()
    (photo_folder / "test" / "four").mkdir(parents=True)
    with pytest.raises(UserError, match="classes that train does not: four"):
        load(**values)
    (photo_folder / "test" / "four").rename(photo_folder / "test" / "one")
    with pytest.raises(UserError, match="test holds no images"):
        load(**values)
    (photo_folder / "test" / "one").rmdir()
    (photo_folder / "test").rmdir()


def test_images_in_folders_below_a_class_are_of_that_class(photo_folder):
    one = photo_folder / "train" / "one"
    (one / "more" / "still").mkdir(parents=True)
    (one / "03.png").rename(one / "more" / "still" / "a.png")
    (one / ".hidden").mkdir()
    (one / "04.png").rename(one / ".hidden" / "b.png")
    (one / "more" / "round").symlink_to(one, target_is_directory=True)
    files = folder.scan(photo_folder.parent, "photos").files["train"]
    assert len(files) == 39 and ("train/one/more/still/a.png", 0) in files


def test_a_few_unreadable_files_are_skipped_and_named(photo_folder):
    for index in range(100):
        Image.new("RGB", (16, 16), (index, 0, 0)).save(photo_folder / "train" / "one" / f"more{index}.png")
    broken = photo_folder / "train" / "two" / "broken.png"
    broken.write_bytes(b"no image")
    told = []
    config = Config(dataset="folder:photos", data_dir=str(photo_folder.parent))
    photos = data.load(config, "cpu", told.append)
    assert len(photos.train) + len(photos.val) + len(photos.test) == 140
    assert [line for line in told if "train/two/broken.png" in line]
    assert len(photos.describe()["unreadable"]) == 1
    told.clear()
    assert len(data.load(config, "cpu", told.append).unreadable) == 1
    assert len(told) == 1 and "train/two/broken.png" in told[0], "it is named whenever the data are loaded"

    for index in range(5):
        broken.with_name(f"broken{index}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"6 files cannot be read .*1 damaged, 5 empty.*broken.*146 files .* than 1%"):
        load(dataset="folder:photos", data_dir=str(photo_folder.parent))


def test_a_broken_cache_is_made_anew(photo_folder):
    values = {"dataset": "folder:photos", "data_dir": str(photo_folder.parent)}
    before = digest(load(**values).train)
    next((photo_folder.parent / ".cache").glob("*.pt")).write_bytes(b"PK broken")
    assert digest(load(**values).train) == before


def test_images_that_another_process_decodes_are_waited_for_and_that_is_said(photo_folder):
    values = {"dataset": "folder:photos", "data_dir": str(photo_folder.parent)}
    load(**values)
    (path,) = (photo_folder.parent / ".cache").glob("*.pt")
    decoded = path.read_bytes()
    path.unlink()
    other = FileLock(path.with_suffix(".lock")).acquire()
    said = []

    def say(text):
        said.append(text)
        if "another process" in text:  # which is ready now
            path.write_bytes(decoded)
            other.lock.release()

    load(say=say, **values)
    assert len([text for text in said if "another process" in text]) == 1
    assert path.read_bytes() == decoded


def test_sixteen_bits_transparency_and_orientation(photo_folder):
    grey = np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16)
    Image.fromarray(grey).save(photo_folder / "train" / "one" / "00.png")
    found = pictures.read(photo_folder / "train" / "one" / "00.png", None, None)
    assert np.abs(found[:, :, 0].astype(int) - grey / 257).max() <= 1
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(photo_folder / "clear.png")
    assert (pictures.read(photo_folder / "clear.png", None, None) == 255).all(), "clear is shown on white"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    Image.new("RGB", (20, 10)).save(photo_folder / "turned.jpg", exif=exif)
    assert pictures.read(photo_folder / "turned.jpg", None, None).shape == (20, 10, 3)


def test_classes_are_chosen_and_numbered_anew():
    whole, some = load(dataset="digits"), load(dataset="digits", classes="7,3")
    assert some.classes == ("3", "7")
    for part, all_of in ((some.train, whole.train), (some.val, whole.val), (some.test, whole.test)):
        wanted = [key[:-1] for key in digest(all_of) if key[-1] in (3, 7)]
        assert [key[:-1] for key in digest(part)] == wanted, "each split keeps its images"
        assert (
            torch.tensor([3, 7])[part.labels] == all_of.labels[torch.isin(all_of.labels, torch.tensor([3, 7]))]
        ).all()
    with pytest.raises(UserError, match="digits has no class 'x'"):
        load(dataset="digits", classes="3,x")
    with pytest.raises(UserError, match="two or more"):
        load(dataset="digits", classes="3")


def test_train_images_are_drawn_by_seed_in_proportion():
    whole = set(digest(load(dataset="digits").train))
    draws = [load(dataset="digits", train_images=100, seed=seed) for seed in (0, 0, 1)]
    assert [len(one.train) for one in draws] == [100] * 3
    assert digest(draws[0].train) == digest(draws[1].train) != digest(draws[2].train)
    assert all(set(digest(one.train)) <= whole for one in draws)
    assert torch.bincount(draws[0].train.labels).min() >= 9
    assert digest(draws[0].val) == digest(draws[2].val)
    with pytest.raises(UserError, match=r"at most 1,151\b.*not 2,000"):
        load(dataset="digits", train_images=2000)


def test_images_on_the_host_give_the_same_batches(monkeypatch):
    here = load(dataset="digits")
    monkeypatch.setattr(data, "fits_on", lambda size, device: False)
    told = []
    there = data.load(Config(dataset="digits"), "cpu", told.append)
    assert "stay on the host" in told[0]
    order = torch.randperm(len(here.train))
    for a, b in zip(here.train.take(order).batches(100), there.train.take(order).batches(100), strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


MNIST = Path(os.environ.get("STUDY_DATA", "data"))


@pytest.mark.skipif(not (MNIST / "MNIST/raw").is_dir(), reason="MNIST is not in ./data or $STUDY_DATA")
def test_mnist_is_read_through_torchvision():
    mnist = load(dataset="mnist", data_dir=str(MNIST))
    assert [len(mnist.train), len(mnist.val), len(mnist.test)] == [50_000, 10_000, 10_000]
    assert mnist.classes == tuple("0123456789")
    assert mnist.image_shape == (1, 28, 28)


def test_pets_are_cats_and_dogs(tmp_path, digit_images):
    """Lay out a few images as Oxford-IIIT Pet is laid out."""
    base = tmp_path / "data" / "oxford-iiit-pet"
    (base / "images").mkdir(parents=True)
    (base / "annotations").mkdir()
    for file in ("trainval.txt", "test.txt"):
        lines = []
        for index in range(20):
            name = f"{file[:2]}_{index}"
            Image.fromarray(digit_images[0][index]).resize((20 + index, 30)).save(base / "images" / f"{name}.jpg")
            lines.append(f"{name} {index + 1} {index % 2 + 1} 1")
        (base / "annotations" / file).write_text("\n".join(lines), encoding="utf-8")
    pets = load(dataset="pets", image_size=16, data_dir=str(tmp_path / "data"))
    assert pets.classes == ("cat", "dog")
    assert [len(pets.train), len(pets.val), len(pets.test)] == [16, 4, 20]
    assert pets.image_shape == (3, 16, 16)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist", "pets"])
def test_a_download_that_fails_says_where_the_data_would_be_looked_for(tmp_path, name, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(UserError) as caught:
        load(dataset=name, data_dir=str(tmp_path), image_size=32)
    assert re.match(rf"{name}: {tmp_path}/\S+ is not there, and cannot be downloaded .*--data-dir", str(caught.value))


@given(st.integers(1, 40), st.integers(1, 50), st.randoms())
def test_batches_hold_every_image_once(n, size, random):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    order = list(range(n))
    random.shuffle(order)
    batches = list(data.Split(images, torch.arange(n)).take(torch.tensor(order)).batches(size))
    assert [label for batch in batches for label in batch.labels.tolist()] == order
    assert all((batch.images.flatten() == batch.labels).all() for batch in batches)
    assert {len(batch) for batch in batches[:-1]} <= {size}


def test_small_square_images_are_enlarged_batch_by_batch(photo_folder):
    values = {"dataset": "folder:photos", "data_dir": str(photo_folder.parent)}
    own, large = load(**values), load(**values, image_size=48)
    assert torch.equal(own.train.images, large.train.images)
    assert large.image_shape == (3, 48, 48) == large.resize(large.train.images[:1]).shape[1:]
    assert load(**values, image_size=8).train.images.shape[1:] == (3, 8, 8)


def test_a_photograph_with_broken_exif_is_turned_upright(photo_folder):
    """Its width is called a text, over which Pillow stumbles when it turns a photograph upright."""
    path = photo_folder / "train" / "one" / "00.jpg"
    plain = Image.fromarray(np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)).convert("RGB")
    plain.save(path)
    lying = pictures.read(path, None, None)
    exif = Image.Exif()
    exif[256], exif[274] = 16, 6
    plain.save(path, exif=exif)
    path.write_bytes(path.read_bytes().replace(b"\x01\x00\x00\x04", b"\x01\x00\x00\x02", 1))
    assert np.array_equal(pictures.read(path, None, None), np.rot90(lying, -1))


def test_what_cannot_be_kept_is_made_anew(tmp_path):
    told, made = [], []

    def make():
        made.append(1)
        return {"ones": torch.ones(2)}

    path = tmp_path / "cache" / "ones.pt"
    path.with_suffix(".tmp").mkdir(parents=True)
    for _ in range(2):
        assert torch.equal(cache.cached(path, make, "the ones", told.append)["ones"], torch.ones(2))
    assert len(made) == len(told) == 2 and "the ones are computed again at every start" in told[0]
    path.with_suffix(".tmp").rmdir()
    for _ in range(2):
        cache.cached(path, make, "the ones", told.append)
    assert len(made) == 3 and len(told) == 2
    path.with_suffix(".lock").unlink(missing_ok=True)
    path.with_suffix(".lock").mkdir()  # no lock can be had
    cache.cached(path, make, "the ones", told.append)
    assert len(made) == 3
