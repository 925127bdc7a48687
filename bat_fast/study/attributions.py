"""How sparse a model's attributions of its answers to pixels are: those of an adversarially trained model are
found sparser than those of a naturally trained one by Chalasani et al. 2020 (arXiv:1810.06583).

With ``z_y`` the logit of the true class and ``x0`` the black image, for each pixel and channel::

    gradient    d z_y(x) / d x
    integrated  (x - x0) int_0^1  d z_y(x0 + a (x - x0)) / d x  da

(the second of Sundararajan et al. 2017, arXiv:1703.01365) and with the sizes of N attributions in rising
order, ``a_1 <= ... <= a_N`` (Hurley and Rickard 2009, arXiv:0811.4706)::

    gini = 1 - 2 sum_k  a_k / (a_1 + ... + a_N)  (N - k + 1/2) / N

It is 0 where all are equal, and 1 - 1/N where one alone is not 0. The integrals of all pixels add up to
``z_y(x) - z_y(x0)``, and how far their sums over the steps are from that is measured too. Attributions are
captum's. Integrated gradients and the Gini index are those of Chalasani et al.; that they are of the logit,
and from the black image, are choices made here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bat_fast._install import install
from bat_fast._logits import logits_of
from bat_fast.report.intervals import Mean, mean_of
from bat_fast.study.sealed_arrays import Array, read_arrays, write_arrays
from bat_fast.study.subject import read_subject

KINDS = ("gradient", "integrated")
FILE = "attributions.npz"
STEPS = 50
_TOGETHER, _INSIDE, _SHOWN = 64, 512, 8  # images; images on their ways from black; images that are kept


class Attributed(NamedTuple):
    """Attributions of a batch of N images."""

    gradient: Tensor
    """[N, C, H, W]."""
    integrated: Tensor
    """[N, C, H, W]."""
    left: Tensor
    """[N]: what the sum of ``integrated`` lacks of the change of the logit."""
    change: Tensor
    """[N]: that change, from the black image to the image."""


def gini(values: Tensor) -> Tensor:
    """The Gini index of the sizes of each row, [N] float64; NaN where all are 0.

    Args:
        values: [N, ...].
    """
    sizes = values.flatten(1).double().abs().sort(1).values
    count = sizes.shape[1]
    weights = (count - torch.arange(count, device=sizes.device) - 0.5) / count
    return 1 - 2 * (sizes * weights).sum(1) / sizes.sum(1)


def captum() -> Any:
    """``captum.attr``.

    Raises:
        ImportError: captum is not installed; the message has the command.
    """
    try:
        import captum.attr
    except ImportError:
        raise ImportError(f"attributions need captum: {install('captum', 'attributions')}") from None
    return captum.attr


def attribute(model: nn.Module, x: Tensor, y: Tensor, steps: int = STEPS) -> Attributed:
    """Attributions of the logits of the true classes.

    Args:
        model: in eval mode; its parameters get no gradients.
        x: [N, C, H, W] pixels.
        y: [N] int64 labels.
        steps: of the integral, by the rule of Gauss and Legendre.

    Raises:
        ImportError: captum is not installed; the message has the command.
    """

    def forward(images: Tensor) -> Tensor:
        return logits_of(model(images), len(images))

    x = x.detach().clone().requires_grad_()
    attr = captum()
    gradient = attr.Saliency(forward).attribute(x, target=y, abs=False)
    integrated = attr.IntegratedGradients(forward).attribute(
        x, target=y, n_steps=steps, internal_batch_size=_INSIDE
    )
    with torch.no_grad():
        black = forward(torch.zeros_like(x))
        change = (forward(x) - black).gather(1, y[:, None]).squeeze(1)
    parts = gradient, integrated, change - integrated.flatten(1).sum(1), change
    return Attributed(*(part.detach() for part in parts))


def compare(
    runs: Sequence[Path],
    images: int,
    *,
    steps: int = STEPS,
    device: str = "auto",
    tell: Callable[[int, int], object] | None = None,
) -> dict[str, Array]:
    """The Gini index of the models of finished runs on the same test images.

    Args:
        runs: folders; the others are compared with the first.
        images: the first so many of the test split.
        steps: of the integral.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        tell: called with the number of models that are done, and that of all.

    Returns:
        ``names`` [R]; ``gradient`` and ``integrated`` [R, n]; ``left`` [R], the mean size of what the
        integral lacks, as a share of the mean size of the change; and of some images ``images``
        [E, C, H, W], ``labels`` [E] and ``shown`` [R, 2, E, H, W], sizes of both summed over the channels.

    Raises:
        ValueError: the runs have other test images, or data cannot be had. FileNotFoundError: no such run.
        ImportError: captum is not installed; the message has the command.
    """
    captum()
    subjects = [read_subject(run, images, device) for run in runs]
    x, y = subjects[0].test
    for run, subject in zip(runs, subjects, strict=True):
        if not (subject.test[0].equal(x) and subject.test[1].equal(y)):
            raise ValueError(
                f"{run} has other test images than {runs[0]}: give runs of the same data and seed"
            )
    found: dict[str, list[Array]] = {kind: [] for kind in (*KINDS, "left", "shown")}
    for number, subject in enumerate(subjects):
        batches = zip(x.split(_TOGETHER), y.split(_TOGETHER), strict=True)
        parts = [attribute(subject.model, *batch, steps) for batch in batches]
        whole = Attributed(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))
        for kind in KINDS:
            found[kind].append(gini(getattr(whole, kind)).numpy())
        change = whole.change.abs().mean().clamp_min(1e-30)  # 0 of a model that answers all images alike
        found["left"].append((whole.left.abs().mean() / change).numpy())
        kinds = torch.stack([whole.gradient[:_SHOWN], whole.integrated[:_SHOWN]])
        found["shown"].append(kinds.abs().sum(2).numpy())
        if tell is not None:
            tell(number + 1, len(subjects))
    return {
        "names": np.array([str(run) for run in runs]),
        **{name: np.stack(values) for name, values in found.items()},
        "images": x[:_SHOWN].cpu().numpy(),
        "labels": y[:_SHOWN].cpu().numpy(),
    }


def sparsity(found: dict[str, Array], number: int, kind: str) -> tuple[Mean, Mean]:
    """The mean Gini index of model ``number`` and how much more it is than that of the first, image by image,
    with 95 % t-intervals over the images; those without attributions are left out; NaN of 0
    images where none is left.

    Args:
        found: of `compare`.
        number: of the model.
        kind: one of `KINDS`.
    """
    own, first = found[kind][number], found[kind][0]
    return _mean(own), _mean(own - first)


def _mean(values: Array) -> Mean:
    there = values[~np.isnan(values)].tolist()
    return mean_of(there) if there else Mean(float("nan"), None, 0)


def in_words(mean: Mean, *, signed: bool = False, between: str = "±") -> str:
    """A mean of `sparsity` and the half width of its interval; a dash where no image has attributions.

    Args:
        mean: what is written.
        signed: with a plus, as a difference.
        between: what stands between the two numbers.
    """
    if not mean.n:
        return "–"
    return f"{mean.value:{'+' if signed else ''}.3f} {between} {mean.half_width or 0:.3f}"


def write_attributions(study: Path, found: dict[str, Array]) -> Path:
    """Keep what `compare` found in the folder of a study, whose report shows it."""
    write_arrays(study / FILE, found)
    return study / FILE


def read_attributions(study: Path) -> dict[str, Array] | None:
    """What `write_attributions` has kept; None where there is nothing. Raises ValueError if it is damaged."""
    return read_arrays(study / FILE) if (study / FILE).exists() else None
