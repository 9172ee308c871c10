"""Themes of a report: one file per theme, with a function from frames to blocks.

`analysis.page` writes the blocks.
"""
