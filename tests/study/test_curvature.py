import pytest
import torch
from torch import nn
from torch.backends import cuda, cudnn

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


@pytest.fixture
def tf32():
    """Both kinds of it allowed."""
    before = cudnn.allow_tf32, cuda.matmul.allow_tf32
    cudnn.allow_tf32 = cuda.matmul.allow_tf32 = True
    yield
    cudnn.allow_tf32, cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("tf32")
def test_it_is_measured_in_float32_and_all_is_as_before():
    inside = []

    class Watched(nn.Linear):
        def forward(self, x):
            result = super().forward(x.flatten(1))
            inside.append((cudnn.allow_tf32, cuda.matmul.allow_tf32, result.dtype))
            if len(inside) == 3:
                raise RuntimeError("on the way")
            return result

    what = torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), torch.arange(2)
    model = Watched(4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        curvature(model, *what, draws=1)
        assert torch.is_autocast_enabled("cpu")
        with pytest.raises(RuntimeError, match="on the way"):
            curvature(model, *what, draws=1)
    assert inside == [(False, False, torch.float32)] * 3
    assert (cudnn.allow_tf32, cuda.matmul.allow_tf32) == (True, True)
