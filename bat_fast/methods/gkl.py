"""GKL: generalised Kullback-Leibler divergence, DKL with class priors (Cui et al. 2024, arXiv:2305.13948)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast.attacks.loss import AttackLoss
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, State, Terms
from bat_fast.methods.options import at_least
from bat_fast.methods.outcome import outcome


@dataclass(kw_only=True)
class Gkl(Method):
    """The KL of TRADES in two parts, a distance of logits and a cross-entropy of answers, weighed apart.

    With ``z = f(x)``, ``z' = f(x')``, ``d = z - z'``, and the prior ``P[c]``, the mean over the last epoch of
    ``softmax(z / temperature)`` on the images of class c (1/C in the first)::

        w_i  = P[y_i]^gamma,  W_i = sum_j w_ij
        D    = sum_i sum_jk w_ij w_ik (d_ij - d_ik)^2 / (4 sum_i W_i^2)
             = sum_i W_i sum_j w_ij (d_ij - m_i)^2 / (2 sum_i W_i^2),    m_i = sum_j w_ij d_ij / W_i
        loss = mean_i CE(z_i, y_i) + beta D + alpha mean_i CE(z'_i, softmax z_i)

    The last softmax and the prior carry no gradient; D has one in both arguments. ``x'`` climbs
    ``CE(z', softmax z) + attack_beta D`` with gamma 1. Source of the formulas: jiequancui/DKL,
    DKLv2/Adv-training-dkl/train_dkl_cifar100.py, which has the sum over pairs, attacks in eval mode from
    ``x + 0.001 n`` and passes x' before x. A class without images in an epoch has 0/0 there, and 1/C here.
    """

    alpha: float = 4.0
    """Weight of the cross-entropy of answers, >= 0."""
    beta: float = 20.0
    """Weight of the distance of logits, >= 0."""
    gamma: float = 1.0
    """Power of the prior, >= 0; 0 weighs all pairs of classes alike."""
    temperature: float = 4.0
    """Of the answers that the prior averages, > 0."""
    attack_beta: float = 1.0
    """Weight of D in the attack, >= 0; 1 in the published code for CIFAR-100, 0 in that for CIFAR-10."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma", "attack_beta"):
            at_least(f"gkl.{name}", getattr(self, name), 0.0)
        at_least("gkl.temperature", self.temperature, 0.0, open_end=True)
        self._epoch = 0
        self._prior: Tensor | None = None  # [C, C]
        self._said: Tensor | None = None  # [samples, C], of this epoch
        self._class: Tensor | None = None  # [samples], -1 for a sample that was not met in this epoch

    def prepare(self, num_samples: int, num_classes: int, device: str) -> None:
        """Allocate the prior and what the model says about each sample."""
        self._prior = torch.full((num_classes, num_classes), 1 / num_classes, device=device)
        self._said = torch.zeros(num_samples, num_classes, device=device)
        self._class = torch.full((num_samples,), -1, device=device)

    def attack_options(self, attack: Mapping[str, Any]) -> dict[str, Any]:
        """No CUDA graph: the loss of each batch holds the answers to its own clean images."""
        may_capture = attack["engine"] in ("auto", "graph") and not attack["bn_updates"]
        return {"engine": "frozen"} if may_capture else {}

    def attack_loss(self, model: nn.Module, batch: Batch, epoch: int) -> AttackLoss:
        """The divergence from the attacked model's answer to the clean images."""
        clean = model(batch.x)
        weights, answer = self._priors(batch.y, epoch, clean.dtype), clean.softmax(1)

        def away(logits: Tensor, target: Tensor) -> Tensor:
            crossed = -(answer.to(logits.dtype) * logits.log_softmax(1)).sum(1)
            return crossed + self.attack_beta * spread(clean.to(logits.dtype) - logits, weights)[0] / 2

        return AttackLoss(away)

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch; metrics ``loss``, ``distance`` (D), ``robust_acc`` and ``clean_acc``."""
        adv, clean = model(x_adv), model(batch.x)
        weights = self._priors(batch.y, epoch, clean.dtype) ** self.gamma
        self._remember(batch, clean.detach())
        apart, size = spread(clean - adv, weights)
        distance = apart.sum() / (2 * size.square().sum())
        crossed = -(clean.detach().softmax(1) * adv.log_softmax(1)).sum(1).mean()
        loss = F.cross_entropy(clean, batch.y) + self.beta * distance + self.alpha * crossed
        return outcome(loss, adv, batch.y, accuracy="robust_acc", fitted=clean, distance=distance)

    def _remember(self, batch: Batch, clean: Tensor) -> None:
        """What is said of a sample takes the place of what was said before, so a pass more counts nothing."""
        assert self._said is not None
        assert self._class is not None
        self._said[batch.index] = (clean / self.temperature).softmax(1).to(self._said.dtype)
        self._class[batch.index] = batch.y

    def _priors(self, y: Tensor, epoch: int, dtype: torch.dtype) -> Tensor:
        """The prior [N, C] of the classes ``y`` [N]; a new epoch takes that of the one before."""
        if self._prior is None or self._said is None or self._class is None:
            raise RuntimeError("gkl: call prepare(samples, classes, device) before the first batch")
        if dtype == torch.float64 and self._said.dtype != dtype:
            self._said, self._prior = self._said.double(), self._prior.double()
            self._prior /= self._prior.sum(1, keepdim=True)
        if epoch != self._epoch:
            self._prior, self._epoch = self._means(self._said, self._class), epoch
            self._class.fill_(-1)
        return self._prior.to(dtype)[y]

    @staticmethod
    def _means(said: Tensor, kind: Tensor) -> Tensor:
        """[C, C]: what was said on average about the samples of each class."""
        classes = said.shape[1]
        member = (kind[:, None] == torch.arange(classes, device=kind.device)).to(said.dtype)
        count = member.sum(0)[:, None]
        return torch.where(count > 0, member.T @ said / count.clamp(min=1), 1 / classes)

    def state_dict(self) -> State:
        """The prior, and what it will be made of."""
        return {"epoch": self._epoch, "prior": self._prior, "said": self._said, "class": self._class}

    def load_state_dict(self, state: State) -> None:
        """Take those of a checkpoint over, onto the device of these."""
        device = None if self._prior is None else self._prior.device
        self._epoch = state["epoch"]
        self._prior, self._said, self._class = (state[name].to(device) for name in ("prior", "said", "class"))


def spread(d: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Half the weighted sum over all pairs of squared differences, without the pairs.

    Args:
        d: [N, C].
        weights: [N, C], >= 0.

    Returns:
        ``sum_jk w_j w_k (d_j - d_k)^2 / 2`` [N], and ``sum_j w_j`` [N].
    """
    size = weights.sum(1)
    mean = (weights * d).sum(1, keepdim=True) / size[:, None]
    return size * (weights * (d - mean).square()).sum(1), size
