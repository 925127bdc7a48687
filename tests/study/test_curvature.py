import pytest
import torch
from torch import nn

from bat_fast.study.curvature import curvature


def test_the_curvature_of_a_linear_model_is_that_of_its_hessian():
    """With p = softmax(Wx) the Hessian of the cross-entropy is W' (diag p - p p') W."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    x, y = torch.rand(3, 1, 2, 3), torch.tensor([0, 3, 1])
    w, p = model[1].weight.detach(), model(x).softmax(1).detach()
    wanted = torch.stack([torch.linalg.matrix_norm(w.T @ (one.diag() - one.outer(one)) @ w) for one in p])
    found = curvature(model, x, y, torch.tensor([5, 0, 9]), draws=200)
    assert found == pytest.approx(wanted, rel=0.25)
    assert model[1].weight.grad is None
    some = [1, 2]
    again = curvature(model, x[some], y[some], torch.tensor([0, 9]), draws=5)
    whole = curvature(model, x, y, torch.tensor([5, 0, 9]), draws=5)
    assert again == pytest.approx(whole[some], rel=1e-2)  # whatever the batch
    assert curvature(model, x, y, torch.arange(3), draws=5, seed=1) != pytest.approx(whole, rel=1e-2)
