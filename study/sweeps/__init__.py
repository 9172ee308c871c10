"""Describe a sweep: its file, its distributions, its method, its points, and the state of their runs.

`study.local` and `study.remote` train the runs.
"""
