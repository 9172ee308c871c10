"""From image files to uint8 pixels, the same way for training and for `predict`.

python -c "from study.data.pictures import read; print(read('photo.jpg', (32, 32), None).shape)"

A picture is turned upright, laid on white where it is clear, made RGB, and, unless it keeps its size, resized and
centre-cropped. Pictures of more than 8 bits are brought to 8 by one range for the whole data set: from 0 to the largest
value of the smallest bit depth that holds all of them, or, for fractions and negative numbers, from the least to the
largest value.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from study.system.errors import UserError, printable

Say = Callable[[str], None]
Size = tuple[int, int]
"""Height and width in pixels."""

Range = tuple[float, float]
"""The values that become 0 and 255."""

Listing = dict[str, list[tuple[str, int]]]
"""For each split the image files, relative to a root, with their labels."""

UNREADABLE_SHARE = 0.01
"""With more files than this that cannot be read, a data set is refused."""

NAMED = 3
"""At most this many unreadable files are named; all are in a file."""

CHUNK = 1000
"""Files that are handed to the threads at once."""

PROGRESS_SECONDS = 5.0
ORIENTATION, BITS_PER_SAMPLE, SAMPLE_FORMAT = 274, 258, 339
"""Tags of EXIF and TIFF."""


class Unreadable(Exception):
    """A file that cannot be read as an image: what it is instead, and the reason that the decoder gave."""

    def __init__(self, kind: str, reason: str = ""):
        super().__init__(f"{kind} ({reason})" if reason else kind)
        self.kind = kind


@dataclass(frozen=True)
class Decoded:
    """The images of a folder: for each split (n, height, width, 3) uint8 and labels (n,) int64; how they were made.

    `range` is that of pictures of more than 8 bits, None where there are none. `unreadable` holds the path, relative to
    the root, and the reason of each file that was left out.
    """

    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    range: Range | None
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def decode(root: Path, listing: Listing, image_size: int | None, say: Say, report: Path) -> Decoded:
    """Decode image files to arrays of one shape, using little more memory than these take.

    Small square pictures of one size keep it, and are enlarged to `image_size` batch by batch; others are brought to
    `image_size`. `report` is where the names of unreadable files are written. UserError where the pictures differ in
    size and no `image_size` is given, where too many cannot be read, or where none shows anything.
    """
    # Look at the head of every file: its size, and whether it has more than 8 bits
    paths = [path for listed in listing.values() for path, _ in listed]
    heads, unreadable = _each(partial(_head, root), paths, f"looked at {{}} images below {root}", say)
    _refuse_unreadable(root, unreadable, len(paths), report)
    size = _stored_size(root, Counter(size for size, _ in heads.values()), image_size)

    # Find the range of pictures of more than 8 bits
    deep = [path for path, (_, is_deep) in heads.items() if is_deep]
    limits, failed = _each(partial(_limits, root), deep, f"measured {{}} images of more than 8 bits below {root}", say)
    levels = range_of(limits.values())
    unreadable |= failed
    if deep and len(deep) < len(heads):
        say(f"{len(deep):,} of {len(heads):,} images below {root} have more than 8 bits; only those get a common range")

    # Decode each split into an array that is there already
    splits = {}
    for split, listed in listing.items():
        splits[split], failed = _decode_split(root, split, listed, size, levels, say)
        unreadable |= failed
    _refuse_unreadable(root, unreadable, len(paths), report)
    if empty := [split for split, (images, _) in splits.items() if not len(images)]:
        raise UserError(f"no {empty[0]} image: {_summary(root, unreadable, report)}")
    if not any(_shows_something(images) for images, _ in splits.values()):
        raise UserError(f"each of the {len(paths):,} images below {root} is of one even colour: nothing can be learned")
    if unreadable:
        _list_in(report, root, unreadable)
    return Decoded(splits, levels, [(printable(path), str(error)) for path, error in unreadable.items()])


def _decode_split(
    root: Path, split: str, listed: list[tuple[str, int]], size: Size, levels: Range | None, say: Say
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, Unreadable]]:
    """Return the images and labels of a split, and the files of it that cannot be read."""
    images = np.empty((len(listed), *size, 3), dtype=np.uint8)
    labels = np.array([label for _, label in listed])
    places = {path: place for place, (path, _) in enumerate(listed)}

    def put(path: str) -> None:
        images[places[path]] = read(root / path, size, levels)

    say(f"decoding {len(listed):,} {split} images below {root} (once)")
    done, failed = _each(put, list(places), f"decoded {{}} {split} images", say)
    if failed:  # close the gaps, without a copy of the whole
        kept = [places[path] for path in done]
        for place, old in enumerate(kept):
            images[place] = images[old]
        images, labels = images[: len(kept)], labels[kept]
    return (images, labels), failed


def read(path: str | os.PathLike, size: Size | None, levels: Range | None) -> np.ndarray:
    """Read one image file as RGB (height, width, 3) uint8, upright; Unreadable where that cannot be done.

    With a `size` it is resized and centre-cropped to it. `levels` is the range of a picture of more than 8 bits, by
    default its own.
    """
    path = Path(path)
    with _opened(path) as image:
        if image is None or _is_deep(image):
            image = _eight_bits(_deep(image, path), levels)
        if image.format != "TIFF":  # which Pillow turns upright itself
            image = ImageOps.exif_transpose(image)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        image = image.convert("RGB")
        if size:
            image = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(image)


def range_of(limits: Iterable[tuple[float, float, bool]]) -> Range | None:
    """Return the range of pictures by the (least, largest, whether whole) of their values; None without pictures."""
    found = list(limits)
    if not found:
        return None
    low, high = min(least for least, _, _ in found), max(largest for _, largest, _ in found)
    if low >= 0 and all(whole for _, _, whole in found):
        return 0.0, float(2 ** max(1, int(high).bit_length()) - 1)
    return float(low), float(high if high > low else low + 1)


def _each(
    function: Callable[[str], Any], paths: Sequence[str], progress: str, say: Say
) -> tuple[dict[str, Any], dict[str, Unreadable]]:
    """Return what a function makes of each path, several at a time, and of which it raised Unreadable."""

    def caught(path: str) -> Any:
        try:
            return function(path)
        except Unreadable as error:
            return error

    results: dict[str, Any] = {}
    started = said = time.monotonic()
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), CHUNK):
            part = paths[start : start + CHUNK]
            results |= zip(part, pool.map(caught, part), strict=True)
            if time.monotonic() - said > PROGRESS_SECONDS and len(results) < len(paths):
                said = time.monotonic()
                left = (said - started) / len(results) * (len(paths) - len(results))
                say(f"{progress.format(f'{len(results):,} of {len(paths):,}')}, ETA {left:.0f} s")
    failed = {path: result for path, result in results.items() if isinstance(result, Unreadable)}
    return {path: result for path, result in results.items() if path not in failed}, failed


def _head(root: Path, path: str) -> tuple[Size, bool]:
    """Return the (height, width) of a picture that stands upright, and whether it has more than 8 bits."""
    with _opened(root / path) as image:
        if image is None:
            deep = _deep(None, root / path)
            height, width = deep.pixels.shape[:2]
            return ((width, height) if deep.orientation > 4 else (height, width)), True
        is_deep = _is_deep(image)
        width, height = image.size
        turns_itself = image.format == "TIFF"  # Pillow gives the size of one that stands upright
        is_described = image.format != "PNG" or "exif" in image.info  # else Pillow would decode it to look for more
        is_turned = not turns_itself and is_described and image.getexif().get(ORIENTATION, 1) > 4
        return ((width, height) if is_turned else (height, width)), is_deep


def _limits(root: Path, path: str) -> tuple[float, float, bool]:
    """Return the least and the largest value of a picture of more than 8 bits, and whether all are whole numbers."""
    with _opened(root / path) as image:
        return _limits_of(_deep(image, root / path).pixels)


def _limits_of(pixels: np.ndarray) -> tuple[float, float, bool]:
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise Unreadable("damaged", "it holds values that are not finite numbers")
    return low, high, np.issubdtype(pixels.dtype, np.integer)


def _stored_size(root: Path, sizes: Counter[Size], image_size: int | None) -> Size:
    """Return the size in which pictures are stored; UserError where they differ and none is asked for."""
    (first, _), *others = sizes.most_common()
    if image_size and not others and first[0] == first[1] < image_size:
        return first
    if image_size:
        return image_size, image_size
    if others:
        told = " and ".join(f"{width}×{height}" for height, width in (first, others[0][0]))
        raise UserError(f"the images of {root} differ in size ({told}); say --image-size N to bring all to N×N")
    return first


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image | None]:
    """Open a picture without decoding it; None is a TIFF of a kind that Pillow does not know.

    Whatever decoders raise becomes Unreadable, which says what the file is instead of an image.
    """
    try:
        try:
            image = Image.open(path)
        except UnidentifiedImageError:
            if path.suffix.lower() not in (".tif", ".tiff") or not path.stat().st_size:
                raise
            image = None
        with image or nullcontext():
            yield image
    except (MemoryError, Unreadable):
        raise
    except Exception as error:
        raise Unreadable(*_instead(path, error)) from None


@dataclass(frozen=True)
class _Deep:
    """A picture of more than 8 bits: values (height, width[, 3]), transparency (height, width), how it was held."""

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    orientation: int = 1


def _is_deep(image: Image.Image) -> bool:
    """Tell whether a picture has more than 8 bits; where it is coloured, Pillow itself would drop the lower ones."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return True
    if image.format == "PNG":
        return bool(image.tile) and str(image.tile[0][3]).endswith(";16B")
    if image.format == "PPM":
        return image.mode == "RGB" and image.tile[0][0] == "ppm" and image.tile[0][3] == ("RGB", 65535)
    is_signed = image.format == "TIFF" and 2 in image.tag_v2.get(SAMPLE_FORMAT, ())
    return image.format == "TIFF" and (is_signed or max(image.tag_v2.get(BITS_PER_SAMPLE, (8,))) > 8)


