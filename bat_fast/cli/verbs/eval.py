"""``bat-fast eval``."""

from __future__ import annotations

import json
import sys
from typing import Any

from bat_fast.cli.parser import Parser
from bat_fast.ratio import Ratio

SUMMARY = "accuracy of a saved model: bat-fast eval runs/my-run"
_OF_AUTOATTACK = ("mode", "norm", "n", "per_sample")


def run(words: list[str]) -> None:
    """Evaluate a saved model, and print its accuracies."""
    parser = Parser("eval", "Clean and robust accuracy of a saved model.")
    add = parser.add_argument
    add("run", help="run folder or model.safetensors")
    add("--split", choices=("train", "val", "test"), default="test", help="part of the data (default: test)")
    add("--steps", type=int, help="PGD steps (default: 20)")
    add("--attack", help="another attack instead of PGD: aa (AutoAttack), fgsm, apgd, ...")
    add("--eps", type=Ratio, help="radius, such as 8/255 (default: that of the training)")
    add("--mode", choices=("exact", "replay", "quick"), help="of aa (default: exact)")
    add("--norm", choices=("linf", "l2"), help="of aa (default: that of the training)")
    add("--n", type=int, help="of aa: the first n images alone")
    add("--per_sample", metavar="FILE.csv", help="of aa: write a verdict for each image")
    add("--batch_size", type=int, help="images at a time (default: 256; of aa 250)")
    add("--root", "--data.root", dest="root", help="folder of the data (default: that of the training)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--json", action="store_true", help="print JSON, accuracies in [0, 1]")
    options: dict[str, Any] = {k: v for k, v in vars(parser.parse_args(words)).items() if v is not None}
    from bat_fast.evaluate.autoattack import evaluate_autoattack
    from bat_fast.evaluate.saved import evaluate_saved
    from bat_fast.report.table import print_evaluation

    as_json, path = options.pop("json"), options.pop("run")
    if options.get("attack") == "aa":
        if "steps" in options:
            raise ValueError("--steps: AutoAttack has its own number of steps; leave it out")
        del options["attack"]
        evaluation = evaluate_autoattack(path, **options, tell=_tell if sys.stderr.isatty() else None)
    else:
        for name in _OF_AUTOATTACK:
            if name in options:
                raise ValueError(f"--{name}: only --attack aa takes it")
        evaluation = evaluate_saved(path, **options)
    if as_json:
        print(json.dumps(evaluation, indent=2))
    else:
        print_evaluation(evaluation, path)


def _tell(name: str, seen: int, count: int, robust: int) -> None:
    """One line that is written over: how far AutoAttack is."""
    print(f"\r{name}: {seen} of {count} images, {robust} robust so far\033[K", end="", file=sys.stderr)
    if seen == count:
        print(file=sys.stderr)
