"""What ``bat-fast train`` takes beside the settings: about the run itself."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from bat_fast.cli.parser import Parser

if TYPE_CHECKING:
    from bat_fast.train import Observer

LOGS = {"tensorboard": "TensorBoard", "wandb": "WandB", "mlflow": "MLflow"}
"""Module of `bat_fast.integrations` -> its observer."""


def run_parser() -> Parser:
    """Reads what is said about the run itself, and leaves the settings alone."""
    parser = Parser("train", "", add_help=False)
    add = parser.add_argument
    add("--recipe", action="append", default=[], help="shipped settings; `bat-fast recipes` lists them")
    add("--config", action="append", default=[], help="YAML file with settings")
    add("--out", type=Path, help="run folder (default: runs/NAME-DATE-TIME-sSEED)")
    add("--fast", action="store_true", help="the same as --speed fast")
    add("--resume", action="store_true", help="continue the run in --out")
    add(
        "--record_samples", action="store_true", dest="record",
        help="keep margin, loss and q of each training sample in each epoch, for bat-fast study proxies",
    )  # fmt: skip
    add(
        "--log", nargs="+", choices=LOGS, default=[],
        help="send the metrics of each epoch there too; tensorboard writes into OUT/tensorboard, wandb and "
        "mlflow heed their own variables of the environment, as WANDB_PROJECT and MLFLOW_TRACKING_URI",
    )  # fmt: skip
    add(
        "--seeds",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="train a run for each seed, into OUT/seed-N, and compare them; --resume leaves out what is done",
    )
    add(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="check the settings, build model and method, and stop: no data is read, no file written",
    )
    add(
        "--print_config",
        "--print-config",
        nargs="?",
        const="",
        metavar="skip_default",
        help="print the settings as YAML, all or those that are no default, and stop",
    )
    add("-h", "--help", action="store_true", help="show this, and stop")
    return parser


def loggers(names: Iterable[str]) -> list[Observer]:
    """The observers of ``--log``.

    Raises:
        ImportError: the package of one is not installed.
    """
    return [getattr(import_module(f"bat_fast.integrations.{name}"), LOGS[name])() for name in names]


def run_options() -> list[str]:
    """The options of `run_parser`."""
    return run_parser().options()
