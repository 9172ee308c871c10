"""Read and write the directory of a run.

    python -c "from study.record.directory import RunDirectory; print(RunDirectory('runs/NAME').state())"

| file             | holds                                                                            |
|------------------|----------------------------------------------------------------------------------|
| `run.json`       | config, fingerprint, group, state, times, host, device, versions, data, error    |
| `history.jsonl`  | a line per epoch                                                                 |
| `summary.json`   | `best/*` and `test/*` of one checkpoint, `last/*`, parameters, seconds           |
| `evaluation.npz` | test probabilities, confident mistakes explained, features of validation images  |
| `best.pt`        | the weights that were best on validation                                         |
| `last.pt`        | everything that a run needs to resume; deleted when it finishes                   |

Files are written under a temporary name and then renamed, so none is ever incomplete. `run.json` gets the state
`finished` last. While a run is being trained, its process holds a lock on the directory, which the kernel frees
however the process ends.
"""

import json
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from study.config import RESULTS_VERSION, Config
from study.config.checks import LONGEST_TAG
from study.system.errors import Busy, UserError
from study.system.files import is_held, lock, tail
from study.system.progress import Say

DONE = ("finished", "diverged", "stopped")
"""States of runs that have a result; `failed`, `interrupted` and `running` ones have none."""

EARLY = "early stopping"
"""`stopped_by` in run.json if the run's own early stopping ended it; such a run counts as finished."""

HYPERBAND = "hyperband"
"""`stopped_by` in run.json if the run's sweep stopped it early."""

WRITTEN = ("history.jsonl", "summary.json", "evaluation.npz", "best.pt", "last.pt")

DAMAGED, BEFORE = ASIDE = ("damaged", "before")
"""Folders of a run: its damaged files, and its previous result while it is trained again."""


LAST_BYTES = 16_384
"""The last row of history.jsonl is looked for in this number of bytes at its end."""

ZIP_END, ZIP_END_BYTES = b"PK\5\6", 22
"""The last entry of a ZIP file, after the list of its files, and the size of this entry."""


def make(folder: Path, option: str = "--runs-dir") -> None:
    """Make a folder unless it exists; raise UserError if it cannot be made, naming the `option` that chose it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); name another {option}") from None


ROOM_BYTES = 64_000
"""What must fit into the folder of runs before one is trained: its smallest files."""


def check_room(folder: Path) -> None:
    """Make a folder and write a file for a moment; raise UserError if it cannot be written or its disk is full."""
    make(folder)
    probe = folder / f".room-{os.getpid()}"
    try:
        probe.write_bytes(bytes(ROOM_BYTES))
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); name another --runs-dir") from None
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error of the system that names no file, such as that of a full disk, name this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class CorruptRun(UserError):
    """A run directory that cannot be read; the message says which file and why."""


class Contents(NamedTuple):
    """What `RunDirectory.read` has read: run.json, history.jsonl, summary.json, the run's state and what is wrong."""

    info: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    state: str
    defect: str | None = None


