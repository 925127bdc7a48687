"""Batch norm in several processes: the statistics of the whole batch, and running ones that all share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bat_fast.world.ranks import World


def synced(world: World, wanted: bool) -> AbstractContextManager[object]:
    """Inside, batch norm in train mode normalises by the statistics of the images of all processes.

    torch's SyncBatchNorm is another module, refuses a CPU in train mode and would meet the other processes in
    every step of an attack. This is no module: what calls ``F.batch_norm`` is meant, timm's layers too, and
    outside of ``with`` the model is as it was. Run the backward pass inside as well: blocks that are computed
    again are then the same.
    """
    return _Synced(world) if wanted and world.size > 1 else nullcontext()


def running_statistics(model: nn.Module) -> list[Tensor]:
    """The running means and variances of ``model``."""
    names = ("running_mean", "running_var")
    return [buffer for name, buffer in model.named_buffers() if name.rpartition(".")[2] in names]


class _Synced(TorchFunctionMode):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        return self._norm(*args, **given) if func is F.batch_norm else func(*args, **given)

    def _norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        normal, mean, variance, count = _Normalised.apply(input, eps, self._world)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                spread = variance * (count / (count - 1).clamp_min(1))
                running_var.lerp_(spread.to(running_var.dtype), momentum)
        if weight is not None:
            normal = normal * _wide(weight, normal)
        return (normal if bias is None else normal + _wide(bias, normal)).to(input.dtype)


class _Normalised(torch.autograd.Function):
    """``(x - mean) / sqrt(var + eps)`` over the batch of all processes, in float32 at least; beside it mean
    [C], variance [C] and their number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, world: World) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = x.to(torch.promote_types(x.dtype, torch.float32))
        over = [0, *range(2, x.dim())]
        variance, mean = torch.var_mean(own, over, correction=0)
        count = mean.new_full((1,), x.numel() / x.shape[1])
        # Means and spreads around them, not sums of squares, which cancel in float32.
        each = world.rows(torch.cat([count, mean, variance])[None], [1] * world.size)
        counts, means, variances = each.split([1, len(mean), len(mean)], 1)
        share = counts / counts.sum()
        mean = (share * means).sum(0)
        variance = (share * (variances + (means - mean).square())).sum(0)
        scale = (variance + eps).rsqrt()
        normal = (own - _wide(mean, own)) * _wide(scale, own)
        ctx.save_for_backward(normal, scale, counts.sum())
        ctx.world, ctx.over, ctx.dtype = world, over, x.dtype
        results = normal, mean, variance, counts.sum()
        ctx.mark_non_differentiable(*results[1:])
        return results

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: object) -> tuple[Tensor | None, None, None]:
        normal, scale, count = ctx.saved_tensors
        sums = torch.stack([grad.sum(ctx.over), (grad * normal).sum(ctx.over)])
        ctx.world.sum_([sums])
        first, second = (_wide(row, normal) for row in sums / count)
        return ((grad - first - normal * second) * _wide(scale, normal)).to(ctx.dtype), None, None


def _wide(row: Tensor, like: Tensor) -> Tensor:
    """[C] as [1, C, 1, ...]."""
    return row.view(1, -1, *[1] * (like.dim() - 2))
