"""Benign Adversarial Training (Xu et al. 2021, arXiv:2106.04794)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast import ops
from bat_fast.batch import Batch
from bat_fast.methods.base import Method, Terms
from bat_fast.methods.options import at_least, choice
from bat_fast.methods.outcome import outcome


@dataclass(frozen=True, kw_only=True)
class Bat(Method):
    """Adversarial training that does not fit harmful samples, and keeps the classes apart.

    With ``z_i = f(x'_i)``, ``p = softmax(z)`` and the penultimate features ``h_i`` of ``x'_i``, scaled to
    length 1::

        q_i = max_{t != y_i} p_t(x'_i)                                    no gradient through q
        w_i = exp(-alpha q_i)  where argmax_t p_t(x'_i) != y_i,  else 1
        L_RW = sum_i w_i CE(z_i, y_i) / sum_i w_i
        L_DL = mean_i mean_{j in P(i)} -log( exp(h_i.h_j / tau) / sum_{k in A(i)} exp(h_i.h_k / tau) )
        loss = L_RW + beta L_DL

    ``P(i)`` holds the other samples of the class of i in the batch, ``A(i)`` all samples but i. A sample
    that is predicted wrongly with confidence is the likely harmful one, and weighs less. alpha = 0 with
    beta = 0 is PGD-AT, bit for bit. Only the abstract of the paper was at hand when this was written, so
    these closed forms are the reference definition *of this project*; every choice is an option.

    With ``holistic``, L_RW is instead the worst case of `bat_fast.methods.holistic` over the losses
    ``w_i CE_i``, divided by the mean weight: a sample that BAT trusts little is less likely the worst.

    Raises:
        ValueError: an option is out of its range.
    """

    alpha: float = 1.0
    """Strength of the reweighting, >= 0."""
    beta: float = 0.2
    """Weight of the discrimination loss, >= 0; with 0 no features are computed."""
    temperature: float = 0.1
    """tau, > 0."""
    normalize: Literal["weights", "batch"] = "weights"
    """Divide the reweighted loss by the sum of the weights, or by N."""
    denominator: Literal["all", "negatives"] = "all"
    """A(i): all samples but i, or j and the samples of other classes."""
    weighted: bool = False
    """Weigh the anchors of the discrimination loss by w_i, so that harmful samples shape it less."""
    warmup: int = 0
    """Epochs in which alpha and beta rise linearly from 0."""
    holistic: Literal["none", "hd", "hr"] = "none"
    """Replace the reweighted mean by the worst case of holistic robust training."""
    corruption: float = 0.0
    """Fraction of corrupted data of the holistic weights, >= 0."""
    radius: float = 0.2
    """Statistical radius of the holistic weights in nats, >= 0."""

    def __post_init__(self) -> None:
        at_least("bat.alpha", self.alpha, 0.0)
        at_least("bat.beta", self.beta, 0.0)
        at_least("bat.temperature", self.temperature, 0.0, open_end=True)
        at_least("bat.warmup", self.warmup, 0)
        choice("bat.normalize", self.normalize, ("weights", "batch"))
        choice("bat.denominator", self.denominator, ("all", "negatives"))
        choice("bat.holistic", self.holistic, ("none", "hd", "hr"))
        at_least("bat.corruption", self.corruption, 0.0)
        at_least("bat.radius", self.radius, 0.0)

    def __call__(self, model: nn.Module, batch: Batch, x_adv: Tensor, epoch: int) -> Terms:
        """The loss of one batch.

        Metrics: ``loss``, ``robust_acc``, ``weight_mean``, ``harmful_share`` (of weights below 1), and with
        beta > 0 ``discrimination``, which is L_DL.

        Raises:
            TypeError: beta > 0 and the model cannot return its features.
        """
        ramp = min(1.0, epoch / self.warmup) if self.warmup else 1.0
        logits, features = self._forward(model, x_adv)
        loss, weights = ops.bat_loss(logits, batch.y, alpha=ramp * self.alpha, normalize=self.normalize)
        if self.holistic != "none":
            losses = weights * F.cross_entropy(logits, batch.y, reduction="none")
            value = ops.holistic_loss(losses, alpha=self.corruption, r=self.radius, form=self.holistic)
            loss = value / weights.mean() if self.normalize == "weights" else value
        metrics = {"weight_mean": weights.mean(), "harmful_share": (weights < 1).float().mean()}
        if features is not None:
            discrimination = ops.discrimination_loss(
                features,
                batch.y,
                temperature=self.temperature,
                weights=weights if self.weighted else None,
                denominator=self.denominator,
            )
            metrics["discrimination"] = discrimination
            loss = loss + ramp * self.beta * discrimination
        return outcome(loss, logits, batch.y, accuracy="robust_acc", **metrics)

    def _forward(self, model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.beta:
            return model(x), None
        try:
            logits, features = model(x, return_features=True)
        except TypeError as error:
            if "return_features" not in str(error):
                raise
            raise TypeError(
                f"bat.beta = {self.beta:g} needs the model's features, but it does not take return_features: "
                "take model = bat_fast.models.wrap(model, x) in its place, which finds them, or set beta=0"
            ) from None
        return logits, features
