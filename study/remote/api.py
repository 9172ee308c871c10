"""Ask W&B's public API without prompts and with a limited number of attempts, and read its answers.

python -c "from study.remote.api import connect; print(connect().default_entity)"
"""

import io
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from study.config import check_value
from study.record.directory import DONE
from study.system.errors import ServerError, UserError
from study.system.progress import Say

TIMEOUT = 60
"""Seconds to wait for one answer, unless WANDB_HTTP_TIMEOUT is set."""

PATIENCE = {"x_graphql_retry_max": 4, "x_graphql_retry_wait_min_seconds": 1, "x_graphql_retry_wait_max_seconds": 20}
"""Retries of the W&B client after a 429 or without an answer, unless WANDB_X_GRAPHQL_RETRY_MAX and so on are set."""

RUN_PATIENCE = {"init_timeout": 30, "finish_timeout": 120, "finish_timeout_raises": True}
"""Timeouts of a run in seconds, unless WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT are set, as `agents` does."""

QUIET = 10
"""Seconds after which a line reports that W&B has not answered yet."""

ATTEMPTS = 3
"""Number of attempts before giving up."""

NO_KEY = "there is no W&B key: type `wandb login` once, or set WANDB_API_KEY"

STATES = {
    "running": "running",
    "pending": "queued",
    "preempting": "queued",
    "preempted": "queued",
    "crashed": "crashed",
    "killed": "killed",
}
"""Our names for W&B's states of runs that did not record their own state; any other is `interrupted`."""

Answer = TypeVar("Answer")


def path(word: str) -> tuple[str, ...] | None:
    """Split ENTITY/PROJECT, ENTITY/PROJECT/ID or the address of a page into names; return None for any other word.

    A project may have spaces and most other characters, which an address has as %20 and so on.
    """
    host = r"(?:https?://[^/]+/)?"
    match = re.fullmatch(rf"{host}([^/?#]+)/([^/?#]+)(?:/(?:sweeps/)?([\w-]+))?/?(?:[?#].*)?", word)
    names = [unquote(part) for part in match.groups() if part] if match else []
    with suppress(UserError):
        if names and all(check_value("project", name).strip(". ") for name in names):
            return tuple(names)
    return None


def sweep_path(word: str) -> tuple[str, ...] | None:
    """Split the path or address of a W&B sweep into entity, project and id; return None for a file or another word."""
    names = path(word)
    is_file = word.endswith((".yaml", ".yml")) or Path(word).exists()
    return names if names and len(names) == 3 and not is_file else None


def handed_out() -> str | None:
    """Return the id that a sweep's agent gave to the run of this process; None without an agent."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def state_of(run: Any) -> str:
    """Return the state of a run in W&B: one of our states of runs, or `queued`, `crashed`, `killed`.

    A run that ended without sending its summary has no result in W&B, whatever its config says.
    """
    info = run.config.get("info")
    state = info.get("state") if isinstance(info, dict) else None
    if run.state in ("running", "pending"):
        return STATES[run.state]
    summary = run.summary_metrics
    is_of_old_version = run.state == "finished" and ("last/epoch" in summary or "test/acc" in summary)
    if state in DONE and (summary.get("state") == state or is_of_old_version):
        return state
    if run.state in ("finished", "failed"):
        return "interrupted" if info and state in (None, *DONE) else state or "failed"
    return STATES.get(run.state, "interrupted")


def unless_set(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the W&B client that no environment variable sets."""
    return {name: value for name, value in settings.items() if f"WANDB_{name.upper()}" not in os.environ}


def trouble(error: BaseException) -> str:
    """Return in one line why W&B could not be reached."""
    return str(failure(error))


def failure(error: BaseException, before: str = "") -> UserError:
    """Return why W&B could not be reached, after the words `before`; a ServerError if the user cannot change it."""
    # What the user can change
    cause = error.__cause__ or error
    text = " ".join(str(cause).split())
    if isinstance(error, OSError) and error.filename:
        return UserError(f"{before}W&B cannot use {error.filename} ({error.strerror})")
    if is_denied(error):
        return UserError(f"{before}W&B refuses the key: type `wandb login --relogin`, or set WANDB_API_KEY")
    if is_refused(error):
        return UserError(f"{before}W&B refuses the id of the run, probably because the run was deleted there")
    is_unexpected = isinstance(cause, AttributeError | IndexError | KeyError | TypeError)
    if "API key" in text and not is_unexpected:  # the client's sentence about its form
        return UserError(f"{before}the W&B key is wrong: {text}")

    # What only the server can
    if is_unexpected:
        text = f"{type(cause).__name__}: {text}"
        return ServerError(f"{before}W&B's answer is not what its client expects ({text})")
    text = text.partition(" while retrying:")[0]  # what the first attempts met, which is the same
    return ServerError(f"{before}W&B does not answer: {text}; WANDB_BASE_URL names a server of your own")


