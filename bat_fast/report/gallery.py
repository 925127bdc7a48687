"""Images for a page: PNG in data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from bat_fast.runs.examined import Example

_LARGEST = 96  # pixels of a side: larger images are reduced, or ImageNet would make a page of many MB
_GAP = 1  # white pixels between the panels


def triple(example: Example) -> str:
    """Clean image, perturbation and attacked image side by side, as a data URI.

    The perturbation is stretched to its largest value; grey is no change.
    """
    change = example.attacked - example.clean
    stretched = 0.5 + 0.5 * change / change.abs().max().clamp(min=1e-12)
    return beside([example.clean, stretched, example.attacked])


def beside(panels: Sequence[Tensor]) -> str:
    """Images [C, H, W] of one shape side by side, as a data URI."""
    shown = [reduced(panel) for panel in panels]
    gap = torch.ones(shown[0].shape[0], shown[0].shape[1], _GAP)
    parts = [part for panel in shown for part in (gap, panel)][1:]
    return png(torch.cat(parts, 2))


def png(image: Tensor) -> str:
    """[C, H, W] in [0, 1], of one or three channels, as a data URI."""
    from PIL import Image

    pixels = image.mul(255).round().clamp(0, 255).to(torch.uint8)
    if pixels.shape[0] not in (1, 3):  # of other channels the first is shown
        pixels = pixels[:1]
    array = pixels[0].numpy() if pixels.shape[0] == 1 else pixels.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def reduced(image: Tensor) -> Tensor:
    """An image [C, H, W] with no side longer than a page shows."""
    height, width = image.shape[-2:]
    scale = _LARGEST / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(image[None], size=size, mode="area")[0]
