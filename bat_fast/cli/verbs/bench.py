"""``bat-fast bench``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bat_fast.cli.parser import Parser
from bat_fast.config import TrainConfig

SUMMARY = "speed, memory and strength of the attack, engine by engine: bat-fast bench --run runs/my-run"
_IMAGES = 1000


def run(words: list[str]) -> None:
    """Measure attack and training step, or the largest batch, and print what was found."""
    from bat_fast.cli.settings import read_command, read_run

    parser = _parser()
    options, settings = parser.parse_known_args(words)
    if options.images is not None and options.run is None:
        raise ValueError("--images goes with --run")
    if options.images is not None and options.images < 1:
        raise ValueError(f"--images must be at least 1, got {options.images}")
    also = parser.options()
    if options.run is None:
        command = read_command(settings, also)
        command.refuse("--seeds", "--record_samples", "--log")
        config = command.config
    else:
        config = read_run(options.run, settings, also)
    if options.largest_batch or options.memory:
        _largest_batch(parser, options, config)
        return
    from bat_fast.measure.speed import measure_speed
    from bat_fast.report.speed_table import print_speed

    found = measure_speed(
        config,
        engines=options.engines,
        precisions=[None if name == "fp32" else name for name in options.precisions],
        seconds=options.seconds,
        with_peers=options.peers,
        run=options.run,
        images=_IMAGES if options.images is None else options.images,
        tell=_tell,
    )
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print_speed(found)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> Parser:
    parser = Parser(
        "bench",
        "Speed and memory of attack and training step, engines side by side.",
        epilog="Options of `bat-fast train` set what is measured: --recipe, --model.name, --batch_size ...",
    )
    add = parser.add_argument
    add("--engines", nargs="+", default=["eager", "frozen"], help="of bat_fast.PGD")
    add("--precisions", nargs="+", default=["fp32", "bf16"], help="fp32, bf16, fp16")
    add(
        "--seconds",
        type=float,
        default=5.0,
        help="for the attacks, and again for the steps (default: 5)",
    )
    add("--peers", action="store_true", help="also what other libraries do")
    add("--run", type=Path, help="folder of a finished run: its settings, trained model and test images")
    add("--images", type=int, help=f"with --run: test images for loss and robust (default: {_IMAGES})")
    add(
        "--largest_batch",
        action="store_true",
        help="instead: the largest batch whose training step fits, and optim.micro_batches for the one set",
    )
    add(
        "--memory",
        type=_mib,
        help="with --largest_batch: what it may take, such as 8GiB (default: 80 %% of what is free; "
        "of a GPU 90 %%)",
    )
    add("--json", action="store_true", help="print JSON")
    return parser


def _mib(text: str) -> float:
    from bat_fast.measure.memory import mib

    try:
        return mib(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None  # argparse keeps the message of this one alone


def _largest_batch(parser: argparse.ArgumentParser, options: argparse.Namespace, config: TrainConfig) -> None:
    from bat_fast.measure.largest_batch import largest_batch
    from bat_fast.report.largest_table import print_largest

    if not options.largest_batch:
        raise ValueError("--memory goes with --largest_batch")
    for name in ("engines", "precisions", "seconds", "peers", "images"):
        if getattr(options, name) != parser.get_default(name):
            raise ValueError(
                f"--{name} does not go with --largest_batch, which takes --attack.engine and "
                "--attack.precision as training does"
            )
    found = largest_batch(config, options.memory)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print_largest(found)
