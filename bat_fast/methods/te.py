"""Temporal ensembling against robust overfitting (Dong et al. 2021, arXiv:2106.01606)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast import ops
from bat_fast.attacks.loss import AttackLoss
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, State, Terms
from bat_fast.methods.options import at_least


@dataclass(kw_only=True)
class Te(Method):
    """Any method, held to what the model used to say about each sample: hard labels are not memorised.

    M [samples, C] starts at 0. From epoch ``start`` on, with the clean logits ``z0`` of the attacked model::

        M[index] <- momentum M[index] + (1 - momentum) softmax(z0);  t = M[index] / sum_c M[index]
        w(epoch) = weight exp(-5 (1 - (epoch - start) / (end - start))^2), 0 before start, weight after end
        loss     = L_over + w mean((softmax z - t)^2)      z: the logits that ``over`` fits to the labels,
        attack   = A_over + w mean((softmax f(x') - t)^2)     f(x') for pgd_at and bat, f(x) for trades

    where A is CE, or beta KL for trades; means are over all N C entries, and epochs count from 0.
    The published code attacks in eval mode.
    """

    over: str = "pgd_at"
    """The method underneath: ``pgd_at``, ``trades``, ``bat``, or any other without a state."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Its options."""
    momentum: float = 0.9
    """Momentum of the memory, in [0, 1)."""
    weight: float = 300.0
    """Weight of the squared error, >= 0."""
    start: int = 90
    """Epoch in which the memory and the ramp begin."""
    end: int = 150
    """Epoch from which the weight is whole."""

    def __post_init__(self) -> None:
        from bat_fast.methods import create

        at_least("te.momentum", self.momentum, 0.0)
        at_least("te.weight", self.weight, 0.0)
        at_least("te.start", self.start, 0)
        if self.momentum >= 1:
            raise ValueError(f"te.momentum must be below 1, got {self.momentum}")
        if self.end <= self.start:
            raise ValueError(f"te.end must be after te.start = {self.start}, got {self.end}")
        self._inner: Method = create(self.over, **self.options)
        if self._inner.state_dict() or self._inner.replays:
            raise ValueError(f"te.over: {self.over} keeps a state or attacks on its own; use another method")
        self._memory: Tensor | None = None

    def prepare(self, num_samples: int, num_classes: int, device: str) -> None:
        """Allocate the memory."""
        self._memory = torch.zeros(num_samples, num_classes, device=device)

    def attack_options(self, attack: Mapping[str, Any]) -> dict[str, Any]:
        """What the method underneath sets."""
        return self._inner.attack_options(attack)

    def attack_loss(self, model: nn.Module, batch: Batch, epoch: int) -> AttackLoss | None:
        """What the method underneath climbs, and the squared error; updates the memory from ``start`` on."""
        objective = self._inner.attack_loss(model, batch, epoch)
        if epoch < self.start:
            return objective
        logits = model(batch.x)
        memory = self._rows(logits.dtype)
        soft = ops.ensemble_targets_(memory, batch.index, logits.to(memory.dtype), momentum=self.momentum)
        if objective is None:
            return None
        if not objective.weight:
            return objective
        if not isinstance(objective.loss, str):
            raise TypeError(f"te.over: {self.over} climbs a loss of its own, to which none is added here")
        return replace(
            objective,
            loss=f"{objective.loss}+te",
            reference=logits if objective.loss == "kl" else objective.reference,
            soft=soft,
            soft_weight=self.ramp(epoch) / objective.weight,  # the kernel's base loss has weight 1
        )

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics: those of ``over``, and ``te``, the squared error."""
        terms = self._inner(model, batch, x_adv, epoch)
        logits = terms.logits
        if logits is None:
            raise TypeError(f"te.over: {self.over} does not say which logits it fits (Terms.logits)")
        error = logits.new_zeros(())
        if epoch >= self.start:
            kept = self._rows(logits.dtype)[batch.index]
            error, _ = ops.soft_target_loss(logits, kept / kept.sum(1, keepdim=True))
        total = terms.total + self.ramp(epoch) * error
        return terms._replace(
            total=total, metrics={**terms.metrics, "loss": total.detach(), "te": error.detach()}
        )

    def ramp(self, epoch: int) -> float:
        """The weight of the squared error in ``epoch``."""
        if epoch < self.start:
            return 0.0
        rest = 1.0 - min(1.0, (epoch - self.start) / (self.end - self.start))
        return self.weight * math.exp(-5.0 * rest**2)

    def _rows(self, dtype: torch.dtype) -> Tensor:
        if self._memory is None:
            raise RuntimeError("te: call prepare(num_samples, num_classes, device) before the first batch")
        if dtype == torch.float64 and self._memory.dtype != dtype:
            self._memory = self._memory.double()
        return self._memory

    def memory(self) -> Tensor | None:
        """The memory."""
        return self._memory

    def state_dict(self) -> State:
        """The memory."""
        return {"memory": self._memory}

    def load_state_dict(self, state: State) -> None:
        """Take the memory of a checkpoint over, onto the device of this one."""
        stored: Tensor = state["memory"]
        self._memory = stored if self._memory is None else stored.to(self._memory.device)
