"""AutoPGD: its loop on any network, and all of its steps on a small one in a single call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bat_fast._checks import attack_arguments, check_like, check_number
from bat_fast._logits import missed
from bat_fast._native import changed, operator
from bat_fast.ops._ball import bounds, length, per_image, unit
from bat_fast.ops._small import SmallReference, check_search

_RISING = 0.75  # the share of steps that must raise the loss between two checks
_INERTIA = 0.75  # of a step along the gradient; the rest is the step before

Look = Callable[[Tensor, bool], tuple[Tensor, Tensor, Tensor]]
"""Images [N, C, H, W], and whether their gradient is not needed -> logits [N, K], losses [N], gradient."""


def ascend(
    look: Look, adv: Tensor, clean: Tensor, y: Tensor, *, norm: str, eps: float, steps: int,
    lo: float, hi: float, latest: bool = False,
) -> None:  # fmt: skip
    """Move ``adv`` [N, C, H, W] from the start to a misclassified point of the path, or to ``clean``.

    Reads nothing on the host of a GPU.

    Args:
        look: what the network answers; climbs the losses.
        adv, clean, y, norm, eps, steps, lo, hi: as in `network_ascent_`.
        latest: of the misclassified points take the last, as the official code does, which for an image
            depends on how long others take.
    """
    move = _Move(norm, eps, lo, hi, clean)
    x = old = best = found = adv.clone()
    logits, loss, grad = look(x, False)
    broken, best_grad, best_loss, checked = missed(logits, y), grad, loss, loss
    step = torch.full_like(loss, 2.0 * eps)
    halved = torch.ones_like(broken)
    last = rises = torch.zeros_like(loss)  # so the first loss is compared with 0, as in the official code
    checks = set(checkpoints(steps))
    since = 0
    for number in range(1, steps + 1):
        drift, old = x - old, x
        x = move(x, grad, drift, per_image(step, x), 1.0 if number == 1 else _INERTIA)
        logits, loss, grad = look(x, number == steps)
        wrong = missed(logits, y)
        found = torch.where(per_image(wrong if latest else wrong & ~broken, x), x, found)
        broken = broken | wrong
        if x.is_cpu and bool(broken.all()):
            break
        better = loss > best_loss
        wide = per_image(better, x)
        best, best_grad = torch.where(wide, x, best), torch.where(wide, grad, best_grad)
        best_loss = torch.where(better, loss, best_loss)
        rises, last, since = rises + (loss > last), loss, since + 1
        if number in checks:
            halved = (rises <= _RISING * since) | (~halved & (checked >= best_loss))
            step, wide = torch.where(halved, step / 2, step), per_image(halved, x)
            x, grad = torch.where(wide, best, x), torch.where(wide, best_grad, grad)
            checked, rises, since = best_loss, torch.zeros_like(rises), 0
    adv.copy_(torch.where(per_image(broken, adv), found, clean))


class _Move:
    """A step along a gradient, and of that a share, with the rest along the step before; both projected."""

    def __init__(self, norm: str, eps: float, lo: float, hi: float, clean: Tensor) -> None:
        self.norm, self.eps, self.lo, self.hi, self.clean = norm, eps, lo, hi, clean
        self.limits = bounds(clean, eps, lo, hi)

    def __call__(self, x: Tensor, grad: Tensor, drift: Tensor, step: Tensor, share: float) -> Tensor:
        if self.norm == "linf":
            goal = (x + step * torch.sign(grad)).clamp(*self.limits)
            return (x + (goal - x) * share + drift * (1 - share)).clamp(*self.limits)
        goal = self._into_ball(x + step * unit(grad, "l2"))
        return self._into_ball(x + (goal - x) * share + drift * (1 - share))

    def _into_ball(self, x: Tensor) -> Tensor:
        away = x - self.clean
        radius = length(away, "l2").clamp(max=self.eps)
        return (self.clean + unit(away, "l2") * per_image(radius, x)).clamp(self.lo, self.hi)


def checkpoints(steps: int) -> list[int]:
    """The numbers of steps, from 1, after which they may be halved: 22, 41, 57, 70, 80, ... of 100."""
    window, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    found = [window]
    while found[-1] < steps:
        window = max(window - shrink, least)
        found.append(found[-1] + window)
    return [number for number in found if number <= steps]


@operator(
    "network_ascent_(Tensor(a!) adv, Tensor clean, Tensor y, Tensor? targets, Tensor plan, Tensor weights,"
    " int classes, str loss, str norm, Tensor checks, int steps, float eps, float lo, float hi) -> ()",
    fake=lambda *_: None,
)
def _ascent_reference(
    adv: Tensor, clean: Tensor, y: Tensor, targets: Tensor | None, plan: Tensor, weights: Tensor,
    classes: int, loss: str, norm: str, checks: Tensor, steps: int, eps: float, lo: float, hi: float,
) -> None:  # fmt: skip
    del checks  # follow from the number of steps
    network, target = SmallReference(plan, weights, classes), y if targets is None else targets

    def look(x: Tensor, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        logits = network.forward(x)
        climbed = loss, None, None, 0.0, targets is not None, y
        grad, reached = torch.ops.bat_fast.attack_grad(logits, target, *climbed)
        return logits, reached, x if last else network.backward(grad).nan_to_num(nan=0.0)

    ascend(look, adv, clean, y, norm=norm, eps=eps, steps=steps, lo=lo, hi=hi)


def network_ascent_(
    adv: Tensor,
    clean: Tensor,
    y: Tensor,
    *,
    targets: Tensor | None = None,
    plan: Tensor,
    weights: Tensor,
    classes: int,
    loss: str = "ce",
    norm: str = "linf",
    steps: int,
    eps: float,
    lo: float = 0.0,
    hi: float = 1.0,
) -> Tensor:
    """All steps of AutoPGD (Croce & Hein 2020, arXiv:2003.01690) on a small network, in place.

    An image is done at its first misclassified point. No image's result depends on another image.

    Args:
        adv: [N, C, H, W] starts, float32 or float64; becomes that point, or ``clean`` where there is none.
        clean: centre of the ball; shape and dtype of ``adv``.
        y: [N] int64 true classes.
        targets: [N] int64 classes to move towards; None moves away from ``y``.
        plan, weights, classes: as in `bat_fast.ops.network.network_gradient`.
        loss: ``"ce"``, ``"margin"`` or ``"dlr"``, as in `bat_fast.ops.attack_grad`.
        norm: ``"linf"`` or ``"l2"``.
        steps: number of steps, >= 1.
        eps, lo, hi: radius of the ball, and range of a pixel.

    Returns:
        ``adv`` itself.

    Raises:
        ValueError, TypeError, RuntimeError: an argument or the plan does not fit.
    """
    logits = check_search(adv, clean, y, plan, weights, classes, norm, eps, lo, hi)
    check_number("steps", steps, 1)
    target = y if targets is None else targets
    if targets is not None:
        check_like("targets", targets, "y", y)
    if loss not in ("ce", "margin", "dlr"):
        raise ValueError(f"loss must be 'ce', 'margin' or 'dlr', got {loss!r}")
    attack_arguments(logits, target, loss, None, None, 0.0, targets is not None, y)
    checks = torch.tensor(checkpoints(steps), dtype=torch.int64)
    torch.ops.bat_fast.network_ascent_(
        adv, clean, y, targets, plan, weights, classes, loss, norm, checks, steps, eps, lo, hi
    )
    return changed(adv)
