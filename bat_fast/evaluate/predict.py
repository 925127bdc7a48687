"""What a saved model says about image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bat_fast import data
from bat_fast._logits import logits_of
from bat_fast.device import pick_device
from bat_fast.runs.model_file import load_run

_TOGETHER = 64  # images: a folder of a million shall not be in memory at once


def predict(
    path: str | Path, images: Sequence[str | Path], *, top: int = 1, device: str = "auto"
) -> Iterator[dict[str, Any]]:
    """The most probable classes of image files, one dict for each file, in their order.

    An image becomes pixels as the images of the run did: by the same rules, cropped where those were. Where
    those all had one size, an image of another is cropped and resized to it, and that is said of it.

    Args:
        path: a run folder, or a ``model.safetensors`` that a run wrote.
        images: files in any format that Pillow reads.
        top: how many classes of each.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Yields:
        ``image`` (its path), ``resized`` (though the images of the run had one size), and ``classes``:
        ``top`` dicts with ``name``, ``label`` (its number) and ``probability``, the most probable first.

    Raises:
        ValueError: a file is missing, or no image.
        FileNotFoundError: no such run.
    """
    device = pick_device(device)
    model, saved = load_run(path, device)
    settings, names = saved["data"], list(saved["classes"])
    names += [f"output {number}" for number in range(len(names), saved["num_classes"])]
    if not 1 <= top <= len(names):
        raise ValueError(f"top must be in [1, {len(names)}], the classes there are, got {top}")
    size, channels = saved["image_size"], saved["in_channels"]
    alike = settings["name"] != data.GIVEN and not data.crops(settings["name"], settings.get("options", {}))
    for begin in range(0, len(images), _TOGETHER):
        files = images[begin : begin + _TOGETHER]
        pixels, fit = zip(*(_loaded(file, size, channels, alike=alike) for file in files), strict=True)
        with torch.no_grad():
            shares = (
                logits_of(model(torch.stack(list(pixels)).to(device)), len(files)).double().softmax(1).cpu()
            )
        best = shares.topk(top)
        rows = zip(files, fit, best.values.tolist(), best.indices.tolist(), strict=True)
        for file, exact, row, labels in rows:
            classes = [
                {"name": names[label], "label": label, "probability": share}
                for share, label in zip(row, labels, strict=True)
            ]
            yield {"image": str(file), "resized": alike and not exact, "classes": classes}


def _loaded(file: str | Path, size: int, channels: int, *, alike: bool) -> tuple[Tensor, bool]:
    """Pixels of a file, and whether they are those of the whole image; never where the run crops."""
    if alike:
        return data.load_fitting(file, size, channels=channels)
    return data.load_image(file, size, channels=channels), False
