"""``bat-fast prepare``."""

from __future__ import annotations

from bat_fast.cli.parser import Parser

SUMMARY = "decode a data set once into a cache: bat-fast prepare tiny-imagenet PATH"


def run(words: list[str]) -> None:
    """Write the cache of a data set, and print what is in it."""
    from bat_fast.data.prepare import names, prepare
    from bat_fast.report.progress import counting

    parser = Parser("prepare", "Decode a data set once into a memory-mapped cache; no file is moved.")
    parser.add_argument("name", type=_dashed, choices=names(), help="the data set")
    parser.add_argument("path", help="its folder, as --data.root has it")
    parser.add_argument("--out", help="folder of the cache (default: bat_fast_cache in PATH)")
    parser.add_argument("--size", type=int, help="height and width (default: that of data.options.size)")
    parser.add_argument("--exact", action="store_true", help="image-folder: all files have that size already")
    parser.add_argument("--workers", type=int, help="threads that decode (default: one for each core)")
    parser.add_argument("--on_corrupt", choices=("error", "skip"), default="error", help="default: error")
    options = vars(parser.parse_args(words))
    with counting("images") as progress:
        summary = prepare(**options, progress=progress)
    print(summary)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
