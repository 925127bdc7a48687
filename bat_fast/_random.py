"""All chance of the library: a counter-based generator, and seeds made of words and numbers.

Nothing here has a state. The same key gives the same numbers on every device, in every process and for
every batch size, so that runs repeat and resume.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF

# The first counter word of `philox` names the use, so that no two draw the same numbers. `ops.random_start`
# counts blocks of pixels there, and never so far.
CROP, CUTOUT, WINDOW, COLOUR = 0x43524F50, 0x4355544F, 0x57494E44, 0x434F4C52  # of augmentation
EXTRA_LABEL = 0x4C41424C  # of images mixed into a batch, where a label is drawn from a distribution
# Targets are drawn by `ops.random_start`, whose counter is taken: they have another seed instead.
TARGET_SEED = 0x7A26E7


def philox(seed: int, counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10 (Salmon et al. 2011) of four int64 tensors of 32-bit counters: four of 32-bit words."""
    key0, key1 = seed & _MASK, seed >> 32 & _MASK
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    for _ in range(10):
        high0, low0 = (c0 * 0xD2511F53 >> 32) & _MASK, (c0 * 0xD2511F53) & _MASK
        high1, low1 = (c2 * 0xCD9E8D57 >> 32) & _MASK, (c2 * 0xCD9E8D57) & _MASK
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = (key0 + 0x9E3779B9) & _MASK, (key1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def seed_of(*key: object) -> int:
    """32 bits for ``key``, a hash of all its parts: torch's CPU generator reads no more of a seed."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def generator(*key: object) -> torch.Generator:
    """A generator on the CPU for ``key``."""
    return torch.Generator().manual_seed(seed_of(*key))


def replayed(seed: int) -> torch.Generator:
    """A generator that draws what torch's global one on the CPU does after ``torch.manual_seed(seed)``.

    For runs of other programs that are repeated number by number, and for nothing else.
    """
    return torch.Generator().manual_seed(seed)
