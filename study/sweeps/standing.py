"""Read the state of a sweep from a directory of runs.

python -c "from study.sweeps import definition as search, standing; print(standing.Runs('runs').copies())"
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from study.record.directory import DONE, EARLY, Contents, CorruptRun, RunDirectory, is_described
from study.record.display import result
from study.sweeps.definition import Point, Sweep


class Runs:
    """Reads a directory of runs; a file is read again only if it has changed."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._cache: dict[Path, tuple[tuple[int, int, int], Any]] = {}

    def infos(self) -> dict[str, dict[str, Any]]:
        """Return the content of each run.json by the name of its directory; skip those that cannot be read."""
        infos = {}
        for path in sorted(self.path.glob("[!.]*/run.json")):
            info = self._read(path, RunDirectory(path.parent).info, {})
            if is_described(info):
                infos[path.parent.name] = info
        return infos

    def points(self, sweep: Sweep, base: Mapping[str, Any]) -> list[Point]:
        """List the points of a sweep that are known beforehand or have been chosen so far."""
        return sweep.points(base, self._recorded())

    def _recorded(self) -> Iterator[dict[str, Any]]:
        """Yield the content of each run.json; read them only when the first is needed."""
        yield from self.infos().values()

    def losses(self, sweep: Sweep, point: Point) -> list[float]:
        """Return a sweep's metric after each epoch of a run, negated if it is maximized."""
        directory = RunDirectory.of(point.config)
        return sweep.losses(self._read(directory.path / "history.jsonl", directory.history, []))

    def is_given_up(self, sweep: Sweep, point: Point, every: list[Point]) -> bool:
        """Return whether a sweep's early termination stops the run of a point now."""
        others = [losses for other in every if (losses := self.losses(sweep, other))]
        return sweep.early_terminate.is_to_stop(self.losses(sweep, point), others)

    def copies(self, infos: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, list[str]]:
        """Map fingerprints with more than one directory to the names of the directories."""
        directories = defaultdict(list)
        for name, info in (self.infos() if infos is None else infos).items():
            directories[info["fingerprint"]].append(name)
        return {fingerprint: names for fingerprint, names in directories.items() if len(names) > 1}

    def _read(self, path: Path, read: Callable[[], Any], default: Any) -> Any:
        """Return the content of a file, from the cache if it has not changed; `default` if it cannot be read."""
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if self._cache.get(path, (None,))[0] != stamp:
                self._cache[path] = stamp, read()
            return self._cache[path][1]
        except (FileNotFoundError, CorruptRun):
            return default


def explanation(run: Contents, epochs: int) -> str:
    """Return in a few words how far a run got, its result, or why it has none."""
    # A run without a result
    if run.state == "failed":
        return run.info.get("error", "")
    if run.state == "corrupt":
        return f"{run.defect}; `run` trains it again"
    if run.state in ("running", "interrupted"):
        return f"after epoch {len(run.history)} of {epochs}"
    if run.state not in DONE:
        return ""

    # A result, perhaps of a run that was stopped
    stopped_by = run.info.get("stopped_by", EARLY)
    prefix = f"by {stopped_by} after epoch {len(run.history)} of {epochs}: " if run.state == "stopped" else ""
    return prefix + result(run.summary, (run.info.get("config") or {}).get("metric", "val/acc"))
