"""Augmentation of whole batches."""

from unittest.mock import Mock

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from study.config import Config
from study.config.choices import AUGMENTATIONS
from study.data import augment as module
from study.data import policies
from study.data.augment import MIXING, alternating_flips, augment, mix

ALL = Config(augment=",".join(AUGMENTATIONS)).augmentations
assert [name for name, strength in ALL.items() if not strength] == ["flip", "trivialaugment"]
EACH = [name for name in AUGMENTATIONS if name not in MIXING]


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


@given(st.integers(-180, 180), st.integers(4, 40), st.integers(4, 40))
def test_a_rotation_is_torchvisions(degrees, height, width):
    images = torch.rand(2, 3, height, width, generator=generator()) * 255
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_uniform", lambda images, generator: torch.full((len(images),), degrees / 180))
        turned = augment(images, {"rotate": 180.0}, generator())
    expected = v2.functional.rotate(images, -degrees, v2.InterpolationMode.BILINEAR)
    assert torch.allclose(turned, expected, atol=0.05)


@pytest.mark.parametrize("change", [-0.3, 0.0, 0.2])
def test_contrast_and_brightness_of_grey_images_are_torchvisions(change, monkeypatch):
    monkeypatch.setattr(module, "_uniform", lambda images, generator: torch.full((len(images),), change))
    images = 60 + 100 * torch.rand(4, 1, 8, 8, generator=generator())
    shares = v2.functional.adjust_contrast(images / 255, 1 + change)
    expected = 255 * v2.functional.adjust_brightness(shares, 1 + change)
    assert torch.allclose(augment(images, {"color": 1.0}, generator()), expected, atol=1e-3)


OWN = {"crop", "rotate", "perspective", "color", "noise", "cutout", "trivialaugment", "randaugment"}
"""Augmentations of the study with many outcomes; one that somebody adds may have two."""


@pytest.mark.parametrize("name", EACH)
def test_every_image_gets_its_own_draw(name):
    image = some(1).expand(64, -1, -1, -1)
    changed = augment(image, {name: ALL[name]}, generator()).float()
    kinds = {tuple(one.flatten().tolist()) for one in changed}
    assert len(kinds) == 2 if name == "flip" else len(kinds) > (16 if name in OWN else 1)
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


@given(st.lists(st.sampled_from(sorted(EACH)), unique=True), st.integers(0, 2**40))
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


SPACES = {
    v2.TrivialAugmentWide: policies.Space(0.99, 32, 32, 135, 0.99, 6),
    v2.RandAugment: policies.Space(0.3, 40 * 150 / 331, 36 * 150 / 331, 30, 0.9, 4),
}
"""What torchvision's policies draw from, for images of 36×40."""


LEVELS = [0, 1, 7, 9, 14, 20, 29, 30]
"""Strengths, without those where torchvision's own are a rounding error below a whole number."""


