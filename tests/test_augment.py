"""Augmentation of whole batches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from study.config import Config
from study.config.choices import AUGMENTATIONS
from study.data import augment as module
from study.data.augment import alternating_flips, augment

ALL = Config(augment=",".join(AUGMENTATIONS)).augmentations
assert [name for name, strength in ALL.items() if not strength] == ["flip"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(n: int, side: int = 16) -> torch.Tensor:
    return torch.randint(256, (n, 3, side, side), dtype=torch.uint8, generator=generator(9))


def test_crop_draws_every_offset_and_shifts_the_image():
    image = torch.arange(1, 257, dtype=torch.float32).view(1, 1, 16, 16)
    cropped = augment(image.expand(2000, -1, -1, -1), {"crop": 0.125}, generator())
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))[0]
    shifts = {(y, x): padded[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)}
    drawn = [next(key for key, shifted in shifts.items() if torch.equal(shifted, one)) for one in cropped]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 25
    assert counts.min() > 2000 / 25 / 2


def test_flip_mirrors_half_of_the_images():
    images = some(1000, 4)
    flipped = augment(images, {"flip": None}, generator())
    mirrored = [torch.equal(after, before.flip(-1)) for before, after in zip(images, flipped, strict=True)]
    same = [torch.equal(after, before) for before, after in zip(images, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 400 < sum(mirrored) < 600
    assert flipped.dtype == images.dtype


@given(st.integers(1, 50), st.integers(0, 9), st.integers(0, 2**40))
def test_alternating_flips_show_each_image_both_ways_in_any_two_epochs(count, epoch, seed):
    one, other = (alternating_flips(count, at, generator(seed)) for at in (epoch, epoch + 1))
    assert torch.equal(one, ~other)
    assert torch.equal(one, alternating_flips(count, epoch + 2, generator(seed)))
    images = some(count, 4)
    for extra in ({}, {"crop": 0.125}):
        shown = augment(images, {"flip": True, **extra}, generator(1), one)
        as_drawn = torch.where(one.view(-1, 1, 1, 1), images.flip(-1), images)
        assert torch.equal(shown, augment(as_drawn, extra, generator(1)))


def test_the_one_warp_moves_pixels_as_the_exact_flip_and_crop_do():
    images = some(200).float()
    exact = augment(images, {"flip": None, "crop": 0.125}, generator(3))
    warped = augment(images, {"flip": None, "crop": 0.125, "rotate": 0.0}, generator(3))
    assert torch.allclose(exact, warped, atol=1e-2)


def test_a_quarter_turn_is_exact(monkeypatch):
    monkeypatch.setattr(module, "_uniform", lambda images, generator: torch.ones(len(images)))
    images = some(3).float()
    turned = augment(images, {"rotate": 90.0}, generator())
    assert any(torch.allclose(turned, images.rot90(k, (2, 3)), atol=1e-2) for k in (1, 3))


def test_rotation_keeps_the_aspect_of_images_that_are_not_square(monkeypatch):
    monkeypatch.setattr(module, "_uniform", lambda images, generator: torch.ones(len(images)))
    image = torch.zeros(1, 1, 20, 40)
    image[:, :, 5:15, 15:25] = 255  # a square in the middle
    turned = augment(image, {"rotate": 90.0}, generator())
    assert torch.allclose(turned, image, atol=1e-2)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_image_gets_its_own_draw(name):
    image = some(1).expand(64, -1, -1, -1)
    changed = augment(image, {name: ALL[name]}, generator()).float()
    kinds = {tuple(one.flatten().tolist()) for one in changed}
    assert len(kinds) == 2 if name == "flip" else len(kinds) > 16
    assert changed.min() >= 0 and changed.max() <= 255


def test_strengths_bound_the_change():
    image = torch.full((500, 3, 8, 8), 100.0)
    bright = augment(image, {"color": 0.2}, generator())
    assert bright.min() >= 80 - 1e-3 and bright.max() <= 120 + 1e-3
    assert bright.std() > 5
    noisy = augment(image, {"noise": 0.1}, generator())
    assert noisy.std().item() == pytest.approx(25.5, rel=0.05)
    cut = augment(some(500).float() * 0 + torch.arange(16.0), {"cutout": 0.5}, generator())
    share = (cut != torch.arange(16.0)).float().mean((1, 2, 3))
    assert share.max() <= 0.25 + 0.07 and share.max() > 0.15


@given(st.lists(st.sampled_from(sorted(AUGMENTATIONS)), unique=True), st.integers(0, 2**40))
def test_augmentation_is_a_function_of_the_generator(names, seed):
    images = some(20, 8)
    strengths = Config(augment=",".join(names)).augmentations
    backwards = dict(reversed(strengths.items()))
    first = augment(images, strengths, generator(seed))
    assert torch.equal(first, augment(images, backwards, generator(seed)))
    assert first.shape == images.shape
    if names and names != ["flip"]:
        assert not torch.equal(first, augment(images, strengths, generator(seed + 1)))
    if not names:
        assert torch.equal(first, images)