def _deep(image: Image.Image | None, path: Path) -> _Deep:
    """Read a picture of more than 8 bits with all of them."""
    if image is None or image.format == "TIFF":
        return _deep_tiff(image, path)
    if image.format == "PNG" and not image.mode.startswith("I"):
        pixels = _png_of_16_bits(path)
        orientation = image.getexif().get(ORIENTATION, 1)
        return _Deep(pixels[..., :3], pixels[..., 3] if pixels.shape[-1] == 4 else None, orientation)
    if image.format == "PPM" and image.mode == "RGB":
        values = np.fromfile(path, ">u2", 3 * image.width * image.height, offset=image.tile[0][2])
        return _Deep(values.reshape(image.height, image.width, 3).astype(np.uint16))
    return _Deep(np.asarray(image), orientation=image.getexif().get(ORIENTATION, 1))


def _png_of_16_bits(path: Path) -> np.ndarray:
    """Read a coloured PNG of 16 bits (height, width, 3 or 4).

    Pillow keeps the high byte of each value only; told that the bytes stand the other way round, it keeps the low one.
    """
    halves = []
    for order in "BL":
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA"):
                raise Unreadable("of a kind that is not read", f"{image.mode} of 16 bits")
            image.tile = [image.tile[0]._replace(args=f"{image.mode};16{order}")]
            halves.append(np.asarray(image).astype(np.uint16))
    return halves[0] * 256 + halves[1]


