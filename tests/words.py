"""The words of the operators: each is one word in seven files, and stands in no list."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
FOR_CPUS = {"ascent", "network", "squares", "walk"}  # without a CUDA kernel, and why is said in their headers
PLACES = [
    "csrc/kernels/{}.h",
    "csrc/torch/{}.cpp",
    "bat_fast/ops/{}.py",
    "tests/ops/test_{}.py",
    "bench/operators/{}.py",
]
CUDA_PLACES = ["csrc/kernels/{}.cu", "tests/cuda_on_host/test_{}.cpp"]


def _in(place: str) -> set[str]:
    """What stands for the word in the files of a place."""
    before, _, after = Path(place).name.partition("{}")
    files = (ROOT / place).parent.glob(f"{before}[!_]*{after}")
    return {file.name.removeprefix(before).removesuffix(after) for file in files}


# In these folders nothing else lies.
WORDS = sorted(set().union(*(_in(place) for place in (PLACES[2], PLACES[4], *CUDA_PLACES))))


def places(word: str) -> list[Path]:
    """The files that the operator ``word`` consists of."""
    own = PLACES if word in FOR_CPUS else PLACES + CUDA_PLACES
    return [ROOT / place.format(word) for place in own]
