"""Batches of images from a resident uint8 set: gather, crop, flip and scale in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from bat_fast._native import changed, operator
from bat_fast._random import CROP, philox

__all__ = ["crop_flip"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def _fake(*_: object) -> None:
    return None


def _draw(ids: Tensor, pad: int, seed: int, epoch: int, flip: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Row and column [N] of the corner of each crop, from -pad to pad, and whether it is mirrored [N].

    Philox4x32-10 with key = seed and counter = (domain, epoch, id mod 2^32, id >> 32); word 0 moves the
    rows, word 1 the columns (multiply-shift), the top bit of word 2 mirrors.
    """
    mask = 0xFFFFFFFF
    counter = (torch.full_like(ids, CROP), torch.full_like(ids, epoch), ids & mask, ids >> 32 & mask)
    rows, columns, mirror, _ = philox(seed, counter)
    lines = 2 * pad + 1
    mirrored = (mirror >> 31).bool() if flip else torch.zeros_like(ids, dtype=torch.bool)
    return (rows * lines >> 32) - pad, (columns * lines >> 32) - pad, mirrored


def _source_lines(corner: Tensor, size: int, reflect: bool) -> tuple[Tensor, Tensor]:
    """The lines [N, size] of an image that its crop shows, and which of them lie inside [N, size]."""
    at = corner[:, None] + torch.arange(size, device=corner.device)
    inside = (at >= 0) & (at < size)
    if reflect:
        at = at.abs()
        return torch.where(at < size, at, 2 * (size - 1) - at), torch.ones_like(inside)
    return at.clamp(0, size - 1), inside


@operator(
    "crop_flip(Tensor(a!) out, Tensor images, Tensor index, Tensor ids, int pad, bool reflect, int seed,"
    " int epoch, bool flip) -> ()",
    fake=_fake,
)
def _crop_flip_reference(
    out: Tensor,
    images: Tensor,
    index: Tensor,
    ids: Tensor,
    pad: int,
    reflect: bool,
    seed: int,
    epoch: int,
    flip: bool,
) -> None:
    if not len(index):
        return
    count, height, width, _ = images.shape
    row, column, mirrored = _draw(ids, pad, seed, epoch, flip)
    rows, row_inside = _source_lines(row, height, reflect)
    columns, column_inside = _source_lines(column, width, reflect)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    column_inside = torch.where(mirrored[:, None], column_inside.flip(1), column_inside)
    sample = index.clamp(0, count - 1)[:, None, None]
    pixels = images[sample, rows[:, :, None], columns[:, None, :]]  # [N, H, W, C]
    # By a tensor: by a number, torch on a GPU multiplies with its inverse, which rounds otherwise.
    most = torch.full((), 255.0, device=pixels.device)
    values = pixels.float() / most * (row_inside[:, :, None] & column_inside[:, None, :])[..., None]
    held = (index >= 0) & (index < count)
    values = torch.where(held[:, None, None, None], values, float("nan"))
    out.copy_(values.permute(0, 3, 1, 2))


