"""Renews the page of a report as runs finish, while it reloads itself.

python -m analysis.summarize runs --watch
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from analysis.frames import runs
from analysis.page import kept
from analysis.page.html import reload_tag
from study.record.directory import RunDirectory
from study.system.errors import UserError, printable

SECONDS = 10
"""Seconds between two looks at the runs, and between two reloads of the page."""


def watch(sources: Sequence[str], page: Path, renew: Callable[[bool], bool]) -> None:
    """Renew a page whenever runs of the sources have changed, until Ctrl-C; then it no longer reloads itself.

    `renew` writes the page and returns whether it is the whole page; called with True, as at the end, it always is.
    """
    where = printable(page.absolute())
    print(f"watching {', '.join(map(printable, sources))} every {SECONDS} s for {where}; Ctrl-C ends it", flush=True)
    seen = None
    is_whole = False
    try:
        while True:
            # an error, such as no finished run yet or W&B being away, does not end it
            try:
                state = [_state(source) for source in sources]
                if state != seen:
                    began = time.monotonic()
                    is_whole = renew(False)
                    seen = state
                    print(f"{time.strftime('%H:%M:%S')}  renewed in {time.monotonic() - began:.1f} s", flush=True)
            except UserError as error:
                print(f"{time.strftime('%H:%M:%S')}  not yet: {error}", flush=True)
            time.sleep(SECONDS)
    except KeyboardInterrupt:
        if not is_whole:
            print("writing the whole report; Ctrl-C again leaves its short form", flush=True)
            with suppress(KeyboardInterrupt, UserError):
                renew(True)
    finally:
        if kept.is_ours(page.parent, page.name):
            kept.replace(page.parent, page.name, page.read_bytes().replace(reload_tag(SECONDS).encode(), b""))


def _state(source: str) -> list[tuple[str, ...]]:
    """Return what changes when a run of a source begins, ends or is deleted."""
    if not Path(source).is_dir():
        return [(str(run), str(state)) for run, state in runs.load(source).runs.state.items()]
    found = []
    for path in sorted(Path(source).iterdir()):
        for name in ("run.json", "summary.json"):
            with suppress(OSError):  # not there, or deleted just now
                found.append((str(path / name), str((path / name).stat().st_mtime_ns)))
        if not (path / "summary.json").exists():  # it may have been killed
            found.append((str(path), str(RunDirectory(path).is_locked())))
    return found
