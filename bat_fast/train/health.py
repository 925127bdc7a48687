"""Numbers that are no longer finite: found before the weights have them, and what is done about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bat_fast._atomic import UnwritableError
from bat_fast.batch import Batch
from bat_fast.config import OptimConfig

_MOST = 10  # updates in a row that may be left out: then something else is wrong


class Running(NamedTuple):
    """What a training step was made with, beside the weights: enough to make it again."""

    batch: Batch
    awp: bool
    chance: Tensor  # state of the generator of the CPU


class Health:
    """Looks at loss and gradient of every update.

    A look costs one pass over the gradient. Its answer is waited for in every step where that is free (a CPU)
    or where the update depends on it; else every ``optim.check_every`` steps, and at `settle`.

    Args:
        optim: ``on_nonfinite`` and ``check_every`` of the configuration.
        model: that is trained.
    """

    def __init__(self, optim: OptimConfig, model: nn.Module) -> None:
        self.policy, self._every = optim.on_nonfinite, optim.check_every
        self._model = (model,)
        self._at_once = self.policy != "stop" or all(p.is_cpu for p in model.parameters())
        self._sums: list[Tensor] = []  # of each step since the last answer: finite, or not
        self._in_a_row = 0
        self.epoch = 0
        """That is trained, from 0, for messages."""
        self.left_out = False
        """Whether the last update was."""
        self.finite = True
        """What the last answer was."""
        self.back = 0
        """How many steps before the last one the values that were found became so."""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Running statistics are as before ``with`` where the update inside it is left out."""
        buffers = list(self._model[0].buffers()) if self.policy == "skip" else []
        before = [buffer.clone() for buffer in buffers]
        yield
        if self.left_out:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)

    def allows(self, losses: Sequence[Tensor]) -> bool:
        """Whether to update the weights with the gradients that they have.

        Args:
            losses: scalars, whose sum was differentiated.

        Raises:
            FloatingPointError: there is a NaN or an infinity, and the policy, or the number of them, says so.
        """
        gradients = [p.grad for p in self._model[0].parameters() if p.grad is not None]
        self._sums.append(torch.stack(_sums([*losses, *gradients])).sum())
        if not self._at_once:
            if len(self._sums) >= self._every:
                self.settle()
            return True
        self.left_out = not self._answer()
        self._in_a_row = self._in_a_row + 1 if self.left_out else 0
        if self.left_out and (self.policy == "stop" or self._in_a_row >= _MOST):
            raise FloatingPointError(self._what("" if self._in_a_row == 1 else f", {_MOST} times in a row"))
        return not self.left_out

    def settle(self) -> None:
        """Wait for the answer about all steps so far.

        Raises:
            FloatingPointError: there was a NaN or an infinity.
        """
        steps = len(self._sums)
        if steps and not self._answer():
            raise FloatingPointError(self._what(f", within {steps} steps"))

    def _what(self, when: str) -> str:
        return f"the training loss or its gradient became NaN or infinite in epoch {self.epoch + 1}{when}"

    def _answer(self) -> bool:
        """Whether all has been finite since the last answer; waits for the device once."""
        each = [math.isfinite(value) for value in torch.stack(self._sums).tolist()]
        self._sums.clear()
        self.finite = all(each)
        self.back = 0 if self.finite else len(each) - 1 - each.index(False)
        return self.finite


def check_weights(model: nn.Module) -> None:
    """Raise FloatingPointError where a weight or a running statistic is not finite: it is not saved."""
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    if tensors and not math.isfinite(float(torch.stack(_sums(tensors)).sum())):
        raise FloatingPointError("the weights became NaN or infinite")


def _sums(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The sum of each, which NaN and infinity spoil; on a CPU ten times as fast as the largest value."""
    return [tensor.detach().sum(dtype=torch.float32) for tensor in tensors]


@contextmanager
def advice(last: Path, keep: Callable[[], str]) -> Iterator[None]:
    """Adds to a FloatingPointError what can be done, and to a file that cannot be written where to go on.

    Args:
        last: the checkpoint to go on from.
        keep: keeps what led to it, and says so.
    """
    try:
        yield
    except UnwritableError as error:
        whole = next((path for path in (last, last.with_name("best.pt")) if path.exists()), None)
        there = f"{whole} is whole: bat-fast train --resume --out {last.parent.parent} goes on from it"
        said = UnwritableError(f"{error}; {there if whole else 'no checkpoint is there yet'}")
        said.errno = error.errno
        raise said from error
    except FloatingPointError as error:
        good = f"the last good checkpoint is {last}" if last.exists() else "none was saved"
        raise FloatingPointError(f"{error}{keep()}; {good}; try a lower --optim.lr") from None


def saturated(images: Sequence[Tensor]) -> Tensor:
    """The share of pixels that are 0 or 1, where the ball of an attack is cut off."""
    counts = [torch.eq(x, x.round()).sum() for x in images]
    return torch.stack(counts).sum().to(images[0].dtype) / sum(x.numel() for x in images)