class RunDirectory:
    """The files of one run. The last part of `path` is the name of the run, also if `.` was given."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if self.path.name in ("", ".."):
            self.path = self.path.resolve()

    @classmethod
    def of(cls, config: Config) -> "RunDirectory":
        """Return the directory of a config's run, which need not exist."""
        return cls(Path(config.runs_dir) / config.run_name)

    def info(self) -> dict[str, Any]:
        """Read run.json; return {} if there is none."""
        return self._read_json("run.json")

    def summary(self) -> dict[str, Any]:
        """Read summary.json; return {} if there is none."""
        return self._read_json("summary.json")

    def is_sent(self) -> bool:
        """Return whether W&B has the whole run, or was not meant to have it, according to run.json."""
        return not self.info().get("wandb_missing")

    def history(self) -> list[dict[str, Any]]:
        """Read the rows of history.jsonl, without a last line that is incomplete; raise CorruptRun if it is broken."""
        try:
            lines = (self.path / "history.jsonl").read_bytes().split(b"\n")[:-1]
            rows = from_json(b"[%s]" % b",".join(lines))  # more than twice as fast as the standard library's
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError) as error:
            raise CorruptRun(f"{self.path / 'history.jsonl'} is broken: {error}") from None
        if not all(isinstance(row, dict) and isinstance(row.get("epoch"), int) for row in rows):
            raise CorruptRun(f"{self.path / 'history.jsonl'} is broken: a line is not the row of an epoch")
        return rows

    def evaluation(self, names: Collection[str] | None = None) -> dict[str, Any]:
        """Read the arrays of evaluation.npz, or those of these `names` that it has.

        Raises CorruptRun if it is missing or broken.
        """
        import numpy as np

        try:
            with np.load(self.path / "evaluation.npz", allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files if names is None or name in names}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
            broken = self.path / "evaluation.npz"
            raise CorruptRun(f"{broken} is broken: delete it, then the same command retrains the run") from None

    def read(self, info: dict[str, Any] | None = None) -> "Contents":
        """Read all files of the run but its weights and the arrays of its evaluation, each once.

        `info` is the content of run.json, if it has been read.
        """
        try:
            info, history, summary = self.info() if info is None else info, self.history(), self.summary()
        except CorruptRun as error:
            return Contents({}, [], {}, "corrupt", str(error))
        if defect := self._defect(info, history, summary):
            return Contents(info, history, summary, "corrupt", defect)
        return Contents(info, history, summary, info.get("state") or self._state_without_result())

    def state(self) -> str:
        """Return finished, failed, diverged, stopped, running, interrupted, missing, or corrupt."""
        return self.read().state

    def defect(self) -> str | None:
        """Return in a few words what is missing or broken in the files of a run; None if they are complete."""
        return self.read().defect

    def _state_without_result(self) -> str:
        """Return the state of a run whose run.json has none."""
        if self.is_locked():
            return "running"
        return "interrupted" if (self.path / "run.json").exists() else "missing"

    def _defect(
        self, info: Mapping[str, Any], history: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
    ) -> str | None:
        """Return what is missing or broken in files that could be read."""
        if info and not is_described(info):
            return "its run.json holds no config"

        # A run without a result needs no more; one with a result must describe its data and all its epochs
        if info.get("state") not in DONE:
            return None
        if not {"classes", "image_shape", "images"} <= set(info.get("data") or ()):
            return "its run.json does not describe its data"
        if not summary:
            return "its summary.json is missing"
        if len(history) != summary.get("last/epoch"):
            return f"its history.jsonl has {len(history)} epochs, its summary.json {summary.get('last/epoch')}"

        # A run that did not diverge also has accuracies and an evaluation
        if info["state"] == "diverged":
            return None
        if not all(isinstance(summary.get(name), int | float) for name in ("best/val_acc", "best/epoch", "test/acc")):
            return "its summary.json holds no accuracies"
        return None if self.has_evaluation() else "its evaluation.npz is missing or broken"

    def has_evaluation(self, array: str = "test_predictions") -> bool:
        """Return whether evaluation.npz exists and lists an array; the contents of its arrays are not checked."""
        try:
            end = tail(self.path / "evaluation.npz", LAST_BYTES)
        except OSError:
            return False
        return ZIP_END in end[-ZIP_END_BYTES:] and f"{array}.npy".encode() in end

    def is_done(self, may_be_stopped: bool = False) -> bool:
        """Return whether the run has a result; one that its sweep stopped early counts only if it `may_be_stopped`."""
        return self.state() in DONE and (may_be_stopped or self.info().get("stopped_by") != HYPERBAND)

    def has_begun(self) -> bool:
        """Return whether the run was ever started."""
        try:
            return "started" in self.info() or any((self.path / name / "run.json").exists() for name in ASIDE)
        except CorruptRun:
            return True

    def sweeps(self) -> list[str]:
        """List the names of the sweeps that chose this run; grids and random searches need no such list."""
        try:
            return list(self.info().get("sweeps") or ())
        except CorruptRun:
            return []

    def is_locked(self) -> bool:
        """Return whether a process is training this run."""
        return is_held(self.path / ".lock")

    @contextmanager
    def locked(self, wait: Say | None = None) -> Iterator[None]:
        """Hold the run's lock; if another process holds it, report that through `wait` and wait, or raise Busy."""
        # Take the lock
        make(self.path)
        busy = f"{self.path} is being trained by another process"

        def wait_or_raise() -> None:
            if wait is None:
                raise Busy(busy)
            wait(f"{busy}: waiting for its result")

        try:
            held = lock(self.path / ".lock", wait_or_raise)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); name another --runs-dir") from None

        # Free it, however the block ends
        with held:
            yield

    def claim(self, config: Config, sweep: str, data_digest: str) -> None:
        """Record in run.json that a sweep chose the run, started or not; raise Busy while it is trained."""
        with self.locked():
            if self.defect():
                self.set_aside()
            info = self.info() or described(config, data_digest)
            self.write_info({**info, "sweeps": sorted({*(info.get("sweeps") or ()), sweep})})

    def record_failure(self, config: Config, data_digest: str, error: str) -> None:
        """Record in run.json the failure of a run whose process could not; raise Busy while it is trained."""
        with self.locked():
            info = {} if self.defect() else self.info()
            self.write_info({**(info or described(config, data_digest)), "state": "failed", "error": error})

    def add_tags(self, tags: Iterable[str]) -> list[str]:
        """Add tags to run.json, and return those that are new; raise Busy while the run is trained."""
        new = [tag for tag in tags if tag not in recorded_tags(self.info())]
        if new:
            with self.locked():
                info = self.info()
                self.write_info({**info, "tags": list(dict.fromkeys([*recorded_tags(info), *new]))})
        return new

    def clear(self) -> None:
        """Delete the files of earlier starts, except run.json, which the next start replaces."""
        for path in (*(self.path / name for name in WRITTEN), *self.path.glob(".*.tmp")):
            path.unlink(missing_ok=True)

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace run.json."""
        self._write_json("run.json", info)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace summary.json."""
        self._write_json("summary.json", summary)

    def write_evaluation(self, arrays: Mapping[str, Any]) -> None:
        """Replace evaluation.npz."""
        import numpy as np

        def save(path: Path) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)

        self.write("evaluation.npz", save)

    def append(self, row: Mapping[str, Any]) -> None:
        """Append one epoch's row to history.jsonl."""
        with _named(self.path), (self.path / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(row)) + "\n")

    def write_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace history.jsonl."""
        text = "".join(json.dumps(finite(row)) + "\n" for row in rows)
        self.write("history.jsonl", lambda path: path.write_text(text, encoding="utf-8"))

    def remove(self) -> bool:
        """Delete the directory, or restore the previous result of a forced training; return whether that was done.

        A run that has a result or is being trained is left alone.
        """
        with suppress(Busy), self.locked():
            if self.info().get("state") in DONE:
                return False
            if self.had_result():
                if (self.path / "run.json").exists():  # unless an earlier restore was cut off
                    self.clear()
                    (self.path / "run.json").unlink()
                _move(self.path / BEFORE, self.path)
                self.forget_result()
                return True
            renamed = self.path.with_name(f".{self.path.name}.removed")
            shutil.rmtree(renamed, ignore_errors=True)  # left by a process that ended while removing
            self.path.rename(renamed)
            shutil.rmtree(renamed)
            return True
        return False

    def set_aside(self) -> None:
        """Move damaged files of an earlier start into the folder DAMAGED."""
        (self.path / DAMAGED).mkdir(exist_ok=True)
        _move(self.path, self.path / DAMAGED)

    def keep_result(self) -> None:
        """Move the result into the folder BEFORE, whole or not at all, while the run is trained again."""
        # Give each file a second name in a folder that is renamed when it is complete
        temporary = self.path / f"{BEFORE}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name in _present(self.path):
            try:
                (temporary / name).hardlink_to(self.path / name)
            except OSError:  # not on every file system
                shutil.copy2(self.path / name, temporary / name)
        self.forget_result()
        temporary.rename(self.path / BEFORE)

        # Delete the first names
        for name in reversed(_present(self.path)):
            (self.path / name).unlink()

    def had_result(self) -> bool:
        """Return whether the run is trained again, and its previous result is still there."""
        return (self.path / BEFORE / "run.json").exists()

    def forget_result(self) -> None:
        """Delete the previous result of a forced training."""
        shutil.rmtree(self.path / BEFORE, ignore_errors=True)

    def write(self, name: str, save: Callable[[Path], Any]) -> None:
        """Write a file with `save` under a temporary name, then rename it to `name`."""
        temporary = self.path / f".{name}.tmp"
        try:
            with _named(self.path):
                save(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(self.path / name)
        except BaseException:
            temporary.unlink(missing_ok=True)  # frees its space on a full disk
            raise

    def _write_json(self, name: str, values: Mapping[str, Any]) -> None:
        text = json.dumps(finite(values), indent=1, ensure_ascii=False) + "\n"
        # Write a name that is not UTF-8 with JSON's escapes
        self.write(name, lambda path: path.write_bytes(text.encode("utf-8", "backslashreplace")))

    def _read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object; return {} if there is no file, and raise CorruptRun if it is broken."""
        try:
            values = json.loads((self.path / name).read_bytes().decode())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            raise CorruptRun(f"{self.path / name} is broken: {error}") from None
        if not isinstance(values, dict):
            raise CorruptRun(f"{self.path / name} is broken: it is not a JSON object")
        return values


