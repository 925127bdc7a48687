"""``bat-fast study memorisation``."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bat_fast.cli.parser import Interrupted, Parser, dotted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bat_fast.config import TrainConfig
    from bat_fast.study.folder import StudyFolder
    from bat_fast.study.scores import Scores

SUMMARY = "memorisation and influence of each sample, from models on random subsets"


def run(words: list[str]) -> None:
    """Train the models that are left, and estimate from those that are done."""
    words, given_to_cluster = dotted(words, ("cluster",))
    parser = _parser()
    path = Path(words[0]) if words and not words[0].startswith("-") else None
    options, rest = parser.parse_known_args(words if path is None else words[1:])
    if options.k is not None and options.k < 2:
        raise ValueError(f"--k must be at least 2, got {options.k}")
    if options.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {options.workers}")
    share = _share(options.job)
    if options.tasks < 1:
        raise ValueError(f"--tasks must be at least 1, got {options.tasks}")
    if options.cluster is None and given_to_cluster["cluster"]:
        raise ValueError(
            f"--cluster.{next(iter(given_to_cluster['cluster']))}: say --cluster slurm or local too"
        )
    if options.cluster is not None and (share is not None or options.workers > 1 or options.status):
        raise ValueError("--cluster shares the models out itself: leave --job, --workers and --status out")
    from bat_fast.cli.settings import read_command

    mine = parser.options()
    if path is not None:
        if rest:
            raise ValueError(f"{rest[0]}: a folder says its settings itself; leave out what follows it")
        read = ["--config", str(path / "config.yaml"), "--out", str(path)]
        _check_there(path)
        command = read_command(read, mine)
    else:
        command = read_command(rest, mine)
        command.refuse("--seeds", "--record_samples", "--log")
    if command.dry_run:
        from bat_fast.train.build import dry_run

        print(dry_run(command.config))
        return
    from bat_fast.study.folder import Plan, StudyFolder
    from bat_fast.train.validation import validation_attack

    config = command.config
    name = f"{config.data.name}-{config.method['name']}-{datetime.now():%Y%m%d-%H%M%S}"
    out = command.out if command.named else Path("studies") / name
    folder = StudyFolder(out)
    there = folder.read_plan() if folder.plan.exists() else None
    if there is None and options.status:
        raise FileNotFoundError(f"{out} is no folder of a study: there is no study.json in it")
    usual = Plan(k=400, ratio=0.7, attack=validation_attack(config.eval), seed=config.seed)
    given = {
        name: getattr(options, name)
        for name in ("k", "ratio", "attack")
        if getattr(options, name) is not None
    }
    if given.get("attack") == "none":
        given["attack"] = None
    plan = Plan(**(vars(there or usual) | given))
    theirs = None if options.mem_scores is None else _published(config, options.mem_scores)
    if options.cluster is not None:
        from bat_fast.study.cluster import check

        check(options.cluster, given_to_cluster["cluster"])
    if options.status:
        folder.check(plan, config)
    else:
        folder.open(plan, config)
        print(f"study       {out}", flush=True)
    if options.cluster is not None:
        _submit(folder, config, options.cluster, min(options.tasks, plan.k), given_to_cluster["cluster"])
        return
    if not options.status:
        _train(folder, config, share, options.workers)
    done, running, left = folder.status()
    print(f"models      {len(done)} done, {len(running)} running, {len(left)} open")
    if share is None and len(done) > 1:
        _estimate(folder, config, options.mem_scores, theirs)


def _parser() -> Parser:
    parser = Parser(
        "study memorisation",
        "Train k models on random subsets and see which samples are right only where they were seen. "
        "Settings of the models are those of bat-fast train (--recipe, --config, --out, --SETTING VALUE). "
        "The same command, or the folder alone (bat-fast study memorisation DIR), goes on with what is left; "
        "several may run at once, on any machines that share the folder. "
        "--cluster.OPTION VALUE goes to submitit (--cluster.slurm_partition gpu --cluster.gpus_per_node 1).",
    )
    add = parser.add_argument
    add("--k", type=int, help="number of models (default: 400); more may be added later")
    add("--ratio", type=float, help="share of the training samples in a subset (default: 0.7)")
    add("--attack", help="that judges the models: pgd10, ..., or none (default: that of validation)")
    add("--workers", type=int, default=1, help="processes here, which share cores and GPUs (default: 1)")
    add("--job", help="train model N alone, or N/M: the N-th of M shares of them, as a job array does")
    add("--cluster", choices=("slurm", "local"), help="queue jobs there that train the models, and end")
    add("--tasks", type=int, default=8, help="of --cluster: jobs that share the models (default: 8)")
    add("--status", action="store_true", help="train nothing; say how far it is, and what is known")
    add("--mem_scores", metavar="FILE", type=Path, help="published memorisation values to compare with")
    return parser


def _check_there(path: Path) -> None:
    if not (path / "study.json").exists():
        raise FileNotFoundError(
            f"{path} is no folder of a study: begin one with bat-fast study memorisation --recipe NAME --out "
            f"{path}"
        )


def _share(text: str | None) -> tuple[int, int] | None:
    """``7`` and ``7/100``: which of how many shares; (7, 0) is model 7 alone."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)(?:/(\d+))?", text)
    number, parts = (int(found[1]), int(found[2] or 0)) if found else (-1, 0)
    if found is None or (found[2] is not None and not number < parts):
        raise ValueError(f"--job must be the number of a model, or N/M with N below M, got {text!r}")
    return number, parts


