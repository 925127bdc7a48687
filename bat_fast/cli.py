"""The command line: ``bat-fast VERB ...``, the same as ``python -m bat_fast VERB ...``."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from bat_fast.config import Ratio, TrainConfig, recipes

_BAD_INPUT = (ValueError, TypeError, OSError, argparse.ArgumentError)
_OPTIONAL = {"jsonargparse", "yaml", "rich", "matplotlib", "safetensors", "sklearn", "timm", "torchvision"}
_USAGE = """usage: bat-fast VERB ... [--debug]

  train   train a model: bat-fast train --recipe digits-bat
  eval    accuracy of a saved model: bat-fast eval runs/my-run
  bench   speed, memory and strength of the attack, engine by engine: bat-fast bench --run runs/my-run
  recipes what `train --recipe` knows, one line each
  prepare decode a data set once into a cache: bat-fast prepare tiny-imagenet PATH
  info    versions, devices, and which operators run natively

`bat-fast VERB --help` lists the options of a verb. --debug shows the traceback of an error."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 (failure), 2 (bad input), 130 (interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _run(words)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _OPTIONAL:
            return _say(f'error: {error.name} is not installed: pip install "bat_fast[train]"', 1)
        return _say(f"error: {_one_line(error)}", 2 if isinstance(error, _BAD_INPUT) else 1)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if words else 2
    verbs = {
        "train": _train,
        "eval": _eval,
        "bench": _bench,
        "recipes": _recipes,
        "prepare": _prepare,
        "info": _info,
    }
    if words[0] not in verbs:
        raise ValueError(f"no verb {words[0]!r}; there are {', '.join(verbs)}")
    verbs[words[0]](words[1:])
    return 0


def _train(words: list[str]) -> None:
    for package in ("matplotlib", "rich"):  # needed at the end of the run: better missed now than then
        import_module(package)
    from bat_fast.report.table import print_results
    from bat_fast.train import Trainer
    from bat_fast.train.build import dry_run
    from bat_fast.train.settings import read_command

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
        raise SystemExit(
            _say(
                f"interrupted after epoch {trainer.epoch}; continue with: "
                f"bat-fast train --resume --out {command.out}",
                130,
            )
        ) from None
    print_results(results, trainer.folder.path, trainer.folder.curves)


def _eval(words: list[str]) -> None:
    from bat_fast.evaluate.saved import SPLITS, evaluate_saved
    from bat_fast.report.table import print_evaluation

    parser = _Parser("eval", "Clean and PGD accuracy of a saved model.")
    parser.add_argument("run", help="run folder or model.safetensors")
    parser.add_argument("--split", choices=SPLITS, default="test", help="part of the data (default: test)")
    parser.add_argument("--steps", type=int, default=20, help="PGD steps (default: 20)")
    parser.add_argument("--eps", type=Ratio, help="radius, such as 8/255 (default: that of the training)")
    parser.add_argument("--batch_size", type=int, default=256, help="images at a time (default: 256)")
    parser.add_argument("--root", help="folder of the data (default: that of the training)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--json", action="store_true", help="print JSON, accuracies in [0, 1]")
    options = vars(parser.parse_args(words))
    as_json, run = options.pop("json"), options.pop("run")
    evaluation = evaluate_saved(run, **options)
    if as_json:
        print(json.dumps(evaluation, indent=2))
    else:
        print_evaluation(evaluation, run)


def _bench(words: list[str]) -> None:
    from bat_fast.report.speed_table import print_speed
    from bat_fast.train.settings import read_command, read_run
    from bat_fast.train.speed import measure_speed

    parser = _Parser("bench", "Speed and memory of attack and training step, engines side by side.")
    parser.add_argument("--engines", nargs="+", default=["eager", "frozen"], help="of bat_fast.PGD")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], help="fp32, bf16, fp16")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each comparison (default: 5)")
    parser.add_argument("--peers", action="store_true", help="also what other libraries do")
    run = "folder of a finished run: its settings, its trained model and its test images, not random ones"
    parser.add_argument("--run", type=Path, help=run)
    images = "of --run, for the columns loss and robust (default: 1000)"
    parser.add_argument("--images", type=int, help=f"test images {images}")
    largest = "instead: the largest batch whose training step fits, and optim.micro_batches for the one set"
    parser.add_argument("--largest_batch", action="store_true", help=largest)
    share = "that it may take, such as 8GiB (default: 80 %% of what is free; of a GPU 90 %%)"
    parser.add_argument("--memory", help=f"for --largest_batch: memory {share}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = (
        "Every option of `bat-fast train` sets what is measured: --recipe, --model.name, --batch_size ..."
    )
    options, settings = parser.parse_known_args(words)
    if options.images is not None and options.run is None:
        raise ValueError("--images goes with --run")
    config = read_command(settings).config if options.run is None else read_run(options.run, settings)
    if options.largest_batch or options.memory:
        _largest_batch(parser, options, config)
        return
    found = measure_speed(
        config,
        engines=options.engines,
        precisions=[None if name == "fp32" else name for name in options.precisions],
        seconds=options.seconds,
        with_peers=options.peers,
        run=options.run,
        images=1000 if options.images is None else options.images,
    )
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print_speed(found)


def _largest_batch(parser: argparse.ArgumentParser, options: argparse.Namespace, config: TrainConfig) -> None:
    from bat_fast.report.largest_table import print_largest
    from bat_fast.train.largest import largest_batch
    from bat_fast.train.memory import mib

    if not options.largest_batch:
        raise ValueError("--memory goes with --largest_batch")
    for name in ("engines", "precisions", "seconds", "peers", "images"):
        if getattr(options, name) != parser.get_default(name):
            raise ValueError(
                f"--{name} does not go with --largest_batch, which takes --attack.engine and "
                "--attack.precision as training does"
            )
    found = largest_batch(config, None if options.memory is None else mib(options.memory))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print_largest(found)


def _recipes(words: list[str]) -> None:
    parser = _Parser("recipes", "The recipes that come with bat_fast, one line each.")
    parser.parse_args(words)
    files = recipes()
    width = max(map(len, files)) + 2
    for name, path in files.items():
        print(f"{name:<{width}}{path.read_text().partition(chr(10))[0].removeprefix('# ')}")


def _prepare(words: list[str]) -> None:
    from bat_fast.data.prepare import NAMES, prepare
    from bat_fast.report.progress import counting

    parser = _Parser("prepare", "Decode a data set once into a memory-mapped cache; no file is moved.")
    parser.add_argument("name", choices=NAMES, help="the data set")
    parser.add_argument("path", help="its folder, as --data.root has it")
    parser.add_argument("--out", help="folder of the cache (default: bat_fast_cache in PATH)")
    parser.add_argument("--workers", type=int, help="threads that decode (default: one for each core)")
    parser.add_argument("--on_corrupt", choices=("error", "skip"), default="error", help="default: error")
    options = vars(parser.parse_args(words))
    with counting("images") as progress:
        summary = prepare(**options, progress=progress)
    print(summary)


def _info(words: list[str]) -> None:
    from bat_fast.report.info import collect_info, print_info

    parser = _Parser("info", "Versions, devices, and which operators run natively.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args(words).json
    info = collect_info()
    if as_json:
        print(json.dumps(info, indent=2))
    else:
        print_info(info)


class _Parser(argparse.ArgumentParser):
    """Raises its errors instead of printing the usage and leaving."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"bat-fast {verb}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, _BAD_INPUT) else f"{type(error).__name__}: {text}"


def _say(message: str, status: int) -> int:
    print(f"bat-fast: {message}", file=sys.stderr)
    return status
