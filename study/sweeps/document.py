"""Read a YAML file with the line of each place in it, and name mistakes by their lines.

python -c "from study.sweeps.document import load; print(load('sweeps/dropout.yaml').lines)"
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from study.system.errors import Place, UserError, closest
from study.system.files import written_text

MOST_MISTAKES = 100
"""An error names at most this many mistakes of a file."""

DEEPEST = 20
"""Levels of a file whose lines are known."""


Lines = Mapping[Place, int]
"""The line of each place in a file, from 1."""


class Document(NamedTuple):
    """A YAML file: its content, the line of each place in it, and the keys that appear twice as mistakes."""

    content: Any
    lines: Lines
    twice: Sequence[tuple[Place, str]]


def load(path: str | Path) -> Document:
    """Read a YAML file; raise UserError if it cannot be read. Of a key that appears twice, the last value counts."""
    path = Path(path)
    try:
        loader = yaml.SafeLoader(written_text(path))
        node = loader.get_single_node()
        places = list(_places(node)) if node else []
        content = loader.construct_document(node) if node else None
    except OSError as error:
        is_of_repository = path.parts[:1] == ("sweeps",) and not Path("sweeps").is_dir()
        hint = _similar(path) or ("" if path.suffix else "; a sweep on W&B is written ENTITY/PROJECT/ID")
        if is_of_repository:
            hint = "; the files in sweeps/ come with the repository, not with an installed package"
        raise UserError(f"{path} cannot be read: {error.strerror}{hint}") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {error.problem}") from None
    except Exception as error:  # PyYAML raises errors of every kind for tags such as !!timestamp
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None

    # Find the keys that appear twice, with - and _ alike
    lines: dict[Place, int] = {}
    twice: list[tuple[Place, str]] = []
    for place, line in places:
        if place in lines and not any(place[: len(other)] == other for other, _ in twice):
            twice.append((place, f"{place[-1]!r} appears twice, first in line {lines[place]}"))
        lines[place] = line
    return Document(content, lines, twice)


def _similar(path: Path) -> str:
    """Return a hint at the sweep file that was probably meant, beside a path or in sweeps/, or ""."""
    files = {file.stem: file for folder in (Path("sweeps"), path.parent) for file in sorted(folder.glob("*.y*ml"))}
    guess = closest(path.stem, files)
    return f"; did you mean {files[guess]}?" if guess and not path.exists() else ""


def _places(node: yaml.Node, place: Place = (), above: tuple[yaml.Node, ...] = ()) -> Iterator[tuple[Place, int]]:
    """Yield the line of each place in a YAML node; that of a value in a mapping is the line of its key."""
    if node in above or len(above) > DEEPEST:  # a YAML node may hold itself
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value).replace("-", "_") if isinstance(key, yaml.ScalarNode) else None
            yield (*place, name), key.start_mark.line + 1
            yield from _places(value, (*place, name), (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*place, index), item.start_mark.line + 1
            yield from _places(item, (*place, index), (*above, node))


def error(path: str | Path, mistakes: Sequence[tuple[Place, str]], lines: Lines) -> UserError:
    """Return an error with a line for each mistake of a file, `PATH:LINE: …`, in the order of the file."""
    # Find the line of each, or of the part that holds it
    found = []
    for place, text in mistakes:
        keys = tuple(key.replace("-", "_") if isinstance(key, str) else key for key in place)
        parts = (keys[:length] for length in range(len(keys), 0, -1))
        number = next((lines[part] for part in parts if part in lines), 0)
        found.append((number, f"{path}:{number}: {text}" if number else f"{path}: {text}"))

    # Sort them, and leave out what would fill the screen
    texts = list(dict.fromkeys(text for _, text in sorted(found, key=lambda pair: pair[0])))
    more = len(texts) - MOST_MISTAKES
    if more > 0:
        texts[MOST_MISTAKES:] = [f"{path}: and {more} more like these"]
    return UserError("\n".join(texts))
