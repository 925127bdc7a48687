"""One projected step of an attack."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bat_fast import ops

_STEPS = {"linf": ops.linf_step_, "l2": ops.l2_step_}
NORMS = tuple(_STEPS)


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

    def __call__(self, adv: Tensor, grad: Tensor, clean: Tensor) -> None:
        """Move ``adv`` in place.

        Args:
            adv: [N, C, H, W] images.
            grad: [N, C, H, W] gradient of what they climb.
            clean: [N, C, H, W] centre of the ball.
        """
        _STEPS[self.norm](adv, grad, clean, **self.limits(clean))

    def limits(self, clean: Tensor) -> dict[str, float]:
        """Keyword arguments of the operators of a step, for images like ``clean`` [N, C, H, W]."""
        radius = self.eps
        if not self.project:
            # No pixel can move further than the range, and no image than that times the root of its size.
            root = (clean.numel() // len(clean)) ** 0.5
            radius = (self.hi - self.lo) * (root if self.norm == "l2" else 1.0)
        return {"step_size": self.step_size, "eps": radius, "lo": self.lo, "hi": self.hi}


def default_step_size(eps: float) -> float:
    """The step of an attack that names none: a quarter of the radius."""
    return eps / 4
