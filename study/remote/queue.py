"""Ask W&B's server for the runs of a sweep, as an agent that W&B knows does.

    if can_serve(content):
        queue = Queue(("entity", "project", "id"))
        queue.ask()                      # in a thread; the answer comes through the connection
        answer = queue.answers.recv()    # Answer(commands=[{"type": "run", "run_id": …, "args": …}])

The functions of W&B's client that its own agent uses are not public: `can_serve` looks whether they are there.
"""

import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import Any

from study.remote import api
from study.sweeps import command

NEEDED = ("_register_agent", "_agent_heartbeat", "_get_sweep_state")
"""Functions of `wandb.apis.public.sweeps`."""

PLAIN = (["${env}", "${interpreter}"], ["${interpreter}"])
"""What stands before the training in a command that this project's processes need not start."""

NAMES = ("python", "python3")
"""Names of the interpreter: what an agent's PATH finds is the one that runs this."""

NOT_PLAIN = ("--show-augment", "--show_augment", "--dry-run", "--dry_run", "--config", "${args_json_file}")
"""Starts of words with which a command does something else than training its options."""


@dataclass(frozen=True)
class Answer:
    """What W&B answered an agent: commands; or that it has no such sweep or agent; or why there is no answer.

    After an error that is `final`, such as a key that is refused, asking again cannot help.
    """

    commands: Sequence[Mapping[str, Any]] = ()
    is_unknown: bool = False
    error: str = ""
    is_final: bool = False
    sweep_state: str = ""


def can_serve(content: Mapping[str, Any]) -> bool:
    """Return whether runs of a sweep with this file can be trained without starting its command for each."""
    try:
        from wandb.apis.public import sweeps
        from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args  # noqa: F401
        from wandb.sdk.sweeps import SweepNotFoundError  # noqa: F401
    except ImportError:
        return False
    return all(hasattr(sweeps, name) for name in NEEDED) and _options(content) is not None


def _options(content: Mapping[str, Any]) -> list[str] | None:
    """Return the words that follow `study.train` in a sweep's command; None if the command runs anything else."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command

    written = [str(word) for word in create_sweep_command(list(content.get("command") or []))]
    before, options = command.split(written, str(content.get("program", "")))
    before = ["${interpreter}" if word in NAMES else word for word in before]
    does_more = any(word.startswith(NOT_PLAIN) for word in options)
    return None if before not in PLAIN or does_more else options


def words(content: Mapping[str, Any], order: Mapping[str, Any]) -> list[str]:
    """Return the command line with which W&B's agent would start the run that it orders, without its program."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    values = create_sweep_command_args(order)
    result = []
    for word in _options(content):
        is_macro = word.startswith("${") and word.endswith("}")
        result += (values.get(word[2:-1]) or []) if is_macro else [word]
    return result


class Queue:
    """A sweep on W&B as one agent sees it; each question is asked in a thread, one at a time."""

    def __init__(self, names: Sequence[str]):
        self.entity, self.project, self.sweep = names
        self.agent_id: str | None = None
        self.answers, self._sender = Pipe(duplex=False)
        self.is_asking = False
        logging.getLogger("wandb.apis.public.sweeps").propagate = False  # its tracebacks, when there is no answer
        self._api = api.connect()

    def ask(self, running: str | None = None) -> None:
        """Tell W&B which run is being trained, if any, and ask what to do."""
        self.is_asking = True
        threading.Thread(target=lambda: self._sender.send(self._ask(running)), daemon=True).start()

    def take(self) -> Answer:
        """Return the answer, once there is one."""
        answer = self.answers.recv()
        self.is_asking = False
        return answer

    def _ask(self, running: str | None) -> Answer:
        """Ask, and return the answer."""
        from wandb.apis.public import sweeps
        from wandb.sdk.sweeps import SweepNotFoundError

        place = {"project": self.project, "entity": self.entity}
        try:
            # Register the agent first
            if self.agent_id is None:
                agent = sweeps._register_agent(self._api, socket.gethostname(), sweep_id=self.sweep, **place)
                self.agent_id = agent["id"]

            # The client returns no command if there is no answer; so look whether W&B answers at all
            commands = sweeps._agent_heartbeat(self._api, self.agent_id, {}, {running: True} if running else {})
            if (not commands and not running) or any(command.get("type") == "exit" for command in commands):
                return Answer(commands, sweep_state=sweeps._get_sweep_state(self._api, self.sweep, **place))
            return Answer(commands)
        except SweepNotFoundError:
            return Answer(is_unknown=True)
        except Exception as error:  # the client's errors have no common class
            return Answer(is_unknown=api.is_missing(error), error=api.trouble(error), is_final=api.is_denied(error))
