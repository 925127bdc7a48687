"""Every operator at small sizes: for compute-sanitizer, and to compare the CPU with the GPU.

compute-sanitizer python bench/gpu_small.py --device cuda
python bench/gpu_small.py --compare
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import torch
from operators import Call, Inputs, modules, tensors
from torch import Tensor


def calls(device: str) -> Iterator[Call]:
    """The small calls of `bench/operators`, with the same inputs on every device."""
    for module in modules():
        yield from module.small(Inputs(device, torch.Generator().manual_seed(7)))


def results(device: str) -> list[tuple[Call, list[Tensor]]]:
    return [(call, [t.cpu() for t in tensors(call.run())]) for call in calls(device)]


def differences() -> list[str]:
    """What the CPU and the GPU compute differently: at all where bits must agree, else beyond rounding."""
    wrong = []
    for (call, ours), (_, theirs) in zip(results("cpu"), results("cuda"), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            error = float((a - b).norm() / a.norm().clamp_min(1e-30))
            if not torch.equal(a, b) if call.same_bits else not error < 1e-5:
                wrong.append(f"{call.name}: relative difference {error:.1e}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--compare", action="store_true", help="compare the CPU with the GPU")
    options = parser.parse_args()
    if options.compare:
        wrong = differences()
        print(*wrong, sep="\n")
        return int(bool(wrong))
    found = results(options.device)
    print(f"{len(found)} calls ran on {options.device}")
    return int(not all(t.isfinite().all() for _, result in found for t in result))


if __name__ == "__main__":
    sys.exit(main())
