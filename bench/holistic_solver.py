"""The weights of holistic robust training as published: a conic program for each batch, in cvxpy."""

from __future__ import annotations

import cvxpy as cp
import numpy as np


def weights_by_solver(losses: np.ndarray, alpha: float, r: float, form: str) -> np.ndarray:
    """[N + 1] weights by ECOS where it is installed, else by cvxpy's own choice (Clarabel)."""
    n = len(losses)
    values = np.append(losses, losses.max())
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
    return weights.value
