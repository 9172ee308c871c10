"""Reads runs and writes tables, figures and a report; trains nothing."""
