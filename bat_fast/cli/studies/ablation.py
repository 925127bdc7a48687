"""``bat-fast study ablation``."""

from __future__ import annotations

from pathlib import Path

from bat_fast.cli.parser import Interrupted, Parser

SUMMARY = "train without the atypical, the harmful, or as many other samples"


def run(words: list[str]) -> None:
    """Train the models that are left, and print accuracies on typical and atypical test images."""
    parser = Parser(
        "study ablation",
        "Leave samples out that a study of memorisation found atypical, or a recorded run harmful (high q), "
        "and as many others, and see what becomes of typical and atypical test images.",
    )
    add = parser.add_argument
    add("study", type=Path, metavar="STUDY", help="folder of bat-fast study memorisation")
    add("run", type=Path, nargs="?", metavar="RUN", help="run with --record_samples, which knows the harmful")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the models (default: 0 1 2)")
    add("--kind", choices=("clean", "robust"), default="robust", help="of memorisation (default: robust)")
    options = parser.parse_args(words)
    from bat_fast.cli.settings import read_command
    from bat_fast.report.progress import counting
    from bat_fast.study.ablation import ablate, effects
    from bat_fast.study.compare import read_per_sample
    from bat_fast.study.folder import StudyFolder
    from bat_fast.study.groups import places_of, read_groups
    from bat_fast.study.summary import effect_lines

    study = StudyFolder(options.study)
    study.read_plan()
    config = read_command(["--config", str(study.config), "--out", str(study.path)]).config
    groups, q = read_groups(study, options.kind), None
    if options.run is not None:
        found = read_per_sample(options.run)
        q = found["q"][places_of(found["index"], groups.train_ids)]
    try:
        with counting("models") as tell:
            ablate(study, config, groups, q, options.seeds, config.device, tell)
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted; the same command goes on", *error.args[:1]) from None
    print("\n".join(effect_lines(list(effects(study, groups)), groups)))
