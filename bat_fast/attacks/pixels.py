"""Checks of a batch before it is attacked."""

from __future__ import annotations

from torch import Tensor

_TOLERANCE = 1e-6  # of the pixel range: a resized or blended image may overshoot by rounding


def check_tensors(**given: object) -> None:
    """Raise TypeError naming the first argument that is neither a tensor nor None."""
    for name, value in given.items():
        if value is not None and not isinstance(value, Tensor):
            kind = type(value).__name__
            raise TypeError(f"{name} must be a torch.Tensor, got {kind}: torch.as_tensor({name})")


def usable(tensor: Tensor) -> Tensor:
    """``tensor``, or a copy if it was made in inference mode: autograd takes none of those."""
    return tensor.clone() if tensor.is_inference() else tensor


def check_batch(
    x: Tensor, y: Tensor, targets: Tensor | None, *, lo: float, hi: float, values: bool = True
) -> None:
    """Raise ValueError or TypeError unless ``x`` is a batch of pixels in [lo, hi] with labels that fit.

    Args:
        x: [N, C, H, W].
        y: [N].
        targets: [N] or None.
        lo, hi: range of a pixel.
        values: False looks at shapes and dtypes only, which never waits for a GPU.
    """
    if x.dim() < 2:
        raise ValueError(f"x must be a batch of images [N, C, H, W], got {list(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"x must be float32 pixels in [{lo:g}, {hi:g}], got {x.dtype}")
    for name, labels in (("y", y), ("targets", targets)):
        if labels is not None and labels.shape != x.shape[:1]:
            alone = x.dim() == 3 and labels.numel() == 1
            cure = f"; of one image it is x[None], {name}.reshape(1)" if alone else ""
            raise ValueError(f"{name} must be [N] = [{len(x)}], got {list(labels.shape)}{cure}")
    if values and x.numel():
        low, high = (float(value) for value in x.aminmax())
        if low != low or high != high:
            raise ValueError("x holds NaN: look for a division by 0 or a broken image where x is made")
        slack = _TOLERANCE * (hi - lo)
        if not (low >= lo - slack and high <= hi + slack):
            raise ValueError(
                f"x holds pixels in [{low:.4g}, {high:.4g}], outside [{lo:g}, {hi:g}]: pass "
                "raw pixels and put the normalisation inside the model, as in "
                "nn.Sequential(bat_fast.models.Normalize(mean, std), model)"
            )
