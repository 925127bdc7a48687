"""What the operator files share: the native library and registration.

An operator is a schema plus a pure-PyTorch reference. The reference is registered for every device;
a native kernel, where the library holds one, overrides it for its device by dispatch alone.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bat_fast._environ import switched_off
from bat_fast._install import rebuild

_FOLDER = Path(__file__).parent / "lib"
_LIBRARY = torch.library.Library("bat_fast", "FRAGMENT")
_OPERATORS: dict[str, Callable[..., Any]] = {}  # name -> reference
_PROBLEM: list[str] = []  # of the one attempt to load the library

transformed: Callable[[], bool] = torch._C._are_functorch_transforms_active
"""Whether a transform of `torch.func` is at work, in which tensors have no values to read (0.03 us)."""


def _load() -> dict[str, Any]:
    """Load the native library and return what its build recorded; {} where there is none."""
    if switched_off(os.environ, "BAT_FAST_NATIVE"):
        return {}
    path = _FOLDER / "libbat_fast.so"
    hint = f"every operator runs its slower PyTorch reference; build it with `{rebuild()}`"
    if not path.exists():
        warnings.warn(f"bat_fast: the native library is not built: {hint}", stacklevel=2)
        return {}
    try:
        torch.ops.load_library(path)
    except OSError as error:
        _PROBLEM.append(str(error.__cause__ or error).splitlines()[0])
        warnings.warn(f"bat_fast: the native library does not load ({_PROBLEM[0]}): {hint}", stacklevel=2)
        return {}
    info: dict[str, Any] = json.loads((_FOLDER / "build.json").read_text())
    if (slow := slow_on_gpu(info)) is not None:
        warnings.warn(f"bat_fast: {slow}", stacklevel=2)
    return info


def slow_on_gpu(build: dict[str, Any]) -> str | None:
    """Why the GPU of this machine does not run kernels, and what to do, in one line; None where it does.

    pip hides what a build says, so this has to be said by whatever is used.

    Args:
        build: of the library, as `build_info` has it.
    """
    if build.get("cuda") or not torch.cuda.is_available():
        return None
    return (
        "built without CUDA, so CUDA tensors run the slower PyTorch references: install the CUDA toolkit "
        f"(nvcc), then `{rebuild()}`"
    )


_BUILD = _load()


def build_info() -> dict[str, Any]:
    """How the native library was built: version, git revision, compilers, CUDA architectures.

    Empty where no library is loaded.
    """
    return dict(_BUILD)


def load_problem() -> str:
    """Why the native library that is there does not load, in one line; empty where it does."""
    return _PROBLEM[0] if _PROBLEM else ""


def operators() -> list[str]:
    """The names of all operators, in the order of definition."""
    return list(_OPERATORS)


def reference_of(name: str) -> Callable[..., Any]:
    """The PyTorch reference of an operator, with the arguments of its schema: oracle and baseline.

    Raises:
        ValueError: no such operator.
    """
    if name not in _OPERATORS:
        raise ValueError(f"name: no operator {name!r}; there are {', '.join(_OPERATORS)}")
    return _OPERATORS[name]


def is_native(name: str, device: str | torch.device) -> bool:
    """Whether a native kernel answers operator ``name`` for tensors on ``device`` (else the reference).

    Raises:
        ValueError: no such operator.
    """
    reference_of(name)
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(torch.device(device).type)
    return key is not None and torch._C._dispatch_has_kernel_for_dispatch_key(f"bat_fast::{name}", key)


def operator(schema: str, *, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Define an operator from its ``schema``; the decorated function becomes its reference."""
    name = schema.partition("(")[0]

    def register(reference: Callable[..., Any]) -> Callable[..., Any]:
        _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
        torch.library.register_fake(f"bat_fast::{name}", fake, lib=_LIBRARY)
        _OPERATORS[name] = reference
        return reference

    return register


def differentiable(name: str, backward: Callable[..., Any], setup: Callable[..., None]) -> Callable[..., Any]:
    """Attach the gradient of operator ``name``, and return what calls the operator.

    ``setup(ctx, inputs, output)`` saves what ``backward(ctx, *grads)`` needs. Does what
    `torch.library.register_autograd` does, at a third of its cost per call. A second derivative is an
    error, as the gradients come from kernels.
    """
    op = getattr(torch.ops.bat_fast, name).default

    class NoSecondDerivative(torch.autograd.Function):
        """Takes all that the gradients depend on: no path to a second derivative is cut off silently."""

        @staticmethod
        def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
            return tuple(t if t is None else t.view_as(t) for t in tensors[:count])

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise RuntimeError(f"bat_fast.ops.{name} has no second derivative")

    class Gradient(torch.autograd.Function):
        """The operator with its gradient."""

        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                output = op(*inputs)
            setup(ctx, inputs, output)
            return output

    def first_derivative(ctx: Any, *grads: Any) -> Any:
        if not torch.is_grad_enabled():
            return backward(ctx, *grads)
        with torch.no_grad():
            result = backward(ctx, *grads)
        outputs = result if isinstance(result, tuple) else (result,)
        return NoSecondDerivative.apply(len(outputs), *outputs, *grads, *ctx.saved_tensors)

    class Transformed(torch.autograd.Function):
        """The same for `torch.func`, whose transforms want the two parts of the forward pass by themselves.

        Without transforms it would cost 29 us a call, and the other one 16.
        """

        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                return op(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            setup(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return backward(ctx, *grads)

    def call(*inputs: Any) -> Any:
        return Transformed.apply(*inputs) if transformed() else op(*inputs)

    Gradient.backward = staticmethod(first_derivative)  # type: ignore[method-assign, assignment]
    for kind in (Gradient, Transformed):
        kind.__name__ = kind.__qualname__ = name
    _LIBRARY.impl(name, Gradient.apply, "Autograd")
    return call


def changed(tensor: Tensor) -> Tensor:
    """``tensor``, which an operator has written: autograd raises where it had kept it for a gradient.

    torch counts the changes by its own operators, and of a compiled graph, but not by those of a library.
    """
    if not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(tensor)
    return tensor


def accumulator(tensor: Tensor) -> torch.dtype:
    """The dtype that sums over ``tensor`` are kept in."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def new_rows(logits: Tensor) -> Tensor:
    """An empty number per row of ``logits`` [N, C]."""
    return logits.new_empty(logits.shape[0], dtype=accumulator(logits))


def valid_labels(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Which ``labels`` [N] are classes, and the labels with the others put in range.

    A row without a valid label becomes NaN: a reference on CUDA must not read outside a row either.
    """
    return (labels >= 0) & (labels < classes), labels.clamp(0, classes - 1)
