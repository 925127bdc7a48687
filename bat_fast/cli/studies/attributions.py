"""``bat-fast study attributions``."""

from __future__ import annotations

from pathlib import Path

from bat_fast.cli.parser import Parser

SUMMARY = "how sparse the attributions of natural and of robust models are"


def run(words: list[str]) -> None:
    """Measure finished runs, and print them side by side."""
    parser = Parser(
        "study attributions",
        "Gini index of input gradients and of integrated gradients on test images: how far an answer hangs "
        "on few pixels. The first run is what the others are compared with, such as one that was trained "
        "naturally. It needs captum.",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folders, of the same data and seed")
    add("--images", type=int, default=256, help="test images (default: 256)")
    add("--steps", type=int, default=50, help="of the integral (default: 50)")
    add("--study", type=Path, metavar="STUDY", help="keep it in this folder, for bat-fast study report")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    options = parser.parse_args(words)
    if options.images < 2 or options.steps < 2:
        raise ValueError("--images and --steps must be at least 2")
    from bat_fast.report.progress import counting
    from bat_fast.study.attributions import KINDS, compare, in_words, sparsity, write_attributions
    from bat_fast.study.folder import StudyFolder

    if options.study is not None:
        StudyFolder(options.study).read_plan()
    with counting("models") as tell:
        how = {"steps": options.steps, "device": options.device, "tell": tell}
        found = compare(options.runs, options.images, **how)
    count = found[KINDS[0]].shape[1]
    print(
        f"sparsity (Gini index) of attributions on {count} test images, +- is the 95 % t-interval over them"
    )
    width = 2 + max(map(len, found["names"]))
    print(f"{'':<{width}}" + "".join(f"{kind:<18}than the first   " for kind in KINDS).rstrip())
    for number, name in enumerate(found["names"]):
        cells = ""
        for kind in KINDS:
            own, more = sparsity(found, number, kind)
            cells += f"{in_words(own, between='+-'):<18}"
            cells += f"{in_words(more, signed=True, between='+-') if number else '':<17}"
        print(f"{name:<{width}}{cells}".rstrip())
    worst = float(found["left"].max())
    print(
        f"integrated gradients lack {worst:.1%} of the change of the logit at most, in {options.steps} steps"
    )
    if worst > 0.05:
        print("that is much: take more --steps")
    if options.study is not None:
        print(f"values      {write_attributions(options.study, found)}")
