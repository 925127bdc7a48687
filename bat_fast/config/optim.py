"""How the weights move. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bat_fast.values import Settings


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Settings, place="optim"):
    """How the weights move: stochastic gradient descent in nearly all published systems of the family."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """The optimiser."""
    lr: float = 0.1
    """Peak learning rate; ``adam`` and ``adamw`` need one of about 0.001."""
    momentum: float = 0.9
    """Momentum; the first beta of ``adam`` and ``adamw``."""
    momentum_low: float | None = None
    """Momentum at the peak of ``cyclic``, which it falls to and rises from; None keeps ``momentum``."""
    nesterov: bool = False
    """Nesterov's momentum, of ``sgd``."""
    beta2: float = 0.999
    """Decay of the squared gradients in ``adam`` and ``adamw``."""
    weight_decay: float = 5e-4
    """L2 penalty on all parameters; ``adamw`` shrinks them instead."""
    decay: Literal["all", "weights"] = "all"
    """What weight_decay is for: all parameters, as published, or not those of norms, nor biases."""
    schedule: Literal["constant", "multistep", "cosine", "cyclic", "linear"] = "multistep"
    """Learning rate over the run; ``cyclic`` rises to lr and falls to 0, linearly; ``linear`` goes from 0 in
    straight lines to ``factors`` at the milestones."""
    peak: float = 0.4
    """Where ``cyclic`` has its peak, a fraction of the run."""
    milestones: tuple[float, ...] = (0.5, 0.75)
    """Where ``multistep`` multiplies the rate by gamma: fractions of the run, or epochs where above 1."""
    gamma: float = 0.1
    """Factor of ``multistep``."""
    factors: tuple[float, ...] = ()
    """What ``linear`` multiplies lr by at each milestone; a milestone that is there twice is a jump."""
    warmup: float = 0.0
    """Part of the run with a linear rise of the rate from 0: a fraction, or epochs where it is above 1."""
    precision: Literal["fp32", "bf16"] | None = None
    """Autocast of the forward and backward pass of the weights; losses and updates stay in float32. None is
    what ``speed`` says."""
    compile: bool = False
    """The forward and backward pass of the weights through torch.compile, which takes a minute in the first
    step, and in the first one of another size. The attack has engines of its own. Last bits differ."""
    micro_batches: int = 1
    """Gradient accumulation: parts of a batch that are attacked and learnt from one after the other, for one
    update with their mean gradient. batch_size stays the size of the whole."""
    sync_bn: bool = False
    """Several processes: batch norm of the training pass takes its statistics from the whole batch, not from
    the images of each process."""
    grad_checkpointing: bool = False
    """Activation checkpointing: keep the inputs of blocks alone; they run again for the gradient."""
    label_smoothing: float = 0.0
    """Share of the label's probability given to all classes alike, in [0, 1)."""
    clip: float | None = None
    """Largest norm of the gradient of all parameters; None does not clip."""
    on_nonfinite: Literal["stop", "skip", "restore"] = "stop"
    """When loss or gradient are NaN or infinite, before any weight has moved: end the run, leave that update
    out, or go on from the weights of the last checkpoint. Ten such updates in a row end it anyway."""
    check_every: int = 50
    """Steps between two looks at loss and gradient on a GPU, which waits for each. A CPU looks in every step,
    and so does a GPU unless ``on_nonfinite`` is ``stop``."""
    awp: float = 0.0
    """Radius of adversarial weight perturbation (Wu et al. 2020), relative to the norm of the weights; 0 is
    off."""
    awp_start: float = 0.0
    """Part of the run after which the weights are perturbed: a fraction, or epochs where it is above 1."""
    awp_steps: int = 1
    """Gradients whose sum the perturbation follows, each taken where those before have led."""
    awp_norm: Literal["layer", "model"] = "layer"
    """The norm that the radius is relative to: each layer has its own, or all weights have one together."""
    awp_below: float | None = None
    """The perturbation climbs the cross-entropy of the samples with less than this, in nats, and of no others
    (1.5 in MLCAT-WP); None climbs the loss that the weights descend."""
    average: Literal["none", "ema", "swa"] = "none"
    """Average of the weights that is validated, tested and saved: exponential or equal (SWA)."""
    average_decay: float = 0.995
    """Decay of the exponential average, per step."""
    average_start: float = 0.0
    """Part of the run after which averaging begins: a fraction, or epochs where it is above 1."""
