"""``bat-fast train``."""

from __future__ import annotations

import os
import shlex
import signal
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from bat_fast.cli.parser import Interrupted
from bat_fast.cli.run_options import loggers

if TYPE_CHECKING:
    from pathlib import Path

    from bat_fast.cli.settings import Command
    from bat_fast.config import TrainConfig
    from bat_fast.runs.folder import RunFolder
    from bat_fast.world.ranks import World

SUMMARY = "train a model: bat-fast train --recipe digits-bat"


def run(words: list[str]) -> None:
    """Train as the words say, with the other processes of torchrun or srun, and print what came out."""
    from bat_fast.cli.settings import read_command
    from bat_fast.world.launch import joined, place_in

    # Before torch is loaded, so that a typo is answered at once; several processes answer once, together.
    command = read_command(words) if place_in(os.environ) is None else None
    with joined() as world:
        _run(command or read_command(words), world)


def _run(command: Command, world: World) -> None:
    for package in ("matplotlib", "rich"):  # needed at the end of the run: better missed now than then
        import_module(package)
    from bat_fast.runs.folder import RunFolder
    from bat_fast.train.build import dry_run

    if command.dry_run:
        print(dry_run(command.config))
    elif command.seeds:
        _train_seeds(command, world)
    else:
        folder = RunFolder(command.out, numbered=not command.named)
        out = _train(command, command.config, folder, world)
        print(f"report      bat-fast report {shlex.quote(str(out))}")


def _train_seeds(command: Command, world: World) -> None:
    """A run for each seed, one after the other, and their comparison."""
    from bat_fast.report.compare import group_runs, print_comparison
    from bat_fast.runs.folder import RunFolder

    folders = {seed: RunFolder(command.out / f"seed-{seed}") for seed in command.seeds}
    for folder in folders.values() if not command.resume and world.first else ():
        folder.check_free()  # all of them now, rather than the last one after hours
    again = f"bat-fast train --resume --out {command.out} --seeds {' '.join(map(str, command.seeds))}"
    again += _said(command)
    for seed, folder in folders.items():
        config = replace(command.config, seed=seed)
        if command.resume and world.broadcast(world.first and folder.is_finished(config)):
            print(f"run folder  {folder.path} (finished)", flush=True)
            continue
        _train(command, config, folder, world, again)
    if not world.first:
        return
    paths = [folder.path for folder in folders.values()]
    print_comparison(group_runs(paths))
    print(f"report      bat-fast report {shlex.join(map(str, paths))}")


def _said(command: Command) -> str:
    """What the command to go on has to say again: no run folder keeps it."""
    record = " --record_samples" if command.record and command.seeds else ""  # of seeds that have not begun
    return record + (f" --log {' '.join(command.logs)}" if command.logs else "")


def _train(
    command: Command, config: TrainConfig, folder: RunFolder, world: World, again: str | None = None
) -> Path:
    """Train one run and print its results; the folder that it took. ``again`` is the command to go on."""
    from bat_fast.report.table import print_results
    from bat_fast.train import Trainer

    observers = loggers(command.logs)
    if command.record or (command.resume and (folder.path / "samples").is_dir()):
        from bat_fast.study.record import SampleRecord

        observers.append(SampleRecord())
    trainer = Trainer(config, folder, resume=command.resume, observers=observers, world=world)
    out = trainer.folder.path
    print(f"run folder  {out}", flush=True)
    print(f"data        {trainer.feed.describe()}", flush=True)
    try:
        results = trainer.fit()
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        raise Interrupted(
            f"interrupted after epoch {trainer.epoch}; continue with: "
            f"{again or f'bat-fast train --resume --out {out}{_said(command)}'}",
            number,
        ) from None
    if world.first:
        print_results(results, out, trainer.folder.curves)
    return out
