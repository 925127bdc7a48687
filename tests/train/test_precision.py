"""Learning in bfloat16: float32 results, gradients where they belong, nothing registered twice."""

import pytest
import torch

from bat_fast import Batch, methods, models
from bat_fast.train.learner import Autocast


@pytest.mark.parametrize("name", ["bat", "trades", "mart", "pgd_at"])
def test_every_loss_takes_it_and_the_gradients_agree(name):
    model = models.create("small_cnn", num_classes=4)
    learner, method = Autocast(model), methods.create(name)
    assert not list(learner.parameters())
    x, y = torch.rand(16, 3, 12, 12), torch.randint(0, 4, (16,))
    batch, adv = Batch(x, y, torch.arange(16)), (x + 0.03).clamp(0, 1)
    grads = []
    for network in (model, learner):
        model.zero_grad()
        terms = method(network, batch, adv, 0)
        assert terms.total.dtype == torch.float32
        terms.total.backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.cosine_similarity(*grads, dim=0) > 0.97
