"""The picture of the loss around images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bat_fast.report.figure import BLUE, ORANGE, figure, svg_of, tidy
from bat_fast.runs.examined import Around

_KINDS = {"fragile": "an image that breaks", "sturdy": "a robust image"}


def landscape(found: Around, letter: str) -> dict[str, Any]:
    """A picture of the loss around the images of a run, with ``title``, ``svg``, ``alt`` and ``note``.

    Args:
        found: of its model.
        letter: of the run.
    """
    at, ways = found.at.tolist(), (("attacked", found.attack, ORANGE), ("by chance", found.chance, BLUE))
    with figure(11, 3.2, page=True) as made:
        panels = made.subplots(1, 1 + len(found.planes), squeeze=False)[0]
        for name, losses, colour in ways:
            low, middle, high = _quartiles(losses)
            panels[0].fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
            panels[0].plot(
                at, middle, color=colour, label="to the attacked image" if name == "attack" else name
            )
        panels[0].set_xlabel("way, in radii")
        panels[0].set_ylabel("loss")
        panels[0].set_title("median and quartiles")
        panels[0].legend(frameon=False)
        tidy(panels[0])
        largest = max((float(plane.loss.max()) for plane in found.planes.values()), default=1.0)
        edge = (at[0], at[-1], at[0], at[-1])
        for axes, (kind, plane) in zip(panels[1:], found.planes.items(), strict=True):
            loss, right = plane.loss.numpy(), plane.right.float().numpy()
            shown = axes.imshow(loss, origin="lower", extent=edge, cmap="cividis", vmin=0, vmax=largest)
            axes.set_aspect("auto")
            if right.min() < right.max():
                axes.contour(at, at, right, levels=[0.5], colors="white", linewidths=1.2)
            axes.plot([0, 1], [0, 0], color="white", marker="o", markersize=4, linewidth=1)
            axes.set_title(_KINDS[kind])
            axes.set_xlabel("to the attacked image")
            axes.set_ylabel("by chance")
        if found.planes:
            made.colorbar(shown, ax=panels[1:].tolist(), label="loss", shrink=0.9)
        svg = svg_of(made, f"landscape-{letter}")
    start, end = at.index(0.0), at.index(1.0)
    rows = {name: _quartiles(losses)[1] for name, losses, _ in ways}
    told = ", ".join(f"{row[end] - row[start]:+.2f} {name}" for name, row in rows.items())
    return {
        "title": "Loss around the images",
        "svg": svg,
        "alt": f"Loss around {found.attack.shape[1]} images of run {letter}. From the image to the edge of "
        f"the ball the median changes by {told}.",
        "note": f"From the image to the edge of the ball the median changes by {told}: where both are large, "
        "the loss is steep all around. White: where the answer changes, and the way from the image (0, 0) to "
        "the attacked one (1, 0). Pixels stay in [0, 1].",
    }


def _quartiles(losses: Tensor) -> list[list[float]]:
    """Of each row of [T, N], those that are numbers."""
    levels = torch.tensor([0.25, 0.5, 0.75], dtype=losses.dtype)
    found: list[list[float]] = losses.nanquantile(levels, dim=1).tolist()
    return found