def _train(folder: StudyFolder, config: TrainConfig, share: tuple[int, int] | None, workers: int) -> None:
    from bat_fast.report.progress import counting
    from bat_fast.study.jobs import work_together

    k = folder.read_plan().k
    jobs: Sequence[int] = range(k)
    if share is not None:
        jobs = range(share[0], k, share[1]) if share[1] else [share[0]]
        if share[0] >= k:
            raise ValueError(f"--job: there are models 0 to {k - 1}, and no {share[0]}")
    try:
        with counting("models") as tell:
            work_together(folder, config, jobs, workers, tell)
    except KeyboardInterrupt as error:
        again = f"bat-fast study memorisation {folder.path}"
        raise Interrupted(f"interrupted; continue with: {again}", *error.args[:1]) from None


def _submit(
    folder: StudyFolder, config: TrainConfig, cluster: str, tasks: int, options: dict[str, Any]
) -> None:
    from bat_fast.study.cluster import submit

    jobs = submit(folder, config, cluster, tasks, options)
    print(f"queued      {', '.join(job.job_id for job in jobs)}; what they say is in {folder.path / 'jobs'}")
    print(f"how far     bat-fast study memorisation {folder.path} --status")


def _published(config: TrainConfig, path: Path) -> Scores:
    from bat_fast.study.jobs import read_splits
    from bat_fast.study.scores import read_scores

    return read_scores(path, read_splits(config).train)


def _estimate(
    folder: StudyFolder, config: TrainConfig, published: Path | None, theirs: Scores | None
) -> None:
    from bat_fast.study.jobs import read_splits
    from bat_fast.study.rank import spearman
    from bat_fast.study.scores import write_scores
    from bat_fast.study.summary import most_memorised, summary

    splits = read_splits(config)
    found = write_scores(folder, splits)
    print("\n".join(summary(folder.read_plan(), found)))
    for prefix, title in (("", "clean"), ("robust_", "robust")):
        if f"tr_{prefix}mem" in found:
            print(f"most memorised, {title}")
            print("\n".join(f"  {line}" for line in most_memorised(found, prefix)))
    if theirs is not None:
        value, low, high, n = spearman(found["tr_mem"], theirs.of(found["tr_index"]))
        print(f"rank correlation with {published}: {value:.3f} [{low:.3f}, {high:.3f}] on {n} samples")
    print(f"values      {folder.scores}")
