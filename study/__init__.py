"""Trains image classifiers: one run (`study.train`) or a sweep of them (`study.sweep`)."""
