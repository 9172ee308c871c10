"""Runs pulled from W&B into a cache of run directories, which `runs.load('ENTITY/PROJECT')` reads.

    python -m analysis.summarize ENTITY/PROJECT [--refresh]

The cache is `~/.cache/image-classifier-study/wandb/` (XDG_CACHE_HOME moves it). A run whose state, last sign of life
and number of rows in W&B have not changed since it was pulled is not pulled again. The others come in pages of many
runs, with one further request for the evaluation of each.
"""

import json
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from analysis.frames import cache, progress
from study.config import Config
from study.record.directory import RunDirectory
from study.record.metrics import HISTORY
from study.remote import api as wandb_api
from study.remote import columns, contents
from study.sweeps import definition as search
from study.sweeps.definition import Sweep
from study.system import files
from study.system.errors import UserError, one_line

PARALLEL = 8
"""Pages of runs that are pulled at a time."""

KEY = "pulled.json"
"""File with what W&B reported of a run when it was pulled, as `contents.stamp` returns it."""


@dataclass(frozen=True)
class Only:
    """Which runs are wanted: with one of these tags, in one of these groups, by one of these authors; empty for all."""

    tags: Collection[str] = ()
    groups: Collection[str] = ()
    authors: Collection[str] = ()

    def takes(self, tags: Collection[str], group: str | None = None, author: str | None = None) -> bool:
        """Return whether a run with these tags, in this group and by this author is wanted."""
        return (
            (not self.tags or not {*self.tags}.isdisjoint(tags))
            and (not self.groups or group in self.groups)
            and (not self.authors or author in self.authors)
        )


ALL = Only()


def read_sweep(path: str) -> Sweep:
    """Read the definition of a sweep ENTITY/PROJECT/SWEEP_ID in W&B; raise UserError if W&B does not give it."""
    names = wandb_api.path(path)
    sweep = search.parse("/".join(names), wandb_api.content_of(names)[0])
    return replace(sweep, drawn_elsewhere=True)


def pull(path: str, refresh: bool = False, only: Only = ALL) -> tuple[list[RunDirectory], list[str]]:
    """Update the cache from a project, or a sweep of it, in W&B, or from those of its runs that are wanted.

    Returns the directories of its runs, in the order of their creation, and a sentence for each run that could not be
    pulled. Raises UserError if W&B cannot be reached or has no such project.
    """
    # list the runs of the project or sweep
    entity, project, *sweep = wandb_api.path(path)
    listed = contents.listed(f"{entity}/{project}", {"sweep": sweep[0]} if sweep else {})
    if sweep and not listed:
        read_sweep(path)  # raises if there is no such sweep
    listed = [run for run in listed if only.takes(run.tags, run.group, contents.author(run))]

    # pull those that have changed; the lock keeps out another process that pulls the same project
    server = re.sub(r"\W+", "-", wandb_api.connect().settings["base_url"])
    folder = cache.folder() / "wandb" / server / entity / project
    folder.mkdir(parents=True, exist_ok=True)
    wait = partial(print, f"another report pulls {entity}/{project}: waiting for it", file=sys.stderr)
    with files.lock(folder / ".lock", wait):
        stamps = {run.id: contents.stamp(run) for run in listed}
        changed = {name: key for name, key in stamps.items() if refresh or _read_key(folder / name) != key}
        failed = _fetch_all(changed, f"{entity}/{project}", folder)

    # runs that failed are reported, not read
    directories = [RunDirectory(folder / name) for name in stamps if name not in failed]
    problems = [f"{entity}/{project}/{name} is left out: {reason}" for name, reason in failed.items()]
    return directories, problems


def _fetch_all(stamps: Mapping[str, list[Any]], project: str, folder: Path) -> dict[str, str]:
    """Fetch runs, several pages at a time; return the reason of each failure, by run id."""
    failed: dict[str, str] = {}
    names = list(stamps)
    pages = [names[start : start + contents.PAGE] for start in range(0, len(names), contents.PAGE)]
    pool = ThreadPoolExecutor(PARALLEL)
    try:
        tasks = {pool.submit(_fetch_page, page, stamps, project, folder): len(page) for page in pages}
        for task in progress.as_completed(tasks, "pulled from W&B"):
            failed |= task.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return {name: failed[name] for name in names if name in failed}


def _fetch_page(names: Sequence[str], stamps: Mapping[str, list[Any]], project: str, folder: Path) -> dict[str, str]:
    """Put a page of runs into the cache; return the reason of each failure, by run id."""
    # all runs by one request; if it fails, which one bad run can cause, each is asked for by itself
    try:
        runs = contents.of_runs(project, names)
    except Exception:  # the client's errors have no common class
        runs = {}

    # write them
    failed = {}
    for name in names:
        try:
            if name in runs:
                wandb_api.patiently(partial(_write, runs[name], stamps[name], folder))
            else:
                wandb_api.patiently(lambda name=name: _write(contents.of_run(project, name), stamps[name], folder))
        except Exception as error:
            failed[name] = one_line(error)
    return failed


def _write(run: Any, stamp: list[Any], folder: Path) -> None:
    """Put a run into the cache, completely or not at all."""
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".pull-"))
    try:
        # write all files into a temporary directory
        directory = RunDirectory(temporary)
        directory.write_info(_info(run))
        directory.write_history(_history(run))
        if summary := _summary(run):
            directory.write_summary(summary)
        contents.download(run, "evaluation", temporary)
        (temporary / KEY).write_text(json.dumps(stamp), encoding="utf-8")

        # replace the old directory
        shutil.rmtree(folder / run.id, ignore_errors=True)
        temporary.replace(folder / run.id)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_key(path: Path) -> list[Any] | None:
    """Read the stamp with which a run was pulled; None if it was not."""
    try:
        return json.loads((path / KEY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _info(run: Any) -> dict[str, Any]:
    """Return the content of run.json: the config of a run and the `info` that it stored in W&B."""
    info = run.config.get("info")
    if not isinstance(info, dict):
        raise UserError("no run of this study, or one that never began: its config in W&B has no `info`")
    if "fingerprint" not in info and info.get("error"):
        raise UserError(f"it failed before it began: {info['error']}")
    config = Config.recorded(columns.options_of(run.config))
    return {"config": config.model_dump(), **columns.read_info(run.config), "state": wandb_api.state_of(run),
            "author": contents.author(run)}  # fmt: skip


def _history(run: Any) -> list[dict[str, Any]]:
    """Return one row per epoch; if an epoch was logged more than once, the last row."""
    rows = {}
    for row in contents.rows(run):
        if not row.keys().isdisjoint(HISTORY) and "epoch" in row:
            numbers = {name: value for name, value in row.items() if not isinstance(value, dict)}  # no histograms
            values = {name: _plain(value) for name, value in numbers.items() if not name.startswith("_")}
            rows[int(row["epoch"])] = values | {"epoch": int(row["epoch"])}
    return [rows[epoch] for epoch in sorted(rows)]


def _summary(run: Any) -> dict[str, Any]:
    """Return the summary that a run wrote at its end, without the entries that W&B adds."""
    logged = {"epoch", "state", *HISTORY}
    return {
        name: _plain(value)
        for name, value in run.summary_metrics.items()
        if name not in logged and not name.startswith("_") and not (isinstance(value, dict) and "_type" in value)
    }


def _plain(value: Any) -> Any:
    """Return None for NaN and infinity, which W&B returns as text."""
    if value in ("NaN", "Infinity", "-Infinity") or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
