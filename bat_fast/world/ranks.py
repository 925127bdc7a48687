"""What the processes of a run say to each other. All of torch.distributed is here and in `launch`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

_Value = TypeVar("_Value")
_POLL = 0.1  # seconds


class World:
    """The processes of a run, of which this is one. Of this class there is one alone, and nothing costs.

    A process is called a rank. Each has its rows of every batch; rank 0 alone writes files and prints.
    """

    rank = 0
    size = 1
    local_rank = 0
    """Of the ranks on this machine."""
    local_size = 1

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.rank} of {self.size})"

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def sizes(self, count: int) -> list[int]:
        """``count`` of every rank. They meet on their hosts: no GPU is waited for."""
        return [count]

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is up on a rank."""
        return flag

    def rows(self, own: Tensor, sizes: Sequence[int]) -> Tensor:  # noqa: ARG002 - of one process
        """The rows of all ranks in their order, of which those of this rank alone carry a gradient.

        Args:
            own: [sizes[rank], ...]; the other dimensions are the same everywhere.
            sizes: number of rows of every rank.
        """
        return own

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Put the sums over all ranks in the place of some tensors."""

    def copy_(self, tensors: Iterable[Tensor]) -> None:
        """Put those of rank 0 in the place of some tensors."""

    def objects(self, value: _Value) -> list[_Value]:
        """``value`` of every rank: numbers, texts, tensors, containers of them."""
        return [value]

    def broadcast(self, value: _Value) -> _Value:
        """``value`` of rank 0."""
        return value

    def barrier(self) -> None:
        """Wait until every rank is here."""

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Rank 0 goes first, then one rank of each other machine, then the rest: what the first of them has
        downloaded or built is there for the others."""
        yield


ALONE = World()


class Ranks(World):
    """The ranks of the process group of torch.distributed, which `bat_fast.world.launch.joined` makes.

    Every method but `first` is a collective: all ranks call it, in one order.

    Args:
        store: where ranks leave notes.
        local_rank, local_size: which of how many ranks of this machine this one is.
    """

    def __init__(self, store: Any, local_rank: int, local_size: int) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.local_rank, self.local_size = local_rank, local_size
        self.stopping = False
        """Whether all ranks know that the run is to stop."""
        self._store, self._turns = store, 0

    def sizes(self, count: int) -> list[int]:
        """``count`` of every rank."""
        counts = list(torch.empty(self.size, 1, dtype=torch.int64))
        dist.all_gather(counts, torch.tensor([count]))
        return [int(number) for number in counts]

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is up on a rank."""
        self.stopping = any(self.sizes(int(flag)))
        return self.stopping

    def rows(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """The rows of all ranks; those of the others have no gradient.

        A loss of all rows, which every rank computes in full, has in the weights of a rank the gradient of
        its own rows; over the ranks these add up to that of one process with the whole batch.
        """
        most = max(sizes)
        sent = own.detach().contiguous()
        if len(sent) < most:
            sent = torch.cat([sent, sent.new_zeros((most - len(sent), *sent.shape[1:]))])
        every = list(sent.new_empty((self.size, most, *sent.shape[1:])))
        dist.all_gather(every, sent)
        parts = [rows[:count] for rows, count in zip(every, sizes, strict=True)]
        parts[self.rank] = own
        return torch.cat(parts)

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Sum in one piece for each dtype: one collective costs less than many small ones."""
        found = list(tensors)
        with torch.no_grad():
            for dtype in dict.fromkeys(tensor.dtype for tensor in found):
                same = [tensor for tensor in found if tensor.dtype == dtype]
                flat = torch.cat([tensor.reshape(-1) for tensor in same])
                dist.all_reduce(flat)
                pieces = flat.split([tensor.numel() for tensor in same])
                views = [piece.view(tensor.shape) for piece, tensor in zip(pieces, same, strict=True)]
                torch._foreach_copy_(same, views)

    def copy_(self, tensors: Iterable[Tensor]) -> None:
        """Put those of rank 0 in the place of some tensors."""
        with torch.no_grad():
            for tensor in tensors:
                sent = tensor.detach().contiguous()
                dist.broadcast(sent, 0)
                tensor.copy_(sent)

    def objects(self, value: _Value) -> list[_Value]:
        """``value`` of every rank."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def broadcast(self, value: _Value) -> _Value:
        """``value`` of rank 0."""
        found = [value]
        dist.broadcast_object_list(found, 0)
        return found[0]

    def barrier(self) -> None:
        """Wait until every rank is here, on the hosts."""
        self.sizes(0)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """One after the other; however long the first takes, no timeout ends the wait of the others."""
        machines = sum(rank == 0 for rank in self.sizes(self.local_rank))
        before = 0 if self.first else 1 if self.local_rank == 0 else machines
        self._turns += 1
        done = f"turn/{self._turns}"
        while self._store.add(done, 0) < before:
            time.sleep(_POLL)
        yield
        if self.local_rank == 0:
            self._store.add(done, 1)
