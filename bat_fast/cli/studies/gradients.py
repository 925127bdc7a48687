"""``bat-fast study gradients``."""

from __future__ import annotations

from pathlib import Path

from bat_fast.cli.parser import Parser

SUMMARY = "size of the weights' gradient, and how fast it turns"


def run(words: list[str]) -> None:
    """Measure finished runs, and print a line for each."""
    parser = Parser(
        "study gradients",
        "Norm of the gradient of the weights on attacked training images, and its cosine with that at other "
        "weights: where a step goes, and in random directions.",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    add("--distances", nargs="+", type=float, default=[0.01, 0.1, 1.0], help="default: 0.01 0.1 1")
    add("--images", type=int, default=512, help="training images (default: 512)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    options = parser.parse_args(words)
    if options.images < 2 or min(options.distances) <= 0:
        raise ValueError("--images must be at least 2, and --distances above 0")
    from bat_fast.study.subject import measure_gradients, read_subject

    for path in options.runs:
        found = measure_gradients(read_subject(path, options.images, options.device), options.distances)
        print(f"{path}: norm {found.magnitude:.4g}")
        for name, cosines in (("along", found.along), ("by chance", found.by_chance)):
            print(f"  {name:<10}" + "  ".join(f"{d:g}: {cosine:+.3f}" for d, cosine in cosines.items()))
