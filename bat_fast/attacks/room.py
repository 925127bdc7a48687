"""How many images fit into memory at once: half as many after each time that they did not."""

from __future__ import annotations

import gc
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import torch

T = TypeVar("T")

_FULL = re.compile(r"can't allocate memory|alloc failed|ALLOC_FAILED|out of memory", re.IGNORECASE)


class Room:
    """How many images are worked on together, until memory runs out; then half of them.

    Args:
        size: images.
        fixed: why it must not change; empty where it may.
        say: is told, in a line, that it has changed; None warns.
    """

    def __init__(self, size: int, fixed: str = "", say: Callable[[str], None] | None = None) -> None:
        self.size, self._fixed = size, fixed
        self._say = say or (lambda line: warnings.warn(line, stacklevel=4))

    def tried(self, call: Callable[[], T]) -> T | None:
        """What ``call`` returns; None where memory ran out, and there is room for fewer now.

        Raises:
            RuntimeError: there is no memory for one image, or the number must not change.
        """
        try:
            return call()
        except RuntimeError as error:  # torch.OutOfMemoryError is one; what a CPU or cuBLAS raises is not
            if not isinstance(error, torch.OutOfMemoryError) and not _FULL.search(str(error)):
                raise
            if self.size < 2 or self._fixed:
                what = self._fixed or "there is no memory for one image"
                raise RuntimeError(f"{what}: {str(error).splitlines()[0]}") from error
        self.size //= 2
        gc.collect()  # the error has gone with its traceback, which held every tensor
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        self._say(f"memory ran out: batch_size is {self.size} from here on; the verdicts are the same")
        return None

    def over(self, count: int, call: Callable[[slice], T]) -> Iterator[tuple[slice, T]]:
        """``call`` of one part of ``count`` images after the other: the parts, and what it returned."""
        done = 0
        while done < count:
            part = slice(done, min(done + self.size, count))
            found = self.tried(partial(call, part))
            if found is not None:
                yield part, found
                done = part.stop
