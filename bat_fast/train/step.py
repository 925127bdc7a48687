"""What happens to one batch: the attack, the loss, the update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from bat_fast.attacks import PGD, frozen, random_targets
from bat_fast.batch import Batch
from bat_fast.config import AttackConfig, OptimConfig
from bat_fast.methods import Method, Terms
from bat_fast.train.allocator import keep_freed_memory
from bat_fast.train.awp import perturbed
from bat_fast.train.meter import EpochMeter
from bat_fast.train.precision import Autocast


class TrainStep:
    """Trains ``model`` on a batch, with what is orthogonal to the method: smoothing, clipping, AWP.

    Args:
        model: in train mode when called.
        method: what to climb and what to descend.
        attack: how to climb.
        optimizer: how to descend.
        attack_options: the curriculum, targets and clean starts of the configuration.
        optim: label smoothing, clipping and AWP of the configuration.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        attack: PGD,
        optimizer: torch.optim.Optimizer,
        attack_options: AttackConfig,
        optim: OptimConfig,
    ) -> None:
        self.model, self.method, self.attack, self.optimizer = model, method, attack, optimizer
        self.options, self.optim = attack_options, optim
        if all(parameter.is_cpu for parameter in model.parameters()):
            keep_freed_memory()
        self._learner = Autocast(model) if optim.precision == "bf16" else model
        self.replays: int = getattr(method, "replays", 0)
        self.attacks = bool(self.replays)  # whether the images were adversarial so far
        self._bn_mode, self._seed = attack.bn_mode, attack.seed
        self._full = (attack.eps, attack.step_size, attack.steps)

    def set_progress(self, progress: float) -> None:
        """Radius and number of steps where ``progress`` in [0, 1) of the run is done."""
        if not self.options.warmup:
            return
        eps, step_size, steps = self._full
        ramp = min(1.0, progress / self.options.warmup)
        first = steps if self.options.first_steps is None else self.options.first_steps
        self.attack.eps, self.attack.step_size = ramp * eps, ramp * step_size
        self.attack.steps = round(first + ramp * (steps - first))

    def __call__(self, batch: Batch, epoch: int, meter: EpochMeter, *, awp: bool = True) -> Terms:
        """One update, or as many as the method replays; ``epoch`` counts from 0."""
        gamma = self.optim.awp if awp else 0.0
        if self.replays:
            return self._replay(batch, epoch, gamma)
        return self._update(batch, self._adversarial(batch, epoch, meter), epoch, gamma)

    def _adversarial(self, batch: Batch, epoch: int, meter: EpochMeter) -> Tensor:
        with torch.no_grad(), frozen(self.model, self._bn_mode):
            objective = self.method.attack_loss(self.model, batch, epoch)
            if objective is None:
                return batch.x
            self.attacks = True
            targets = None
            if self.options.targets == "random":
                classes = cast(int, self.model.num_classes)
                targets = random_targets(batch.y, batch.index, classes, seed=self._seed, draw=epoch)
            with meter.attack(), self._clean_start():
                return self.attack(batch.x, batch.y, targets, batch.index, objective=objective, draw=epoch)

    @contextmanager
    def _clean_start(self) -> Iterator[None]:
        """Switches the random start off for a share of the batches."""
        share = self.options.clean_start
        if not share or float(torch.rand(())) >= share:  # the generator is seeded for every epoch
            yield
            return
        usual, self.attack.random_start = self.attack.random_start, False
        try:
            yield
        finally:
            self.attack.random_start = usual

    def _replay(self, batch: Batch, epoch: int, gamma: float) -> Terms:
        """The gradient that training leaves at the images moves them, for nothing."""
        with torch.no_grad():
            adv = self.attack.start(batch.x, batch.index, epoch)
        for _ in range(self.replays):
            leaf = adv.detach().requires_grad_()
            terms = self._update(batch, leaf, epoch, gamma)
            assert leaf.grad is not None
            with torch.no_grad():
                self.attack.step(adv, leaf.grad, batch.x)
        return terms

    def _update(self, batch: Batch, x_adv: Tensor, epoch: int, gamma: float) -> Terms:
        def loss() -> Tensor:
            return self._terms(batch, x_adv.detach(), epoch).total

        with perturbed(self.model, loss, gamma) if gamma else nullcontext():
            terms = self._terms(batch, x_adv, epoch)
            self.optimizer.zero_grad(set_to_none=True)
            terms.total.backward()
            if self.optim.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip)
            self.optimizer.step()
        return terms

    def _terms(self, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        terms = self.method(self._learner, batch, x_adv, epoch)
        if not self.optim.label_smoothing:
            return terms
        if terms.logits is None:
            raise TypeError("optim.label_smoothing: the method does not say which logits it fits")
        # CE with smoothed labels is CE + s mean(log p_y - mean_c log p_c).
        log_p = terms.logits.log_softmax(1)
        excess = (log_p.gather(1, batch.y[:, None]).squeeze(1) - log_p.mean(1)).mean()
        return terms._replace(total=terms.total + self.optim.label_smoothing * excess)
