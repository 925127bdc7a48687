"""What the operator files ask of their arguments: each check names the argument and says what would fit."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Name -> the row loss, and whether the squared distance to soft targets is added.
ATTACK_LOSSES = {
    "ce": ("ce", False),
    "margin": ("margin", False),
    "dlr": ("dlr", False),
    "kl": ("kl", False),
    "ce+te": ("ce", True),
    "kl+te": ("kl", True),
}


def _hidden() -> bool:
    """Whether numbers cannot be read: under a compiler, or a transform of `torch.func`."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def check_number(name: str, value: float, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise ValueError unless ``value`` is a finite number in [low, high]."""
    if not low <= value <= high or math.isinf(value):
        limits = f" in [{low:g}, {high:g}]" if high < math.inf else f" >= {low:g}" if low > -math.inf else ""
        raise ValueError(f"{name} must be a finite number{limits}, got {value}")


def choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """``value`` of the argument ``name``, or a ValueError where it is not ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def check_range(lo: float, hi: float) -> None:
    """Raise ValueError unless [lo, hi] is a range of finite numbers."""
    check_number("lo", lo)
    check_number("hi", hi)
    if lo > hi:
        raise ValueError(f"lo must not be above hi, got lo={lo}, hi={hi}")


def check_like(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ValueError unless ``tensor`` has the shape and device of ``other``."""
    if tensor.shape != other.shape:
        raise ValueError(
            f"{name} must have the shape of {other_name}, {list(other.shape)}, got {list(tensor.shape)}"
        )
    if tensor.device != other.device:
        raise ValueError(f"{name} is on {tensor.device}, {other_name} on {other.device}: move one of them")


def check_floating(name: str, tensor: Tensor, *, wide_only: bool = True) -> None:
    """Raise TypeError unless the dtype is one that the kernels of the tensor's device take."""
    allowed: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
    if tensor.is_cuda or not wide_only:
        allowed = (torch.float32, torch.float16, torch.bfloat16, *(() if tensor.is_cuda else allowed[1:]))
    if tensor.dtype not in allowed:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        raise TypeError(f"{name} must be one of {names} on {tensor.device.type}, got {tensor.dtype}")


def floating(name: str, tensor: Tensor) -> Tensor:
    """``tensor`` as a loss takes it: what has 16 bits on a CPU, under autocast say, in float32.

    Raises:
        TypeError: its dtype is none that the kernels of its device take.
    """
    if tensor.is_cpu and tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    check_floating(name, tensor)
    return tensor


def check_step(adv: Tensor, clean: Tensor, step_size: float, eps: float, lo: float, hi: float) -> None:
    """Raise unless a step of ``adv`` in the ball around ``clean`` is possible."""
    check_number("step_size", step_size, 0.0)
    check_number("eps", eps, 0.0)
    check_range(lo, hi)
    check_floating("adv", adv)
    check_like("clean", clean, "adv", adv)
    if clean.dtype != adv.dtype:
        raise TypeError(f"clean must have the dtype of adv, {adv.dtype}, got {clean.dtype}")


def check_labels(name: str, labels: Tensor, rows: Tensor) -> None:
    """Raise unless ``labels`` [N] int64 holds a class of each row of ``rows`` [N, C].

    The values are compared here only on CPU; on CUDA the kernels do it without a host sync.
    """
    if rows.dim() != 2:
        raise ValueError(f"logits must be [N, C], got {list(rows.shape)}")
    if labels.dtype != torch.int64:
        raise TypeError(f"{name} must hold int64 class numbers, got {labels.dtype}: convert with .long()")
    if labels.shape != rows.shape[:1]:
        raise ValueError(f"{name} must be [N] = [{rows.shape[0]}], got {list(labels.shape)}")
    if labels.device != rows.device:
        raise ValueError(f"{name} is on {labels.device}, logits on {rows.device}: move one of them")
    if labels.is_cpu and labels.numel() and not _hidden():
        least, most = labels.aminmax()
        low, high = least.item(), most.item()  # comparing the tensors would take 4 us more
        if low < 0 or high >= rows.shape[1]:
            bad = low if low < 0 else high
            raise ValueError(
                f"{name} holds class {bad}, outside [0, {rows.shape[1]}): number the classes from 0, "
                "or give the model that many outputs"
            )


def check_rows(name: str, tensor: Tensor, logits: Tensor) -> None:
    """Raise ValueError unless ``tensor`` is a [N, C] float tensor like ``logits``."""
    check_like(name, tensor, "logits", logits)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {tensor.dtype}")


def attack_arguments(
    logits: Tensor,
    target: Tensor,
    loss: str,
    reference: Tensor | None,
    soft: Tensor | None,
    soft_weight: float,
    targeted: bool,
    label: Tensor | None,
) -> tuple[str, Tensor | None, Tensor | None, float, bool, Tensor | None]:
    """What the kernels of an attack take behind logits and target; raise where it does not fit together."""
    check_labels("target", target, logits)
    if loss not in ATTACK_LOSSES:
        raise ValueError(f"loss must be one of {', '.join(ATTACK_LOSSES)}, got {loss!r}")
    base, with_soft = ATTACK_LOSSES[loss]
    if base == "ce" and not with_soft and not targeted:
        return base, None, None, soft_weight, targeted, None
    check_number("soft_weight", soft_weight, 0.0)
    if targeted and (base == "kl" or with_soft):
        raise ValueError(f"targeted: {loss} has no targeted form; use ce, margin or dlr")
    least = {"margin": 2, "dlr": 4 if targeted else 3}.get(base, 1)
    if logits.shape[1] < least:
        raise ValueError(f"logits must have at least {least} classes for this loss, got {logits.shape[1]}")
    for name, rows, needed in (("reference", reference, base == "kl"), ("soft", soft, with_soft)):
        if needed and rows is None:
            raise ValueError(f"{name} [N, C] is missing: {loss} needs it")
        if rows is not None:
            check_rows(name, rows, logits)
    if base == "dlr" and targeted:
        if label is None:
            raise ValueError("label [N], the true classes, is missing: targeted dlr needs it")
        check_labels("label", label, logits)
    else:
        label = None
    reference = None if base != "kl" or reference is None else reference.detach().to(logits.dtype)
    soft = None if not with_soft or soft is None else soft.detach().to(logits.dtype)
    return base, reference, soft, soft_weight, targeted, label
