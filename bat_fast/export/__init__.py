"""A trained model for other programs, with the proof that it answers as before."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from bat_fast._atomic import writing
from bat_fast._checks import choice
from bat_fast.evaluate.subject import Subject
from bat_fast.export.proof import Proof, prove, witnesses
from bat_fast.runs.model_file import load_run

TARGETS = {"timm": "timm_weights", "robustbench": "robustbench", "onnx": "onnx_file", "torch": "program"}
"""What a model is exported to, and the module of this package with ``write(subject, folder, **options)``."""


def export_run(
    path: str | Path,
    to: str,
    out: str | Path | None = None,
    *,
    root: str | Path | None = None,
    **options: Any,
) -> tuple[list[Path], Proof]:
    """Write the model of a run in another form, load that again, and compare its logits.

    Args:
        path: run folder or ``model.safetensors`` of a run.
        to: one of ``TARGETS``.
        out: folder of the files; None is ``export-TO`` beside the model.
        root: folder of the data, of which the images are that are compared on.
        options: of the target, such as ``name`` of ``robustbench``.

    Returns:
        The files, and the comparison on test images and on attacked ones.

    Raises:
        ValueError: the model has no such form, or a package is missing. RuntimeError: what was written gives
            other classes. OSError: files are missing or cannot be written.
    """
    writer = import_module(f"{__name__}.{TARGETS[choice('to', to, tuple(TARGETS))]}")
    subject = Subject(*load_run(path), "cpu", root)
    beside = Path(path) if Path(path).is_dir() else Path(path).parent
    folder = beside / f"export-{to}" if out is None else Path(out)
    if folder.resolve() == beside.resolve():
        raise ValueError(
            f"out: {folder} holds the model itself, which would be written over: give another folder"
        )
    with writing(folder, "give another folder with --out"):
        folder.mkdir(parents=True, exist_ok=True)
    images = witnesses(subject)
    files, again = writer.write(subject, folder, **options)
    return files, prove(subject.model, again, images)
