"""How sharply the loss bends around each training sample (Garg, Ravikumar and Roy 2023, arXiv:2307.05831).

With ``H`` the Hessian of the cross-entropy with respect to the pixels, and vectors ``v`` of signs by chance::

    curvature = || H ||_F = sqrt( E_v || H v ||_2^2 )       H v ~ ( grad L(x + h v) - grad L(x) ) / h

with ``h`` = 1e-3 and 10 draws as there, a mean over the epochs that were looked at. There ``L`` takes
normalised images, here pixels in [0, 1], and what is averaged over the draws is the square, so that the mean
is that of ``H``. The images are clean and the model is in eval mode. Gradients that are ``h`` apart differ
by less than TF32 or 16 bits can tell, so both are taken in float32, whatever training does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast import data
from bat_fast._logits import eval_mode, logits_of
from bat_fast.ops import random_start
from bat_fast.study.record import FOLDER, EpochRecord
from bat_fast.study.sealed_arrays import Array, read_arrays

if TYPE_CHECKING:
    from bat_fast.train import Trainer

DRAWS = 10
_H = 1e-3  # pixels


def curvature(
    model: nn.Module, x: Tensor, y: Tensor, index: Tensor, *, draws: int = DRAWS, seed: int = 0
) -> Tensor:
    """The curvature at each image, [N]; signs depend on seed, sample, draw and pixel alone.

    Args:
        model: in eval mode; its parameters get no gradients.
        x: [N, C, H, W] pixels.
        y: [N] int64 labels.
        index: [N] int64 ids of the samples.
        draws: how many vectors of signs.
        seed: of the signs.
    """
    middle, total = torch.full_like(x, 0.5), torch.zeros(len(x), device=x.device)
    with _float32(x.device.type):
        here = _gradient(model, x, y)
        for draw in range(draws):
            uniform = random_start(middle, eps=0.5, norm="linf", seed=seed, index=index, draw=draw)
            there = _gradient(model, x + torch.where(uniform > 0.5, _H, -_H), y)
            total += (there - here).flatten(1).square().sum(1) / draws
    return total.sqrt() / _H


@contextmanager
def _float32(device_type: str) -> Iterator[None]:
    """Without TF32 and autocast; afterwards they are as before."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        cudnn.allow_tf32 = matmul.allow_tf32 = False
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def _gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(logits_of(model(x), len(y)), y, reduction="sum")
        (found,) = torch.autograd.grad(loss, x)
    return found


class CurvatureRecord(EpochRecord):
    """Keeps the curvature at each training sample at the end of epochs, as ``samples/curvature-0007.npz``.

    Args:
        every: epochs between two of them; the last epoch always counts, early as it may be.
        draws: vectors of signs; each costs a forward and a backward pass over the training images.
    """

    kind = "curvature"

    def __init__(self, every: int = 1, draws: int = DRAWS) -> None:
        super().__init__(every)
        self.draws = draws

    def measure(self, trainer: Trainer) -> dict[str, Array]:
        """The curvature at each training sample."""
        model, size = trainer.evaluated, trainer.config.eval.batch_size
        device = str(next(model.parameters()).device)
        loader = data.create_loader(trainer.splits.train, size, shuffle=False, seed=0, device=device)
        with eval_mode(model):
            found = [curvature(model, *batch, draws=self.draws, seed=trainer.config.seed) for batch in loader]
        return {"curvature": torch.cat(found).cpu().numpy()}


def read_curvature(run: Path) -> Array | None:
    """The mean curvature at each training sample [n] over the epochs of a run; None where none was measured.

    Raises:
        ValueError: a file is damaged.
    """
    files = sorted((run / FOLDER).glob("curvature-*.npz"))
    if not files:
        return None
    table = np.stack([read_arrays(file)["curvature"] for file in files])
    return np.asarray(table.mean(0, dtype=np.float64))
