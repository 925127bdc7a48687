"""The settings of the data. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from bat_fast.ratio import Ratio
from bat_fast.values import Settings

GIVEN = "given in Python"
"""In place of the name of a data set, where a program brought the splits."""


@dataclass(frozen=True, kw_only=True)
class LabelNoiseConfig(Settings, place="data.label_noise"):
    """Wrong labels in the training split, for experiments on memorisation. val and test stay clean."""

    kind: Literal["symmetric", "nearest"] = "symmetric"
    """New label: any class by chance (the true one too), or the other class with the nearest mean image."""
    rate: Ratio = Ratio("0")
    """Share of the training samples that are drawn, in [0, 1]."""
    seed: int = 0
    """Which samples, and which labels."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Settings, place="data.augment"):
    """What is done to training images, the same for every loader, device and number of ranks."""

    pad: int = 0
    """Random crop after padding by so many pixels."""
    flip: bool = False
    """Mirror half of the images."""
    padding: Literal["zero", "reflect"] = "zero"
    """What the padding shows."""
    cutout: int = 0
    """Side of a square of zeros (DeVries and Taylor 2017)."""
    resized_crop: bool = False
    """Random area and aspect ratio, resized; for image files larger than the training images."""
    jitter: float = 0.0
    """Brightness, contrast and saturation times a random factor each, up to so much from 1."""
    rand_augment: int = 0
    """Operations of RandAugment (Cubuk et al. 2020), magnitude 9; in the workers of the torch loader."""


@dataclass(frozen=True, kw_only=True)
class ExtraConfig(Settings, place="data.extra"):
    """Additional training images, generated or pseudo-labelled, mixed into every batch."""

    path: str | None = None
    """File with ``image`` [M, H, W, C] uint8 and ``label`` [M] or [M, K]: .npz or .safetensors."""
    share: Ratio = Ratio("0.7")
    """Share of each batch, in (0, 1); Gowal et al. 2021 use 0.7 to 0.8."""


@dataclass(frozen=True, kw_only=True)
class PhasesConfig(Settings, place="data.phases"):
    """Parts of the run with training images of another size, in batches of another size, as fast training on
    ImageNet has them. Validation and test have one size, that of the data set."""

    ends: tuple[int, ...] = ()
    """Epochs after which the next phase begins: ``[6, 12]`` makes three."""
    sizes: tuple[int, ...] = ()
    """Height and width of the training images in each phase, decoded from files; none leaves them alone."""
    batches: tuple[int, ...] = ()
    """Images in a step of each phase, instead of ``batch_size``; none leaves that alone."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings, place="data"):
    """Which images, from where, and what is done to them."""

    name: str = "digits"
    """Name of the data set."""
    root: str | None = None
    """Folder of its files."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of that data set, such as ``val``, the images that validate."""
    loader: Literal["auto", "resident", "dali", "torch"] = "auto"
    """Where batches come from; ``auto`` takes the fastest that there is."""
    workers: int | None = None
    """Threads or processes that decode; None is one for each core."""
    on_corrupt: Literal["error", "skip"] = "error"
    """What happens to an image that cannot be decoded."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    extra: ExtraConfig = field(default_factory=ExtraConfig)
    phases: PhasesConfig = field(default_factory=PhasesConfig)
    label_noise: LabelNoiseConfig = field(default_factory=LabelNoiseConfig)
