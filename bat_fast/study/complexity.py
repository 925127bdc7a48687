"""Measures of complexity of a trained model, to set beside its robust generalisation gap.

With weights ``w`` and those at the start ``w0``, layers ``W_l`` (convolutions and linear ones, reshaped to
[out, in]; batch norm scales its layer) and ``m`` the 10th percentile of the training margins
``z_y - max_{t != y} z_t``::

    l2            || w ||_2                                    of all trained parameters
    distance      || w - w0 ||_2                               (Nagarajan and Kolter 2019)
    log_spectral  sum_l log sigma_max(W_l)                     (Bartlett et al. 2017, arXiv:1706.08498)
    path          sqrt( sum_c f_{w^2}(1)_c )                   (Neyshabur et al. 2015, arXiv:1506.02617)
    flatness      1 / s^2, s the largest with  E_{u ~ N(0, s^2)} error(w + u) <= error(w) + 0.1

and over the margin ``l2^2 / m^2``, ``2 log_spectral - 2 log m`` and ``path^2 / m^2``: norms as they are used
by Neyshabur et al. 2017 (arXiv:1706.08947), margin and flatness as by Jiang et al. 2020 (arXiv:1912.02178),
and their use for adversarial training by Dong et al. 2021 (arXiv:2106.01606), whose programs were not
released. Choices made here: biases are no paths, pooling counts as it is, and the images of the flatness
are attacked once, with the unperturbed model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bat_fast._logits import logits_of
from bat_fast._random import generator
from bat_fast.models.normalize import Normalize

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ALLOWED = 0.1  # of the error, that perturbed weights may add


def l2_norm(model: nn.Module) -> float:
    """``|| w ||_2`` of all trained parameters."""
    return math.sqrt(
        sum(float(p.detach().double().square().sum()) for p in model.parameters() if p.requires_grad)
    )


def distance(model: nn.Module, start: nn.Module) -> float:
    """``|| w - w0 ||_2`` of all trained parameters.

    Args:
        model: as trained.
        start: the same network with the weights that training began with, on any device.
    """
    there = dict(start.named_parameters())
    squares = [
        float((p.detach().double() - there[name].detach().to(p.device).double()).square().sum())
        for name, p in model.named_parameters()
        if p.requires_grad
    ]
    return math.sqrt(sum(squares))


def log_spectral(model: nn.Module) -> float:
    """``sum_l log sigma_max(W_l)``, and the log of the largest scale of each batch norm; ``-inf`` with a
    layer of zeros."""
    total = 0.0
    for layer in model.modules():
        if isinstance(layer, _LAYERS):
            total += _log(torch.linalg.matrix_norm(layer.weight.detach().flatten(1).double(), 2))
        elif isinstance(layer, _NORMS):
            total += _log(_scale(layer).abs().max())
    return total


def _log(size: Tensor) -> float:
    return float(size.double().log())


def path_norm(model: nn.Module, image: tuple[int, ...]) -> float:
    """The root of the sum over all paths of the product of their squared weights.

    It is what the network with squared weights and no biases makes of ones. There all values are positive,
    so that an activation is left out.

    Args:
        model: of convolutions, linear layers and batch norm.
        image: (C, H, W).

    Raises:
        ValueError: the network has other layers with parameters.
    """
    squared = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        _square(squared)
        ones = torch.ones(1, *image, dtype=torch.float64, device=next(model.parameters()).device)
        return math.sqrt(float(logits_of(squared(ones)).sum()))


def _square(module: nn.Module) -> None:
    for name, layer in module.named_children():
        if isinstance(layer, Normalize) or _is_activation(layer):
            setattr(module, name, nn.Identity())
        elif isinstance(layer, _LAYERS):
            layer.weight.square_()
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, _NORMS):
            scale = _scale(layer)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.zero_()
            layer.running_var.fill_(1 - layer.eps)
            layer.weight = nn.Parameter(scale.square())
            layer.bias = nn.Parameter(torch.zeros_like(scale))
        elif next(layer.parameters(recurse=False), None) is not None:
            raise ValueError(
                f"path norm: {type(layer).__name__} is neither convolution, linear nor batch norm"
            )
        else:
            _square(layer)


def _is_activation(layer: nn.Module) -> bool:
    home = type(layer).__module__
    return home in ("torch.nn.modules.activation", "bat_fast.models.activation") and not isinstance(
        layer, nn.MultiheadAttention
    )


def _scale(norm: nn.Module) -> Tensor:
    """By what a batch norm multiplies each channel in eval mode [C]."""
    assert isinstance(norm, _NORMS)
    assert norm.running_var is not None
    gain = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight.detach()
    return gain / torch.sqrt(norm.running_var + norm.eps)


def margin(logits: Tensor, y: Tensor) -> float:
    """The 10th percentile of ``z_y - max_{t != y} z_t``.

    Args:
        logits: [N, K].
        y: [N] int64.
    """
    label = logits.gather(1, y[:, None]).squeeze(1)
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return float((label - other).double().quantile(0.1))


def over_margin(l2: float, spectral: float, path: float, m: float) -> dict[str, float | None]:
    """The norms over the margin ``m``; None where it is not positive."""
    if m <= 0:
        return dict.fromkeys(("l2_over_margin", "log_spectral_over_margin", "path_over_margin"))
    return {
        "l2_over_margin": (l2 / m) ** 2,
        "log_spectral_over_margin": 2 * spectral - 2 * math.log(m),
        "path_over_margin": (path / m) ** 2,
    }


def flatness(
    model: nn.Module, error: Callable[[], float], *, draws: int = 10, steps: int = 12, seed: int = 0
) -> float:
    """``1 / s^2`` for the largest ``s`` whose normal noise on all weights adds at most 0.1 to the error.

    Found by halving intervals of ``log s`` between 1e-5 and 1, with the same draws at each: the error grows
    with ``s``.

    Args:
        model: its weights are as before afterwards.
        error: measures it as it is then, in [0, 1].
        draws: over which the error is averaged.
        steps: of the search.
        seed: of the draws.
    """
    limit, low, high = error() + ALLOWED, math.log(1e-5), 0.0
    for _ in range(steps):
        middle = (low + high) / 2
        found = 0.0
        for draw in range(draws):
            with _noise(model, math.exp(middle), seed, draw):
                found += error() / draws
        low, high = (middle, high) if found <= limit else (low, middle)
    return math.exp(-2 * low)


@contextmanager
def _noise(model: nn.Module, size: float, seed: int, draw: int) -> Iterator[None]:
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    rng = generator("flatness", seed, draw)
    try:
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=rng)
                parameter.add_(noise.to(parameter), alpha=size)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), kept, strict=True):
                parameter.copy_(value)
