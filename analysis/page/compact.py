"""Make the SVG of a figure a third smaller or more, for the page: it looks the same.

    python -c "from analysis.page import compact; from pathlib import Path; \\
        print(len(compact.svg(Path('report/figures/quickstart-brief.svg').read_bytes())))"

Names of classes and settings take most space: matplotlib draws every character as an element of 70 characters.
"""

import base64
import io
import re

from PIL import Image

PNG = re.compile(r"data:image/png;base64,\s*([^\"]*)")


def svg(content: bytes, photo: bool = False) -> bytes:
    """Shorten the SVG of a figure that matplotlib has written; the pictures in that of a `photo` stay as they are."""
    # without comments and line ends
    short = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", content.decode(), flags=re.S)
    short = re.sub(r"\s*\n\s*", " ", short).replace("> <", "><")

    # characters with short names; their places are hundredths of the size of the font and need no digits
    short = re.sub(r'xlink:href="(#[^"]*)" transform="translate\(([^ )]*) ([^ )]*)\)"', _character, short)
    names = {name: f"p{place}" for place, name in enumerate(re.findall(r'<path id="([^"]*)"', short))}
    short = re.sub(r'(<path id="|href="#)([^"]*)"', lambda found: f'{found[1]}{names.get(found[2], found[2])}"', short)

    # coordinates with two digits, and pictures with 256 colours
    short = re.sub(r' (?:d|x|y)="[^"]*"', lambda found: re.sub(r"\d+\.\d{3,}", _rounded, found[0]), short)
    return (short if photo else PNG.sub(_picture, short)).encode()


def _character(found: re.Match) -> str:
    name, across, up = found.groups()
    return f'href="{name}" x="{float(across):.0f}"' + (f' y="{float(up):.0f}"' if float(up) else "")


def _rounded(found: re.Match) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def _picture(found: re.Match) -> str:
    file = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        picture.convert("RGBA").quantize(256, Image.Quantize.FASTOCTREE).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