@pytest.mark.parametrize("policy", SPACES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", policies.OPERATIONS)
def test_each_operation_is_torchvisions(name, channels, policy):
    images = torch.randint(256, (len(LEVELS), channels, 36, 40), dtype=torch.uint8, generator=generator(4))
    images[:, :, :9] = images[:, :, :9] // 3 + 20
    theirs = policy(interpolation=v2.InterpolationMode.BILINEAR)
    title = {"autocontrast": "AutoContrast"}.get(name, name.replace("_", " ").title().replace(" ", ""))
    strengths, is_signed = policy._AUGMENTATION_SPACE[title]
    strengths = strengths(31, 36, 40)
    level, operation = torch.tensor(LEVELS) / 30, torch.full((len(LEVELS),), policies.OPERATIONS.index(name))
    for direction in (1, -1) if is_signed else (1,):
        found = policies.apply(images, operation, level, torch.full_like(operation, direction), SPACES[policy])
        for image, ours, at in zip(images, found, LEVELS, strict=True):
            strength = 0.0 if strengths is None else direction * float(strengths[at])
            whole, real = (
                theirs._apply_image_or_video_transform(given, title, strength, theirs.interpolation, {})
                for given in (image, image / 255)
            )
            assert (ours - whole).abs().max() < 2, "torchvision rounds in between"
            assert name == "posterize" or (ours - 255 * real).abs().max() < 0.02


def test_operations_of_a_batch_do_not_affect_each_other():
    count = len(policies.OPERATIONS)
    images, operation = some(count), torch.arange(count)
    level, direction = torch.linspace(0.3, 1, count), torch.ones(count)
    space = SPACES[v2.TrivialAugmentWide]
    together = policies.apply(images, operation, level, direction, space)
    for at in range(count):
        one = slice(at, at + 1)
        alone = policies.apply(images[one], operation[one], level[one], direction[one], space)
        assert torch.equal(alone, together[one])


@pytest.mark.parametrize("name", ["trivialaugment", "randaugment"])
def test_policies_draw_each_operation_and_direction_as_often(name, monkeypatch):
    drawn = []
    monkeypatch.setattr(policies, "apply", lambda images, *drawing: drawn.append(drawing[:3]) or images)
    augment(some(1, 4).expand(7000, -1, -1, -1), {name: ALL[name]}, generator())
    assert len(drawn) == (2 if name == "randaugment" else 1)
    for operation, level, direction in drawn:
        assert operation.bincount(minlength=14).min() > 7000 / 14 * 0.8
        assert 0.45 < (direction == 1).float().mean() < 0.55 and set(direction.tolist()) == {1, -1}
        levels = (level * 30).round().long().bincount(minlength=31)
        assert levels.tolist() == [0] * 9 + [7000] + [0] * 21 if name == "randaugment" else levels.min() > 150


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_mixup_is_torchvisions(share, monkeypatch):
    images, labels = some(9).float(), torch.arange(9) % 4
    theirs = v2.MixUp(num_classes=4)
    monkeypatch.setattr(theirs, "make_params", lambda inputs: {"lam": share})
    monkeypatch.setattr(module, "_beta", lambda images, alpha, generator: torch.full((len(images),), share))
    found = mix(images, labels, 4, {"mixup": 1.0}, generator())
    for ours, expected in zip(found, theirs(images, labels), strict=True):
        assert torch.allclose(ours, expected, atol=1e-3)


@given(st.integers(0, 100).map(lambda percent: percent / 100), st.integers(0, 2**40))
def test_cutmix_is_torchvisions(share, seed):
    images, labels = some(4), torch.arange(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_beta", lambda images, alpha, generator: torch.full((len(images),), share))
        mixed, shares = mix(images, labels, 4, {"cutmix": 1.0}, generator(seed))
    again = generator(seed)
    rows, columns = (torch.randint(16, (4, 1), generator=again) for _ in range(2))
    theirs = v2.CutMix(num_classes=4)
    for at in range(4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randint", Mock(side_effect=[columns[at], rows[at]]))
            theirs._dist = torch.distributions.Categorical(torch.ones(1))
            patch.setattr(theirs._dist, "sample", lambda shape: torch.tensor(share), raising=False)
            params = theirs.make_params([images])
        expected = theirs.transform(images, params | {"labels": labels, "batch_size": 4})
        assert torch.equal(mixed[at], expected[at])
        assert shares[at, at].item() == pytest.approx(params["lam_adjusted"], abs=1e-6)
        assert shares[at].sum().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("strengths", "own", "unblended"),
    [({"mixup": 1.0}, 0.5, 0.0), ({"cutmix": 1.0}, 0.71, 1.0), ({"mixup": 1.0, "cutmix": 1.0}, 0.61, 0.5)],
)
def test_mixing_gives_every_image_its_own_share(strengths, own, unblended):
    images, labels = some(2000, 32), torch.arange(2000) % 10
    mixed, shares = mix(images, labels, 10, strengths, generator())
    assert shares.shape == (2000, 10) and torch.allclose(shares.sum(1), torch.ones(2000))
    assert shares[torch.arange(2000), labels].mean().item() == pytest.approx(own, abs=0.03)
    assert len(shares.max(1).values.unique()) > 100
    both = torch.stack([images, images.roll(1, 0)]).float()
    whole = ((mixed - both).abs().amin(0) == 0).float().mean((1, 2, 3)) == 1
    assert whole.float().mean().item() == pytest.approx(unblended, abs=0.05)
    assert mix(images, labels, 10, {"flip": None}, generator()) == (images, labels)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 4.0])
def test_shares_have_the_beta_distribution(alpha):
    drawn = module._beta(torch.zeros(20_000), alpha, generator())
    assert ((drawn >= 0) & (drawn <= 1)).all()
    bounds = torch.linspace(0.001, 0.999, 50)
    found = (drawn.view(-1, 1) <= bounds).float().mean(0)
    assert np.allclose(found, scipy.stats.beta(alpha, alpha).cdf(bounds), atol=0.015)
