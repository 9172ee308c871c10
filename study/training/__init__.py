"""Train one run: optimizers, the training step, evaluation, the trainer, SVMs on features.

`study.sweeps` decides which runs there are; `study.record` writes their files.
"""
