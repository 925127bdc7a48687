"""The weights of holistic robust training; published as a conic program for each batch, in cvxpy."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bat_fast import _native, ops
from operators import Call, Case, Inputs, Work

ALPHA, R = 0.1, 0.1


def weights_by_solver(losses: Tensor, alpha: float, r: float, form: str) -> Tensor:
    """[N + 1] weights by ECOS where it is installed, else by cvxpy's own choice (Clarabel)."""
    import cvxpy as cp
    import numpy as np

    n = len(losses)
    values = np.append(losses.numpy(), losses.max())
    weights, moved = cp.Variable(n + 1, nonneg=True), cp.Variable(n, nonneg=True)
    if form == "hd":  # mass alpha moves to the worst atom, then the distribution tilts
        source = cp.hstack([np.full(n, 1 / n) - moved, alpha])
        limits = [moved <= 1 / n, cp.sum(moved) == alpha, cp.sum(cp.rel_entr(source, weights)) <= r]
    else:
        tilted = weights[:n] + moved
        limits = [weights[n] == alpha, cp.sum(moved) == alpha]
        limits.append(cp.sum(cp.rel_entr(np.full(n, 1 / n), tilted)) <= r)
    problem = cp.Problem(cp.Maximize(values @ weights), [*limits, cp.sum(weights) == 1])
    problem.solve(solver="ECOS" if "ECOS" in cp.installed_solvers() else None)
    return torch.from_numpy(weights.value)


def cases(inputs: Inputs) -> Iterator[Case]:
    for form, n, times in (("hr", 128, 80), ("hr", 1024, 100), ("hd", 128, 500), ("hd", 1024, 2000)):
        reach = {"us": 60.0} if inputs.gpu and n == 1024 else {} if inputs.gpu else {"eager": float(times)}
        work = partial(_weights, inputs, form, n)
        yield Case("holistic_weights", f"{form} {n}", work, reach, kernel="holistic_loss")


def _weights(inputs: Inputs, form: str, n: int) -> Work:
    losses, reference = 2 * inputs.rand(n), _native.reference_of("holistic_loss")
    solver = partial(weights_by_solver, losses.double().cpu(), ALPHA, R, form)
    return Work(
        native=lambda: ops.holistic_weights(losses, alpha=ALPHA, r=R, form=form),
        eager=solver if importlib.util.find_spec("cvxpy") else None,
        best=partial(reference, losses, ALPHA, R, form),
        exact=lambda: reference(losses.double(), ALPHA, R, form)[1],
        unchecked=("eager", "best"),
    )


def small(inputs: Inputs) -> Iterator[Call]:
    for n in (1, 37, 1500):
        for form in ("hr", "hd"):
            run = partial(ops.holistic_weights, 3 * inputs.rand(n), alpha=ALPHA, r=R, form=form)
            yield Call(f"holistic_weights {form} {n}", run)
