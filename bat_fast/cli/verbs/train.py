"""``bat-fast train``."""

from __future__ import annotations

from importlib import import_module

from bat_fast.cli.parser import Interrupted

SUMMARY = "train a model: bat-fast train --recipe digits-bat"


def run(words: list[str]) -> None:
    """Train as the words say, and print what came out."""
    from bat_fast.cli.settings import read_command

    command = read_command(words)  # before torch is loaded: a typo is answered at once
    for package in ("matplotlib", "rich"):  # needed at the end of the run: better missed now than then
        import_module(package)
    from bat_fast.report.table import print_results
    from bat_fast.runs.folder import RunFolder
    from bat_fast.train import Trainer
    from bat_fast.train.build import dry_run

    if command.dry_run:
        print(dry_run(command.config))
        return
    trainer = Trainer(
        command.config, RunFolder(command.out, numbered=not command.named), resume=command.resume
    )
    out = trainer.folder.path
    print(f"run folder  {out}", flush=True)
    print(f"data        {trainer.feed.describe()}", flush=True)
    try:
        results = trainer.fit()
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted after epoch {trainer.epoch}; continue with: bat-fast train --resume --out {out}"
        ) from None
    print_results(results, out, trainer.folder.curves)
