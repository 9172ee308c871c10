"""How W&B is asked: never by a prompt, and with bounded patience.

python -c "from study.wandb_api import connect; print(connect().default_entity)"
"""

import io
import os
from contextlib import redirect_stderr
from typing import Any

from study.errors import UserError, one_line

TIMEOUT = 60
"""Seconds for one answer; WANDB_HTTP_TIMEOUT says otherwise."""

PATIENCE = {"x_graphql_retry_max": 4, "x_graphql_retry_wait_min_seconds": 1, "x_graphql_retry_wait_max_seconds": 20}
"""How the client itself backs off from a 429 or silence; WANDB_X_GRAPHQL_RETRY_MAX and so on say otherwise."""


def unless_set(settings: dict[str, Any]) -> dict[str, Any]:
    """Keep the settings of the W&B client that no environment variable holds."""
    return {name: value for name, value in settings.items() if f"WANDB_{name.upper()}" not in os.environ}


def has_key() -> bool:
    """Tell whether there is a W&B key in the environment, netrc or settings; wandb.Error where it cannot be one."""
    import wandb

    with redirect_stderr(io.StringIO()):
        return bool(wandb.login(prompt=False, verify=False))


def connect() -> Any:
    """Return W&B's public API; UserError where there is no key or no answer."""
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        if not has_key():
            raise UserError("there is no W&B key: type `wandb login` once, or set WANDB_API_KEY")
        wandb.setup(wandb.Settings(silent=True, **unless_set(PATIENCE)))
        return wandb.Api(timeout=int(os.environ.get("WANDB_HTTP_TIMEOUT", TIMEOUT)))
    except (wandb.Error, OSError) as error:
        raise UserError(f"W&B does not answer: {one_line(error)}") from None
