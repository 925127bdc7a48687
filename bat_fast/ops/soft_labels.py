"""Soft labels: the memory of temporal ensembling."""

from __future__ import annotations

import torch
from torch import Tensor

from bat_fast._checks import check_number, floating
from bat_fast._native import changed, operator

__all__ = ["ensemble_targets_"]


def _fake(memory: Tensor, index: Tensor, logits: Tensor, momentum: float) -> Tensor:
    del index, momentum
    return torch.empty_like(logits, dtype=memory.dtype, memory_format=torch.contiguous_format)


@operator(
    "ensemble_targets_(Tensor(a!) memory, Tensor index, Tensor logits, float momentum) -> Tensor",
    fake=_fake,
)
def _ensemble_reference(memory: Tensor, index: Tensor, logits: Tensor, momentum: float) -> Tensor:
    valid = (index >= 0) & (index < len(memory))
    p = logits.to(memory.dtype).softmax(1)
    # Rows that share an index come in rounds, in the order of the batch.
    turn = (index[:, None] == index[None, :]).tril(-1).sum(1).where(valid, -1)
    for current in range(int(turn.max()) + 1 if len(turn) else 0):
        rows = turn == current
        memory[index[rows]] = momentum * memory[index[rows]] + (1 - momentum) * p[rows]
    targets = torch.full_like(p, torch.nan, memory_format=torch.contiguous_format)
    kept = memory[index[valid]]
    targets[valid] = kept / kept.sum(1, keepdim=True)
    return targets


def ensemble_targets_(memory: Tensor, index: Tensor, logits: Tensor, *, momentum: float) -> Tensor:
    """Temporal ensembling: blend the predictions of a batch into the memory, and return its soft labels.

    For sample n with ``i = index[n]``: ``memory[i] <- momentum memory[i] + (1 - momentum)
    softmax(logits[n])`` and ``targets[n] = memory[i] / sum_c memory[i, c]`` (Dong et al. 2021,
    arXiv:2106.01606; the memory starts at 0). Rows that share an index are applied one after the other
    in the order of the batch, and all get the final row. No gradient flows.

    Args:
        memory: [num_samples, C], updated in place; float32 (CPU: or float64).
        index: [N] int64 data set ids, 0 <= index < num_samples. On CUDA, where the values are not
            compared on the host, an id outside gives NaN targets and leaves the memory alone.
        logits: [N, C] of the clean images, in the dtype of ``memory`` (CUDA: or float16, bfloat16).
        momentum: in [0, 1].

    Returns:
        targets [N, C] in the dtype of ``memory``, each row summing to 1. A row of the memory that is
        still 0, as ``momentum = 1`` leaves it, has no direction: its targets are NaN.

    Raises:
        ValueError: a shape, device, id or number does not fit. TypeError: a dtype does not.
    """
    logits = floating("logits", logits)
    if logits.dim() != 2:
        raise ValueError(f"logits must be [N, C], got {list(logits.shape)}")
    kept = torch.float32 if logits.is_cuda else logits.dtype
    if memory.dtype != kept:
        raise TypeError(f"memory must be {kept} for {logits.dtype} logits, got {memory.dtype}")
    if memory.dim() != 2 or memory.shape[1] != logits.shape[1]:
        raise ValueError(
            f"memory must be [num_samples, C] with C = {logits.shape[1]}, got {list(memory.shape)}"
        )
    if index.dtype != torch.int64:
        raise TypeError(f"index must hold int64 ids, got {index.dtype}: convert with .long()")
    if index.shape != logits.shape[:1]:
        raise ValueError(f"index must be [N] = [{logits.shape[0]}], got {list(index.shape)}")
    for name, tensor in (("memory", memory), ("index", index)):
        if tensor.device != logits.device:
            raise ValueError(f"{name} is on {tensor.device}, logits on {logits.device}: move one of them")
    if memory.requires_grad:
        raise ValueError("memory is updated in place and must not require a gradient: pass memory.detach()")
    check_number("momentum", momentum, 0.0, 1.0)
    if index.is_cpu and index.numel() and not torch.compiler.is_compiling():
        low, high = index.aminmax()
        if low < 0 or high >= memory.shape[0]:
            bad = int(low) if low < 0 else int(high)
            raise ValueError(f"index holds id {bad}, outside [0, {memory.shape[0]})")
    targets = torch.ops.bat_fast.ensemble_targets_(memory, index, logits.detach(), momentum)
    changed(memory)
    return targets
