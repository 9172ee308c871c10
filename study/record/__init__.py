"""What a run writes and a person sees: the run directory, the tracker that fills it, the display.

What is measured is computed in `study.training`; how it gets to W&B is in `study.remote`.
"""
