"""What `study.train` and `study.sweep` return in Python: runs and sweeps, read from their directories.

python -c "from study import Run; print(Run('runs/NAME').history)"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.config import Config
from study.config.setting import Setting
from study.record.directory import RunDirectory
from study.record.display import result
from study.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Run:
    """One run, read from its directory: `Run("runs/two-block-digits-s0-0123456789")`, or what `train` returns.

    Its files are read whenever they are asked for, so it also shows how far a run is that another process trains.
    """

    directory: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Path(self.directory).absolute())
        if not (self.directory / "run.json").exists():
            raise UserError(f"{self.directory} is not a run: it has no run.json")

    @property
    def name(self) -> str:
        """Name of the directory, such as `two-block-digits-s0-0123456789`."""
        return self.directory.name

    @property
    def config(self) -> Config:
        """Options of the run, with all defaults filled in."""
        return Config.recorded(self.info["config"])

    @property
    def state(self) -> str:
        """One of finished, stopped, diverged, failed, running, interrupted or corrupt."""
        return self._files.state()

    @property
    def history(self) -> pd.DataFrame:
        """A row per epoch, with train/loss, train/acc, val/loss, val/acc, lr, time/epoch and more; the index is epoch.

        Accuracies lie between 0 and 1, times are in seconds.
        """
        import pandas as pd

        rows = self._files.history()
        return pd.DataFrame(rows).set_index("epoch") if rows else pd.DataFrame()

    @property
    def summary(self) -> dict[str, Any]:
        """Results such as best/val_acc, best/epoch, test/acc, params, flops, train_seconds; {} if there are none."""
        return self._files.summary()

    @property
    def info(self) -> dict[str, Any]:
        """Everything in run.json: config, state, machine, versions, data, error."""
        return self._files.info()

    @property
    def _files(self) -> RunDirectory:
        return RunDirectory(self.directory)

    def __repr__(self) -> str:
        metric = (self.info.get("config") or {}).get("metric", "val/acc")
        said = result(self.summary, metric) if self.summary else f"{len(self._files.history())} epochs"
        return f"Run('{self.directory}')  # {self.state}: {said}"


@dataclass(frozen=True)
class SweepResult:
    """The runs of a sweep, in its order, and the `settings` that distinguish them; what `sweep` returns.

    Runs that have not been started are left out.
    """

    runs: Sequence[Run]
    settings: Sequence[Setting]

    @property
    def summary(self) -> pd.DataFrame:
        """A row per run: what the sweep varies, the seed, the state, and the numbers of its summary."""
        import pandas as pd

        rows = [
            dict(setting.pairs) | {"seed": run.config.seed, "state": run.state, **run.summary}
            for run, setting in zip(self.runs, self.settings, strict=True)
        ]
        return pd.DataFrame(rows, index=pd.Index([run.name for run in self.runs], name="run"))

    @property
    def history(self) -> pd.DataFrame:
        """A row per run and epoch: what the sweep varies, the seed, and what `Run.history` has.

        A column of the history that the sweep varies too is called `epoch/…`, such as `epoch/lr`.
        """
        import pandas as pd

        parts = []
        for run, setting in zip(self.runs, self.settings, strict=True):
            rows = run.history
            if rows.empty:
                continue
            rows = rows.rename(columns={name: f"epoch/{name}" for name in dict(setting.pairs)}).reset_index()
            for place, (name, value) in enumerate([("run", run.name), *setting.pairs, ("seed", run.config.seed)]):
                rows.insert(place, name, [value] * len(rows))
            parts.append(rows)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @property
    def errors(self) -> dict[str, str]:
        """Why runs failed, by the name of the run."""
        return {run.name: run.info.get("error", "") for run in self.runs if run.state == "failed"}

    def __repr__(self) -> str:
        states = [run.state for run in self.runs]
        return f"SweepResult: {', '.join(f'{states.count(state)} {state}' for state in dict.fromkeys(states))}"
