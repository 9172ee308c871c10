"""How a report is written: blocks, tables, figures, the page.

What it says is in `analysis.themes`.
"""
