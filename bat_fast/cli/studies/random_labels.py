"""``bat-fast study random-labels``."""

from __future__ import annotations

import json
from pathlib import Path

from bat_fast.cli.parser import Parser

SUMMARY = "how well a method fits labels drawn by chance"


def run(words: list[str]) -> None:
    """Train each method at each rate, print a line for each and write them as JSON."""
    parser = Parser(
        "study random-labels",
        "Train methods on labels of which a share is drawn by chance, without weight decay and augmentation "
        "(Dong et al. 2021). Settings are those of bat-fast train (--recipe, --SETTING VALUE).",
    )
    add = parser.add_argument
    add("--methods", nargs="+", default=["pgd_at", "trades"], help="default: pgd_at trades")
    add("--rates", nargs="+", type=float, default=[0.0, 0.5, 1.0], help="in [0, 1] (default: 0 0.5 1)")
    add("--json", type=Path, metavar="FILE", help="write the numbers here too")
    options, rest = parser.parse_known_args(words)
    if bad := [rate for rate in options.rates if not 0 <= rate <= 1]:
        raise ValueError(f"--rates must be in [0, 1], got {bad[0]:g}")
    if options.json is not None and not options.json.parent.is_dir():
        raise ValueError(f"--json: there is no folder {options.json.parent}")
    from bat_fast import methods
    from bat_fast._atomic import atomic_text
    from bat_fast.cli.settings import read_command
    from bat_fast.study.random_labels import fit
    from bat_fast.train.build import dry_run
    from bat_fast.train.validation import validation_attack

    command = read_command(rest, parser.options())
    command.refuse("--out", "--resume", "--seeds", "--record_samples", "--log")
    config = command.config
    for name in options.methods:
        methods.create(name)
    if command.dry_run:
        print(dry_run(config))
        return
    print(f"{'method':<10}{'rate':>6}{'train':>10}{'robust':>9}{'test':>9}{'robust':>9}")
    rows = []
    for name in options.methods:
        for rate in options.rates:
            row = fit(config, name, rate, validation_attack(config.eval), config.device)
            rows.append(row)
            shares = [row[key] for key in ("train_clean", "train_robust", "test_clean", "test_robust")]
            print(f"{name:<10}{rate:>6.2f} " + "".join(f"{share:>9.1%}" for share in shares), flush=True)
    if options.json is not None:
        atomic_text(options.json, json.dumps(rows, indent=2) + "\n")
