"""What is judged: a model that a run left, or one of somebody else's, and the images for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from bat_fast import data, models
from bat_fast.device import pick_device
from bat_fast.runs.model_file import load_run
from bat_fast.runs.weights import put_weights, read_weights

SPLITS = ("train", "val", "test")
_PUBLISHED = "timm:"


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What a file of weights does not say: how to build the model, and what it shall be judged on."""

    model: str | None = None
    """As `bat_fast.models.create` takes it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the constructor of a class of one's own."""
    activation: str = "relu"
    """Of the model."""
    num_classes: int | None = None
    """Logits of the model; None takes the classes of the data."""
    mean: Sequence[float] | None = None
    """Of each channel, in [0, 1]; None does not normalise, unless the weights say how."""
    std: Sequence[float] | None = None
    """Of each channel."""
    data: str | None = None
    """Name of the data set."""
    data_options: Mapping[str, Any] = field(default_factory=dict)
    """What else the data set takes."""

    @property
    def any(self) -> bool:
        """Whether something was said."""
        return self != Foreign()


@dataclass(frozen=True, eq=False)
class Subject:
    """A model in eval mode that takes pixels in [0, 1], what is known about it, and its data."""

    model: nn.Module
    described: dict[str, Any]
    """As `load_run` says it; ``eps`` and ``step_size`` are None where nobody has said them."""
    device: str
    root: str | Path | None = None
    """Folder of the data; None takes that of the training."""
    splits: data.Splits | None = None
    """The data, where they have been read already."""

    def loader(self, split: str, batch_size: int) -> data.Loader:
        """Batches of a split, in order.

        Raises:
            ValueError: there is no such split. OSError: files are missing or cannot be read.
        """
        if self.splits is None:
            return split_loader(self.described, split, batch_size, self.device, self.root)
        return _loader(getattr(self.splits, split), batch_size, self.device)


def open_subject(
    path: str | Path,
    *,
    device: str = "auto",
    root: str | Path | None = None,
    foreign: Foreign | None = None,
) -> Subject:
    """The model at ``path`` and its data.

    Args:
        path: a run folder, a ``model.safetensors`` of a run, a file of weights alone (safetensors or a
            checkpoint of torch, of which nothing is run), or ``timm:NAME`` with its published weights.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        root: folder of the data.
        foreign: how to build a model that a run did not leave.

    Raises:
        ValueError: something must be said and is not, is said and is known already, or does not fit.
        OSError: files are missing, cannot be read, or cannot be downloaded.
    """
    said, device = foreign or Foreign(), pick_device(device)
    published = str(path).lower().startswith(_PUBLISHED)
    if not published and (Path(path).is_dir() or not Path(path).exists() or _of_a_run(Path(path))):
        if said.any and not Path(path).exists():
            raise FileNotFoundError(f"{path} does not exist: expected a file of weights")
        if said.any:
            raise ValueError(f"{path}: a run says itself what its model and its data are; leave them out")
        model, described = load_run(path, device)
        return Subject(model, described, device, root)
    if published and said.model is not None:
        raise ValueError(f"model: {path} is one already; give a file of weights to put into {said.model}")
    if not published and said.model is None:
        raise ValueError(f"{path} does not say how to build its model: --model NAME, such as timm:resnet18")
    if said.data is None:
        raise ValueError(f"{path} does not say what it was made for: --data NAME, such as cifar10")
    return _foreign(str(path), said, device, root, published)


def _foreign(path: str, said: Foreign, device: str, root: str | Path | None, published: bool) -> Subject:
    weights = {} if published else read_weights(path)  # before the data, which may be large
    assert said.data is not None
    splits = data.load(said.data, seed=0, root=root, options=said.data_options)
    source = splits.test
    classes = source.num_classes if said.num_classes is None else said.num_classes
    if classes < source.num_classes:
        raise ValueError(f"num_classes is {classes}, but {said.data} has {source.num_classes} classes")
    if (said.mean is None) != (said.std is None):
        raise ValueError("mean and std belong together: say both, one number for each channel")
    name = path if published else str(said.model)
    if published and models.published_classes(name) not in (None, classes):
        raise ValueError(
            f"{path} was published for {models.published_classes(name)} classes, and {said.data} has "
            f"{classes}: give the file of weights that were trained for these, with --model {path}"
        )
    spec: dict[str, Any] = {
        "num_classes": classes,
        "in_channels": source.channels,
        "image_size": source.image_size,
        "activation": said.activation,
    }
    try:
        model = models.create(
            name, **spec, mean=said.mean, std=said.std, options=said.options, pretrained=published
        )
    except OSError as error:
        raise OSError(
            f"the published weights of {name} are neither in the cache of timm nor to be had: give a file of "
            f"them, bat-fast eval FILE --model {name}"
        ) from error
    if not published:
        put_weights(model, weights, path)
    described = {
        "arch": name, **spec, "options": dict(said.options), "eps": None, "step_size": None, "norm": "linf",
        "data": {"name": said.data, "root": root, "options": dict(said.data_options)},
        "classes": source.class_names, "seed": 0,
    }  # fmt: skip
    return Subject(model.to(device).eval(), described, device, root, splits)


def _of_a_run(file: Path) -> bool:
    """Whether a safetensors file says that a run wrote it. A damaged one is for `load_run` to describe."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        start = opened.read(1)
        if start != b"{":
            return False
        header = start + opened.read(min(length, file.stat().st_size) - 1)
    try:
        return "bat_fast" in json.loads(header).get("__metadata__", {})
    except (ValueError, AttributeError):
        return True


def split_loader(
    saved: dict[str, Any], split: str, batch_size: int, device: str, root: str | Path | None = None
) -> data.Loader:
    """Batches of a split of the data that a model was trained with, in order.

    Args:
        saved: what `load_run` says about the model.
        split: ``"train"``, ``"val"`` or ``"test"``, as the run split the data.
        batch_size: images at a time.
        device: where the batches are.
        root: the folder of the data; None takes that of the training.

    Raises:
        OSError: files are missing or cannot be read.
    """
    return loader_of(saved, split_source(saved, split, root), batch_size, device)


def split_source(saved: dict[str, Any], split: str, root: str | Path | None = None) -> data.Source:
    """A split of the data that a model was trained with; arguments as of `split_loader`."""
    source: data.Source = getattr(splits_of(saved["data"], saved["seed"], root), split)
    return source


def splits_of(settings: Mapping[str, Any], seed: int, root: str | Path | None = None) -> data.Splits:
    """The data that a run has stored as its own.

    Args:
        settings: of ``data``; those of an older run may lack some.
        seed: of the run.
        root: the folder of the data; None takes that of the training.

    Raises:
        ValueError: nobody can read them again. OSError: files are missing or cannot be read.
    """
    known = {key: settings[key] for key in ("root", "options", "label_noise") if key in settings}
    known |= {} if root is None else {"root": root}
    return data.load(settings["name"], seed=seed, **known)


def loader_of(saved: dict[str, Any], source: data.Source, batch_size: int, device: str) -> data.Loader:
    """Batches of ``source`` in order, read as the run of a model reads; arguments as of `split_loader`."""
    ways = {key: saved["data"][key] for key in ("workers", "on_corrupt") if key in saved["data"]}
    return _loader(source, batch_size, device, **ways)


def _loader(source: data.Source, batch_size: int, device: str, **ways: Any) -> data.Loader:
    return data.create_loader(source, batch_size, shuffle=False, seed=0, device=device, **ways)
