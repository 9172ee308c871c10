"""From runs to tidy frames: read from directories or pulled from W&B, put into sections, and the statistics on them.

Nothing here is written for a reader.
"""
