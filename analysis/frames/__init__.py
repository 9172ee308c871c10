"""Runs as tidy frames: read from directories or pulled from W&B, and grouped into sections; statistics on them.

This package writes no text, table or figure.
"""
