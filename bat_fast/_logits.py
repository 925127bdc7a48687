"""The logits of a model in eval mode: where they are in what it returns, and whether they are right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx, nn


def kind_of(result: Any) -> str:
    """How logits lie in ``result``: ``tensor``, ``key``, ``attribute`` or ``first``.

    Raises:
        TypeError: there are none.
    """
    if isinstance(result, (Tensor, fx.Proxy)):
        return "tensor"
    if isinstance(result, Mapping) and "logits" in result:
        return "key"
    if getattr(result, "logits", None) is not None:
        return "attribute"
    if isinstance(result, (tuple, list)) and result and isinstance(result[0], (Tensor, fx.Proxy)):
        return "first"
    raise TypeError(
        f"the model must return logits [N, K], a tuple that begins with them, or something that calls them "
        f"logits, got {type(result).__name__}"
    )


def taken(result: Any, kind: str) -> Tensor:
    """The logits of ``result``, which lie there as ``kind`` says."""
    if kind == "key":
        result = result["logits"]
    elif kind == "attribute":
        result = result.logits
    elif kind == "first":
        result = result[0]
    logits: Tensor = result
    return logits


def logits_of(result: Any, count: int | None = None) -> Tensor:
    """The logits [N, K] in what a model returned: a tensor, the first of a tuple, or what it names so.

    Args:
        result: what the model returned.
        count: N, if it shall be checked that these are logits of N images.

    Raises:
        TypeError: there are none. ValueError: they have another shape, or belong to one class alone.
    """
    logits = result if isinstance(result, Tensor) else taken(result, kind_of(result))
    if count is None:
        return logits
    if logits.dim() != 2 or len(logits) != count:
        raise ValueError(
            f"the model must return logits [N, K], one row for each of {count} images, got "
            f"{list(logits.shape)}: this is about classification alone"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            "the model returns one logit for an image, and the cross-entropy of one class has no gradient: "
            "give it two, as torch.cat([-z / 2, z / 2], 1)"
        )
    return logits


def missed(logits: Tensor, y: Tensor) -> Tensor:
    """[N] bool: ``logits`` [N, K] have their maximum at another class than ``y`` [N], or are no numbers."""
    top, label = logits.max(1)  # a NaN is the maximum wherever it stands
    return (label != y) | top.isnan()


def succeeded(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """[N] bool: another class than ``y`` [N] was reached, or ``target`` [N] where there is one."""
    return missed(logits, y) if target is None else ~missed(logits, target)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """``model`` in eval mode; the modes of its parts are as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
