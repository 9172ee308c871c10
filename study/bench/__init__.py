"""How fast a training step is, beside other loops: `python -m study.bench`."""
