"""The version of this package, and the git commit of its code.

python -c "from study.system import version; print(version.line())"
"""

import json
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGE = "image-classifier-study"
SHOWN = 12
"""Number of characters of a commit in `line`."""


def _version() -> str:
    """Return the version of the installed package, `unknown` if its modules are used without an installation."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "unknown"


__version__ = _version()


@cache
def commit() -> str | None:
    """Return the commit of this code, followed by + if files differ from it; None if it is not known.

    Outside a checkout, it is the one from which pip installed the package, if that was a git repository.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return _installed_from()
    git = ("git", "-C", str(root))
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", timeout=5)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "study"], capture_output=True, encoding="utf-8", timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else None


def _installed_from() -> str | None:
    """Return the commit that pip recorded for `pip install git+https://…`."""
    try:
        source = json.loads(metadata.distribution(PACKAGE).read_text("direct_url.json") or "{}")
        return source.get("vcs_info", {}).get("commit_id")
    except (metadata.PackageNotFoundError, ValueError):
        return None


def line() -> str:
    """Return the name, the version and the commit, as `--version` prints them."""
    found = commit() or ""
    short = found[:SHOWN] + "+" * found.endswith("+")
    return f"{PACKAGE} {__version__}" + (f" ({short})" if short else "")
