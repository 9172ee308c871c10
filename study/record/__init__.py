"""What a run writes and prints: the run directory, the tracker that fills it, the display.

The values are computed in `study.training`; `study.remote` sends them to W&B.
"""
