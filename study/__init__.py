"""Trains image classifiers: one run (`study.train`) or a sweep of them (`study.sweep`)."""

from study.system import start  # noqa: F401 — first of all, lets Ctrl-C end a command without a traceback
