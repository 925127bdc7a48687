"""``bat-fast eval``."""

from __future__ import annotations

import json

from bat_fast.cli.parser import Parser
from bat_fast.ratio import Ratio

SUMMARY = "accuracy of a saved model: bat-fast eval runs/my-run"


def run(words: list[str]) -> None:
    """Evaluate a saved model, and print its accuracies."""
    parser = Parser("eval", "Clean and robust accuracy of a saved model.")
    parser.add_argument("run", help="run folder or model.safetensors")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="test", help="part of the data (default: test)"
    )
    parser.add_argument("--steps", type=int, default=20, help="PGD steps (default: 20)")
    parser.add_argument("--attack", help="another attack instead of PGD, such as fgsm")
    parser.add_argument("--eps", type=Ratio, help="radius, such as 8/255 (default: that of the training)")
    parser.add_argument("--batch_size", type=int, default=256, help="images at a time (default: 256)")
    parser.add_argument(
        "--root", "--data.root", dest="root", help="folder of the data (default: that of the training)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--json", action="store_true", help="print JSON, accuracies in [0, 1]")
    options = vars(parser.parse_args(words))
    from bat_fast.evaluate.saved import evaluate_saved
    from bat_fast.report.table import print_evaluation

    as_json, path = options.pop("json"), options.pop("run")
    evaluation = evaluate_saved(path, **options)
    if as_json:
        print(json.dumps(evaluation, indent=2))
    else:
        print_evaluation(evaluation, path)
