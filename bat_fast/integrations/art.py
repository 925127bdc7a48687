"""PGD of the Adversarial Robustness Toolbox: ``pip install adversarial-robustness-toolbox``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bat_fast.attacks import untouched
from bat_fast.integrations.attacker import Attacker, host

_HOST = host("art.attacks.evasion")
_NORMS = {"inf": "linf", "2": "l2", "2.0": "l2"}
_FAR = 1e30  # where an estimator has no limits of a pixel


class PGD(_HOST.ProjectedGradientDescentPyTorch):  # type: ignore[misc, name-defined]
    """``ProjectedGradientDescentPyTorch``, computed by `bat_fast.PGD`.

    With the l2 norm the host cuts to ``clip_values`` before it projects, and this one afterwards. The
    normalisation of the estimator is found in ``preprocessing``. ``eps`` may be an array with a number
    for each image.

    Args:
        estimator: a ``PyTorchClassifier`` with cross-entropy.
        options: further ones of `bat_fast.PGD`, such as ``{"precision": "bf16"}``.
        settings: as in the host; norms are inf and 2, and there is no ``decay``.

    Raises:
        ValueError: a setting that is not computed here; use the attack of the host.
    """

    def __init__(self, estimator: Any, *, options: dict[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(estimator, **settings)
        self.options, self._attacker = options or {}, Attacker()

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Adversarial images of ``x`` [N, C, H, W]; arguments as in the host."""
        with untouched(self.estimator.model, "eval"):
            found: np.ndarray = super().generate(x, y, **kwargs)
        return found

    def _generate_batch(self, x: Tensor, targets: Tensor, mask: Any, eps: Any, eps_step: Any) -> np.ndarray:
        steps = self.estimator.preprocessing_operations
        loss, limits = self.estimator._loss, self.estimator.clip_values
        limits = (-_FAR, _FAR) if limits is None else limits
        refused = {
            "mask": mask is not None, "decay": self.decay is not None, "norm": str(self.norm) not in _NORMS,
            "preprocessing": len(steps) > 1 or not all(hasattr(step, "std") for step in steps),
            "loss": type(loss) is not nn.CrossEntropyLoss or loss.label_smoothing > 0,
            "clip_values": any(np.ptp(limit) > 0 for limit in limits),
        }  # fmt: skip
        if any(refused.values()):
            name = next(name for name, wrong in refused.items() if wrong)
            raise ValueError(f"{name}: not computed by bat_fast; use ART's ProjectedGradientDescentPyTorch")
        numbers = [np.ravel(value).tolist() for step in steps for value in (step.mean, step.std)] or [
            None
        ] * 2
        y = targets.to(self.estimator.device).argmax(1)
        found = self._attacker(
            self.estimator.model, x.to(self.estimator.device), y, y if self.targeted else None,
            mean=numbers[0], std=numbers[1], eps=_radius(eps), step_size=_radius(eps_step),
            steps=self.max_iter, random_start=self.num_random_init > 0, norm=_NORMS[str(self.norm)],
            lo=float(np.min(limits[0])), hi=float(np.max(limits[1])), **self.options,
        )  # fmt: skip
        return found.cpu().numpy()


def _radius(value: Any) -> float | Tensor:
    """A number, or one for each image of an array [N, 1, 1, 1] of the host."""
    if np.ndim(value) == 0:
        return float(value)
    if np.size(value) != len(value):
        raise ValueError("eps: not a number for each image, [N, 1, 1, 1]; use ART's own attack")
    return torch.from_numpy(np.ravel(value))
