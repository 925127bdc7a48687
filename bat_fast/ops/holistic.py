"""Holistic robust training: the loss under the worst distribution near the empirical one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bat_fast._checks import check_number, floating
from bat_fast._native import differentiable, operator, transformed

__all__ = ["holistic_loss", "holistic_weights"]


def _accumulator(losses: Tensor) -> torch.dtype:
    return torch.float64 if losses.dtype == torch.float64 else torch.float32


def _fake(losses: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    weights = losses.new_empty(losses.shape[0] + 1, dtype=_accumulator(losses))
    return weights.new_empty(()), weights, torch.empty_like(losses, memory_format=torch.contiguous_format)


def _cut(gap: Tensor, alpha: float, t: Tensor | float, slope: float) -> tuple[Tensor, Tensor]:
    """Where mass alpha has been taken from the largest of the sorted gaps, and what the gap there keeps.

    A sample has mass ~ 1 / (t + slope gap) below the cut, and the mass of the cut beyond it.
    """
    n = gap.shape[0]
    lift = t + slope * gap
    rest = (1 - alpha) * torch.arange(n - 1, -1, -1, dtype=gap.dtype, device=gap.device)
    reached = alpha * lift * (1 / lift).cumsum(0) >= rest
    at = gap.index_select(0, (~reached).sum().clamp_max(n - 1).view(1)).view(())
    below = gap < at
    mass = (below / lift).sum()
    rest_at = (1 - alpha) * (n - below.sum(dtype=gap.dtype))
    excess = alpha * (t + slope * at) * mass - rest_at
    between = excess >= 0  # the mass comes out even between two samples
    part = (-excess / (gap == at).sum(dtype=gap.dtype)).clamp(0, 1)
    return torch.where(between, rest_at / (alpha * mass) - t, at), torch.where(between, 0.0, part)


def _keep(gap: Tensor, cut: tuple[Tensor, Tensor]) -> Tensor:
    return torch.where(gap == cut[0], cut[1], (gap < cut[0]).to(gap.dtype))


def _divergence(t: Tensor, gap: Tensor, q: Tensor) -> Tensor:
    """K(t) = E log(t + d) + log E 1/(t + d), around the mean."""
    mean = (q * gap).sum()
    y = (gap - mean) / (t + mean)
    z = (t + gap) / (t + mean)
    log_minus = torch.where(z > 0.5, y.log1p() - y, z.log() - y)
    return (q * log_minus).sum() + (q * y * y / z).sum().log1p()


def _tilted(gap: Tensor, alpha: float, r: float, hr: bool) -> tuple[Tensor, Tensor]:
    """The weights of the samples, and the weight of the worst atom, for a positive radius."""
    n = gap.shape[0]
    ordered = gap.sort().values
    with_worst = torch.cat([gap, gap.new_zeros(1)])
    cut = _cut(ordered, alpha, 1.0, 0.0)

    def atoms(cut: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if hr:  # clips the gaps at the cut
            return gap.minimum(cut[0]), torch.full_like(gap, 1 / n)
        return with_worst, torch.cat([_keep(gap, cut) / n, gap.new_full((1,), alpha)])

    x = 1 / math.expm1(r)
    scale = cut[0].log() if not hr else gap.new_zeros(())
    low, high = scale - 600, scale + math.log(x / (2 * (1 + math.sqrt(1 + x))))  # Kantorovich's inequality
    for _ in range(64):
        middle = (low + high) / 2
        t = middle.exp()
        above = _divergence(t, *atoms(_cut(ordered, alpha, t, 1.0) if hr else cut)) > r
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    t = low.exp()
    if hr:
        weights = _keep(gap, _cut(ordered, alpha, t, 1.0)) / (t + gap)
        return (1 - alpha) * weights / weights.sum(), gap.new_full((), alpha)
    weights = torch.cat([_keep(gap, cut) / n / (t + gap), (alpha / t).view(1)])
    weights = weights / weights.sum()
    return weights[:-1], weights[-1]


def _solve(gap: Tensor, alpha: float, r: float, hr: bool) -> tuple[Tensor, Tensor]:
    """The optimal weights for gaps = (largest loss - loss) / range, in float64."""
    n = gap.shape[0]
    if alpha >= 1:
        return torch.zeros_like(gap), gap.new_ones(())
    cut = _cut(gap.sort().values, alpha, 1.0, 0.0)
    plain = _keep(gap, cut) / n
    atom = gap.new_full((), alpha)
    if r < 1e-30:
        return plain, atom
    weights, worst = _tilted(gap, alpha, min(r, 500.0), hr and alpha > 0)
    flat = cut[0] == 0  # what is left lies on the largest loss
    weights, worst = torch.where(flat, plain, weights), torch.where(flat, atom, worst)
    if hr and alpha > 0:  # or the radius suffices to leave mass on the largest losses alone
        top = (gap == 0).to(gap.dtype)
        lower = 1 - top.sum() / n
        enough = lower * (lower / alpha).log() + (1 - lower) * ((1 - lower) / (1 - alpha)).log() <= r
        weights = torch.where((lower <= alpha) | enough, (1 - alpha) * top / top.sum(), weights)
    return weights, worst


@operator(
    "holistic_loss(Tensor losses, float alpha, float r, str form)"
    " -> (Tensor loss, Tensor weights, Tensor grad)",
    fake=_fake,
)
def _holistic_reference(losses: Tensor, alpha: float, r: float, form: str) -> tuple[Tensor, Tensor, Tensor]:
    exact = losses.double()
    top = exact.max()
    extent = top - exact.min()
    gap = torch.where(extent > 0, (top - exact) / extent, 0.0)
    samples, worst = _solve(gap, alpha, r, form == "hr")
    samples = torch.where(exact.isfinite().all(), samples, torch.nan)
    worst = torch.where(exact.isfinite().all(), worst, torch.nan)
    loss = top - extent * (samples * gap).sum()
    first = torch.arange(len(exact), device=exact.device) == exact.argmax()
    grad = torch.where(first, samples + worst, samples)
    weights = torch.cat([samples, worst.view(1)]).to(_accumulator(losses))
    return loss.to(weights.dtype), weights, grad.to(losses.dtype)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    del inputs
    _, weights, grad = output
    ctx.mark_non_differentiable(weights, grad)
    ctx.save_for_backward(grad)


def _backward(ctx: Any, grad_loss: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    (grad,) = ctx.saved_tensors
    return (grad * grad_loss).to(grad.dtype), None, None, None


_call_holistic_loss = differentiable("holistic_loss", _backward, _setup)


def _optimum(losses: Tensor, alpha: float, r: float, form: str) -> tuple[Tensor, Tensor]:
    losses = floating("losses", losses)
    if losses.dim() != 1:
        raise ValueError(f"losses must be [N], got {list(losses.shape)}")
    if not len(losses):
        raise ValueError("losses must hold at least one sample, got an empty batch")
    check_number("alpha", alpha, 0.0)
    check_number("r", r, 0.0)
    if form not in ("hd", "hr"):
        raise ValueError(f"form must be 'hd' or 'hr', got {form!r}")
    loss, weights, _ = _call_holistic_loss(losses, alpha, r, form)
    if loss.is_cpu and not torch.compiler.is_compiling() and not transformed() and math.isnan(loss.item()):
        bad = int((~losses.isfinite()).sum())
        raise ValueError(f"losses must be finite, got {bad} NaN or infinite of {len(losses)}")
    return loss, weights


def holistic_weights(losses: Tensor, *, alpha: float, r: float, form: str = "hd") -> Tensor:
    """The worst-case weights of a batch in holistic robust training (Bennouna, Lucas, Van Parys 2023).

    The weights ``w`` [N + 1], last the one of an extra atom at the largest loss, maximise
    ``sum_i w_i l_i + w_{N+1} max_i l_i`` over all distributions that differ from the empirical one by
    statistical error (a Kullback-Leibler ball of radius r) and corruption (mass alpha, moved anywhere).
    ``"hd"`` moves first and then tilts, ``"hr"`` tilts first. The dual is solved exactly, in float64:
    HD ``min_{eta >= W} eta - exp(-r + sum_k q_k log(eta - L_k))``, HR ``min_{c <= W, eta >= W} eta -
    exp(-r + mean_i log(eta - max(l_i, c))) + alpha (W - c)``, with ``W = max_i l_i``.

    ``r = 0`` leaves the corruption alone: alpha is taken from the smallest losses, equal ones giving
    equal parts. ``alpha >= 1`` puts all mass on the worst atom; equal losses get ``(1 - alpha)/N``.

    Args:
        losses: [N] with N >= 1, finite; float32, float64 or 16 bits (CUDA: no float64).
        alpha: fraction of corrupted data, >= 0.
        r: statistical radius in nats, >= 0. Beyond 500 it counts as 500.
        form: ``"hd"`` or ``"hr"``.

    Returns:
        [N + 1] weights, detached (float64 for float64, else float32), summing to 1. On CUDA losses that
        are not finite give NaN, without a host sync.

    Raises:
        ValueError: a shape, number or name does not fit; a loss is not finite (CPU).
        TypeError: a dtype does not fit.
    """
    return _optimum(losses.detach(), alpha, r, form)[1]


def holistic_loss(losses: Tensor, *, alpha: float, r: float, form: str = "hd") -> Tensor:
    """The loss of a batch in holistic robust training: ``sum_i w_i l_i + w_{N+1} max_i l_i``.

    Arguments and errors are those of `holistic_weights`, which gives ``w``. By the envelope theorem the
    weights carry no gradient: the one with respect to ``l_i`` is ``w_i``, plus ``w_{N+1}`` for the first
    of the largest losses.

    Returns:
        A differentiable scalar (float64 for float64, else float32): a bound on the expected loss.
    """
    return _optimum(losses, alpha, r, form)[0]
