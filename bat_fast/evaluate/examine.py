"""A saved model looked at from all sides: radii, steps, classes, examples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bat_fast import data
from bat_fast._logits import logits_of
from bat_fast.attacks import Attack
from bat_fast.batch import Batch
from bat_fast.device import pick_device
from bat_fast.evaluate.attacks import make_attack
from bat_fast.evaluate.checks import check_model, convergence, monotony
from bat_fast.evaluate.subject import loader_of, split_source
from bat_fast.evaluate.surface import around, plane
from bat_fast.evaluate.trial import share
from bat_fast.runs.examined import Around, Examined, Example, right
from bat_fast.runs.finding import Finding
from bat_fast.runs.model_file import load_run

_RADII = (0.25, 0.5, 0.75, 1.5, 2.0)  # in units of that of the training, which comes by itself
_STEPS = (1, 2, 5, 10, 50)
_SHOWN = 6  # images of a gallery
_CHECKED = 128  # images


def examine(
    path: str | Path,
    *,
    images: int = 1000,
    steps: int = 20,
    batch_size: int = 256,
    device: str = "auto",
    root: str | Path | None = None,
    tell: Callable[[int, int], object] | None = None,
) -> Examined:
    """Attack a saved model on images of its test split, in balls of several sizes, with more and fewer steps.

    With all images and the steps of the run's own test, ``attack`` is that test again.

    Args:
        path: a run folder or a ``model.safetensors``.
        images: how many, evenly spread over the split; all where there are no more.
        steps: PGD steps.
        batch_size: images at a time; the result does not depend on it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        root: the folder of the data; None takes that of the training.
        tell: called with the number of attacks that are done, and that of all.

    Raises:
        ValueError, OSError, ImportError: model or data cannot be had; the message says why.
    """
    began = time.perf_counter()
    if images < 1 or steps < 1 or batch_size < 1:
        given = f"{images}, {steps}, {batch_size}"
        raise ValueError(f"images, steps and batch_size must be at least 1, got {given}")
    device = pick_device(device)
    model, saved = load_run(path, device)
    whole = split_source(saved, "test", root)
    eps = float(saved["eps"]) or 8 / 255  # a run without attacks is still attacked
    step = float(saved["step_size"]) if float(saved["eps"]) else eps / 4
    some = whole.part(torch.linspace(0, len(whole) - 1, min(images, len(whole))).long())
    subject = _Subject(model, saved, some, step / eps, batch_size, device)
    unbounded = subject.unbounded
    balls = sorted({*(eps * factor for factor in _RADII), unbounded} - {eps})
    judge = subject.attack(steps, eps)
    others = [subject.attack(steps, ball) for ball in balls]
    counts = [count for count in _STEPS if count != steps]
    others += [subject.attack(count, eps, reach=True) for count in counts]

    labels, ids, clean = some.labels, some.index, subject.attacked(None)
    logits: list[Tensor] = []
    for number, attack in enumerate((judge, *others)):
        logits.append(subject.attacked(attack))
        if tell is not None:
            tell(number + 1, 1 + len(others))
    correct = [right(each, labels) for each in logits]
    radii = {0.0: right(clean, labels), eps: correct[0]} | dict(zip(balls, correct[1:], strict=False))
    by_steps = {steps: correct[0]} | dict(zip(counts, correct[1 + len(balls) :], strict=True))
    radii = dict(sorted(radii.items()))
    galleries = _galleries(labels, logits[0], radii, eps)
    places = sorted({place for gallery in galleries.values() for place in gallery})
    shown = dict(zip(places, subject.examples(judge, ids[places]), strict=True))
    return Examined(
        split="test",
        total=len(whole),
        classes=tuple(whole.class_names),
        labels=labels,
        ids=ids,
        clean=clean,
        attacked=logits[0],
        attack=f"pgd{steps}",
        norm=saved["norm"],
        eps=eps,
        radii=radii,
        steps=dict(sorted(by_steps.items())),
        unbounded=unbounded,
        findings=(
            *subject.findings(eps),
            convergence(share(correct[0]), share(by_steps[max(by_steps)]), len(labels)),
            monotony([share(mask) for mask in radii.values()], len(labels)),
        ),
        examples={what: {place: shown[place] for place in some} for what, some in galleries.items()},
        device=torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu",
        around=subject.loss_around(judge, {what: ids[some[0]] for what, some in galleries.items() if some}),
        seconds=time.perf_counter() - began,
    )


@dataclass(frozen=True)
class _Subject:
    """A model and the images that it is examined on."""

    model: nn.Module
    saved: dict[str, Any]
    source: data.Source
    step: float
    """Step size in units of the radius."""
    batch_size: int
    device: str

    @property
    def unbounded(self) -> float:
        """The radius that turns any image grey: half of all pixels' range."""
        pixels = self.source.channels * self.source.image_size**2
        return 0.5 if self.saved["norm"] == "linf" else 0.5 * math.sqrt(pixels)

    def attack(self, steps: int, eps: float, *, reach: bool = False) -> Attack:
        """PGD; with ``reach`` few steps are large enough for the edge of the ball."""
        how = {"norm": self.saved["norm"], "seed": self.saved["seed"]}
        attack = make_attack(f"pgd{steps}", self.model, **how)
        # Some of the balls are beyond what anybody may ask for: all grey is in one.
        attack.eps, attack.step_size = eps, eps * (max(self.step, 1.25 / steps) if reach else self.step)
        return attack

    def batches(self) -> Iterator[Batch]:
        yield from loader_of(self.saved, self.source, self.batch_size, self.device)

    def _some(self) -> Batch:
        """Some of the images, evenly spread."""
        count = min(_CHECKED, len(self.source))
        some = self.source.part(torch.linspace(0, len(self.source) - 1, count).long())
        (batch,) = loader_of(self.saved, some, count, self.device)
        return batch

    def loss_around(self, attack: Attack, shown: dict[str, Tensor]) -> Around:
        """The loss around some of the images, and in a plane around the image of each id in ``shown``."""
        ball = (attack.eps, attack.norm, self.saved["seed"])
        batch = self._some()
        found = around(self.model, batch, attack(batch.x, batch.y, index=batch.index, draw=0), *ball)
        for what in ("fragile", "sturdy"):
            if what in shown:
                one = self.source.part((self.source.index == shown[what]).nonzero().flatten())
                (batch,) = loader_of(self.saved, one, 1, self.device)
                x_adv = attack(batch.x, batch.y, index=batch.index, draw=0)
                found.planes[what] = plane(self.model, batch, x_adv, *ball)
        return found

    def findings(self, eps: float) -> list[Finding]:
        """What the cheap checks say of some of the images."""
        batch = self._some()
        return check_model(
            self.model, batch.x, batch.y, eps=eps, norm=self.saved["norm"], seed=self.saved["seed"]
        )

    def attacked(self, attack: Attack | None) -> Tensor:
        """Logits [N, K] of the images that ``attack`` finds; of the images themselves without one."""
        found = []
        with torch.no_grad():
            for batch in self.batches():
                x = batch.x if attack is None else attack(batch.x, batch.y, index=batch.index, draw=0)
                found.append(logits_of(self.model(x), len(x)).float().cpu())
        return torch.cat(found)

    def examples(self, attack: Attack, ids: Tensor) -> list[Example]:
        """The images ``ids`` [E] and what ``attack`` makes of them, the same at each call."""
        if not len(ids):
            return []
        rows = {one: row for row, one in enumerate(self.source.index.tolist())}
        part = replace(self, source=self.source.part(torch.tensor([rows[one] for one in ids.tolist()])))
        found: list[Example] = []
        with torch.no_grad():
            for batch in part.batches():
                x_adv = attack(batch.x, batch.y, index=batch.index, draw=0)
                found += map(Example, batch.x.cpu(), x_adv.cpu())
        return found


def _galleries(
    labels: Tensor, attacked: Tensor, radii: dict[float, Tensor], eps: float
) -> dict[str, list[int]]:
    """Places of the images worth seeing. Among those that break in the same ball, the order is by the margin
    of the true class under the attack."""
    probabilities = attacked.softmax(1)
    true = probabilities.gather(1, labels[:, None]).squeeze(1)
    margin = true - probabilities.scatter(1, labels[:, None], -1.0).amax(1)
    broken = torch.full((len(labels),), math.inf)
    for radius in sorted(radii, reverse=True):  # the smallest ball in which it breaks
        broken[~radii[radius]] = radius
    order = sorted(range(len(labels)), key=lambda place: (float(broken[place]), float(margin[place])))
    clean = radii[0.0].tolist()
    fragile = [place for place in order if clean[place] and float(broken[place]) <= eps]
    sturdy = [place for place in reversed(order) if float(broken[place]) > eps]
    wrong = [place for place in order if not clean[place]]
    return {"fragile": fragile[:_SHOWN], "sturdy": sturdy[:_SHOWN], "wrong": wrong[:_SHOWN]}
