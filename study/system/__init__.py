"""The machine and the operating system: errors, signals and exit codes, the terminal, devices, files.

Nothing here knows what a run, a network or a sweep is.
"""
