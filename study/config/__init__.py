"""Every option of a run: its values, defaults, bounds and help, and what it decides.

`options` has a row for each option, `choices` the names that options take, `checks` how text becomes a value,
`config` which options exclude each other and the identity of a run, `argv` the command line.
"""

from study.config.config import (
    CHOOSERS,
    RESULTS_VERSION,
    UNUSED_BY_SVM,
    Config,
    affects,
    check_value,
    is_identity,
)
from study.config.documented import document

__all__ = [
    "CHOOSERS",
    "RESULTS_VERSION",
    "UNUSED_BY_SVM",
    "Config",
    "affects",
    "check_value",
    "is_identity",
]

document(Config)
