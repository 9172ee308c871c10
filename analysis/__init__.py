"""Reads runs and writes tables, figures and a report; trains nothing.

    from analysis import load, report

    load("runs").runs                              # a data frame with a row per run
    report("runs", sweep="sweeps/quickstart.yaml") # writes report/index.html, and returns its answers

Each name is imported when it is first used. docs/python.md describes them.
"""

from typing import TYPE_CHECKING

from study.system import start  # noqa: F401 — first of all, lets Ctrl-C end a command without a traceback
from study.system.public import make_public

if TYPE_CHECKING:
    from analysis.anatomy import layers
    from analysis.frames.runs import Frames
    from analysis.notebook import compare, confusion, curves, load, tsne
    from analysis.summarize import Report, report, sections

__all__ = ["Frames", "Report", "compare", "confusion", "curves", "layers", "load", "report", "sections", "tsne"]

make_public(
    __name__,
    {
        "Frames": "analysis.frames.runs",
        "Report": "analysis.summarize",
        "compare": "analysis.notebook",
        "confusion": "analysis.notebook",
        "curves": "analysis.notebook",
        "layers": "analysis.anatomy",
        "load": "analysis.notebook",
        "report": "analysis.summarize",
        "sections": "analysis.summarize",
        "tsne": "analysis.notebook",
    },
)
