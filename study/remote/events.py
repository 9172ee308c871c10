"""What a run reports to `study.sweep agents`: events, lines of JSON in a file that the run's environment names.

    append("start", values=…)         # in a run; without the variable it does nothing
    events = EventFile(path).read()   # in `agents`

| event       | holds, besides the process id                                                    |
|-------------|----------------------------------------------------------------------------------|
| `start`     | the values of its command line, its process group                                 |
| `directory` | the path of its directory                                                         |
| `connected` | W&B has the run, or it is trained without W&B                                     |
| `end`       | its exit code, and its error in one sentence, which is empty without an error     |
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

VARIABLE = "STUDY_EVENTS"
"""Environment variable by which `agents` passes the path of the file to its runs."""


def append(event: str, **values: Any) -> None:
    """Append an event of this process, if there is a file for it; a file that cannot be written does not stop a run."""
    path = os.environ.get(VARIABLE)
    if path:
        line = json.dumps({"event": event, "pid": os.getpid(), **values}) + "\n"
        with suppress(OSError), Path(path).open("a", encoding="utf-8") as file:
            file.write(line)


def start(argv: Sequence[str]) -> None:
    """Report that this process starts to train what its command line says."""
    append("start", values=_values(argv), group=os.getpgrp())


def end(code: int, error: str) -> None:
    """Report how this process ends."""
    append("end", code=code, error=error)


def _values(argv: Sequence[str]) -> dict[str, str]:
    """Return the values of the options --key=value; an option may be unknown or wrong, which is found out later."""
    words = [word.removeprefix("--").partition("=") for word in argv if word.startswith("--")]
    return {key.replace("-", "_"): value for key, equals, value in words if equals}


class EventFile:
    """Reads the events that runs append to a file."""

    def __init__(self, path: Path):
        self.path = path
        self.offset = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the events that were appended since the last call, without lines that are incomplete."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            content = file.read()
        complete = content[: content.rfind(b"\n") + 1]
        self.offset += len(complete)
        events = []
        for line in complete.splitlines():
            with suppress(ValueError):  # of a disk that was full
                events.append(json.loads(line))
        return events
