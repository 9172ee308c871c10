"""Send runs to W&B from their directories, unless W&B has them completely.

python -m study.sync runs/NAME …
"""

import shlex
from functools import partial

from study.config import Config
from study.config.checks import user_path
from study.record.directory import DONE, RunDirectory
from study.remote import offline
from study.remote.api import NO_KEY
from study.remote.replay import is_whole, note_sent, replay
from study.remote.run import mode, wants_offline
from study.system.errors import UserError
from study.system.process import Parser, run_command


def main(argv: list[str]) -> int:
    """Send run directories to W&B."""
    parser = Parser("python -m study.sync", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=user_path, metavar="RUN", help="directory of a run that has a result")
    for path in parser.parse_args(argv).runs:
        # Check that the run has a result
        directory = RunDirectory(path)
        state = directory.state()
        if state not in DONE:
            raise UserError(f"{path} has no result to send: it is {state}")
        config = Config.recorded(directory.info()["config"])
        config = config.model_copy(update={"wandb": "auto", "runs_dir": str(directory.path.parent)})

        # Send it unless W&B has it; only where W&B's settings want it, record it in an offline log
        is_online = mode(config) == "online"
        if not is_online and not wants_offline(config):
            raise UserError(f"{NO_KEY}; with WANDB_MODE=offline, the run is written to a log")
        if is_online and is_whole(directory, config):
            if not directory.is_sent():
                note_sent(directory)
            print(f"{path} is in W&B already")
            continue
        replay(directory, config, print)
        logs = offline.logs(directory)
        for log in logs:
            print(f"the run was written to a log; to upload it: wandb sync {shlex.quote(str(log))}")
        if is_online:
            print(f"{path} is sent")
    return 0


command = partial(run_command, main)
"""The console command `study-sync`."""

if __name__ == "__main__":
    command()
