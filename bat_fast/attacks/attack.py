"""What every attack shares: arguments, checks, the random start, a model that is left as it was."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast._checks import ATTACK_LOSSES, check_number, check_range, choice
from bat_fast._logits import logits_of, succeeded
from bat_fast.attacks.done import Done, Progress, of_batch
from bat_fast.attacks.engine import ENGINES, Engine, Loop
from bat_fast.attacks.goal import report_labels
from bat_fast.attacks.loss import AttackLoss, LossFunction
from bat_fast.attacks.modules import as_module
from bat_fast.attacks.options import Optioned
from bat_fast.attacks.pixels import check_batch, check_tensors, usable
from bat_fast.attacks.precision import AUTOCAST, working_dtype
from bat_fast.attacks.problem import Problem
from bat_fast.attacks.start import begin
from bat_fast.attacks.step import Step, check_length, default_step_size, one_number, which_norm
from bat_fast.attacks.untouched import untouched


class Attack(Optioned, ABC):
    """An attack on a batch of images in pixel space, within a ball around each of them.

    A call checks the batch, holds the model still, makes the start and hands both to `run`, which a kind of
    attack writes. The model is left untouched: parameters get no gradient, and modes, buffers and
    ``requires_grad`` flags are as before. Works under ``no_grad``, ``inference_mode`` and autocast, and with
    compiled models. Of a DataParallel or DistributedDataParallel model, the module inside is attacked.

    Args:
        model: takes [N, C, H, W] pixels in [lo, hi] and returns logits [N, K], or a tuple or an object that
            holds them; normalisation lives inside it (`bat_fast.models.Normalize`). A module, or a function.
        eps: radius in pixels, or text, ``"8/255"``; in linf at most the range of a pixel, in l2 32 times it.
        step_size: step in pixels, likewise; None is eps / 4.
        norm: ``"linf"`` or ``"l2"`` (per sample), in any case.
        loss: row loss to climb, see `bat_fast.ops.attack_grad`; ``kl`` moves away from the logits of the
            clean images, which are computed once. Or a function ``loss(logits, y)`` in torch, with float32
            logits [N, K], such as ``nn.CrossEntropyLoss()``; with ``targets`` it is descended towards them.
        random_start: start at a random point of the ball rather than at the image; ``"gaussian"`` starts
            at the image plus normal noise of standard deviation 0.001, as TRADES does.
        bn_mode: ``"eval"``: the model's eval mode; ``"train"``: its train mode, with the running
            statistics restored afterwards.
        bn_updates: leave in the running statistics what ``bn_mode="train"`` has seen, as most published code
            does; the steps then run on the plain model.
        precision: autocast of the model inside the attack: None or ``"fp32"``, ``"bf16"``, ``"fp16"``;
            the images and the update stay in float32.
        engine: how the model runs in the steps, with the same result: ``"auto"``, ``"eager"``, ``"frozen"``,
            ``"graph"``, ``"compile"`` or ``"measure"``, see `bat_fast.attacks.engine.Engine`.
        seed: of the random numbers, which also depend on the sample's index and on ``draw``.
        start_scale: radius of the random start in units of ``eps``; the gaussian one ignores it.
        clip_start: cut the random start to [lo, hi]; False takes the first gradient outside of it too.
        lo, hi: range of a pixel.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it.
    """

    _shown: tuple[str, ...] = (
        "eps", "step_size", "norm", "loss", "random_start", "bn_mode", "precision", "seed"
    )  # fmt: skip

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Any],
        eps: float | str = 8 / 255,
        *,
        step_size: float | str | None = None,
        norm: str = "linf",
        loss: str | LossFunction = "ce",
        random_start: bool | str = True,
        bn_mode: str = "eval",
        precision: str | None = None,
        engine: str = "auto",
        seed: int = 0,
        start_scale: float = 1.0,
        bn_updates: bool | str = False,
        clip_start: bool = True,
        lo: float = 0.0,
        hi: float = 1.0,
    ) -> None:
        self.model = as_module(model)
        kind, self.norm = type(self).__name__, which_norm(norm)
        self.eps = one_number("eps", eps, kind)
        step = default_step_size(self.eps) if step_size is None else step_size
        self.step_size = one_number("step_size", step, kind)
        self.loss = loss if callable(loss) else choice("loss", loss, tuple(ATTACK_LOSSES))
        self.random_start = choice("random_start", random_start, (True, False, "gaussian"))
        self.bn_mode = choice("bn_mode", bn_mode, ("eval", "train"))
        self.precision = choice("precision", precision, tuple(AUTOCAST))
        self.engine = choice("engine", engine, ENGINES)
        self.bn_updates = choice("bn_updates", bn_updates, (True, False, "all"))
        if self.bn_updates:
            self._count_passes()
        self.clip_start = bool(clip_start)
        self.seed = seed
        self.start_scale = float(start_scale)
        self.lo, self.hi = float(lo), float(hi)
        self._calls = 0
        self._engine = Engine(self.engine)
        self._range_seen = False
        check_range(self.lo, self.hi)
        check_number("start_scale", self.start_scale, 0.0)
        for name in ("eps", "step_size"):
            check_length(name, getattr(self, name), self.norm, self.lo, self.hi)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._shown)})"
        )

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        targets: Tensor | None = None,
        index: Tensor | None = None,
        *,
        objective: AttackLoss | None = None,
        draw: int | None = None,
        done: Done | None = None,
    ) -> Tensor:
        """Adversarial images for ``x``.

        Args:
            x: [N, C, H, W] float32 pixels in [lo, hi]; 16 bits are attacked in float32 and rounded at the
                end, a model of float64 is attacked in float64.
            y: [N] int64 true classes.
            targets: [N] int64 classes to move towards; None moves away from ``y``.
            index: [N] int64 data set ids that key the random starts; None numbers the batch from 0.
            objective: what to climb; None climbs ``loss`` at ``y`` (or ``targets``).
            draw: which random start of these samples (an epoch, a restart); None counts the calls.
            done: where an attack of several runs keeps what it has found of this batch, and begins with
                what is there of it; it is for this model and attack alone.

        Returns:
            A new, detached [N, C, H, W] tensor like ``x`` inside [lo, hi], and inside the ball where the
            start is in it and the steps are projected.

        Raises:
            ValueError: pixels outside [lo, hi], or shapes, labels or devices that do not fit. TypeError: a
                dtype does not.
        """
        attack = self._attack
        if torch.compiler.is_compiling():  # what an attack does to the model is not for a compiler
            attack = torch.compiler.disable(attack)
        return attack(x, y, targets, index, objective, draw, done)

    def _attack(
        self, x: Tensor, y: Tensor, targets: Tensor | None, index: Tensor | None,
        objective: AttackLoss | None, draw: int | None, done: Done | None,
    ) -> Tensor:  # fmt: skip
        check_tensors(x=x, y=y, targets=targets, index=index)
        if draw is None:
            draw, self._calls = self._calls, self._calls + 1
        with torch.inference_mode(False), torch.no_grad(), self._still():
            clean, label = usable(x.detach()).to(working_dtype(self.model, x)), usable(y)
            goal = None if targets is None else usable(targets)
            # Reading the range waits for a GPU, so there only the first batch is looked at.
            look = clean.is_cpu or not self._range_seen
            check_batch(clean, label, goal, lo=self.lo, hi=self.hi, values=look)
            self._range_seen = self._range_seen or len(clean) > 0
            adv = self.start(clean, index, draw)
            if len(clean):
                progress = Progress(of_batch(done, draw, clean, label, goal, index))
                climbed = objective or AttackLoss(self.loss)
                self.run(adv, Problem(clean, label, goal, climbed, index, draw, progress))
            if not self.clip_start:
                adv.clamp_(self.lo, self.hi)  # without a step it is still the start
        return adv.to(x.dtype)

    def _still(self) -> AbstractContextManager[None]:
        return untouched(self.model, self.bn_mode, keep=not self.bn_updates)

    def _count_passes(self) -> None:
        """Engines but the plain one compute the statistics of a batch and keep none."""
        if self.bn_mode != "train":
            raise ValueError("bn_updates counts passes in train mode: set bn_mode train, or leave it off")
        if self.engine not in ("auto", "eager"):
            raise ValueError(f"bn_updates needs engine auto or eager, got {self.engine!r}")
        self.engine = "eager"

    @abstractmethod
    def run(self, adv: Tensor, problem: Problem) -> None:
        """Move ``adv`` in place from the start to the end of the attack.

        The model is held still around this call, and no gradients are recorded.

        Args:
            adv: [N, C, H, W] the start, N >= 1.
            problem: the batch and what to climb.
        """

    def start(self, clean: Tensor, index: Tensor | None = None, draw: int = 0) -> Tensor:
        """The point where the attack starts.

        Args:
            clean: [N, C, H, W] pixels.
            index: [N] int64 data set ids; None numbers the batch from 0.
            draw: which random start of these samples.

        Returns:
            A new [N, C, H, W] tensor.
        """
        return begin(
            clean, self.random_start, self.norm, self.radius_of(clean) * self.start_scale,
            cut=self.clip_start, lo=self.lo, hi=self.hi, seed=self.seed, index=index, draw=draw,
        )  # fmt: skip

    def radius_of(self, clean: Tensor) -> float | Tensor:  # noqa: ARG002
        """The radius of the ball around ``clean`` [N, C, H, W], or that of each image, [N]."""
        return self.eps

    def succeeds(self, adv: Tensor, y: Tensor, targets: Tensor | None = None) -> Tensor:
        """[N] bool: the model, in eval mode and its own precision, gives ``adv`` the class that is wanted.

        Args:
            adv: [N, C, H, W] images.
            y: [N] int64 true classes: any other is wanted, and no number counts as one.
            targets: [N] int64 classes to reach, in their place.
        """
        with torch.no_grad(), untouched(self.model, "eval"):
            logits = logits_of(self.model(adv), len(adv))
        return succeeded(logits, y, targets)

    @property
    def step(self) -> Step:
        """The projected step with the settings of the moment: call it with (adv, grad, clean)."""
        return Step(self.norm, self.step_size, self.eps, self.lo, self.hi)

    def iterate(self, loop: Loop, **tensors: Tensor | None) -> None:
        """Call ``loop(network, **tensors)`` on the network that the engine makes of the model.

        Args:
            loop: changes ``adv`` in place and reads nothing on the host, see
                `bat_fast.attacks.engine.Loop`. It may ask the network for logits alone, or for gradients too.
            tensors: ``adv`` [N, C, H, W] among them.
        """
        if self._engine.name != self.engine:
            self._engine = Engine(self.engine)
        self._engine.run(loop, self.model, AUTOCAST[self.precision], tensors)
        adv = tensors["adv"]
        if adv is not None and adv.is_cuda:
            report_labels(adv.device)
