"""Every option of a run: its values, defaults, bounds and help, and what it decides.

`choices` holds the names that options take, `checks` how text becomes a value, `argv` the command line.
"""

from study.config.config import RESULTS_VERSION, UNUSED_BY_SVM, Config, is_identity

__all__ = ["RESULTS_VERSION", "UNUSED_BY_SVM", "Config", "is_identity"]
