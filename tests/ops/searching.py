"""Small networks and images for the searches, with the labels that the network gives."""

from typing import Any, NamedTuple

import torch
from test_network import NETWORKS, Builder, mlp
from torch import Tensor

from bat_fast.ops.network import Map, network_gradient

EPS = {"linf": 0.025, "l2": 0.15}


class Case(NamedTuple):
    network: Builder
    given: dict[str, Any]
    start: Tensor
    clean: Tensor
    y: Tensor
    targets: Tensor

    def logits(self, x: Tensor) -> Tensor:
        return network_gradient(x, None, **self.given)[0]

    def broken(self, x: Tensor) -> Tensor:
        return self.logits(x).argmax(1) != self.y


def case(make, rows: int, dtype: torch.dtype, norm: str = "linf") -> Case:
    """``make`` is one of NETWORKS; starts lie in the ball; the last label is wrong from the beginning."""
    network = make(dtype)
    h, w, c = Map(5, 3, 2) if make is mlp else network.layers[0].into
    clean = torch.rand(rows, c, h, w, dtype=dtype)
    noise = torch.randn_like(clean)
    size = noise.abs().amax((1, 2, 3)) if norm == "linf" else noise.flatten(1).norm(dim=1)
    start = (clean + EPS[norm] * noise / size[:, None, None, None]).clamp(0, 1)
    given = network.given()
    logits = network_gradient(clean, None, **given)[0]
    if rows > 1:  # so that there are several answers, and boundaries between the images
        bias = network.layers[-1].bias
        given["weights"][bias : bias + logits.shape[1]] -= logits.mean(0)
        logits = network_gradient(clean, None, **given)[0]
    order = logits.argsort(1, descending=True)
    y, targets = order[:, 0].clone(), order[:, 1].clone()
    y[-1:], targets[-1:] = order[-1:, 1], order[-1:, 0]
    return Case(network, given, start, clean, y, targets)


def in_ball(adv: Tensor, clean: Tensor, norm: str) -> bool:
    away = (adv - clean).flatten(1)
    size = away.abs().amax(1) if norm == "linf" else away.norm(dim=1)
    return bool((size <= EPS[norm] * (1 + 1e-5)).all() and (adv >= 0).all() and (adv <= 1).all())


def independent_of_company(run, adv: Tensor, *others: Tensor | None) -> bool:
    """``run(adv, *others)`` gives the same bits for parts of a batch, in other layouts, on more threads."""
    whole = run(adv.clone(), *others)
    parts = [
        run(*(None if t is None else t[i : i + 5].clone() for t in (adv, *others)))
        for i in range(0, len(adv), 5)
    ]
    other = run(adv.to(memory_format=torch.channels_last, copy=True), *others)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        more = run(adv.clone(), *others)
    finally:
        torch.set_num_threads(threads)
    return all(torch.equal(whole, again) for again in (torch.cat(parts), other, more))


__all__ = ["EPS", "NETWORKS", "Case", "case", "in_ball", "independent_of_company"]
