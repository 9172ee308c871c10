"""Where a sweep stands in a directory of runs: its points, their states, and what there is of them.

python -c "from study.sweeps import definition as search, standing; print(standing.Runs('runs').copies())"
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.record.directory import DONE, EARLY, CorruptRun, RunDirectory, is_described
from study.record.display import result
from study.sweeps.definition import Point, Sweep


class Runs:
    """A directory of runs; a file of it is read again only when it has changed."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._cache: dict[Path, tuple[tuple[int, int, int], Any]] = {}

    def infos(self) -> dict[str, dict[str, Any]]:
        """Return what run.json says of each run, by the name of its directory; what cannot be read is left out."""
        found = {}
        for path in sorted(self.path.glob("[!.]*/run.json")):
            info = self._read(path, RunDirectory(path.parent).info, {})
            if is_described(info):
                found[path.parent.name] = info
        return found

    def points(self, sweep: Sweep, base: Mapping[str, Any]) -> list[Point]:
        """List the points of a sweep; a Bayesian search's are those that it has chosen so far."""
        return sweep.points(base, self.infos().values() if sweep.method == "bayes" else ())

    def losses(self, sweep: Sweep, point: Point) -> list[float]:
        """Return a sweep's metric after each epoch of a run, its sign changed where more is better."""
        directory = RunDirectory.of(point.config)
        return sweep.losses(self._read(directory.path / "history.jsonl", directory.history, []))

    def is_given_up(self, sweep: Sweep, point: Point, every: list[Point]) -> bool:
        """Tell whether a sweep's early termination ends the run of a point now."""
        others = [losses for other in every if (losses := self.losses(sweep, other))]
        return sweep.early_terminate.is_to_stop(self.losses(sweep, point), others)

    def copies(self) -> dict[str, list[str]]:
        """Map the fingerprints that more than one directory holds to the names of the directories."""
        found = defaultdict(list)
        for name, info in self.infos().items():
            found[info["fingerprint"]].append(name)
        return {fingerprint: names for fingerprint, names in found.items() if len(names) > 1}

    def _read(self, path: Path, read: Callable[[], Any], otherwise: Any) -> Any:
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if self._cache.get(path, (None,))[0] != stamp:
                self._cache[path] = stamp, read()
            return self._cache[path][1]
        except (FileNotFoundError, CorruptRun):
            return otherwise


def explanation(directory: RunDirectory, state: str, epochs: int) -> str:
    """Say in a few words what there is of a run in a state, or why there is nothing."""
    if state == "failed":
        return directory.info().get("error", "")
    if state == "corrupt":
        return f"{directory.defect()}; `run` trains it anew"
    if state in ("running", "interrupted"):
        return f"after epoch {len(directory.history())} of {epochs}"
    if state not in DONE:
        return ""
    by = directory.info().get("stopped_by", EARLY)
    how = f"by {by} after epoch {len(directory.history())} of {epochs}: " if state == "stopped" else ""
    return how + result(directory.summary())
