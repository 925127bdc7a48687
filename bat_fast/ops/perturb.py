"""Perturbations: the steps of projected gradient descent."""

from __future__ import annotations

import torch
from torch import Tensor

from bat_fast._checks import check_like, check_step
from bat_fast._native import changed, operator

__all__ = ["l2_step_", "linf_step_"]


def _fake_step(*_: object) -> None:
    return None


@operator(
    "linf_step_(Tensor(a!) adv, Tensor grad, Tensor clean, float step_size, float eps, float lo, float hi)"
    " -> ()",
    fake=_fake_step,
)
def _linf_step_reference(
    adv: Tensor, grad: Tensor, clean: Tensor, step_size: float, eps: float, lo: float, hi: float
) -> None:
    stepped = adv + step_size * grad.sign().to(adv.dtype)
    adv.copy_(torch.minimum(torch.maximum(stepped, clean - eps), clean + eps).clamp_(lo, hi))


def linf_step_(
    adv: Tensor,
    grad: Tensor,
    clean: Tensor,
    *,
    step_size: float,
    eps: float,
    lo: float = 0.0,
    hi: float = 1.0,
) -> Tensor:
    """One step of linf PGD, in place, with both projections in the same pass over memory.

    ``adv <- clip(clip(adv + step_size * sign(grad), clean - eps, clean + eps), lo, hi)`` with
    ``sign(0) = sign(nan) = 0`` (Madry et al. 2018).

    Args:
        adv: images to move, any shape, float32 or float64 (CUDA: float32, float16, bfloat16).
        grad: gradient of the attack loss; the shape of ``adv``; its dtype, or float16/bfloat16.
        clean: centre of the ball; shape and dtype of ``adv``.
        step_size: step in pixels, >= 0.
        eps: radius in pixels, >= 0.
        lo, hi: range of a pixel, ``lo <= hi``.

    Returns:
        ``adv`` itself.

    Raises:
        ValueError: a shape, device or number does not fit. TypeError: a dtype does not.
    """
    _check_step(adv, grad, clean, step_size, eps, lo, hi)
    torch.ops.bat_fast.linf_step_(adv, grad, clean, step_size, eps, lo, hi)
    return changed(adv)


def _check_step(
    adv: Tensor, grad: Tensor, clean: Tensor, step_size: float, eps: float, lo: float, hi: float
) -> None:
    check_step(adv, clean, step_size, eps, lo, hi)
    check_like("grad", grad, "adv", adv)
    if grad.dtype not in (adv.dtype, torch.float16, torch.bfloat16):
        raise TypeError(f"grad must be {adv.dtype}, float16 or bfloat16, got {grad.dtype}")


@operator(
    "l2_step_(Tensor(a!) adv, Tensor grad, Tensor clean, float step_size, float eps, float lo, float hi)"
    " -> ()",
    fake=_fake_step,
)
def _l2_step_reference(
    adv: Tensor, grad: Tensor, clean: Tensor, step_size: float, eps: float, lo: float, hi: float
) -> None:
    if not adv.numel():
        return
    compute = torch.promote_types(adv.dtype, torch.float32)
    x, g = clean.to(compute), grad.to(compute)

    def per_sample(t: Tensor) -> Tensor:
        return t.reshape(-1, *[1] * (x.dim() - 1))

    def length(t: Tensor) -> Tensor:
        return per_sample(t.reshape(len(t), -1).norm(dim=1))

    # By its largest entry first: squares of 1e20, or of 1e-23, leave the range of float32.
    most = per_sample(g.reshape(len(g), -1).abs().amax(1))
    g = g / torch.where(most == 0, 1.0, most)
    v = adv.to(compute) + step_size * (g / length(g)).where(most != 0, 0.0) - x
    v = v * (eps / length(v)).clamp(max=1.0)  # 0 / 0 below: nothing moved
    if not isinstance(eps, Tensor):  # an attack gives [N, 1, ...], without zeros
        v = v.nan_to_num(0.0) if eps == 0 else v
    adv.copy_((x + v).clamp_(lo, hi))


def l2_step_(
    adv: Tensor,
    grad: Tensor,
    clean: Tensor,
    *,
    step_size: float,
    eps: float,
    lo: float = 0.0,
    hi: float = 1.0,
) -> Tensor:
    """One step of l2 PGD, in place, with the gradient and the projection normalised per sample.

    ``v = adv + step_size * g / ||g||_2 - clean``, ``v <- v * min(1, eps / ||v||_2)``,
    ``adv <- clip(clean + v, lo, hi)``. A zero gradient moves nothing; any other one, of 1e-38 or of 1e38,
    moves by its direction alone.

    Args:
        adv: [N, ...] images to move, float32 or float64 (CUDA: float32, float16, bfloat16).
        grad: gradient of the attack loss; the shape of ``adv``; its dtype, or float16/bfloat16.
        clean: centre of the ball; shape and dtype of ``adv``.
        step_size: length of the step, in pixels, >= 0.
        eps: radius in pixels, >= 0.
        lo, hi: range of a pixel, ``lo <= hi``.

    Returns:
        ``adv`` itself.

    Raises:
        ValueError: a shape, device or number does not fit. TypeError: a dtype does not.
    """
    _check_step(adv, grad, clean, step_size, eps, lo, hi)
    if adv.dim() < 1:
        raise ValueError("adv must be a batch [N, ...], got a scalar")
    torch.ops.bat_fast.l2_step_(adv, grad, clean, step_size, eps, lo, hi)
    return changed(adv)
