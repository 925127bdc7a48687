"""One projected step of an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from bat_fast import ops
from bat_fast._checks import choice
from bat_fast._native import reference_of
from bat_fast.config.ball import length_fault
from bat_fast.ops._ball import per_image
from bat_fast.ratio import Ratio
from bat_fast.spelling import meant

Radius = TypeVar("Radius", float, Tensor, float | Tensor)
_STEPS = {"linf": ops.linf_step_, "l2": ops.l2_step_}
NORMS = tuple(_STEPS)
_LEAST = 1e-30  # of a radius: an l2 step divides by the distance and multiplies by the radius


@dataclass(frozen=True)
class Step:
    """A step along a gradient, and the projections onto the ball and the range of a pixel.

    Args:
        norm: one of ``NORMS``.
        step_size: length of the step.
        eps: radius of the ball.
        lo, hi: range of a pixel.
        project: False leaves out the projection onto the ball.
    """

    norm: str
    step_size: float
    eps: float
    lo: float
    hi: float
    project: bool = True

    def __call__(
        self,
        adv: Tensor,
        grad: Tensor,
        clean: Tensor,
        *,
        eps: Tensor | None = None,
        step_size: Tensor | None = None,
    ) -> None:
        """Move ``adv`` in place.

        Args:
            adv: [N, C, H, W] images.
            grad: [N, C, H, W] gradient of what they climb.
            clean: [N, C, H, W] centre of the ball.
            eps, step_size: [N] of each image, in the place of those of the step. The kernels take one number,
                so these run as operators of torch.
        """
        limits: dict[str, Any] = self.limits(clean)
        if eps is None and step_size is None:
            _STEPS[self.norm](adv, grad, clean, **limits)
            return
        if eps is not None and self.project:
            limits["eps"] = per_image(eps.clamp(min=_LEAST), clean)
        if step_size is not None:
            limits["step_size"] = per_image(step_size, clean)
        reference_of(f"{self.norm}_step_")(adv, grad, clean, **limits)

    def limits(self, clean: Tensor) -> dict[str, float]:
        """Keyword arguments of the operators of a step, for images like ``clean`` [N, C, H, W]."""
        radius = self.eps
        if not self.project:
            # No pixel can move further than the range, and no image than that times the root of its size.
            root = (clean.numel() // len(clean)) ** 0.5
            radius = (self.hi - self.lo) * (root if self.norm == "l2" else 1.0)
        return {"step_size": self.step_size, "eps": radius, "lo": self.lo, "hi": self.hi}


def which_norm(norm: str) -> str:
    """The one of ``NORMS`` that is meant: ``Linf`` is ``linf``.

    Raises:
        ValueError: it is none.
    """
    return str(choice("norm", meant(str(norm), NORMS) or norm, NORMS))


def check_length(name: str, value: float, norm: str, lo: float = 0.0, hi: float = 1.0) -> None:
    """Raise ValueError where a radius or a step makes no sense among pixels in [lo, hi]."""
    fault = length_fault(norm, value, width=hi - lo)
    if fault is not None:
        raise ValueError(f"{name} must be {fault}")


def one_number(name: str, value: Any, kind: str) -> float:
    """``value`` as a float, which text may say as a fraction: ``"8/255"``.

    Raises:
        ValueError: it holds several numbers, which attacks of this ``kind`` do not take, or is other text.
        TypeError: it is something else.
    """
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"{name}: {kind} takes one number, PGD and FGSM take one for each image")
    try:
        return float(Ratio(value) if isinstance(value, str) else value)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name} must be a number or a fraction such as 8/255, got {value!r}") from None


def numbers(name: str, value: Any, kind: str) -> float | Tensor:
    """``value`` as a float, or as a tensor [N] with a number for each image."""
    if isinstance(value, Tensor) and value.dim():
        return each_image(name, value)
    return one_number(name, value, kind)


def each_image(name: str, value: Tensor) -> Tensor:
    """``value`` as a tensor [N] of its own, with a number for each image.

    Raises:
        ValueError: it has another shape, or a number that is not finite and >= 0.
    """
    value = value.detach().to(torch.float64, copy=True)  # the images say in which type it is used
    if value.dim() != 1 or not len(value):
        raise ValueError(f"{name} must be a number, or a tensor [N] of numbers, got {list(value.shape)}")
    if not bool(((value >= 0) & value.isfinite()).all()):
        raise ValueError(f"{name} must hold finite numbers >= 0, got {value.tolist()[:8]}")
    return value


def default_step_size(eps: Radius) -> Radius:
    """The step of an attack that names none: a quarter of the radius."""
    return eps / 4
