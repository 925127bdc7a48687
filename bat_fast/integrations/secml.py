"""An attack for SecML-Torch: ``pip install secml-torch``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bat_fast.integrations.attacker import Attacker, host

_ATTACK = host("secmlt.adv.evasion.base_evasion_attack").BaseEvasionAttack
_PLAIN = host("secmlt.models.data_processing.identity_data_processing").IdentityDataProcessing
_NORMS = {"linf": "linf", "l2": "l2"}


class PGD(_ATTACK):  # type: ignore[misc, valid-type]
    """``secmlt.adv.evasion.pgd.PGD``, computed by `bat_fast.PGD`; it takes a model and a loader, likewise.

    Args:
        perturbation_model, epsilon, num_steps, step_size, random_start, y_target, lb, ub: as in the host;
            perturbation models are ``linf`` and ``l2``.
        options: further ones of `bat_fast.PGD`, such as ``precision="bf16"``.

    Raises:
        ValueError: another perturbation model, or a preprocessing that is no module.
    """

    def __init__(
        self, perturbation_model: str, epsilon: float, num_steps: int, step_size: float, *,
        random_start: bool = False, y_target: int | None = None, lb: float = 0.0, ub: float = 1.0,
        **options: Any,
    ) -> None:  # fmt: skip
        if perturbation_model not in _NORMS:
            raise ValueError(f"perturbation_model must be one of {list(_NORMS)}, got {perturbation_model!r}")
        self.y_target, self._attacker = y_target, Attacker()
        self._net: tuple[Any, nn.Module] | None = None
        self.options = options | {
            "norm": _NORMS[perturbation_model], "eps": epsilon, "steps": num_steps, "step_size": step_size,
            "random_start": random_start, "lo": lb, "hi": ub,
        }  # fmt: skip

    def _run(self, model: Any, samples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        before = model._preprocessing
        if not isinstance(before, (nn.Module, _PLAIN)):
            raise ValueError(f"preprocessing must be a torch.nn.Module, got {type(before).__name__}")
        if self._net is None or self._net[0] is not model:
            net = model.model if isinstance(before, _PLAIN) else nn.Sequential(before, model.model)
            self._net = model, net
        x, y = samples.to(model._get_device()), labels.to(model._get_device())
        targets = None if self.y_target is None else torch.full_like(y, self.y_target)
        found = self._attacker(self._net[1], x, y, targets, **self.options)
        return found, found - x
