"""Decode image files to uint8 pixels, in the same way for training and `predict`.

python -c "from study.data.pictures import read; print(read('photo.jpg', (32, 32), None).shape)"

A picture is turned upright, its transparent parts become white, and it is converted to RGB, resized and centre-cropped.
Pictures of more than 8 bits are scaled to 8 bits by one range for the whole data set: from 0 to the largest value of
the smallest bit depth that holds all of them or, for fractions and negative numbers, from the least to the largest
value.
"""

import os
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

from study.system.errors import NAMED, UserError, printable
from study.system.files import replace_text
from study.system.progress import Progress, Say

Size = tuple[int, int]
"""Height and width in pixels."""

Range = tuple[float, float]
"""The values that become 0 and 255."""

Listing = dict[str, list[tuple[str, int]]]
"""For each split, the image files as (path relative to a root, label)."""

UNREADABLE_SHARE = 0.01
"""A data set is refused if more than this share of its files cannot be read, with these exceptions."""

UNREADABLE_FILES, OF_FEW = 5, 0.1
"""Up to this number of unreadable files are accepted if they are at most this share of all files."""

CHUNK = 1000
"""Number of files that are handed to the threads at once."""


HEIC = {b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc"}
"""What follows the first four bytes of photographs of iPhones, which often have the suffix of another format."""

ORIENTATION = 274
BITS_PER_SAMPLE = 258
SAMPLE_FORMAT = 339
"""Numbers of the tags in EXIF and TIFF."""

TURNS = dict(
    enumerate(
        [
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ],
        start=2,
    )
)
"""What turns a picture of each EXIF orientation upright."""


class Unreadable(Exception):
    """A file that cannot be read as an image; `kind` is what it is instead, `reason` the decoder's error."""

    def __init__(self, kind: str, reason: str = ""):
        super().__init__(f"{kind} ({reason})" if reason else kind)
        self.kind = kind


@dataclass(frozen=True)
class Decoded:
    """The images (n, height, width, 3), uint8, and labels (n,), int64, of each split of a folder.

    `range` is the range of pictures of more than 8 bits, None if there are none. `unreadable` holds (path relative to
    the root, reason) of each file that was left out.
    """

    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    range: Range | None
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def decode(root: Path, listing: Listing, image_size: int | None, say: Say, report: Path) -> Decoded:
    """Decode image files to arrays of one shape, in little more memory than the arrays take.

    Square pictures of one size below `image_size` keep their size and are enlarged batch by batch; others are resized
    to `image_size`. The names of unreadable files are written to `report`. Raises UserError if the pictures differ in
    size and there is no `image_size`, if too many cannot be read, or if each of them has a single colour.
    """
    # Read the header of every file: its size, and whether it has more than 8 bits
    paths = [path for listed in listing.values() for path, _ in listed]
    heads, unreadable = _each(
        partial(_head, root), paths, Progress(len(paths), "read the headers of", f"images below {root}", say)
    )
    _refuse_unreadable(root, unreadable, len(paths), report, is_whole=False)
    size = _stored_size(root, Counter(size for size, _ in heads.values()), image_size)

    # Find the range of pictures of more than 8 bits
    deep = [path for path, (_, is_deep) in heads.items() if is_deep]
    limits, failed = _each(
        partial(_limits, root), deep, Progress(len(deep), "measured", f"images of more than 8 bits below {root}", say)
    )
    levels = range_of(limits.values())
    unreadable |= failed
    if deep and len(deep) < len(heads):
        say(f"{len(deep):,} of {len(heads):,} images below {root} have more than 8 bits; only those get a common range")

    # Decode each split into one array
    splits = {}
    for split, listed in listing.items():
        splits[split], failed = _decode_split(root, split, listed, size, levels, say)
        unreadable |= failed

    # Refuse data that nothing can be learned from, and list the unreadable files
    _refuse_unreadable(root, unreadable, len(paths), report)
    if empty := [split for split, (images, _) in splits.items() if not len(images)]:
        raise UserError(f"no {empty[0]} image: {_summary(root, unreadable, report)}")
    if not any(_shows_something(images) for images, _ in splits.values()):
        raise UserError(f"each of the {len(paths):,} images below {root} has a single colour: nothing can be learned")
    if unreadable:
        _list_in(report, root, unreadable)
    return Decoded(splits, levels, [(printable(path), str(error)) for path, error in unreadable.items()])


def _decode_split(
    root: Path, split: str, listed: list[tuple[str, int]], size: Size, levels: Range | None, say: Say
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, Unreadable]]:
    """Return the images and labels of a split, and its files that cannot be read."""
    images = np.empty((len(listed), *size, 3), dtype=np.uint8)
    labels = np.array([label for _, label in listed])
    places = {path: place for place, (path, _) in enumerate(listed)}

    def put(path: str) -> None:
        images[places[path]] = read(root / path, size, levels)

    # Decode the files, several at a time
    say(f"decoding {len(listed):,} images of {split} below {root} (only the first time)")
    done, failed = _each(put, list(places), Progress(len(places), "decoded", f"{split} images", say))

    # Close the gaps of unreadable files in place
    if failed:
        kept = [places[path] for path in done]
        for place, old in enumerate(kept):
            images[place] = images[old]
        images = images[: len(kept)]
        labels = labels[kept]
    return (images, labels), failed


