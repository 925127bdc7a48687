"""The epochs of a run in MLflow: ``pip install mlflow``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bat_fast.integrations.attacker import host
from bat_fast.runs.metrics import numbers
from bat_fast.runs.plain import flat, plain
from bat_fast.train.observer import Observer

if TYPE_CHECKING:
    from bat_fast.train.trainer import Trainer

_LONGEST = 500  # characters of a parameter that every server takes


class MLflow(Observer):
    """Logs every setting, and every metric of an epoch under its name in ``metrics.jsonl``::

        Trainer(config, out, observers=[MLflow("file:mlruns", "robust")])

    It does not touch the run that ``mlflow.start_run`` may have opened.

    Args:
        uri: of the server, or ``file:FOLDER``; None is what mlflow is set to.
        experiment: its name; it is made where there is none.
        run_id: of the run to go on with, for a run that is resumed; None begins one.

    Raises:
        ImportError: mlflow is not installed.
    """

    def __init__(
        self, uri: str | None = None, experiment: str = "bat_fast", *, run_id: str | None = None
    ) -> None:
        self._host = host("mlflow")
        self._uri, self._experiment, self.run_id = uri, experiment, run_id
        self._client: Any = None

    def begin(self, trainer: Trainer) -> None:
        """Open the run, on the first of several processes."""
        if not trainer.world.first:
            return
        client, self._trainer = self._host.MlflowClient(self._uri), trainer
        if self.run_id is None:
            known = client.get_experiment_by_name(self._experiment)
            place = client.create_experiment(self._experiment) if known is None else known.experiment_id
            self.run_id = client.create_run(place, run_name=trainer.folder.path.name).info.run_id
            for name, value in flat(plain(trainer.config)).items():
                client.log_param(self.run_id, name, str(value)[:_LONGEST])
        self._client = client

    def epoch(self, row: dict[str, Any]) -> None:
        """Log the line of an epoch; after the last one the run is finished."""
        if self._client is None:
            return
        for name, value in numbers(row).items():
            self._client.log_metric(self.run_id, name, value, step=row["epoch"])
        if self._trainer.stopped or row["epoch"] == self._trainer.config.epochs:
            self._client.set_terminated(self.run_id)
