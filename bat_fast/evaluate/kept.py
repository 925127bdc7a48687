"""What an evaluation has found so far, in a folder that outlives the process."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor, nn

from bat_fast import __version__
from bat_fast._atomic import atomic_text, atomic_write
from bat_fast._lock import Lock
from bat_fast._seal import KEY, digest, is_whole, sealed
from bat_fast.attacks.autoattack import CLEAN
from bat_fast.attacks.done import tensor_key
from bat_fast.runs.sealed_tensors import check_tensors, sealed_tensors

_ABOUT = "evaluation.json"


class Kept:
    """Tensors by name, each set of them a sealed file of its own, written as a whole or not at all.

    Args:
        folder: of the files; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def __bool__(self) -> bool:
        return self._folder is not None

    def __str__(self) -> str:
        return str(self._folder)

    def within(self, name: str) -> Kept:
        """What has ``name`` before its names."""
        return Kept(self._folder and self._folder / name)

    def get(self, name: str) -> dict[str, Tensor] | None:
        """What `put` was given by that name; None where there is nothing, or its file is damaged."""
        file = self._file(name)
        if file is None or not file.exists():
            return None
        try:
            check_tensors(file)
            return load_file(file)
        except Exception:  # what a damaged file held is found again
            return None

    def put(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Keep ``tensors``, which are on the disk when this returns."""
        file = self._file(name)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            atomic_write(file, lambda opened: opened.write(sealed_tensors(save(plain))))

    @property
    def has_begun(self) -> bool:
        """Whether more is kept than the answers to the first images as they are, which cost a pass."""
        files = [] if self._folder is None else list(self._folder.rglob("*.safetensors"))
        return len(files) > 1 or any(file.stem != CLEAN for file in files)

    def drop(self) -> None:
        """Delete all."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, name: str) -> Path | None:
        return self._folder and self._folder / f"{name}.safetensors"


class State:
    """Where evaluations that have not ended are kept: in a folder each, whose name is the hash of all that
    decides what they find.

    Args:
        folder: of these folders; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.notes: list[str] = []
        """What is to be said about it."""
        self._kept = Kept(None)
        self._lock: Lock | None = None

    def open(self, model: nn.Module, settings: dict[str, Any]) -> Kept:
        """What has been found by ``model``, known by its weights, with ``settings``, which JSON can hold.

        Raises:
            BlockingIOError: another process is about the same.
        """
        if self.folder is None:
            return self._kept
        about = json.loads(json.dumps(settings)) | {"weights": weights_key(model), "bat_fast": __version__}
        place = self.folder / digest(json.dumps(about, sort_keys=True).encode())[:16]
        try:
            place.mkdir(parents=True, exist_ok=True)
            lock = Lock(self.folder / f".{place.name}.lock", f"the evaluation in {place}")
            lock.take()
            self._lock = lock
            self.notes += [line for other in self._others(place) for line in self._foreign(other, about)]
            atomic_text(place / _ABOUT, json.dumps(sealed(about), indent=2) + "\n")
        except BlockingIOError:
            raise
        except OSError as error:
            self.notes.append(f"nothing is kept in case this ends early: {error}; name a folder with --state")
            return self._kept
        self._kept = Kept(place)
        return self._kept

    def end(self, *, finished: bool) -> None:
        """Let go of it; what was ``finished``, or has not begun, is deleted."""
        finished = finished or not self._kept.has_begun
        if finished:
            self._kept.drop()
        if self._lock is not None:
            self._lock.end()
        if finished and self._kept and self.folder:
            with suppress(OSError):  # others are in it
                self.folder.rmdir()
        self._kept, self._lock = Kept(None), None

    def _others(self, place: Path) -> list[Path]:
        assert self.folder is not None
        return [file for file in sorted(self.folder.glob(f"*/{_ABOUT}")) if file.parent != place]

    def _foreign(self, file: Path, about: dict[str, Any]) -> list[str]:
        """A line about an evaluation that is another one; none about another share of the same one."""
        try:
            other = json.loads(file.read_text())
        except FileNotFoundError:  # it has just ended
            return []
        except ValueError:
            other = None
        if not is_whole(other):
            return [f"{file.parent} is damaged, and was not looked at; delete it"]
        names = [key for key in sorted({*about, *other} - {KEY}) if about.get(key) != other.get(key)]
        if names == ["world"] and about["world"][1] == other["world"][1]:
            return []
        left = f"{file.parent}, which may be deleted, is left alone"
        return [f"{left}: an unfinished evaluation with other {', '.join(names)}"]


def place_for(path: str | Path) -> Path | None:
    """The folder of the `State` of evaluations of a model: in its run, or beside its file; None for a model
    that is not here."""
    model = Path(path)
    if model.is_dir():
        return model / "eval"
    return model.with_name(f"{model.name}.eval") if model.is_file() else None


def weights_key(model: nn.Module) -> str:
    """A hash of the modules of ``model`` and of all its weights and buffers."""
    parts: list[Any] = [repr(model).encode()]
    for name, tensor in sorted(model.state_dict().items()):
        parts.append(f"{name} {tensor_key(tensor)}".encode())
    return digest(*parts)
