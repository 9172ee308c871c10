"""What a sweep is: its file, its distributions, its points, and which of their runs exist.

Who trains them is in `study.local` and `study.remote`.
"""
