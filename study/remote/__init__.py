"""Everything that talks to W&B: runs, sweeps, agents. No other package imports `wandb`.

The package is not called `wandb`, which would hide the library from `python study/train.py`.
"""
