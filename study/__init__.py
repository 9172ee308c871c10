"""Trains image classifiers: one run (`study.train`) or a sweep of them (`study.sweep`).

    from study import Config, train

    run = train(Config(model="two-block", dataset="digits", epochs=3))
    run.history, run.summary, run.directory

Each name is imported when it is first used, so that `import study` is fast. docs/python.md describes them.
"""

from typing import TYPE_CHECKING

from study.system import start  # noqa: F401 — first of all, lets Ctrl-C end a command without a traceback
from study.system.public import make_public

if TYPE_CHECKING:
    from study.config import Config
    from study.predict import predict
    from study.record.results import Run, SweepResult
    from study.sweep import sweep
    from study.system.errors import UserError
    from study.system.version import __version__
    from study.train import train

__all__ = ["Config", "Run", "SweepResult", "UserError", "__version__", "predict", "sweep", "train"]

make_public(
    __name__,
    {
        "Config": "study.config",
        "Run": "study.record.results",
        "SweepResult": "study.record.results",
        "UserError": "study.system.errors",
        "__version__": "study.system.version",
        "predict": "study.predict",
        "sweep": "study.sweep",
        "train": "study.train",
    },
)
