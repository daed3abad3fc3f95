"""Rounds to an experiment tracker: TensorBoard, Weights & Biases or MLflow, each without a network unless told.

A run's folder has ``metrics.jsonl`` in any case; see :func:`rsir.recursion.loop.recurse`.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rsir.config import RecursionConfig, flat, to_dict
from rsir.errors import ConfigError

if TYPE_CHECKING:
    from rsir.runs.rounds import RoundResult

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "Tracker", "Tracking", "WandB", "scalars"]


class Tracker(Protocol):
    """What a tracker must offer; one of your own may be given to :class:`Tracking` as well."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Record values by name, such as ``validation/ndcg@20``; the step is the round."""
        ...

    def close(self) -> None:
        """Write what is left and end."""
        ...


def scalars(result: RoundResult) -> dict[str, float]:
    """The figures of a round by name; those that are nan are left out."""
    values: dict[str, Any] = {}
    for name, value in result.metrics().items():
        values |= {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    values |= {f"seconds/{phase}": spent for phase, spent in result.seconds.items()}
    values |= {f"rates/{name}": rate for name, rate in result.rates.items()}
    del values["round"]
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


class TensorBoard:
    """Event files in ``FOLDER/tensorboard``; see them by ``tensorboard --logdir FOLDER``. Needs rsir[tensorboard]."""

    def __init__(self, folder: Path, config: RecursionConfig) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A run that is resumed reports its earlier rounds again; these take the place of what was written of them.
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=0)
        self._writer.add_text("settings", "```json\n" + json.dumps(to_dict(config), indent=2) + "\n```")

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A Weights & Biases run in ``FOLDER/wandb``, offline unless the environment's WANDB_MODE says otherwise.

    ``wandb sync FOLDER/wandb/offline-run-*`` sends it later. Needs rsir[wandb].
    """

    def __init__(self, folder: Path, config: RecursionConfig) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "rsir"),
            name=folder.name,
            dir=str(folder),
            config=flat(config),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """An MLflow run in ``FOLDER/mlflow.db``, or where the environment's MLFLOW_TRACKING_URI says.

    Names are written with ``_at_`` for ``@``, which MLflow does not take. Needs rsir[mlflow].
    """

    def __init__(self, folder: Path, config: RecursionConfig) -> None:
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{(folder / 'mlflow.db').absolute()}")
        self._client: Any = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "rsir")
        known = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if known is None else known.experiment_id
        self._id = self._client.create_run(experiment, run_name=folder.name).info.run_id
        for option, value in flat(config).items():
            self._client.log_param(self._id, option, value)

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name.replace("@", "_at_"), value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._id)


TRACKERS: dict[str, Callable[[Path, RecursionConfig], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


class Tracking:
    """Hands finished rounds to trackers: ``recurse(config, out=out, on_round=Tracking(["mlflow"], out, config))``.

    Trackers are begun with the first round, as a run's folder must be empty until then. One that fails later on is
    dropped with a warning: a tracker out of reach does not end a run.

    Parameters
    ----------
    trackers : sequence of str or Tracker
        Each "tensorboard", "wandb", "mlflow", or one of your own.
    folder : path
        The run's; what trackers write stays in it.
    config : RecursionConfig
        Recorded as the settings.

    Raises
    ------
    ConfigError
        An unknown name, or a package that is not installed; names what to install.
    """

    def __init__(
        self, trackers: Sequence[str | Tracker], folder: str | os.PathLike[str], config: RecursionConfig
    ) -> None:
        for name in trackers:
            if isinstance(name, str):
                if name not in TRACKERS:
                    raise ConfigError(f"track: expected some of {', '.join(TRACKERS)}, got {name!r}")
                if find_spec(name) is None:
                    raise ConfigError(f"track: {name} is not installed: pip install 'rsir[{name}]'")
        self._waiting = list(trackers)
        self._folder, self._config = Path(folder), config
        self._open: list[Tracker] = []

    def __call__(self, result: RoundResult) -> None:
        """Record a round."""
        waiting, self._waiting = self._waiting, []
        for tracker in waiting:
            with _forgiven(str(tracker)):
                made = TRACKERS[tracker](self._folder, self._config) if isinstance(tracker, str) else tracker
                self._open.append(made)
        for one in list(self._open):
            with _forgiven(type(one).__name__) as failed:
                one.log(scalars(result), result.round)
            if failed:
                self._open.remove(one)

    def close(self) -> None:
        """Let the trackers write what is left."""
        while self._open:
            tracker = self._open.pop()
            with _forgiven(type(tracker).__name__):
                tracker.close()


@contextmanager
def _forgiven(name: str) -> Iterator[list[Exception]]:
    """A warning in place of an exception; what was raised is in the list."""
    failed: list[Exception] = []
    try:
        yield failed
    except Exception as error:
        failed.append(error)
        warnings.warn(f"{name}: {type(error).__name__}: {error}; nothing more is sent to it", stacklevel=3)
