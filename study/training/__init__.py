"""One run from its config to its result: optimizers, the step, evaluation, the trainer, SVMs on features.

Which runs there are is decided in `study.sweeps`; what is written of them is in `study.record`.
"""
