"""Products with constant matrices, by the library of the CPU that is faster at the size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Multiplications from which oneDNN repays its 10 us per call: at 128 x 512 x 256 it takes 90 us where MKL on
# an AMD processor takes 174, at 128 x 128 x 64 it takes 20 and MKL 15 (2 threads of Zen 5).
_WORTH = 1 << 21


def _with_onednn(x: Tensor, matrix: Tensor) -> bool:
    return (
        x.is_cpu
        and x.dtype == torch.float32
        and x.numel() * (matrix.numel() // x.shape[-1]) >= _WORTH
        and torch.backends.mkldnn.is_available()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """``x weight^T + bias``, through ReLU if ``relu``.

    Args:
        x: [..., in].
        weight: [out, in].
        bias: [out] or None.
        relu: whether there is a ReLU.
    """
    if _with_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu" if relu else "none", [], "")
    out = F.linear(x, weight, bias)
    return out.relu_() if relu else out


def linear_backward(grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient [..., in] at the input of `linear`, ``grad weight``, from ``grad`` [..., out]."""
    if _with_onednn(grad, weight):
        return torch.ops.mkldnn._linear_pointwise(grad, weight.t(), None, "none", [], "")
    return grad @ weight
