"""``bat-fast eval``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bat_fast.cli.parser import Parser, dotted
from bat_fast.ratio import Ratio

if TYPE_CHECKING:
    from bat_fast.world.ranks import World

SUMMARY = "accuracy of a model, clean and attacked: bat-fast eval runs/my-run --attack aa"
_FOREIGN = ("model", "activation", "num_classes", "mean", "std", "data")
_PATIENCE = 30 * 24 * 3600.0  # seconds: a share of the images may take much longer than another


def run(words: list[str]) -> None:
    """Evaluate a model, and print its accuracies."""
    words, given = dotted(words, ("model.options", "data.options"))
    parser = _parser()
    options: dict[str, Any] = {k: v for k, v in vars(parser.parse_args(words)).items() if v is not None}
    as_json, path, file = options.pop("json"), options.pop("run"), options.pop("out", None)
    foreign = {name: options.pop(name) for name in _FOREIGN if name in options}
    foreign |= {"options": given["model.options"], "data_options": given["data.options"]}
    from bat_fast.evaluate.attacks import attacks_named, is_autoattack

    names = attacks_named(options.get("attack", []))
    automatic = any(map(is_autoattack, names))
    if "steps" in options and names:
        raise ValueError(
            "--steps: AutoAttack has its own number of steps; leave it out"
            if automatic
            else "--steps: write it behind the name of the attack, as in pgd50"
        )
    for name in ("mode", "per_sample"):
        if name in options and not automatic:
            raise ValueError(f"--{name}: only --attack aa takes it")
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"--out: there is no folder {file.parent}")
    from bat_fast.evaluate.kept import State, place_for
    from bat_fast.evaluate.subject import Foreign
    from bat_fast.world.launch import joined

    state, finished = State(options.pop("state", None) or place_for(path)), False
    with joined(patience=_PATIENCE) as world:
        if automatic:
            tell = _tell if sys.stderr.isatty() and world.first else None
            options = {"batch_size": 250, "tell": tell} | options
        try:
            _judge(path, file, options | {"foreign": Foreign(**foreign), "state": state}, world, as_json)
            world.barrier()  # the others keep what they have until it is said
            finished = True
        finally:
            state.end(finished=finished)


def _judge(path: str, file: Path | None, options: dict[str, Any], world: World, as_json: bool) -> None:
    """Evaluate with the other processes; the first says what was found."""
    from bat_fast._atomic import atomic_text
    from bat_fast.evaluate.saved import evaluate_saved
    from bat_fast.report.table import print_evaluation

    evaluation = evaluate_saved(path, **options, world=world)
    if not world.first:
        return
    if file is not None:
        atomic_text(file, json.dumps({"model": path} | evaluation, indent=2) + "\n")
    if as_json:
        print(json.dumps(evaluation, indent=2), flush=True)
    else:
        print_evaluation(evaluation, path)


def _parser() -> Parser:
    parser = Parser(
        "eval",
        "Clean and robust accuracy of a model: of a run, of a file of weights with --model and --data, or of "
        "timm:NAME with --data. Their options are --model.options.NAME and --data.options.NAME.",
    )
    add = parser.add_argument
    add("run", help="run folder, model.safetensors, FILE.pt or FILE.safetensors of weights, or timm:NAME")
    add("--split", choices=("train", "val", "test"), default="test", help="part of the data (default: test)")
    add("--attack", nargs="+", help="clean, pgd20, pgd50x10-any (10 starts, any step), apgd-ce, aa, ...")
    add("--steps", type=int, help="PGD steps, where no --attack is named (default: 20)")
    add("--eps", type=Ratio, nargs="+", help="radius such as 8/255, or several (default: of the training)")
    add("--norm", choices=("linf", "l2"), help="of the ball (default: that of the training)")
    add("--loss", help="that the attack climbs: ce, margin, dlr, ... (default: ce)")
    add("--restarts", type=int, help="starts of each attack (default: 1)")
    add("--step_size", type=Ratio, help="of PGD, at the largest radius (default: of the training, or eps/4)")
    add("--seed", type=int, help="of the random numbers (default: that of the training; of aa 0)")
    add("--n", type=int, help="the first n images alone")
    add("--mode", choices=("exact", "replay", "quick"), help="of aa (default: exact)")
    add("--per_class", action="store_true", help="accuracy of each class, and confusion in the JSON")
    add("--per_sample", metavar="FILE.csv", help="of aa: write a verdict for each image; or FILE.parquet")
    add(
        "--checks", choices=("none", "cheap", "full"), default="cheap",
        help="look for signs that the model hides its gradient (default: cheap)",
    )  # fmt: skip
    add(
        "--mem_scores", metavar="FILE.npz", help="memorisation scores: also typical and atypical images apart"
    )
    add("--mem_threshold", type=float, help="score above which an image is atypical (default: 0.15)")
    add("--save_adversarial", metavar="FILE.safetensors", help="write every image under the attack")
    add(
        "--state",
        metavar="FOLDER",
        type=Path,
        help="where an evaluation goes on that was killed (default: eval/ in the run)",
    )
    add("--out", metavar="FILE.json", type=Path, help="write the results as JSON")
    add("--model", help="what the weights belong to: preactresnet18, timm:resnet18, FILE.py:CLASS, ...")
    add("--activation", help="of that model (default: relu)")
    add("--num_classes", type=int, help="logits of that model (default: classes of the data)")
    add("--mean", type=Ratio, nargs="+", help="that it subtracts from each channel of pixels in [0, 1]")
    add("--std", type=Ratio, nargs="+", help="that it divides each channel by")
    add("--data", help="data set: cifar10, image_folder, ...")
    add("--root", "--data.root", dest="root", help="folder of the data (default: that of the training)")
    add("--batch_size", type=int, help="images at a time (default: 256; of aa 250)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--json", action="store_true", help="print JSON, accuracies in [0, 1]")
    return parser


def _tell(name: str, seen: int, count: int, robust: int) -> None:
    """One line that is written over: how far AutoAttack is."""
    print(f"\r{name}: {seen} of {count} images, {robust} robust so far\033[K", end="", file=sys.stderr)
    if seen == count:
        print(file=sys.stderr)