def _present(folder: Path) -> list[str]:
    """List the files of a run that are there; run.json last, since it says that there is a result."""
    return [name for name in (*WRITTEN, "run.json") if (folder / name).exists()]


def _move(folder: Path, to: Path) -> None:
    """Move the files of a run."""
    for name in _present(folder):
        (folder / name).replace(to / name)


def described(config: Config, data_digest: str) -> dict[str, Any]:
    """Return the values that run.json holds for every run, started or not."""
    return {
        "config": config.model_dump(),
        "fingerprint": config.fingerprint,
        "group": config.group,
        "results_version": RESULTS_VERSION,
        "data_digest": data_digest,
    }


def tags_of(config: Config) -> list[str]:
    """List the tags that a config gives its run."""
    return _split(config.tags)


def recorded_tags(info: Mapping[str, Any]) -> list[str]:
    """List the tags in a run.json: those that W&B has of the run, which include the names of its sweeps.

    Runs of long ago have no list, but the tags of their config and the names of sweeps that W&B was given.
    """
    if "tags" in info:
        return list(info["tags"])
    sweeps = [*((info.get("wandb") or {}).get("sweeps") or ()), *(info.get("sweeps") or ())]
    return list(dict.fromkeys([*_split(str(info["config"].get("tags", ""))), *(name[:LONGEST_TAG] for name in sweeps)]))


def _split(tags: str) -> list[str]:
    return [tag.strip() for tag in tags.split(",") if tag.strip()]


def is_described(info: Mapping[str, Any]) -> bool:
    """Return whether the content of a run.json has a config, a fingerprint and a group."""
    kinds = {"config": Mapping, "fingerprint": str, "group": str}
    return all(isinstance(info.get(name), kind) for name, kind in kinds.items())


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinity, which JSON lacks, by None."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
