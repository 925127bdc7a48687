"""The models of a study as jobs of a cluster, through submitit (https://github.com/facebookincubator/submitit)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bat_fast._install import install
from bat_fast.config import TrainConfig
from bat_fast.study.folder import StudyFolder
from bat_fast.study.jobs import devices_in_turn, work

CLUSTERS = ("slurm", "local")


@dataclass(frozen=True)
class Share:
    """Every ``parts``-th model of a study from ``number`` on; a cluster calls it in a process of its own."""

    path: Path
    config: TrainConfig
    number: int
    parts: int
    device: str
    threads: int | None = None
    """Of that process; None leaves it to torch, which takes what the cluster gives."""

    def __call__(self) -> int:
        """Train what is neither done nor running; returns how many models that were."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        folder = StudyFolder(self.path)
        jobs = range(self.number, folder.read_plan().k, self.parts)
        return work(folder, self.config, jobs, self.device)

    def checkpoint(self) -> Any:
        """What submitit queues when the time of the job runs out or another job displaces it: the same again,
        which goes on with the models that are left."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(
    folder: StudyFolder, config: TrainConfig, cluster: str, parts: int, options: dict[str, Any]
) -> list[Any]:
    """Hand the models of a study to a cluster, and return its jobs, ``submitit.Job``, without waiting.

    Args:
        folder: of the study, where all machines of the cluster find it; logs go to ``jobs/`` in it.
        config: of each model.
        cluster: ``slurm``, or ``local`` for processes of this machine.
        parts: number of jobs, among which the models are shared out; of slurm one array.
        options: of ``submitit.AutoExecutor.update_parameters``, such as ``timeout_min``, ``slurm_partition``,
            ``gpus_per_node`` and ``cpus_per_task``.

    Jobs of ``local`` take the GPUs of this machine in turn, all of them unless ``gpus_per_node`` says how
    many: submitit hides those that nobody asks for.

    Raises:
        As `check`.
    """
    path, devices = folder.path.resolve(), [config.device]
    threads: int | None = None
    if cluster == "local":
        options = {"gpus_per_node": torch.cuda.device_count()} | options
        threads = max(1, len(os.sched_getaffinity(0)) // parts)
    executor = _executor(path / "jobs", cluster, options)
    if cluster == "local":
        gpus = options.get("local_gpus_per_node", options["gpus_per_node"])  # as submitit ranks them
        devices = devices_in_turn(config, gpus)
    with executor.batch():
        return [
            executor.submit(Share(path, config, number, parts, devices[number % len(devices)], threads))
            for number in range(parts)
        ]


def check(cluster: str, options: dict[str, Any]) -> None:
    """Whether `submit` can go to that cluster with these options; nothing is left behind.

    Raises:
        ImportError: submitit is not installed; the message has the command. ValueError: it does not know an
            option. RuntimeError: there is no such cluster here.
    """
    with TemporaryDirectory() as nowhere:
        _executor(Path(nowhere), cluster, options)


def _executor(logs: Path, cluster: str, options: dict[str, Any]) -> Any:
    try:
        import submitit
    except ImportError:
        raise ImportError(f"--cluster needs submitit: {install('submitit', 'cluster')}") from None
    executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
    try:
        executor.update_parameters(**({"name": "bat-fast-study", "timeout_min": 24 * 60} | options))
    except (NameError, TypeError, AssertionError) as error:
        raise ValueError(f"--cluster: submitit does not take these options ({error})") from error
    return executor
