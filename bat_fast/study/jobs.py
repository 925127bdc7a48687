"""The models of a study, trained by as many processes as there are, here or elsewhere."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from bat_fast import data
from bat_fast.config import TrainConfig
from bat_fast.study.folder import Plan, StudyFolder
from bat_fast.study.lean import answers
from bat_fast.study.subset import model_seed, subset
from bat_fast.train.feed import Feed

Tell = Callable[[int, int], object]


def read_splits(config: TrainConfig) -> data.Splits:
    """The data of a study: what a run with these settings would train and test on."""
    return Feed(config, "cpu").splits


def train_job(
    plan: Plan, config: TrainConfig, splits: data.Splits, job: int, device: str
) -> dict[str, np.ndarray]:
    """Train model ``job`` and judge it; the answer depends on the number of the model, not on who asks.

    Returns:
        Packed bits: ``subset``, the training samples that it saw, and what `answers` gives.
    """
    chosen = subset(len(splits.train), plan.ratio, plan.seed, job)
    seen = splits._replace(train=splits.train.part(chosen.nonzero().squeeze(1)))
    one = replace(config, seed=model_seed(plan.seed, job))
    found = answers(one, seen, plan.attack, device, whole=splits.train)
    return {"subset": np.packbits(chosen.numpy())} | found


def work(
    folder: StudyFolder,
    config: TrainConfig,
    jobs: Sequence[int],
    device: str = "auto",
    tell: Tell | None = None,
) -> int:
    """Train those of ``jobs`` that are neither done nor running; returns how many that were.

    Args:
        folder: of the study.
        config: of each model; its seed is that of the data.
        jobs: numbers of models.
        device: where they are trained.
        tell: called with the number of models of the study that are done, and that of all.
    """
    plan, splits, trained = folder.read_plan(), read_splits(config), 0
    for job in jobs:
        lock = folder.lock(job)
        if folder.answer(job).exists():
            continue
        try:
            lock.take()
        except BlockingIOError:
            continue
        try:
            if folder.answer(job).exists():  # done while we asked
                continue
            folder.write_answer(job, train_job(plan, config, splits, job, device))
            trained += 1
        finally:
            lock.end()
        if tell is not None:
            tell(len(folder.status().done), plan.k)
    return trained


def devices_in_turn(config: TrainConfig, gpus: int) -> list[str]:
    """Where one process after the other trains: on each of ``gpus``, or where ``config`` says."""
    if config.device in ("auto", "cuda") and gpus:
        return [f"cuda:{number}" for number in range(gpus)]
    return [config.device]


def work_together(
    folder: StudyFolder, config: TrainConfig, jobs: Sequence[int], workers: int, tell: Tell | None = None
) -> None:
    """`work` in several processes, each with its share of the cores, and a GPU in turn where there are any.

    Raises:
        RuntimeError: a process failed; what the others have done is kept.
    """
    devices = devices_in_turn(config, torch.cuda.device_count())
    if workers == 1:
        work(folder, config, jobs, devices[0], tell)
        return
    context = multiprocessing.get_context("spawn")
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    started = []
    for number in range(workers):
        mine = [*jobs[number:], *jobs[:number]]  # not all at the same lock
        process = context.Process(
            target=_worker, args=(str(folder.path), config, mine, devices[number % len(devices)], threads)
        )
        process.start()
        started.append(process)
    try:
        while any(process.is_alive() for process in started):
            if tell is not None:
                tell(len(folder.status().done), folder.read_plan().k)
            time.sleep(0.2)
    finally:
        for process in started:
            process.terminate()
            process.join()
    if failed := [process.exitcode for process in started if process.exitcode]:
        raise RuntimeError(
            f"{len(failed)} of {workers} workers ended with status {failed[0]}; what is done is kept, and "
            "the same command goes on"
        )


def _worker(path: str, config: TrainConfig, jobs: list[int], device: str, threads: int) -> None:
    from pathlib import Path

    torch.set_num_threads(threads)
    work(StudyFolder(Path(path)), config, jobs, device)