def _deep_tiff(image: Image.Image | None, path: Path) -> _Deep:
    """Read a TIFF of more than 8 bits, which may hold fractions and negative numbers; Pillow knows some of them."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        try:
            pixels = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            if image is not None and image.mode != "RGB" and 1 in image.tag_v2.get(SAMPLE_FORMAT, (1,)):
                return _Deep(np.asarray(image))
            raise Unreadable("compressed in a way that needs `pip install imagecodecs`") from None
        pixels = np.moveaxis(pixels, 0, -1) if page.axes.startswith("S") else pixels
        has_alpha = bool(set(page.extrasamples) & {1, 2})
        channels = pixels.shape[-1] - has_alpha if pixels.ndim == 3 else 1
        if pixels.ndim > 3 or channels not in (1, 3):
            raise Unreadable("of a kind that is not read", f"its shape is {'×'.join(map(str, pixels.shape))}")
        alpha = pixels[..., -1] if has_alpha else None
        colours = pixels[..., :channels] if pixels.ndim == 3 else pixels
        colours = colours[..., 0] if colours.ndim == 3 and channels == 1 else colours
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            colours = -colours.astype(np.float64 if colours.dtype.kind == "f" else np.int64)
        tag = page.tags.get(ORIENTATION)
        return _Deep(colours, alpha, int(tag.value) if tag else 1)


def _eight_bits(deep: _Deep, levels: Range | None) -> Image.Image:
    """Bring a picture to 8 bits, so that the ends of a range, by default its own, become 0 and 255."""
    low, high = levels or range_of([_limits_of(deep.pixels)])
    scaled = np.rint((deep.pixels.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(scaled)
    if deep.alpha is not None:
        whole = np.iinfo(deep.alpha.dtype).max if deep.alpha.dtype.kind in "iu" else 1.0
        whole = high if deep.alpha.max() <= high < whole else whole  # transparency of as many bits as the colours
        image = image.convert("RGB")
        image.putalpha(Image.fromarray(np.rint(deep.alpha * (255 / whole)).clip(0, 255).astype(np.uint8)))
    image.getexif()[ORIENTATION] = deep.orientation
    return image


def _instead(path: Path, error: Exception) -> tuple[str, str]:
    """Say what a file is that is not a readable image, and why it could not be read."""
    start = b""
    with suppress(OSError):
        with path.open("rb") as file:
            start = file.read(200).lstrip().lower()
        if not path.stat().st_size:
            return "empty", ""
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page", "a download that failed?"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer", "`git lfs pull` fetches the image"
    if isinstance(error, UnidentifiedImageError):
        return "damaged", "no known image format"
    return "damaged", " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())


def _shows_something(images: np.ndarray) -> bool:
    """Tell whether any image (n, height, width, 3) has two colours; looks no further than it must."""
    return any((image != image[:1, :1]).any() for image in images)


def _refuse_unreadable(root: Path, unreadable: dict[str, Unreadable], files: int, report: Path) -> None:
    """Raise UserError where more files than a few cannot be read."""
    if len(unreadable) > UNREADABLE_SHARE * files:
        raise UserError(
            f"{_summary(root, unreadable, report)}; of {files:,} files that is more than {UNREADABLE_SHARE:.0%}: "
            "fix or remove them"
        )


def _summary(root: Path, unreadable: dict[str, Unreadable], report: Path) -> str:
    """Count the files that cannot be read by what they are, name some, and say where all are listed."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in unreadable.values()).items())
    named = "; ".join(f"{printable(root / path)}: {error}" for path, error in list(unreadable.items())[:NAMED])
    is_listed = _list_in(report, root, unreadable) and len(unreadable) > NAMED
    listed = f"; all are listed in {printable(report)}" if is_listed else ""
    return f"{len(unreadable)} files cannot be read as images ({kinds}): {named}{listed}"


def _list_in(report: Path, root: Path, unreadable: dict[str, Unreadable]) -> bool:
    """Write all files that cannot be read, and why, into a file, and tell whether that could be done."""
    temporary = report.with_suffix(f".{os.getpid()}.tmp")
    try:
        report.parent.mkdir(exist_ok=True)
        text = "".join(f"{printable(root / path)}: {error}\n" for path, error in unreadable.items())
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(report)
    except OSError:
        return False
    return True