def crop_flip(
    images: Tensor,
    index: Tensor,
    *,
    pad: int,
    seed: int,
    epoch: int,
    flip: bool = True,
    padding: str = "zero",
    sample_ids: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """A training batch out of a uint8 set in memory, augmented, in one kernel.

    Row ``index[i]`` of the set is padded by ``pad`` pixels on each side, cropped at random to its own size,
    mirrored with probability 1/2 and divided by 255. ``pad=0, flip=False`` is the plain gather.

    The random numbers are keyed by (seed, epoch, sample id) alone (Philox4x32-10): they depend neither on
    the rest of the batch nor on the device, and the result is the same bit for bit on CPU and CUDA.

    Args:
        images: [M, H, W, C] uint8, contiguous, H * W * C < 2^30.
        index: [N] int64 rows, 0 <= index < M; on the device of ``images``. On CUDA, where the values are
            not known without waiting, a row outside gives an image of NaN.
        pad: pixels on each side, in [0, 2^20].
        seed: any 64-bit integer.
        epoch: in [0, 2^32).
        flip: whether to mirror left and right.
        padding: ``"zero"``, or ``"reflect"`` (the edge is not repeated; ``pad`` < H and W).
        sample_ids: [N] int64 ids that key the random numbers; None takes ``index``. For a split of a
            data set, whose rows have other numbers than its samples.
        dtype: float32, float16 or bfloat16.
        channels_last: the memory format of the batch.
        out: [N, C, H, W], of this dtype and memory format, to write into instead of a new tensor. Reusing
            a batch saves the page faults of fresh memory.

    Returns:
        [N, C, H, W] in [0, 1].

    Raises:
        ValueError: a shape, device, row or number does not fit. TypeError: a dtype does not.
    """
    ids = index if sample_ids is None else sample_ids
    _check_set(images, index, ids)
    _check_rule(images, pad, seed, epoch, padding)
    if dtype not in _DTYPES:
        raise TypeError(f"dtype must be float32, float16 or bfloat16, got {dtype}")
    shape = (len(index), images.shape[3], *images.shape[1:3])
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if out is None:
        out = torch.empty(shape, dtype=dtype, device=images.device, memory_format=layout)
    elif out.shape != shape or out.dtype != dtype or out.device != images.device:
        raise ValueError(
            f"out must be {list(shape)} {dtype} on {images.device}, "
            f"got {list(out.shape)} {out.dtype} on {out.device}"
        )
    elif not out.is_contiguous(memory_format=layout):
        raise ValueError(f"out must have the memory format asked for, {layout}, got strides {out.stride()}")
    torch.ops.bat_fast.crop_flip(out, images, index, ids, pad, padding == "reflect", seed, epoch, flip)
    return changed(out)


def _check_set(images: Tensor, index: Tensor, ids: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if images.dim() != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images must be [M, H, W, C] of pixels, got {list(images.shape)}")
    if not images.is_contiguous():
        raise ValueError(f"images must be contiguous, got strides {images.stride()}: call .contiguous() once")
    if images[:1].numel() >= 1 << 30:
        raise ValueError(f"images must be of less than 2^30 values each, got {list(images.shape)}")
    for name, tensor in (("index", index), ("sample_ids", ids)):
        if tensor.dtype != torch.int64:
            raise TypeError(f"{name} must be int64, got {tensor.dtype}")
        if tensor.dim() != 1 or tensor.shape != index.shape:
            raise ValueError(f"{name} must be [N], one for each image, got {list(tensor.shape)}")
        if tensor.device != images.device:
            raise ValueError(f"{name} is on {tensor.device}, images on {images.device}: move one of them")
    if len(index) and not len(images):
        raise ValueError("images is empty, and index is not")
    if index.is_cpu and len(index) and not torch.compiler.is_compiling():
        low, high = index.aminmax()
        if low < 0 or high >= len(images):
            bad = int(low) if low < 0 else int(high)
            raise ValueError(f"index holds row {bad}, outside [0, {len(images)})")


def _check_rule(images: Tensor, pad: int, seed: int, epoch: int, padding: str) -> None:
    if not 0 <= pad <= 1 << 20:
        raise ValueError(f"pad must be in [0, 2^20], got {pad}")
    if padding not in ("zero", "reflect"):
        raise ValueError(f"padding must be 'zero' or 'reflect', got {padding!r}")
    if padding == "reflect" and pad >= min(images.shape[1:3]):
        raise ValueError(f"pad must be below the size {list(images.shape[1:3])} to reflect, got {pad}")
    if not -(1 << 63) <= seed < 1 << 63:
        raise ValueError(f"seed must fit 64 bits, got {seed}")
    if not 0 <= epoch < 1 << 32:
        raise ValueError(f"epoch must be in [0, 2^32), got {epoch}")
