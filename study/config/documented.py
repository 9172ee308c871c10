"""Let `help(Config)` list every option with its help and default, and show a signature that can be read.

python -c "from study import Config; help(Config)"
"""

import inspect
from typing import Any

from pydantic import BaseModel


def document(config: type[BaseModel]) -> None:
    """Add the options to a class's docstring, by group, and take pydantic's annotations from its signature."""
    # The options
    groups: dict[str, list[str]] = {}
    for name, field in config.model_fields.items():
        default = "" if field.default in (None, "") else f" (default: {field.default!r})"
        groups.setdefault(field.json_schema_extra["group"], []).append(f"{name}: {field.description}{default}")
    rows = "\n\n".join("\n    ".join([f"{group}:", *lines]) for group, lines in groups.items())
    config.__doc__ = f"{inspect.cleandoc(config.__doc__)}\n\n{rows}\n"

    # The signature
    def parameter(name: str, default: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)

    config.__signature__ = inspect.Signature(
        [parameter(name, field.default) for name, field in config.model_fields.items()]
    )
