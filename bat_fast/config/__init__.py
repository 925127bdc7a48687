"""Every setting of a training run, as frozen dataclasses. Standard library only.

The same names are YAML keys, command-line options (``--attack.eps 8/255``) and Python attributes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from bat_fast.config.data import AugmentConfig as AugmentConfig
from bat_fast.config.data import DataConfig as DataConfig
from bat_fast.config.data import ExtraConfig as ExtraConfig
from bat_fast.config.data import LabelNoiseConfig as LabelNoiseConfig
from bat_fast.config.data import PhasesConfig as PhasesConfig
from bat_fast.config.optim import OptimConfig as OptimConfig
from bat_fast.ratio import Ratio as Ratio
from bat_fast.values import Settings


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings, place="model"):
    """The network."""

    name: str = "small_cnn"
    """``small_cnn``, ``preactresnet18``, ``wrn_28_10`` (any ``wrn_DEPTH_WIDTH``), ``timm:NAME``, or a class
    of your own: ``package.module:Class``, ``path/to/file.py:Class``."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the constructor of your own class, beside those that it shares with this configuration:
    ``num_classes``, ``in_channels``, ``image_size``."""
    normalize: Literal["data", "none"] = "data"
    """Subtract the mean of the training images and divide by their deviation, or take pixels as they are."""
    pretrained: bool = False
    """Begin with the published weights of a ``timm:`` model, and with its mean and std."""
    init: str | None = None
    """Begin with these weights: a run folder, a .safetensors file or a .pt file. The last linear layer is new
    where the number of classes is another."""
    activation: str = "relu"
    """Activation of the whole network."""
    num_classes: int | None = None
    """Number of classes; None takes it from the data set."""


@dataclass(frozen=True, kw_only=True)
class AttackConfig(Settings, place="attack"):
    """The attack that finds the images to train on: arguments of `bat_fast.PGD`, and a curriculum."""

    eps: Ratio = Ratio("8/255")
    """Radius of the ball, in pixels scaled to [0, 1]."""
    step_size: Ratio | None = None
    """Step; None is eps/4."""
    steps: int = 10
    """Number of gradient steps."""
    norm: Literal["linf", "l2"] = "linf"
    """Norm of the ball."""
    random_start: bool | Literal["gaussian"] = True
    """Start at a random point of the ball; ``gaussian``: close to the image, as TRADES does."""
    bn_mode: Literal["eval", "train"] = "eval"
    """Batch norm inside the attack: running statistics (eval) or those of the batch (train)."""
    bn_updates: bool | Literal["all"] = False
    """Running statistics also count the passes of an attack in ``bn_mode: train``, as in most published code;
    ``all``: and two more, over the attacked images and, after the update, the clean ones."""
    clip_start: bool = True
    """Cut the random start to [0, 1]; off, the first gradient is that of the uncut noise, as in TRADES."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Autocast of the attack's forward and backward passes; None is what ``speed`` says."""
    engine: Literal["auto", "eager", "frozen", "graph", "compile", "measure"] = "auto"
    """How the model runs in the steps, with the same result; ``measure`` times them and takes the fastest."""
    targets: Literal["none", "random"] = "none"
    """Climb away from the label, or towards a random other class (a new one in every epoch)."""
    clean_start: float = 0.0
    """Share of the batches whose attack starts at the image in spite of random_start."""
    warmup: float = 0.0
    """Curriculum: part of the run over which radius and step rise linearly to their values: a fraction, or
    epochs where it is above 1."""
    first_steps: int | None = None
    """Curriculum: number of steps in the first epoch, rising to ``steps`` over ``warmup``."""
    late_start: float | None = None
    """Curriculum: part of the run after which radius and number of steps are ``late_eps`` and ``late_steps``:
    a fraction, or epochs where it is above 1; None is never."""
    late_eps: Ratio | None = None
    """Radius from ``late_start`` on; None keeps ``eps``. The step stays as it is."""
    late_steps: int | None = None
    """Number of steps from ``late_start`` on; None keeps ``steps``."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Settings, place="eval"):
    """How validation and the final test judge the model."""

    val_steps: int = 10
    """PGD steps of the validation that chooses the best epoch."""
    attack: str | None = None
    """Attack of that validation, in place of PGD with ``val_steps``: ``pgd20``, ``quick`` (up to 80 passes
    each way an image, where ``pgd10`` has 10), or another that ``bat-fast eval --attack`` knows."""
    test_steps: int = 20
    """PGD steps of the final test."""
    autoattack: int | None = None
    """Test images, evenly spread, that the final test also judges by AutoAttack (``test/aa_acc``); 0 is none.
    An image that withstands it costs 7900 passes. None is 1000 on a GPU, and none on a CPU, where that may
    take longer than the training."""
    test_attack: str | None = None
    """The attack of the final test by name, as ``eval --attack`` takes it: ``pgd50x10-any``; None is PGD with
    ``test_steps``."""
    step_size: Ratio | None = None
    """Step of validation and test; None is that of the attack."""
    batch_size: int = 256
    """Images at a time."""
    every: int = 1
    """Epochs between validations."""
    choose: Literal["val", "last", "test"] = "val"
    """The epoch that is tested and saved: the best on the validation split; or, with all of it trained on and
    the test split measured in its place, the last, or the best on test, which flatters."""
    patience: int = 0
    """Early stopping: epochs without a better validation after which the run ends; 0 never ends it."""
    on_collapse: Literal["warn", "stop", "restore"] = "warn"
    """When single-step training falls into catastrophic overfitting: only say so, end the run, or go on from
    the weights of the best epoch."""


@dataclass(frozen=True, kw_only=True)
class CudaConfig(Settings, place="cuda"):
    """How torch computes on a GPU; a CPU has none of it."""

    tf32: bool | None = None
    """TF32 in convolutions and matrix products of float32. None is what ``speed`` says: as torch has it, in
    convolutions alone, or in both."""
    benchmark: bool | None = None
    """cuDNN times its algorithms for each new shape and keeps the fastest, so that two runs may differ in
    their last bits. None is what ``speed`` says: off, as torch has it, or on."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Everything that decides what a training run does."""

    epochs: int = 110
    """Passes over the training split."""
    batch_size: int = 128
    """Images in a step."""
    seed: int = 0
    """Seed of weights, data order, random starts and splits."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1``."""
    deterministic: bool = False
    """torch takes only kernels that repeat their bits, and stops at an operation that has none; on a CPU all
    that a run uses repeats without it (docs/determinism.md)."""
    speed: Literal["published", "fast"] = "published"
    """What settings that are None become: ``published`` is float32; ``fast`` is bf16 in the attack and for
    the weights, TF32 elsewhere, and the fastest algorithms of cuDNN."""
    checkpoint_every: int = 0
    """Steps between checkpoints within an epoch; 0 writes one at the end of each epoch and on Ctrl-C only."""
    checkpoint_keep: int = 2
    """Checkpoints to go on from that are kept, the last one included: where it is damaged, ``--resume`` takes
    the one before."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: dict[str, Any] = field(default_factory=lambda: {"name": "bat"})
    """``name`` of the training method, and its own options."""
    attack: AttackConfig = field(default_factory=AttackConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    cuda: CudaConfig = field(default_factory=CudaConfig)

    def __post_init__(self) -> None:
        if isinstance(self.method, str):  # a name alone, as model and data have it too
            object.__setattr__(self, "method", {"name": self.method})
        super().__post_init__()


def settled(config: TrainConfig) -> TrainConfig:
    """``config`` with a value in place of every None that ``speed`` decides; others stay as they are."""
    if config.speed == "published":
        return config

    def filled(part: Any, **values: Any) -> Any:
        return replace(part, **{name: v for name, v in values.items() if getattr(part, name) is None})

    return replace(
        config,
        attack=filled(config.attack, precision="bf16"),
        optim=filled(config.optim, precision="bf16"),
        cuda=filled(config.cuda, tf32=True, benchmark=True),
    )


def recipes() -> dict[str, Path]:
    """The recipes shipped in the package: name -> YAML file."""
    folder = Path(str(resources.files("bat_fast"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
