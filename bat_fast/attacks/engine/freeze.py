"""The frozen engine: builds the program that stands for a model, compares the two, and keeps it."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from bat_fast.attacks.engine.attacked_model import AttackedModel, Plain, preserved_rng
from bat_fast.attacks.engine.program import Program
from bat_fast.attacks.engine.small import SmallNetwork, small_network
from bat_fast.attacks.engine.trace import UnsuitableError, hooked, trace
from bat_fast.attacks.untouched import parts_of

_COMPARED = 8  # images: the model under autograd needs twice the memory of an attack
_KEPT = 4  # programs: the shapes of full and last batches of training and evaluation
# Relative, in the precision of the weights. TF32 moves logits by 0.1 %; where ReLUs then switch, as in a deep
# network of batch norms over two images, gradients move by 3 %. A layer that is missed moves them by 100 %.
_TOLERANCES = {"logits": 0.02, "gradients": 0.2}


Frozen = Program | SmallNetwork
_SAID: set[tuple[str, str]] = set()  # class of the model, reason
_FREEZERS: weakref.WeakKeyDictionary[nn.Module, Freezer] = weakref.WeakKeyDictionary()


def freezer_of(model: nn.Module) -> Freezer:
    """The one `Freezer` of a model, which lives as long as the model does."""
    return _FREEZERS.setdefault(model, Freezer())


class Freezer:
    """Programs of a model, one for each shape of images, precision, and state of the model's modules.

    A new program is compared with the model on images at hand, logits and gradient, before it is used.

    Use `freezer_of`, so that all attacks on a model share them.
    """

    def __init__(self) -> None:
        self._programs: dict[Hashable, Frozen | UnsuitableError] = {}

    def program(self, model: nn.Module, x: Tensor, dtype: torch.dtype | None) -> Frozen:
        """The program for images like ``x``; its ``refresh`` takes over the weights.

        Call it in `bat_fast.attacks.untouched`, without gradients. The model may change its structure and
        modes between two attacks.

        Raises:
            UnsuitableError: the model must run as it is.
        """
        key = (tuple(x.shape), x.dtype, x.device, dtype, _structure(model))
        program = self._programs.pop(key, None)
        if program is None:
            program = self._build(model, x, dtype)
        while len(self._programs) >= _KEPT:
            del self._programs[next(iter(self._programs))]
        self._programs[key] = program
        if isinstance(program, UnsuitableError):
            raise program
        return program

    def _build(self, model: nn.Module, x: Tensor, dtype: torch.dtype | None) -> Frozen | UnsuitableError:
        few, expected = _expected(model, x)
        try:
            graph = trace(model, x)
            whole = Program(graph, model, x, None)
            program = (small_network(whole, x) if dtype is None else None) or whole
            program.refresh()
            try:
                _compare(_answer(program, few), expected)
            except Exception:
                if len(few) == len(x):
                    raise
                # Batch norm over few images magnifies rounding, and a graph may hold the size of the batch.
                _compare(_answer(program, x), _answer(Plain(model, None), x))
            return program if dtype is None else Program(graph, model, x, dtype)
        except UnsuitableError as error:
            return error.with_traceback(None)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            return UnsuitableError(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}")


def say_once(model: nn.Module, reason: str, missing: str = "folded") -> None:
    """Warn that attacks on ``model`` are not ``missing``, once for each class of models and ``reason``."""
    name = type(model).__name__
    if (name, reason) not in _SAID:
        _SAID.add((name, reason))
        warnings.warn(f"bat_fast: attacks on {name} are not {missing}: {reason}", stacklevel=2)


def _structure(model: nn.Module) -> Hashable:
    """A key of all that decides what ``forward`` computes, but for tensors: modules, their modes, hooks.

    And the constant of norms: the others are read once, when a program is built.
    """
    return tuple((id(m), type(m), m.training, hooked(m), _eps(m)) for m in parts_of(model).modules)


def _eps(module: nn.Module) -> float | None:
    eps = vars(module).get("eps")
    return eps if isinstance(eps, float) else None


def _expected(model: nn.Module, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Images to compare on, and what the model says to them: a few of ``x``, or all where it takes no few."""
    few = x[:_COMPARED]
    try:
        return few, _answer(Plain(model, None), few)
    except Exception:
        return x, _answer(Plain(model, None), x)  # an error here is one of the model, not of this engine


def _answer(network: AttackedModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, K] and a gradient [N, C, H, W] of ``network`` at ``x``.

    Dropout draws the random numbers that come next, and afterwards they come again.
    """
    with preserved_rng(x):
        logits = network.forward(x)
        numbers = torch.arange(logits.numel(), dtype=torch.float32, device=x.device).sin()
        return logits, network.backward(numbers.view_as(logits).to(logits.dtype))


def _compare(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """Raise UnsuitableError unless two pairs of logits and gradient are equal to rounding."""
    for (what, most), a, b in zip(_TOLERANCES.items(), ours, theirs, strict=True):
        size, distance = float(b.double().norm()), float((a.double() - b.double()).norm())
        if distance > most * size:  # False where the model itself is not finite
            raise UnsuitableError(f"its frozen form has other {what} (by {distance / max(size, 1e-300):.1%})")
