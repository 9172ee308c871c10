"""The folder of a report: what the next report there replaces, removes, or must leave alone.

    python -c "from analysis.page import kept; help(kept.replace)"

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


def replace(out: Path, name: str, content: bytes) -> None:
    """Write a file of a report; one that is there is renamed if no report wrote it, or if it was changed since."""
    path = out / name
    if path.is_file() and not is_ours(out, name):
        copies = (path.with_stem(f"{path.stem}.old{number}") for number in ("", *range(2, 1000)))
        other = next(copy for copy in copies if not copy.exists())
        path.rename(other)
        why = "was not written by the last report, or was changed since"
        print(f"note: {printable(path)} {why}; it is now {printable(other.name)}", file=sys.stderr, flush=True)
    replace_bytes(path, content)
    _write(out, _listed(out) | {name: _digest(content)})


def is_ours(out: Path, name: str) -> bool:
    """Return whether a file is as the last report left it."""
    known = _listed(out).get(name)
    return bool(known) and (out / name).is_file() and known == _digest((out / name).read_bytes())


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


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
