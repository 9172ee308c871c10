"""Reads runs and writes tables, figures and a report; trains nothing."""

from study.system import start  # noqa: F401 — first of all, lets Ctrl-C end a command without a traceback
