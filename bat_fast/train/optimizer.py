"""The optimiser of a run, and the average of its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bat_fast.config import OptimConfig
from bat_fast.train.schedule import learning_rate, momentum


def build_optimizer(optim: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of the configuration, with one rate for all parameters."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, object]] = [{"params": parameters}]
    if optim.decay == "weights":
        matrices = [parameter for parameter in parameters if parameter.dim() > 1]
        others = [parameter for parameter in parameters if parameter.dim() <= 1]
        groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
    if optim.name == "sgd":
        return torch.optim.SGD(
            groups, optim.lr, optim.momentum, weight_decay=optim.weight_decay, nesterov=optim.nesterov
        )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optim.name]
    return kind(groups, optim.lr, (optim.momentum, optim.beta2), weight_decay=optim.weight_decay)


def set_rate(optimizer: torch.optim.Optimizer, optim: OptimConfig, step: int, total_steps: int) -> float:
    """Give the optimiser the rate, and the momentum that cycles, of ``step`` (0-based); returns the rate."""
    rate = learning_rate(optim, step, total_steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
        if optim.momentum_low is not None:
            group["momentum"] = momentum(optim, step, total_steps)
    return rate


def build_average(optim: OptimConfig, model: nn.Module) -> torch.optim.swa_utils.AveragedModel | None:
    """What averages the weights and the running statistics, if the configuration asks for it."""
    swa = torch.optim.swa_utils
    if optim.average == "none":
        return None
    ema = optim.average == "ema"
    how = swa.get_ema_multi_avg_fn(optim.average_decay) if ema else _equal_average
    return swa.AveragedModel(model, multi_avg_fn=how, use_buffers=True)


@torch.no_grad()
def _equal_average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
    """SWA; torch's own divides integers too (the batch counter of batch norm), which is an error."""
    for mean, value in zip(averaged, current, strict=True):
        mean.lerp_(value, 1 / (count + 1)) if mean.is_floating_point() else mean.copy_(value)
