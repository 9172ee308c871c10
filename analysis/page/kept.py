"""The folder of a report: what the next report there replaces, removes, or must leave alone.

    python -c "from pathlib import Path; from analysis.page import kept; kept.set_aside(Path('report'), 'report.md')"

A list in the folder names the files of the last report. A page, a report.md or a report.pdf that somebody has written
or changed is renamed, not replaced; tables and figures are replaced.
"""

import hashlib
import sys
from collections.abc import Collection
from pathlib import Path

from study.system.errors import printable
from study.system.files import replace_bytes

FILES = ".report-files"
"""The list: a name per line; those that people may edit are followed by a tab and a digest of their content."""


def set_aside(out: Path, name: str) -> None:
    """Rename a file that is about to be replaced if no report wrote it, or if it was changed since, and say so."""
    path = out / name
    if not path.is_file() or is_ours(out, name):
        return
    copies = (path.with_stem(f"{path.stem}.old{number}") for number in ("", *range(2, 1000)))
    other = next(copy for copy in copies if not copy.exists())
    path.rename(other)
    message = f"{printable(path)} is not as the last report left it, so it was renamed to {printable(other.name)}"
    print(f"note: {message}", file=sys.stderr, flush=True)


def is_ours(out: Path, name: str) -> bool:
    """Return whether a file is as the last report left it."""
    known = _listed(out).get(name)
    return bool(known) and (out / name).is_file() and known == _digest(out / name)


def note(out: Path, name: str) -> None:
    """Add to the list a file that people may edit, as it is now."""
    _write(out, _listed(out) | {name: _digest(out / name)})


def remove_older(out: Path, written: Collection[str]) -> None:
    """Remove the tables and figures of the last report that are not `written` again, and list those that are."""
    listed = _listed(out)
    for name in listed.keys() - {*written}:
        if Path(name).parts[:-1] in (("tables",), ("figures",)) and (out / name).is_file():
            (out / name).unlink()
    _write(out, dict.fromkeys(written, "") | {name: digest for name, digest in listed.items() if digest})


def _listed(out: Path) -> dict[str, str]:
    """Read the list, which may have been changed: the digest of each name, empty without one."""
    path = out / FILES
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return {name: digest for name, _, digest in (line.partition("\t") for line in lines)}


def _write(out: Path, digests: dict[str, str]) -> None:
    lines = sorted(f"{name}\t{digest}" if digest else name for name, digest in digests.items())
    replace_bytes(out / FILES, "".join(f"{line}\n" for line in lines).encode())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
