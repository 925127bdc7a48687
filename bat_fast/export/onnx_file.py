"""ONNX: ``model.onnx``, for any runtime."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bat_fast._atomic import writing
from bat_fast.evaluate.subject import Subject
from bat_fast.export.plain import example, plain
from bat_fast.export.program import exported

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_SAID = ("arch", "eps", "norm", "classes", "method")


def write(subject: Subject, folder: Path) -> tuple[list[Path], Callable[[Tensor], Any]]:
    """Write the file; it, and the model as onnxruntime reads it.

    Raises:
        ValueError: a package is missing, or torch cannot export the model.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"to onnx: {', '.join(missing)} missing: pip install {' '.join(missing)}")
    program = torch.onnx.export(
        exported(plain(subject.model), example(subject.described)), dynamo=True, input_names=["x"],
        output_names=["logits"], verbose=False,
    )  # fmt: skip
    assert program is not None
    for name in _SAID:
        program.model.metadata_props[name] = str(subject.described.get(name))
    file = folder / "model.onnx"
    with writing(file):
        program.save(str(file))
    return [file], runtime(file)


def runtime(file: Path) -> Callable[[Tensor], Tensor]:
    """The model of an ONNX file in onnxruntime, [N, C, H, W] -> [N, K]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"x": x.numpy()})[0])