def read(path: str | os.PathLike | Image.Image, size: Size | None, levels: Range | None) -> np.ndarray:
    """Read one image file upright as RGB (height, width, 3), uint8; raise Unreadable if it cannot be read.

    In place of a file, it may be an image that Pillow has opened or made, which has no more bits than Pillow keeps.

    It is resized and centre-cropped to `size`, if given. `levels` is the range that scales a picture of more than 8
    bits, by default its own.
    """
    path = path if isinstance(path, Image.Image) else Path(path)
    with nullcontext(path.copy()) if isinstance(path, Image.Image) else _opened(path) as image:
        # Scale to 8 bits, turn upright, put transparent parts on white
        if image is None or _is_deep(image):
            image = _eight_bits(_deep(image, path), levels)
        turn = TURNS.get(_orientation(image)) if image.format != "TIFF" else None  # Pillow turns these itself
        image = image if turn is None else image.transpose(turn)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))

        # Convert to RGB of the wanted size
        image = image.convert("RGB")
        if size:
            image = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(image)


def range_of(limits: Iterable[tuple[float, float, bool]]) -> Range | None:
    """Return the common range of pictures from their (least value, largest value, are integers); None if none."""
    limits = list(limits)
    if not limits:
        return None
    low = min(least for least, _, _ in limits)
    high = max(largest for _, largest, _ in limits)
    if low >= 0 and all(are_integers for _, _, are_integers in limits):
        return 0.0, float(2 ** max(1, int(high).bit_length()) - 1)
    return float(low), float(high if high > low else low + 1)


def _each(
    function: Callable[[str], Any], paths: Sequence[str], progress: Progress
) -> tuple[dict[str, Any], dict[str, Unreadable]]:
    """Apply a function to each path in threads; return its results and the Unreadable errors, by path."""

    def caught(path: str) -> Any:
        try:
            return function(path)
        except Unreadable as error:
            return error

    # Run the threads chunk by chunk, and report the progress
    results: dict[str, Any] = {}
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), CHUNK):
            part = paths[start : start + CHUNK]
            results |= zip(part, pool.map(caught, part), strict=True)
            progress.show(len(results))

    # Separate the failures
    failed = {path: result for path, result in results.items() if isinstance(result, Unreadable)}
    return {path: result for path, result in results.items() if path not in failed}, failed


def _head(root: Path, path: str) -> tuple[Size, bool]:
    """Return the (height, width) of the upright picture, and whether it has more than 8 bits."""
    with _opened(root / path) as image:
        # A TIFF that only tifffile can read
        if image is None:
            deep = _deep(None, root / path)
            height, width = deep.pixels.shape[:2]
            return ((width, height) if deep.orientation > 4 else (height, width)), True

        # Any other: read its orientation, without decoding it
        is_deep = _is_deep(image)
        width, height = image.size
        is_upright = image.format == "TIFF"  # Pillow gives the size of the upright picture
        has_exif = image.format != "PNG" or "exif" in image.info  # for a PNG without, Pillow would decode it
        is_turned = not is_upright and has_exif and _orientation(image) > 4
        return ((width, height) if is_turned else (height, width)), is_deep


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a picture, 1 to 8; 1, upright, if its EXIF data are damaged or say no number."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # of many kinds; the pixels can be read all the same
        return 1
    return value if value in range(1, 9) else 1


def _limits(root: Path, path: str) -> tuple[float, float, bool]:
    """Return the least and the largest value of a picture of more than 8 bits, and whether they are integers."""
    with _opened(root / path) as image:
        return _limits_of(_deep(image, root / path).pixels)


def _limits_of(pixels: np.ndarray) -> tuple[float, float, bool]:
    low = float(pixels.min())
    high = float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise Unreadable("damaged", "it holds values that are not finite numbers")
    return low, high, np.issubdtype(pixels.dtype, np.integer)


