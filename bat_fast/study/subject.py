"""A finished run as the studies of complexity and gradients look at it: clean and attacked images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast import data
from bat_fast._logits import logits_of, missed
from bat_fast.attacks import Attack
from bat_fast.config import TrainConfig, settled
from bat_fast.device import pick_device
from bat_fast.evaluate.attacks import make_attack
from bat_fast.runs.model_file import load_run
from bat_fast.study import complexity, gradients
from bat_fast.study.compare import train_split
from bat_fast.train import build


@dataclass(frozen=True)
class Subject:
    """A model in eval mode, some images of both splits, and the attack of its training's ball."""

    model: nn.Module
    saved: dict[str, Any]
    train: tuple[Tensor, Tensor]
    """Images [N, C, H, W] and labels [N]."""
    test: tuple[Tensor, Tensor]
    attack: Attack

    def attacked(self, images: tuple[Tensor, Tensor]) -> Tensor:
        """Attacked images [N, C, H, W]."""
        return self.attack(*images, draw=0)

    def error(self, x: Tensor, y: Tensor) -> float:
        """Share of images that are wrong."""
        with torch.no_grad():
            return float(missed(logits_of(self.model(x)), y).float().mean())


def read_subject(run: Path, images: int, device: str = "auto") -> Subject:
    """The model that a run left, and the first ``images`` of its training and test split.

    Raises:
        FileNotFoundError: no such run, or one that has not finished. ValueError, OSError: data cannot be had.
    """
    device = pick_device(device)
    model, saved = load_run(run, device)
    splits = train_split(run)
    train, test = (_first(source, images, device) for source in (splits.train, splits.test))
    eps, step = float(saved["eps"]), float(saved["step_size"])
    attack = make_attack("pgd10", model, eps=eps, step_size=step, norm=saved["norm"], seed=saved["seed"])
    return Subject(model, saved, train, test, attack)


def _first(source: data.Source, count: int, device: str) -> tuple[Tensor, Tensor]:
    some = source.part(torch.arange(min(count, len(source))))
    batch = next(iter(data.create_loader(some, len(some), shuffle=False, seed=0, device=device)))
    return batch.x.contiguous(), batch.y


def initial(config: TrainConfig, subject: Subject) -> nn.Module:
    """The network of a run with the weights that its training began with, which its seed makes again."""
    saved = subject.saved
    shape = data.Shape(saved["num_classes"], saved["in_channels"], saved["image_size"])
    return build.parts(settled(config), shape).model


def measure_complexity(config: TrainConfig, subject: Subject, *, draws: int = 10) -> dict[str, float | None]:
    """All measures of `bat_fast.study.complexity`, and the gaps that they are set beside.

    Args:
        config: of the run.
        subject: the run.
        draws: of the noise on the weights.

    Returns:
        ``l2``, ``distance``, ``log_spectral``, ``path``; ``margin`` and ``robust_margin``;
        ``..._over_margin``, of the attacked images; ``flatness``, of the robust error; ``gap`` and
        ``robust_gap``: error on test minus error on training.
    """
    model, (x, y) = subject.model, subject.train
    adv = subject.attacked(subject.train)
    with torch.no_grad():
        margins = [complexity.margin(logits_of(model(images)), y) for images in (x, adv)]
    image = (int(x.shape[1]), int(x.shape[2]), int(x.shape[3]))
    l2, spectral = complexity.l2_norm(model), complexity.log_spectral(model)
    path = complexity.path_norm(model, image)
    robust = subject.error(subject.attacked(subject.test), subject.test[1]) - subject.error(adv, y)
    return {
        "l2": l2,
        "distance": complexity.distance(model, initial(config, subject)),
        "log_spectral": spectral,
        "path": path,
        "margin": margins[0],
        "robust_margin": margins[1],
        **complexity.over_margin(l2, spectral, path, margins[1]),
        "flatness": complexity.flatness(model, lambda: subject.error(adv, y), draws=draws),
        "gap": subject.error(*subject.test) - subject.error(x, y),
        "robust_gap": robust,
    }


def measure_gradients(subject: Subject, distances: list[float]) -> gradients.Stability:
    """`bat_fast.study.gradients.stability` of the cross-entropy of attacked training images in eval mode."""
    y = subject.train[1]

    def loss() -> Tensor:
        adv = subject.attacked(subject.train)
        return nn.functional.cross_entropy(logits_of(subject.model(adv)), y)

    return gradients.stability(subject.model, loss, distances)
