"""Data sets as tensors, batches, and augmentation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from study import data
from study.augment import augment
from study.config import Config
from study.errors import UserError


def load(**values):
    return data.load(Config(**values), "cpu", say=lambda text: None)


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
    data._loaded.clear()
    assert digest(load(**values).train) == digest(photos.train)
    assert cache.stat().st_mtime_ns == written

    Image.new("RGB", (16, 16), "red").save(photo_folder / "train" / "one" / "00.png")
    data._loaded.clear()
    reds = [image for image in load(**values).train.images if (image[0] == 255).all()]
    assert len(list((photo_folder.parent / ".cache").glob("*.pt"))) == 1
    assert len(reds) <= 1


def test_labels_stay_with_their_images(photo_folder):
    for name, colour in (("one", (10, 0, 0)), ("two", (20, 0, 0))):
        for path in (photo_folder / "train" / name).iterdir():
            Image.new("RGB", (16, 16), colour).save(path)
    photos = load(dataset="folder:photos", data_dir=str(photo_folder.parent))
    order = torch.randperm(len(photos.train))
    for split, chosen in ((photos.train, order), (photos.val, None), (photos.test, None)):
        for batch in split.batches(4, chosen):
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
    with pytest.raises(UserError, match=r"there is no folder .*nothing/train"):
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
    (photo_folder / "train" / "one" / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken.png cannot be read as an image"):
        load(**values)


@given(st.integers(1, 40), st.integers(1, 50), st.randoms())
def test_batches_hold_every_image_once(n, size, random):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    order = list(range(n))
    random.shuffle(order)
    batches = list(data.Split(images, torch.arange(n)).batches(size, torch.tensor(order)))
    assert [label for batch in batches for label in batch.labels.tolist()] == order
    assert all((batch.images.flatten() == batch.labels).all() for batch in batches)
    assert {len(batch) for batch in batches[:-1]} <= {size}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crop_draws_every_offset_and_shifts_the_image():
    image = torch.arange(1, 257, dtype=torch.float32).view(1, 1, 16, 16)
    cropped = augment(image.expand(2000, -1, -1, -1), ["crop"], generator())
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))[0]
    shifts = {(y, x): padded[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)}
    drawn = [next(key for key, shifted in shifts.items() if torch.equal(shifted, one)) for one in cropped]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 25
    assert counts.min() > 2000 / 25 / 2


def test_flip_mirrors_half_of_the_images():
    images = torch.randint(256, (1000, 3, 4, 4), dtype=torch.uint8)
    flipped = augment(images, ["flip"], generator())
    mirrored = [torch.equal(after, before.flip(-1)) for before, after in zip(images, flipped, strict=True)]
    same = [torch.equal(after, before) for before, after in zip(images, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 400 < sum(mirrored) < 600
    assert flipped.dtype == images.dtype


def test_augmentation_is_a_function_of_the_generator():
    images = torch.randint(256, (50, 3, 8, 8), dtype=torch.uint8)
    names = ["crop", "flip"]
    assert torch.equal(augment(images, names, generator(1)), augment(images, names[::-1], generator(1)))
    assert not torch.equal(augment(images, names, generator(1)), augment(images, names, generator(2)))
    assert torch.equal(augment(images, [], generator(1)), images)
