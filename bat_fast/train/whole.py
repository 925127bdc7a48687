"""The whole batch, of which every process has some images: what a method sees of it.

A loss may couple samples in any way: weights that add up to 1, the worst of a batch, pairs of a class. So no
rule is applied to losses here. Instead each process gets the logits of the whole batch, those of the others
without gradient, and computes the whole loss: its gradient is that of the images that are here, and the sum
over the processes is that of one process with all of them, for every method, known or not.
DistributedDataParallel would have to be told, method by method, by what to divide; would prepare for a
backward pass in every forward pass, of which some methods have two and AWP more; and fails where a loss does
not use the head. Logits and features are small beside images and gradients, and a loss beside the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bat_fast.batch import Batch
from bat_fast.methods import Method
from bat_fast.train.micro_batches import cut
from bat_fast.world.ranks import ALONE, World


class Part(NamedTuple):
    """A micro-batch."""

    own: Batch
    """The images that are here."""
    seen: Batch
    """What a method sees: the images that are here, labels and ids of all."""
    sizes: list[int]
    """Images of every process."""


class Whole:
    """Puts together what the processes of ``world`` know about a batch; in one process nothing is done."""

    def __init__(self, world: World = ALONE) -> None:
        self.world = world
        self._sizes = [0]

    def divide(self, batch: Batch, count: int) -> tuple[Batch, list[Part]]:
        """What is seen of the whole of which ``batch`` is here, and its parts: ``count``, or fewer where a
        process has fewer images. They hold the images that those of one process would hold."""
        sizes = self.world.sizes(len(batch.y))
        first, count = sum(sizes[: self.world.rank]), min(count, min(sizes))
        parts = cut(batch, count, first)
        if self.world.size == 1:
            return batch, [Part(part, part, [len(part.y)]) for part in parts]
        y, index = self.world.rows(torch.stack([batch.y, batch.index], 1), sizes).T.contiguous()
        seen = Batch(batch.x, y, index)
        return seen, [
            Part(own, Batch(own.x, y[k::count], index[k::count]), _sizes(sizes, k, count))
            for k, own in enumerate(parts)
        ]

    def turn_to(self, part: Part) -> None:
        """Let `rows` and the models of `answers` be about ``part``."""
        self._sizes = part.sizes

    def rows(self, own: Tensor) -> Tensor:
        """The rows of the whole part, of which ``own`` are here."""
        return self.world.rows(own, self._sizes)

    def answers(self, model: nn.Module) -> nn.Module:
        """``model``, answering for the images of all processes when it is asked about those that are here."""
        return model if self.world.size == 1 else _Answers(model, self)

    def remember(self, method: Method, parts: Sequence[Part]) -> None:
        """Give the memory of ``method`` the rows that the other processes have written for their images."""
        memory = None if self.world.size == 1 else method.memory()
        if memory is None:
            return
        for part in parts:
            rows = self.world.rows(memory[part.own.index], part.sizes)
            # One process after the other: an extra image may come twice, and all must keep the same row.
            for ids, found in zip(part.seen.index.split(part.sizes), rows.split(part.sizes), strict=True):
                memory[ids] = found


class _Answers(nn.Module):
    def __init__(self, model: nn.Module, whole: Whole) -> None:
        super().__init__()
        self._model = (model,)  # not a part of this module: whoever lists the parameters finds them once
        self._whole = whole

    def train(self, mode: bool = True) -> _Answers:
        """The mode of the model itself."""
        self._model[0].train(mode)
        return super().train(mode)

    def forward(self, x: Tensor, **options: Any) -> Any:
        """The rows of all processes, those of ``x`` among them with a gradient."""
        found = self._model[0](x, **options)
        return tuple(map(self._whole.rows, found)) if isinstance(found, tuple) else self._whole.rows(found)


def _sizes(sizes: Sequence[int], k: int, count: int) -> list[int]:
    """How many of the places k, k + count, ... each process has, when they follow each other."""
    ends = list(accumulate(sizes))
    return [len(range((k - end + size) % count, size, count)) for size, end in zip(sizes, ends, strict=True)]
