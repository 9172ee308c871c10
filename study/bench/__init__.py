"""Benchmark the training step against other training loops: `python -m study.bench`."""
