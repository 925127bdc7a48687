"""``bat-fast study dynamics``."""

from __future__ import annotations

from bat_fast.cli.parser import Interrupted, Parser

SUMMARY = "one run of which every sample is recorded and judged in every epoch"


def run(words: list[str]) -> None:
    """Train a run with both observers."""
    parser = Parser(
        "study dynamics",
        "Train one run as bat-fast train does (--recipe, --out, --resume, --SETTING VALUE), keep what each "
        "training sample does in each epoch, and judge all training and test images, clean and attacked.",
    )
    parser.add_argument("--judge_every", type=int, default=1, help="epochs between judgements (default: 1)")
    options, rest = parser.parse_known_args(words)
    if options.judge_every < 1:
        raise ValueError(f"--judge_every must be at least 1, got {options.judge_every}")
    from bat_fast.cli.settings import read_command

    command = read_command(rest, parser.options())
    if command.seeds:
        raise ValueError("--seeds: a study of the dynamics is of one run; take --seed N")
    from bat_fast.report.table import print_results
    from bat_fast.runs.folder import RunFolder
    from bat_fast.study.record import JudgedRecord, SampleRecord
    from bat_fast.train import Trainer
    from bat_fast.train.build import dry_run

    if command.dry_run:
        print(dry_run(command.config))
        return
    folder = RunFolder(command.out, numbered=not command.named)
    observers = (SampleRecord(), JudgedRecord(options.judge_every))
    trainer = Trainer(command.config, folder, resume=command.resume, observers=observers)
    out = trainer.folder.path
    print(f"run folder  {out}", flush=True)
    try:
        results = trainer.fit()
    except KeyboardInterrupt as error:
        again = f"bat-fast study dynamics --resume --out {out} --judge_every {options.judge_every}"
        raise Interrupted(
            f"interrupted after epoch {trainer.epoch}; continue with: {again}", *error.args[:1]
        ) from None
    print_results(results, out, trainer.folder.curves)
