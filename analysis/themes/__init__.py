"""What a report says: a file for each theme, frames in, blocks out.

How blocks are written is in `analysis.page`.
"""
