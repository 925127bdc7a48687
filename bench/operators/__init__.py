"""The operators beside public PyTorch, a word a file: as repositories write them, and as an expert does.

A new operator is a new module of this package with two functions, and no list to edit:

- ``cases(inputs)`` yields a `Case` for each size that matters; `bench_ops.py` times them.
- ``small(inputs)`` yields a `Call` for each corner of the kernel: sizes that no vector or tile divides,
  layouts, options. `gpu_small.py` runs them under compute-sanitizer and compares the CPU with the GPU.

The versions named ``*_best`` reuse buffers (``work``), write in place, and spell gradients out instead of
recording them; they are also what `torch.compile` is given. A step may use what the attack computed once.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Batches of images and of logits that training and attacks meet.
IMAGES = {"cpu": [(128, 3, 32, 32), (128, 3, 64, 64)], "cuda": [(128, 3, 64, 64), (512, 3, 64, 64)]}
ROWS = [(128, 10), (128, 200), (4096, 1000)]
# A warp holds a row of whole vectors, a warp or a block walks others; sizes that no vector or tile divides.
SMALL_ROWS = [(5, 10), (5, 200), (3, 203), (2, 4099)]
SMALL_IMAGES = [(3, 3, 8, 8), (2, 3, 33, 35), (2, 3, 96, 96)]


@dataclass
class Work:
    """What is timed. Each call returns its results; ``restore`` undoes what calls did in place."""

    native: Callable[[], Any]
    eager: Callable[[], Any] | None
    best: partial[Any] | None
    exact: Callable[[], Any]  # in float64, or the same bits
    restore: Callable[[], object] = lambda: None
    bytes_moved: int = 0  # that no implementation avoids; 0: not limited by memory
    gemms: Callable[[], object] | None = None
    unchecked: tuple[str, ...] = ()  # columns that draw other random numbers
    differentiated: bool = False  # native is a loss and its gradient by autograd


@dataclass
class Case:
    """An operator at a size.

    Args:
        operator: its public name.
        size: what the table says of it.
        make: draws the inputs, and returns what is timed.
        reach: column -> how many times its speed the native kernel has to reach (floor: <= 1; us: at most).
        compiles: ``best`` is measured under `torch.compile` too.
        tolerance: of the norm of the error, relative.
        kernel: the native kernel behind it, where it has another name.
    """

    operator: str
    size: str
    make: Callable[[], Work]
    reach: Mapping[str, float] = field(default_factory=dict)
    compiles: bool = False
    tolerance: float = 1e-5
    kernel: str | None = None

    @property
    def name(self) -> str:
        return f"{self.operator} {self.size}"


class Call(NamedTuple):
    """A small call, the same on every device: ``same_bits``, or equal to rounding."""

    name: str
    run: Callable[[], Any]
    same_bits: bool = False


@dataclass
class Inputs:
    """Random inputs on ``device``; from a ``generator`` of the CPU they are the same on every device."""

    device: str
    generator: torch.Generator | None = None

    @property
    def gpu(self) -> bool:
        return self.device == "cuda"

    def rand(self, *shape: int) -> Tensor:
        return self._drawn(torch.rand, shape)

    def randn(self, *shape: int) -> Tensor:
        return self._drawn(torch.randn, shape)

    def integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return self._drawn(partial(torch.randint, high, dtype=dtype), shape)

    def rows(self, n: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Two batches of logits [N, C] and labels [N]."""
        return 3 * self.randn(n, classes), 3 * self.randn(n, classes), self.integers(classes, n)

    def _drawn(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        place = self.device if self.generator is None else "cpu"
        return draw(shape, generator=self.generator, device=place).to(self.device)


def modules() -> list[ModuleType]:
    """A module for each operator's word, in alphabetical order."""
    return [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]


def size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def layouts(*images: Tensor) -> Iterator[tuple[str, list[Tensor]]]:
    """The images as they are and channels_last."""
    yield "", list(images)
    yield " channels_last", [t.to(memory_format=torch.channels_last) for t in images]


def tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().requires_grad_() for t in tensors]


def with_grad(f: Callable[..., Any], *leaves: Tensor, grad: Tensor | None = None) -> tuple[Tensor, ...]:
    """A result, the first where ``f`` gives several, and its gradients; of ``grad`` if it is no scalar."""
    result = f(*leaves)
    out = result[0] if isinstance(result, tuple) else result
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


def differentiated(
    native: Callable[..., Any],
    plain: Callable[..., Tensor],
    best: partial[Any] | None,
    *inputs: Tensor,
    grad: Tensor | None = None,
    **more: Any,
) -> Work:
    """The work of a function and its gradient at ``inputs``; ``best`` computes both."""
    here, wide = leaves(*inputs), leaves(*(t.double() for t in inputs))
    wide_grad = None if grad is None else grad.double()
    return Work(
        lambda: with_grad(native, *here, grad=grad),
        lambda: with_grad(plain, *here, grad=grad),
        best,
        lambda: with_grad(plain, *wide, grad=wide_grad),
        differentiated=True,
        **more,
    )
