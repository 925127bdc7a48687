"""``bat-fast study proxies``."""

from __future__ import annotations

from pathlib import Path

from bat_fast.cli.parser import Parser

SUMMARY = "what one recorded run says about each sample, against memorisation"


def run(words: list[str]) -> None:
    """Write ``per_sample.npz`` of a run, and print rank correlations."""
    parser = Parser(
        "study proxies",
        "Forgetting, first epoch learnt, area under the margin, cumulative loss, confidence and BAT's q of "
        "each training sample of a run that was trained with --record_samples, and its curvature after "
        "bat-fast study dynamics: written to per_sample.npz, and per_sample.parquet with pyarrow.",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="run folder")
    add("--mem_scores", type=Path, metavar="FILE", help="study of memorisation, or a published file")
    options = parser.parse_args(words)
    from bat_fast.study.compare import correlations, read_per_sample, scores_for

    found = read_per_sample(options.run)
    print(f"values      {options.run / 'per_sample.npz'}")
    if options.mem_scores is None:
        return
    scores = scores_for(options.run, options.mem_scores)
    rows = correlations(found, scores)
    kinds = list(next(iter(rows.values())))
    print("rank correlation with memorisation, harder samples up; 95 % of the bootstrap")
    print(f"{'':<14}" + "".join(f"{kind:<24}" for kind in kinds))
    for name, row in rows.items():
        cells = (f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in row.values())
        print(f"{name:<14}" + "".join(f"{cell:<24}" for cell in cells))
