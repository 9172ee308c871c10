"""How W&B is asked: never by a prompt, and with bounded patience; and how its answers are read.

python -c "from study.remote.api import connect; print(connect().default_entity)"
"""

import io
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from study.record.directory import DONE
from study.system.errors import UserError

TIMEOUT = 60
"""Seconds for one answer; WANDB_HTTP_TIMEOUT says otherwise."""

PATIENCE = {"x_graphql_retry_max": 4, "x_graphql_retry_wait_min_seconds": 1, "x_graphql_retry_wait_max_seconds": 20}
"""How the client itself backs off from a 429 or silence; WANDB_X_GRAPHQL_RETRY_MAX and so on say otherwise."""

QUIET = 10
"""Seconds after which one is told that W&B is waited for."""

ATTEMPTS = 3
"""How often a question is asked that has had no answer."""

STATES = {
    "running": "running", "pending": "queued", "preempting": "queued", "preempted": "queued", "crashed": "crashed",
    "killed": "killed",
}  # fmt: skip
"""What we call W&B's states of runs that have not told theirs; any other one is `interrupted`."""

Answer = TypeVar("Answer")


def path(word: str) -> tuple[str, ...] | None:
    """Split ENTITY/PROJECT, ENTITY/PROJECT/ID, or the address of a page, into names; None where a word is none."""
    name = r"([\w-][\w.-]*)"
    named = re.fullmatch(rf"(?:https?://[^/]+/)?{name}/{name}(?:/(?:sweeps/)?{name})?/?(?:\?.*)?", word)
    return tuple(part for part in named.groups() if part) if named else None


def sweep_path(word: str) -> tuple[str, ...] | None:
    """Split what names a sweep on W&B into entity, project and id; None where a word is a file, or something else."""
    named = path(word)
    is_file = word.endswith((".yaml", ".yml")) or Path(word).exists()
    return named if named and len(named) == 3 and not is_file else None


def handed_out() -> str | None:
    """Return the id that a sweep's agent has given to the run of this process; None where there is no agent."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def state_of(run: Any) -> str:
    """Say how a run in W&B stands, in the words for runs here, and `queued`, `crashed`, `killed`."""
    told = run.config.get("info")
    state = told.get("state") if isinstance(told, dict) else None
    if run.state in ("running", "pending"):
        return STATES[run.state]
    if state in DONE:
        return state
    if run.state in ("finished", "failed"):
        return state or ("interrupted" if told else "failed")
    return STATES.get(run.state, "interrupted")


def unless_set(settings: dict[str, Any]) -> dict[str, Any]:
    """Keep the settings of the W&B client that no environment variable holds."""
    return {name: value for name, value in settings.items() if f"WANDB_{name.upper()}" not in os.environ}


def trouble(error: BaseException) -> str:
    """Say in one line why W&B could not be asked."""
    if isinstance(error, OSError) and error.filename:
        return f"W&B cannot use {error.filename} ({error.strerror})"
    cause = error.__cause__ or error
    text = " ".join(str(cause).split())
    if getattr(getattr(cause, "response", None), "http_status", 0) == 401 or "error 401" in text:
        return "W&B refuses the key: type `wandb login --relogin`, or set WANDB_API_KEY"
    return f"W&B does not answer: {text}"


def check_settings() -> str:
    """Return the mode that W&B's settings choose; UserError where one of them has no meaning."""
    import wandb

    with redirect_stderr(io.StringIO()):
        try:
            return wandb.setup().settings.mode
        except ValueError as error:  # pydantic's
            wrong = getattr(error, "errors", list)()
            raise UserError("; ".join(map(_wrong, wrong)) or f"W&B's settings are wrong: {error}") from None


def _wrong(mistake: dict[str, Any]) -> str:
    """Say in a few words what is wrong with a setting, which an environment variable may hold."""
    value = mistake["input"]
    names = [name for name, held in os.environ.items() if name.startswith("WANDB_") and held == value]
    name = names[0] if names else f"W&B's setting {'.'.join(map(str, mistake['loc']))}"
    return f"{name} is wrong: {mistake['msg'].lower()}, not {value!r}"


def has_key() -> bool:
    """Tell whether there is a W&B key in the environment, netrc or settings; wandb.Error where it cannot be one."""
    import wandb

    check_settings()
    with redirect_stderr(io.StringIO()):
        return bool(wandb.login(prompt=False, verify=False))


@cache
def connect() -> Any:
    """Return W&B's public API; UserError where there is no key or no answer."""
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    mode = check_settings()
    if mode in ("offline", "dryrun", "disabled"):
        raise UserError(f"W&B's mode is {mode}, but its server is needed for this: unset WANDB_MODE, or `wandb online`")
    try:
        if not has_key():
            raise UserError("there is no W&B key: type `wandb login` once, or set WANDB_API_KEY")
        wandb.setup(wandb.Settings(silent=True, **unless_set(PATIENCE)))
        return wandb.Api(timeout=int(float(os.environ.get("WANDB_HTTP_TIMEOUT", TIMEOUT))))
    except (wandb.Error, OSError) as error:
        raise UserError(trouble(error)) from None


def ask(question: Callable[[Any], Answer], failed: str, attempts: int = ATTEMPTS) -> Answer:
    """Ask W&B's public API; UserError that begins with `failed` where there is no good answer."""
    waiting = threading.Timer(QUIET, print, ["W&B has not answered yet"], {"file": sys.stderr, "flush": True})
    waiting.daemon = True
    waiting.start()
    try:
        api = connect()
        api.flush()
        return patiently(lambda: question(api), attempts)
    except UserError:
        raise
    except Exception as error:  # the client has no common class for what it raises
        why = "W&B knows none of that name, or hides it from you" if is_missing(error) else trouble(error)
        raise UserError(f"{failed}: {why}") from None
    finally:
        waiting.cancel()


def content_of(named: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return what a sweep in W&B was made of, and W&B's state of it; UserError where it cannot be had."""
    path = "/".join(named)
    sweep = ask(lambda api: api.sweep(path), f"the sweep {path} cannot be had")
    return sweep.config, sweep.state


def is_missing(error: BaseException) -> bool:
    """Tell whether W&B knows nothing of the name that it was asked for, or shows nothing of it to this key."""
    return "Could not find" in str(error)


def patiently(question: Callable[[], Answer], attempts: int = ATTEMPTS) -> Answer:
    """Ask a few times, waiting longer each time, unless waiting does not mend what is wrong."""
    for attempt in range(1, attempts):
        try:
            return question()
        except (UserError, ValueError):
            raise
        except Exception as error:
            if is_missing(error) or "refuses the key" in trouble(error):
                raise
            time.sleep(2 ** (attempt - 1))
    return question()
