"""Everything that talks to W&B: runs, sweeps, agents. `wandb` is imported nowhere else.

It is not called `wandb`, since that would hide the library from `python study/train.py`.
"""
