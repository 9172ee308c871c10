"""From image files to uint8 pixels, the same way for training and for `predict`.

python -c "from study.pictures import read; print(read('photo.jpg', (32, 32), None).shape)"

A picture is turned upright, laid on white where it is clear, made RGB, and, unless it keeps its size, resized and
centre-cropped. Pictures of more than 8 bits are brought to 8 by one range for the whole data set: from 0 to the largest
value of the smallest bit depth that holds all of them, or, for fractions and negative numbers, from the least to the
largest value.
"""

import itertools
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

from study.errors import UserError, printable

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
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 258
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
        say(f"skipped {_summary(root, unreadable, report)}")
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
    if failed:
        kept = [places[path] for path in done]
        images, labels = images[kept], labels[kept]
    return (images, labels), failed


def read(path: str | os.PathLike, size: Size | None, levels: Range | None) -> np.ndarray:
    """Read one image file as RGB (height, width, 3) uint8, upright; Unreadable where that cannot be done.

    With a `size` it is resized and centre-cropped to it. `levels` is the range of a picture of more than 8 bits, by
    default its own.
    """
    path = Path(path)
    with _opened(path) as image:
        if image is None or _is_deep(image):
            orientation = image.getexif().get(ORIENTATION, 1) if image else 1
            pixels, alpha = _deep_pixels(image, path)
            low, high = levels or range_of([_limits_of(pixels)])
            image = _eight_bits(pixels, alpha, low, high)
            image.getexif()[ORIENTATION] = orientation
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
            return _deep_pixels(None, root / path)[0].shape[:2], True
        width, height = image.size
        is_turned = width != height and image.getexif().get(ORIENTATION, 1) > 4
        return ((width, height) if is_turned else (height, width)), _is_deep(image)


def _limits(root: Path, path: str) -> tuple[float, float, bool]:
    """Return the least and the largest value of a picture of more than 8 bits, and whether all are whole numbers."""
    with _opened(root / path) as image:
        return _limits_of(_deep_pixels(image, root / path)[0])


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


def _is_deep(image: Image.Image) -> bool:
    """Tell whether a picture has more than 8 bits; where it is coloured, Pillow itself would drop the lower ones."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return True
    if image.format == "PNG":
        return bool(image.tile) and str(image.tile[0][3]).endswith(";16B")
    if image.format == "PPM":
        return image.mode == "RGB" and image.tile[0][3] == ("RGB", 65535)
    return image.format == "TIFF" and max(image.tag_v2.get(BITS_PER_SAMPLE, (8,))) > 8


def _deep_pixels(image: Image.Image | None, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values (height, width[, 3]) of a picture of more than 8 bits, and its alpha or None."""
    if image is not None and (image.mode in ("I", "F") or image.mode.startswith("I;16")):
        return np.asarray(image), None
    if image is not None and image.format == "PNG":
        from torchvision.io import ImageReadMode, decode_image

        pixels = decode_image(str(path), ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    elif image is not None and image.format == "PPM":
        count = 3 * image.width * image.height
        values = np.fromfile(path, ">u2", count, offset=image.tile[0][2])
        pixels = values.reshape(image.height, image.width, 3).astype(np.uint16)
    else:
        import tifffile

        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            pixels = page.asarray()
            pixels = np.moveaxis(pixels, 0, -1) if page.axes.startswith("S") else pixels
    if pixels.ndim == 2:
        return pixels, None
    channels = pixels.shape[-1]
    if pixels.ndim != 3 or channels > 4:
        raise Unreadable("of a kind that is not read", f"its shape is {'×'.join(map(str, pixels.shape))}")
    alpha = pixels[..., -1] if channels in (2, 4) else None
    colours = pixels[..., : channels - (alpha is not None)]
    return colours[..., 0] if colours.shape[-1] == 1 else colours, alpha


def _eight_bits(pixels: np.ndarray, alpha: np.ndarray | None, low: float, high: float) -> Image.Image:
    """Bring values to 8 bits, so that `low` becomes 0 and `high` 255."""
    scaled = np.rint((pixels.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(scaled)
    if alpha is not None:
        whole = np.iinfo(alpha.dtype).max if np.issubdtype(alpha.dtype, np.integer) else 1.0
        image = image.convert("RGB")
        image.putalpha(Image.fromarray(np.rint(alpha * (255 / whole)).clip(0, 255).astype(np.uint8)))
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
    """Tell whether any image (n, height, width, 3) has two values; looks no further than it must."""
    return any(image.min() != image.max() for image in images)


def _refuse_unreadable(root: Path, unreadable: dict[str, Unreadable], files: int, report: Path) -> None:
    """Raise UserError where more files than a few cannot be read."""
    if len(unreadable) > UNREADABLE_SHARE * files:
        raise UserError(
            f"{_summary(root, unreadable, report)}; of {files:,} files that is more than {UNREADABLE_SHARE:.0%}: "
            "fix or remove them"
        )


def _summary(root: Path, unreadable: dict[str, Unreadable], report: Path) -> str:
    """Count the files that cannot be read by what they are, name some, and write all of them to a file."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in unreadable.values()).items())
    lines = [f"{printable(root / path)}: {error}" for path, error in unreadable.items()]
    written = ""
    with suppress(OSError):
        report.parent.mkdir(exist_ok=True)
        temporary = report.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        temporary.replace(report)
        written = f"; all are listed in {printable(report)}" if len(lines) > NAMED else ""
    named = "; ".join(itertools.islice(lines, NAMED))
    return f"{len(lines)} files cannot be read as images ({kinds}): {named}{written}"
