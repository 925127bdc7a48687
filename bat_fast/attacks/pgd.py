"""Projected gradient descent, the inner maximisation of adversarial training."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast import ops
from bat_fast.attacks.engine import ENGINES, Engine, Network, SmallNetwork
from bat_fast.attacks.frozen import frozen
from bat_fast.attacks.loss import AttackLoss
from bat_fast.attacks.pixels import check_batch

_PRECISIONS = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}
_STEPS = {"linf": ops.linf_step_, "l2": ops.l2_step_}
_GAUSSIAN_STD = 0.001  # of the start of TRADES, in pixels
_FP16_SCALE = 1024.0  # of gradients that float16 would round to 0; neither sign nor direction depends on it


class PGD:
    """Projected gradient descent (Madry et al. 2018) on a batch of images in pixel space.

    The model is left untouched: parameters get no gradient, and modes, buffers and ``requires_grad``
    flags are as before. Works under ``no_grad``, ``inference_mode`` and autocast, and with compiled
    models. Under DistributedDataParallel, attack the wrapped module (``ddp.module``).

    Args:
        model: takes [N, C, H, W] pixels in [lo, hi] and returns logits [N, K]; normalisation lives
            inside it (`bat_fast.models.Normalize`).
        eps: radius in pixels, >= 0.
        step_size: step in pixels; None is eps / 4.
        steps: number of gradient steps, >= 0.
        norm: ``"linf"`` or ``"l2"`` (per sample).
        loss: row loss to climb, see `bat_fast.ops.attack_grad`; ``kl`` moves away from the logits of the
            clean images, which are computed once.
        random_start: start at a random point of the ball rather than at the image; ``"gaussian"`` starts
            at the image plus normal noise of standard deviation 0.001, as TRADES does.
        bn_mode: ``"eval"``: the model's eval mode; ``"train"``: its train mode, with the running
            statistics restored afterwards.
        precision: autocast of the model inside the attack: None, ``"bf16"`` or ``"fp16"``; the images
            and the update stay in float32.
        start_scale: radius of the random start in units of ``eps``; the gaussian one ignores it.
        project: keep every step inside the ball; False keeps it inside [lo, hi] only (N-FGSM).
        engine: how the model runs in the steps, with the same result: ``"auto"``, ``"eager"``, ``"frozen"``,
            ``"graph"``, ``"compile"`` or ``"measure"``, see `bat_fast.attacks.engine.Engine`.
        seed: of the random starts, which also depend on the sample's index and on ``draw``.
        lo, hi: range of a pixel.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.

    Example:
        >>> attack = PGD(model, eps=8 / 255, step_size=2 / 255, steps=10)
        >>> x_adv = attack(x, y)
    """

    def __init__(
        self,
        model: nn.Module,
        eps: float = 8 / 255,
        step_size: float | None = None,
        steps: int = 10,
        norm: str = "linf",
        loss: str = "ce",
        random_start: bool | str = True,
        bn_mode: str = "eval",
        precision: str | None = None,
        engine: str = "auto",
        seed: int = 0,
        *,
        start_scale: float = 1.0,
        project: bool = True,
        lo: float = 0.0,
        hi: float = 1.0,
    ) -> None:
        self.model = model
        self.eps = float(eps)
        self.step_size = default_step_size(self.eps) if step_size is None else float(step_size)
        self.steps = steps
        self.norm = _choice("norm", norm, tuple(_STEPS))
        self.loss = loss
        self.random_start = _choice("random_start", random_start, (True, False, "gaussian"))
        self.bn_mode = _choice("bn_mode", bn_mode, ("eval", "train"))
        self.precision = _choice("precision", precision, tuple(_PRECISIONS))
        self.engine = _choice("engine", engine, ENGINES)
        self.seed = seed
        self.start_scale = float(start_scale)
        self.project = bool(project)
        self.lo, self.hi = float(lo), float(hi)
        self._calls = 0
        self._engine = Engine(engine)
        self._range_seen = False
        for name in ("eps", "step_size", "start_scale"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a finite number >= 0, got {getattr(self, name)}")
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"steps must be an integer >= 0, got {steps!r}")
        if not self.lo <= self.hi:
            raise ValueError(f"lo must not be above hi, got lo={lo}, hi={hi}")

    def __repr__(self) -> str:
        names = ("eps", "step_size", "steps", "norm", "loss", "random_start", "bn_mode", "precision", "seed")
        return f"PGD({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        targets: Tensor | None = None,
        index: Tensor | None = None,
        *,
        objective: AttackLoss | None = None,
        draw: int | None = None,
    ) -> Tensor:
        """Adversarial images for ``x``.

        Args:
            x: [N, C, H, W] float32 pixels in [lo, hi].
            y: [N] int64 true classes.
            targets: [N] int64 classes to move towards; None moves away from ``y``.
            index: [N] int64 data set ids that key the random starts; None numbers the batch from 0.
            objective: what to climb; None climbs ``loss`` at ``y`` (or ``targets``).
            draw: which random start of these samples (an epoch, a restart); None counts the calls.

        Returns:
            A new, detached [N, C, H, W] tensor inside [lo, hi], and inside the ball where the start is in it
            and the steps are projected.

        Raises:
            ValueError: pixels outside [lo, hi], or shapes, labels or devices that do not fit.
        """
        if draw is None:
            draw, self._calls = self._calls, self._calls + 1
        with torch.inference_mode(False), torch.no_grad(), frozen(self.model, self.bn_mode):
            clean, label = _usable(x.detach()), _usable(y)
            goal = None if targets is None else _usable(targets)
            # Reading the range waits for a GPU, so there only the first batch is looked at.
            look = clean.is_cpu or not self._range_seen
            check_batch(clean, label, goal, lo=self.lo, hi=self.hi, values=look)
            self._range_seen = self._range_seen or len(clean) > 0
            adv = self.start(clean, index, draw)
            if self.steps and len(clean):
                self._climb(adv, clean, label, goal, objective or AttackLoss(self.loss))
        return adv

    def start(self, clean: Tensor, index: Tensor | None = None, draw: int = 0) -> Tensor:
        """Where the attack on ``clean`` starts, a new tensor; arguments as in a call."""
        if not self.random_start:
            return clean.clamp(self.lo, self.hi)
        gaussian = self.random_start == "gaussian"
        return ops.random_start(
            clean,
            eps=_GAUSSIAN_STD if gaussian else self.eps * self.start_scale,
            norm="gaussian" if gaussian else self.norm,
            seed=self.seed,
            index=index,
            draw=draw,
            lo=self.lo,
            hi=self.hi,
        )

    def step(self, adv: Tensor, grad: Tensor, clean: Tensor) -> None:
        """One step of ``adv`` along ``grad``, in place, with the projections."""
        _STEPS[self.norm](adv, grad, clean, **self._limits(clean))

    def _limits(self, clean: Tensor) -> dict[str, float]:
        radius = self.eps
        if not self.project:
            # No pixel can move further than the range, and no image than that times the root of its size.
            root = (clean.numel() // len(clean)) ** 0.5
            radius = (self.hi - self.lo) * (root if self.norm == "l2" else 1.0)
        return {"step_size": self.step_size, "eps": radius, "lo": self.lo, "hi": self.hi}

    def _climb(
        self, adv: Tensor, clean: Tensor, y: Tensor, targets: Tensor | None, objective: AttackLoss
    ) -> None:
        """Move ``adv`` in place, as the engine does it."""
        if self._engine.name != self.engine:
            self._engine = Engine(self.engine)
        settings = (self.steps, self.eps, self.step_size, self.norm, self.project, self.lo, self.hi)
        tensors = {
            "adv": adv, "clean": clean, "y": y, "targets": targets,
            "reference": objective.reference, "soft": objective.soft,
        }  # fmt: skip
        self._engine.run(
            partial(self._steps, objective.loss, objective.soft_weight),
            (objective.loss, objective.soft_weight, *settings),
            self.model,
            _PRECISIONS[self.precision],
            tensors,
        )

    def _steps(
        self,
        loss: str,
        soft_weight: float,
        network: Network,
        *,
        adv: Tensor,
        clean: Tensor,
        y: Tensor,
        targets: Tensor | None,
        reference: Tensor | None,
        soft: Tensor | None,
    ) -> None:
        """The PGD loop of this project: moves ``adv`` in place. Reads nothing on the host."""
        if reference is None and loss.startswith("kl"):
            reference = network.forward(clean)
        goal: dict[str, Any] = {
            "loss": loss, "reference": reference, "soft": soft, "soft_weight": soft_weight,
            "targeted": targets is not None, "label": y,
        }  # fmt: skip
        target = y if targets is None else targets
        if isinstance(network, SmallNetwork):
            how = {"norm": self.norm, "steps": self.steps, **self._limits(clean)}
            network.climb(adv, clean, target, **goal, **how)
            return
        for _ in range(self.steps):
            logits = network.forward(adv)
            grad_logits, _ = ops.attack_grad(_kernel_dtype(logits), target, **goal)
            if logits.dtype == torch.float16:
                grad_logits.mul_(_FP16_SCALE)
            self.step(adv, network.backward(grad_logits.to(logits.dtype)), clean)


def default_step_size(eps: float) -> float:
    """The step of an attack that names none: a quarter of the radius."""
    return eps / 4


def _usable(tensor: Tensor) -> Tensor:
    """A tensor made in inference mode cannot enter a graph; a copy made outside of it can."""
    return tensor.clone() if tensor.is_inference() else tensor


def _kernel_dtype(logits: Tensor) -> Tensor:
    """Detached logits in a dtype that the row kernels of the device take."""
    return logits.detach().float() if logits.is_cpu and logits.itemsize == 2 else logits.detach()


def _choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value
