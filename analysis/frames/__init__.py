"""Runs as tidy frames: read from directories or pulled from W&B, and grouped into sections; statistics on them.

This package writes no table or figure, and no text but the names of sections and why a point has no result.
"""
