"""Weights as timm names them, ``model.safetensors``, with a ``load.py`` that needs timm alone."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from bat_fast._atomic import atomic_text, atomic_write
from bat_fast.evaluate.subject import Subject

_LOADER = '''"""The model in timm: from load import load; load()(pixels in [0, 1])."""

from pathlib import Path

import timm
import torch
from torch import nn


class Normalized(nn.Module):
    def __init__(self, net, mean, std):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


def load():
    weights = str(Path(__file__).with_name("model.safetensors"))
    net = timm.create_model(%(name)r, checkpoint_path=weights, **%(options)r)
    return Normalized(net, %(mean)r, %(std)r).eval()
'''


def write(subject: Subject, folder: Path) -> tuple[list[Path], Callable[[Tensor], Any]]:
    """Write both files; them, and the model that they load.

    Raises:
        ValueError: the model is none of timm's, or was changed.
    """
    said, model = subject.described, subject.model
    kind, _, name = str(said["arch"]).partition(":")
    if kind.lower() != "timm" or said["activation"] != "relu":
        raise ValueError(
            f"to timm: {said['arch']} with {said['activation']} is no model of timm's: use --to robustbench, "
            "which registers it there, or --to torch"
        )
    import timm

    options: dict[str, Any] = {"num_classes": said["num_classes"], "in_chans": said["in_channels"]}
    published = timm.get_pretrained_cfg(name)
    if published is not None and published.fixed_input_size:
        options["img_size"] = said["image_size"]
    weights, loader = folder / "model.safetensors", folder / "load.py"
    tensors = {
        key.removeprefix("net."): value.contiguous()
        for key, value in model.state_dict().items()
        if key.startswith("net.")
    }
    content = save(tensors)
    atomic_write(weights, lambda file: file.write(content))
    mean, std = (getattr(model.normalize, part).flatten().tolist() for part in ("mean", "std"))  # type: ignore[union-attr]
    words = {"name": name, "options": options, "mean": mean, "std": std}
    atomic_text(loader, _LOADER % words)
    return [weights, loader], runpy.run_path(str(loader))["load"]()
