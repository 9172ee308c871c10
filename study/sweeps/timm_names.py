"""Check that timm has the networks and optimizers that a sweep names, before any run is trained.

python -c "from study.sweeps import definition, timm_names; timm_names.check(definition.read('sweeps/recipes.yaml'))"
"""

from collections.abc import Iterator

from study.config.setting import read_pairs
from study.sweeps import document
from study.sweeps.definition import Sweep
from study.system.errors import Place, UserError

PREFIX = "timm:"
OPTIONS = ("model", "optimizer")
"""Options that take any name of timm; only a few of its schedules are options, which have been checked."""


def check(sweep: Sweep) -> None:
    """Raise UserError with a line for each name that timm lacks; imports timm only if the sweep has such names."""
    wrong = []
    for place, option, name in _named(sweep):
        try:
            _look_up(option, name)
        except UserError as error:
            wrong.append((place, str(error)))
    if wrong:
        raise document.error(sweep.path, wrong, sweep.lines)


def _named(sweep: Sweep) -> Iterator[tuple[Place, str, str]]:
    """Yield each name of timm in a sweep with its place in the file, () if it was given instead, and its option."""
    for key in (*OPTIONS, "setting"):
        choices = sweep.parameters[key].choices if key in sweep.parameters else None
        for index, choice in enumerate(choices or ()):
            pairs = read_pairs(choice or "") if key == "setting" else {key: str(choice)}
            for option in OPTIONS:
                if pairs.get(option, "").startswith(PREFIX):
                    place = () if key in sweep.given else ("parameters", key, "values", index)
                    yield place, option, pairs[option].removeprefix(PREFIX)


def _look_up(option: str, name: str) -> None:
    """Raise UserError if timm lacks a network or an optimizer."""
    if option == "model":
        from study.models.library import known_name
    else:
        from study.training.optim import known_name
    known_name(name)
