"""``bat-fast study dynamics``."""

from __future__ import annotations

from bat_fast.cli.parser import Interrupted, Parser

SUMMARY = "one run of which every sample is recorded and judged in every epoch"


def run(words: list[str]) -> None:
    """Train a run with the observers."""
    parser = Parser(
        "study dynamics",
        "Train one run as bat-fast train does (--recipe, --out, --resume, --SETTING VALUE), keep what each "
        "training sample does in each epoch, judge all training and test images, clean and attacked, and see "
        "how the loss bends around each training image.",
    )
    parser.add_argument("--judge_every", type=int, help="epochs between judgements (default: 1)")
    parser.add_argument(
        "--curvature", type=int, metavar="N",
        help="draws that measure the curvature of the loss at those epochs (default: 10; 0: not measured)",
    )  # fmt: skip
    options, rest = parser.parse_known_args(words)
    if options.judge_every is not None and options.judge_every < 1:
        raise ValueError(f"--judge_every must be at least 1, got {options.judge_every}")
    if options.curvature is not None and options.curvature < 0:
        raise ValueError(f"--curvature must be at least 0, got {options.curvature}")
    from bat_fast.cli.run_options import loggers
    from bat_fast.cli.settings import read_command

    command = read_command(rest, parser.options())
    if command.seeds:
        raise ValueError("--seeds: a study of the dynamics is of one run; take --seed N")
    from bat_fast.report.table import print_results
    from bat_fast.runs.folder import RunFolder
    from bat_fast.study.curvature import CurvatureRecord
    from bat_fast.study.pace import keep_pace, pace_of
    from bat_fast.study.record import JudgedRecord, SampleRecord
    from bat_fast.train import Trainer
    from bat_fast.train.build import dry_run

    if command.dry_run:
        print(dry_run(command.config))
        return
    folder = RunFolder(command.out, numbered=not command.named)
    pace = pace_of(command.out, vars(options), resume=command.resume)
    every, draws = pace["judge_every"], pace["curvature"]
    observers = [*loggers(command.logs), SampleRecord(), JudgedRecord(every)]
    if draws:
        observers.append(CurvatureRecord(every, draws))
    trainer = Trainer(command.config, folder, resume=command.resume, observers=observers)
    out = trainer.folder.path
    keep_pace(out, pace)
    print(f"run folder  {out}", flush=True)
    try:
        results = trainer.fit()
    except KeyboardInterrupt as error:
        how = f"--judge_every {every} --curvature {draws}"
        again = f"bat-fast study dynamics --resume --out {out} {how}"
        raise Interrupted(
            f"interrupted after epoch {trainer.epoch}; continue with: {again}", *error.args[:1]
        ) from None
    print_results(results, out, trainer.folder.curves)
