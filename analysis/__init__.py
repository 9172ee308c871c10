"""Reads runs and makes tables, figures and a report of them; trains nothing."""
