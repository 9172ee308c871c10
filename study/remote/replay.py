"""Send a run that has a result to W&B from its directory, and look whether W&B has all of it.

replay(RunDirectory("runs/NAME"), config, print)
"""

from contextlib import suppress
from typing import Any

import wandb

from study.config import Config
from study.record.directory import RunDirectory
from study.remote import charts
from study.remote.api import ask, failure, handed_out, is_missing, state_of
from study.remote.run import connect, epochs_of, place_of
from study.system.errors import UserError
from study.system.process import exit_code
from study.system.progress import Say


def replay(directory: RunDirectory, config: Config, say: Say) -> None:
    """Send a run with a result to W&B from its directory; raise UserError if that fails.

    Then `wandb_missing` is removed from run.json, and if W&B did not take the run under the id that it had, its new
    place is recorded.
    """
    info = directory.info()
    run = None
    try:
        run = connect(directory, config, info["wandb_id"], say, resumes=True, place=info.get("wandb"), trains=False)
        for row in directory.history():
            run.log(row)
        lost = run.finish(0, {**directory.summary(), "state": info["state"]})
        if lost:
            raise UserError(f"{directory.path} was sent without {' and '.join(lost)}; run the same command again")
        is_new = run.run_id != (handed_out() or info["wandb_id"])
        if run.mode == "online" and (is_new or info.get("wandb_missing")):
            note_sent(directory, wandb_id=run.run_id, wandb=dict(run.place))
    except UserError:
        raise
    except Exception as error:
        raise failure(error, f"{directory.path} cannot be sent; ") from None
    except BaseException as error:  # a signal: W&B must not take what it has for the whole run
        if run:
            with suppress(Exception):
                run.finish(exit_code(error), {})
        raise


def note_sent(directory: RunDirectory, **place: Any) -> None:
    """Remove `wandb_missing` from run.json, and record the place of the run in W&B if it is given."""
    info = {name: value for name, value in directory.info().items() if name != "wandb_missing"}
    with suppress(OSError):  # of another user
        directory.write_info(info | place)


def is_whole(directory: RunDirectory, config: Config) -> bool:
    """Return whether W&B has all epochs, the result and the evaluation of a run with a result."""
    # Find the place of the run in W&B
    info = directory.info()
    place = info.get("wandb") or place_of(config)

    # Compare the run there with its directory
    def look(api: Any) -> bool:
        """Return whether the run is there and complete."""
        try:
            run = api.run(f"{place['entity'] or api.default_entity}/{place['project']}/{info['wandb_id']}")
        except (wandb.Error, ValueError) as error:
            if is_missing(error):
                return False
            raise
        return (
            run.state == "finished"
            and state_of(run) == info["state"]
            and epochs_of(run.summary_metrics) >= directory.summary()["last/epoch"]
            and (not directory.has_evaluation() or _has_pictures(run))
        )

    return ask(look, f"{directory.path} cannot be looked for at W&B")


def _has_pictures(run: Any) -> bool:
    """Return whether W&B has the charts and the artifact of a run."""
    has_charts = f"{charts.CONFUSION}_table" in run.summary_metrics
    return has_charts and any(artifact.type == "evaluation" for artifact in run.logged_artifacts())