def _stored_size(root: Path, sizes: Counter[Size], image_size: int | None) -> Size:
    """Return the size in which pictures are stored; raise UserError if they differ and there is no `image_size`."""
    (first, _), *others = sizes.most_common()
    if image_size and not others and first[0] == first[1] < image_size:
        return first
    if image_size:
        return image_size, image_size
    if others:
        examples = " and ".join(f"{width}×{height}" for height, width in (first, others[0][0]))
        raise UserError(f"the images of {root} differ in size ({examples}); give --image-size N to resize all to N×N")
    return first


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image | None]:
    """Open a picture without decoding it; yield None for a kind of TIFF that Pillow does not know.

    Raises Unreadable, with what the file is instead of an image, for any error of a decoder.
    """
    try:
        # Open the file; a TIFF that Pillow does not know may be read by tifffile
        try:
            image = Image.open(path)
        except UnidentifiedImageError:
            if path.suffix.lower() not in (".tif", ".tiff") or not path.stat().st_size:
                raise
            image = None

        # Close it after use, and explain errors of the decoder
        with image or nullcontext():
            yield image
    except (MemoryError, Unreadable):
        raise
    except Exception as error:
        raise Unreadable(*_instead(path, error)) from None


@dataclass(frozen=True)
class _Deep:
    """A picture of more than 8 bits: values (height, width[, 3]), transparency (height, width), EXIF orientation."""

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    orientation: int = 1


def _is_deep(image: Image.Image) -> bool:
    """Return whether a picture has more than 8 bits; Pillow would drop the lower bits of a coloured one."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return True
    if image.format == "PNG":
        return bool(image.tile) and str(image.tile[0][3]).endswith(";16B")
    if image.format == "PPM":
        return image.mode == "RGB" and image.tile[0][0] == "ppm" and image.tile[0][3] == ("RGB", 65535)
    is_signed = image.format == "TIFF" and 2 in image.tag_v2.get(SAMPLE_FORMAT, ())
    return image.format == "TIFF" and (is_signed or max(image.tag_v2.get(BITS_PER_SAMPLE, (8,))) > 8)


def _deep(image: Image.Image | None, path: Path) -> _Deep:
    """Read a picture of more than 8 bits without losing any."""
    if image is None or image.format == "TIFF":
        return _deep_tiff(image, path)
    if image.format == "PNG" and not image.mode.startswith("I"):
        pixels = _png_of_16_bits(path)
        alpha = pixels[..., 3] if pixels.shape[-1] == 4 else None
        return _Deep(pixels[..., :3], alpha, _orientation(image))
    if image.format == "PPM" and image.mode == "RGB":
        values = np.fromfile(path, ">u2", 3 * image.width * image.height, offset=image.tile[0][2])
        return _Deep(values.reshape(image.height, image.width, 3).astype(np.uint16))
    return _Deep(np.asarray(image), orientation=_orientation(image))


def _png_of_16_bits(path: Path) -> np.ndarray:
    """Read a PNG of 16 bits with colours or transparency (height, width, 3 or 4).

    Pillow keeps only the high byte of each value. With the byte order reversed it keeps the low byte instead, so the
    file is read twice.
    """
    halves = []
    for order in "BL":
        with Image.open(path) as image:
            stored = str(image.tile[0].args).partition(";")[0]
            if stored == "LA":  # its two values of 16 bits have the length of four of 8
                image.tile = [image.tile[0]._replace(args="RGBA")]
                grey_high, grey_low, alpha_high, alpha_low = np.moveaxis(np.asarray(image).astype(np.uint16), -1, 0)
                grey = grey_high * 256 + grey_low
                return np.stack([grey, grey, grey, alpha_high * 256 + alpha_low], axis=-1)
            if stored not in ("RGB", "RGBA"):
                raise Unreadable("in a format that is not supported", f"{stored} of 16 bits")
            image.tile = [image.tile[0]._replace(args=f"{stored};16{order}")]
            halves.append(np.asarray(image).astype(np.uint16))
    return halves[0] * 256 + halves[1]


def _deep_tiff(image: Image.Image | None, path: Path) -> _Deep:
    """Read a TIFF of more than 8 bits, which may hold fractions and negative numbers."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        # Decode the values; without imagecodecs, Pillow reads some kinds
        page = file.pages[0]
        try:
            pixels = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            if image is not None and image.mode != "RGB" and 1 in image.tag_v2.get(SAMPLE_FORMAT, (1,)):
                return _Deep(np.asarray(image))
            raise Unreadable("compressed in a way that needs `pip install imagecodecs`") from None

        # Separate colours and transparency
        pixels = np.moveaxis(pixels, 0, -1) if page.axes.startswith("S") else pixels
        has_alpha = bool(set(page.extrasamples) & {1, 2})
        channels = pixels.shape[-1] - has_alpha if pixels.ndim == 3 else 1
        if pixels.ndim > 3 or channels not in (1, 3):
            raise Unreadable("in a format that is not supported", f"its shape is {'×'.join(map(str, pixels.shape))}")
        alpha = pixels[..., -1] if has_alpha else None
        colours = pixels[..., :channels] if pixels.ndim == 3 else pixels
        colours = colours[..., 0] if colours.ndim == 3 and channels == 1 else colours

        # Make large values bright
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            colours = -colours.astype(np.float64 if colours.dtype.kind == "f" else np.int64)
        tag = page.tags.get(ORIENTATION)
        return _Deep(colours, alpha, int(tag.value) if tag else 1)


