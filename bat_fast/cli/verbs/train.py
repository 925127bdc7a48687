"""``bat-fast train``."""

from __future__ import annotations

from importlib import import_module

from bat_fast.cli.parser import Interrupted

SUMMARY = "train a model: bat-fast train --recipe digits-bat"


def run(words: list[str]) -> None:
    """Train as the words say, and print what came out."""
    for package in ("matplotlib", "rich"):  # needed at the end of the run: better missed now than then
        import_module(package)
    from bat_fast.cli.settings import read_command
    from bat_fast.report.table import print_results
    from bat_fast.train import Trainer
    from bat_fast.train.build import dry_run

    command = read_command(words)
    if command.dry_run:
        print(dry_run(command.config))
        return
    trainer = Trainer(command.config, command.out, resume=command.resume)
    print(f"run folder  {command.out}", flush=True)
    print(f"data        {trainer.feed.describe()}", flush=True)
    try:
        results = trainer.fit()
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted after epoch {trainer.epoch}; continue with: "
            f"bat-fast train --resume --out {command.out}"
        ) from None
    print_results(results, trainer.folder.path, trainer.folder.curves)
