"""Building blocks of a report: blocks, tables, figures and the page.

Its contents are in `analysis.themes`.
"""