def _eight_bits(deep: _Deep, levels: Range | None) -> Image.Image:
    """Scale a picture to 8 bits; the ends of `levels`, by default of its own range, become 0 and 255."""
    # Scale the colours
    low, high = levels or range_of([_limits_of(deep.pixels)])
    scaled = np.rint((deep.pixels.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(scaled)

    # Scale the transparency, which has the bits of its type or those of the colours
    if deep.alpha is not None:
        opaque = np.iinfo(deep.alpha.dtype).max if deep.alpha.dtype.kind in "iu" else 1.0
        opaque = high if deep.alpha.max() <= high < opaque else opaque
        image = image.convert("RGB")
        image.putalpha(Image.fromarray(np.rint(deep.alpha * (255 / opaque)).clip(0, 255).astype(np.uint8)))
    image.getexif()[ORIENTATION] = deep.orientation
    return image


def _instead(path: Path, error: Exception) -> tuple[str, str]:
    """Return what an unreadable file is instead of an image, and why it cannot be read."""
    # Look at the first bytes
    start = b""
    with suppress(OSError):
        with path.open("rb") as file:
            start = file.read(200).lstrip().lower()
        if not path.stat().st_size:
            return "empty", ""

    # Recognize what was never an image, otherwise pass on the decoder's error
    if isinstance(error, FileNotFoundError):
        return "missing", ""
    if isinstance(error, IsADirectoryError):
        return "a folder", ""
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page", "a download that failed?"
    if start[4:12] in HEIC:
        return "a HEIC photograph", "export it as JPEG"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer", "`git lfs pull` fetches the image"
    if isinstance(error, UnidentifiedImageError):
        return "damaged", "no known image format"
    return "damaged", " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())


def _shows_something(images: np.ndarray) -> bool:
    """Return whether any of the images (n, height, width, 3) has two colours."""
    return any((image != image[:1, :1]).any() for image in images)


def _refuse_unreadable(
    root: Path, unreadable: dict[str, Unreadable], files: int, report: Path, is_whole: bool = True
) -> None:
    """Raise UserError if too many files cannot be read, see UNREADABLE_SHARE; `is_whole` as for `_summary`."""
    if len(unreadable) > max(UNREADABLE_SHARE * files, min(UNREADABLE_FILES, OF_FEW * files)):
        limit = UNREADABLE_SHARE if len(unreadable) > UNREADABLE_FILES else OF_FEW
        raise UserError(
            f"{_summary(root, unreadable, report, is_whole)}; of {files:,} files that is more than {limit:.0%}: "
            "fix or remove them"
        )


def _summary(root: Path, unreadable: dict[str, Unreadable], report: Path, is_whole: bool = True) -> str:
    """Return a sentence with the number of unreadable files of each kind, some names, and where they are listed.

    Unless the list `is_whole`, only the headers of the files have been read.
    """
    counts = Counter(error.kind for error in unreadable.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    named = "; ".join(f"{printable(root / path)}: {error}" for path, error in list(unreadable.items())[:NAMED])
    is_listed = _list_in(report, root, unreadable) and len(unreadable) > NAMED
    listed = "all" if is_whole else "those whose beginning cannot be read"
    where = f"; {listed} are listed in {printable(report)}" if is_listed else ""
    files = (
        "1 file cannot be read as an image"
        if len(unreadable) == 1
        else f"{len(unreadable)} files cannot be read as images"
    )
    return f"{files} ({kinds}): {named}{where}"


def _list_in(report: Path, root: Path, unreadable: dict[str, Unreadable]) -> bool:
    """Write all unreadable files with their reasons into `report`; return whether it could be written."""
    try:
        replace_text(report, "".join(f"{printable(root / path)}: {error}\n" for path, error in unreadable.items()))
    except OSError:
        return False
    return True
