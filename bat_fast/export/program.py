"""``torch.export``: a program of torch's own operators, ``model.pt2``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast._atomic import atomic_write
from bat_fast.evaluate.subject import Subject
from bat_fast.export.plain import example, plain
from bat_fast.models import decompositions


def write(subject: Subject, folder: Path) -> tuple[list[Path], Callable[[Tensor], Any]]:
    """Write the program; the files, and the program as it is read back.

    Raises:
        ValueError: torch cannot export the model, or it holds operators of this package.
    """
    file = folder / "model.pt2"
    program = exported(plain(subject.model), example(subject.described))
    atomic_write(file, lambda opened: torch.export.save(program, opened))
    return [file], torch.export.load(file).module()


def exported(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """The program of ``model`` for any number of images [N, C, H, W] of that size, in operators of torch."""
    batch = torch.export.Dim("batch", min=1)
    try:
        program = torch.export.export(model, (images,), dynamic_shapes={"x": {0: batch}})
        program = program.run_decompositions(decompositions())
    except Exception as error:  # whatever a model does that cannot be traced
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"torch.export cannot read this model: {reason}") from error
    ours = sorted({str(node.target) for node in program.graph.nodes if "bat_fast" in str(node.target)})
    if ours:
        raise ValueError(f"the model calls {', '.join(ours)}, which needs bat_fast where it runs")
    return program