def is_denied(error: BaseException) -> bool:
    """Return whether W&B refuses the key: HTTP status 401."""
    cause = error.__cause__ or error
    return getattr(getattr(cause, "response", None), "http_status", 0) == 401 or "error 401" in str(cause)


def is_refused(error: BaseException) -> bool:
    """Return whether W&B refuses the id of a run, as it does after the run was deleted: HTTP status 409."""
    return "HTTP 409" in str(error) or "error 409" in str(error) or "created and deleted" in str(error)


def check_settings() -> str:
    """Return the mode of W&B's settings; raise UserError if one of them is invalid."""
    import wandb

    with redirect_stderr(io.StringIO()):
        try:
            return wandb.setup().settings.mode
        except ValueError as error:  # pydantic's
            mistakes = getattr(error, "errors", list)()
            raise UserError("; ".join(map(_sentence, mistakes)) or f"W&B's settings are wrong: {error}") from None


def _sentence(mistake: dict[str, Any]) -> str:
    """Return one of pydantic's errors as a sentence, with the environment variable that has the wrong value, if any."""
    value = mistake["input"]
    names = [name for name, held in os.environ.items() if name.startswith("WANDB_") and held == value]
    name = names[0] if names else f"W&B's setting {'.'.join(map(str, mistake['loc']))}"
    return f"{name} is wrong: {mistake['msg'].lower()}, not {value!r}"


def has_key() -> bool:
    """Return whether the environment, netrc or settings have a W&B key; raise wandb.Error if its format is wrong."""
    import wandb

    check_settings()
    with redirect_stderr(io.StringIO()):
        return bool(wandb.login(prompt=False, verify=False))


@cache
def connect() -> Any:
    """Return W&B's public API; raise UserError without a key or an answer."""
    import wandb

    # Check that W&B is not turned off
    mode = check_settings()
    if mode in ("offline", "dryrun", "disabled"):
        raise UserError(f"W&B's mode is {mode}, but its server is needed for this: unset WANDB_MODE, or `wandb online`")

    # Log in, with fewer retries than the client's default
    try:
        wandb.setup(wandb.Settings(silent=True, **unless_set(PATIENCE)))
        if not has_key():
            raise UserError(NO_KEY)
        return wandb.Api(timeout=int(float(os.environ.get("WANDB_HTTP_TIMEOUT", TIMEOUT))))
    except (wandb.Error, OSError) as error:
        raise failure(error) from None


def ask(question: Callable[[Any], Answer], failed: str, attempts: int = ATTEMPTS) -> Answer:
    """Ask W&B's public API; raise a UserError that starts with `failed` if there is no answer."""
    try:
        with announced(QUIET, lambda text: print(text, file=sys.stderr, flush=True), "W&B has not answered yet"):
            api = connect()
            api.flush()
            return patiently(lambda: question(api), attempts)
    except UserError:
        raise
    except Exception as error:  # the client's errors have no common class
        if is_missing(error):
            raise UserError(f"{failed}: W&B does not have it, or your key has no access to it") from None
        raise failure(error, f"{failed}: ") from None


@contextmanager
def announced(seconds: float, say: Say, text: str) -> Iterator[None]:
    """Print a line if the `with` block takes longer than some seconds."""
    waiting = threading.Timer(seconds, say, [text])
    waiting.daemon = True
    waiting.start()
    try:
        yield
    finally:
        waiting.cancel()


def content_of(names: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return the content of a sweep's file in W&B, and the sweep's state; raise UserError if W&B does not have it."""
    path = "/".join(names)
    sweep = ask(lambda api: _fresh(api.sweep(path)), f"the sweep {path} cannot be read")
    return sweep.config, sweep.state


def _fresh(sweep: Any) -> Any:
    """Return a sweep of W&B's client as W&B has it now; the client keeps the sweeps that it has read."""
    sweep.load(force=True)
    return sweep


def is_missing(error: BaseException) -> bool:
    """Return whether an error means that W&B has no such name, or does not show it to this key."""
    return "Could not find" in str(error)


def patiently(question: Callable[[], Answer], attempts: int = ATTEMPTS) -> Answer:
    """Ask up to `attempts` times, waiting longer each time, unless waiting cannot help."""
    for attempt in range(1, attempts):
        try:
            return question()
        except (UserError, ValueError):
            raise
        except Exception as error:
            if is_missing(error) or is_denied(error):
                raise
            time.sleep(2 ** (attempt - 1))
    return question()
