"""Building a program: memory, and the images that it is compared on."""

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bat_fast import PGD, models
from bat_fast.attacks import untouched
from bat_fast.attacks.engine import freeze
from bat_fast.attacks.engine.freeze import freezer_of
from bat_fast.attacks.engine.program import Program
from bat_fast.attacks.engine.trace import trace


class Peak(TorchDispatchMode):
    """Largest number of bytes at one time, and all bytes, of images and activations made inside."""

    def __init__(self, batch):
        super().__init__()
        self.batch, self.most, self.all, self._alive = batch, 0, 0, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for t in tree_leaves(results):
            if (
                isinstance(t, torch.Tensor)
                and t.dim() > 1
                and len(t) == self.batch
                and t.device.type != "meta"
            ):
                reference = StorageWeakRef(t.untyped_storage())
                if reference.cdata not in self._alive or self._alive[reference.cdata][0].expired():
                    self.all += t.untyped_storage().nbytes()
                self._alive[reference.cdata] = reference, t.untyped_storage().nbytes()
        self._alive = {key: pair for key, pair in self._alive.items() if not pair[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._alive.values()))
        return results


@pytest.mark.slow
def test_values_are_dropped_after_their_last_use():
    model, x = models.create("preactresnet18", num_classes=10), torch.rand(11, 3, 16, 16)
    with torch.no_grad(), untouched(model, "eval"):
        graph = trace(model, x)
        with Peak(len(x)) as peak:
            program = Program(graph, model, x, None)
        program.refresh()
        assert peak.all > 11 * 4 * 64 * 256 * 20  # it has seen the activations
        assert peak.most < 0.2 * peak.all
        with Peak(len(x)) as attack:
            program.backward(program.forward(x))
        assert peak.most < attack.most  # so it does not limit the batch


@pytest.fixture
def compared(monkeypatch):
    """Numbers of images of each answer that was asked for."""
    counts = []
    original = freeze._answer

    def answer(network, x):
        counts.append(len(x))
        return original(network, x)

    monkeypatch.setattr(freeze, "_answer", answer)
    return counts


@pytest.mark.parametrize("name", ["small_cnn", "preactresnet18", "timm:resnet18"])
@pytest.mark.parametrize("bn_mode", ["eval", "train"])
def test_a_few_images_are_compared(name, bn_mode, compared):
    model, x, y = models.create(name, num_classes=10), torch.rand(20, 3, 32, 32), torch.arange(20) % 10
    PGD(model, steps=1, bn_mode=bn_mode, engine="frozen")(x, y)
    assert compared[:2] == [8, 8]
    if bn_mode == "eval":
        assert compared == [8, 8]
    compared.clear()
    PGD(model, steps=1, bn_mode=bn_mode, engine="frozen")(x[:5], y[:5])
    assert compared == [5, 5]


class FixedBatch(nn.Module):
    """It takes twelve images, no more and no less."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)

    def forward(self, x):
        return self.head(self.conv(x).relu().reshape(12, 144))


def test_a_model_of_one_batch_size_is_compared_on_all_images(compared):
    model, x, y = FixedBatch().double(), torch.rand(12, 3, 8, 8).double(), torch.arange(12) % 5
    frozen, plain = (PGD(model, steps=2, engine=engine)(x, y, draw=0) for engine in ("frozen", "eager"))
    torch.testing.assert_close(frozen, plain, rtol=0, atol=1e-9)
    assert compared == [8, 12, 12]
    with torch.no_grad(), untouched(model, "eval"):
        freezer_of(model).program(model, x, None)  # and it is frozen


class Scaled(nn.Module):
    """Other logits for a large batch."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 5)

    def forward(self, x):
        z = self.head(x.flatten(1))
        return z * 2 if x.size(0) > 10 else -z


def test_a_choice_by_the_size_of_the_batch_is_seen():
    model, x, y = Scaled(), torch.rand(12, 3, 8, 8), torch.arange(12) % 5
    for images in (12, 6):
        frozen, plain = (
            PGD(model, steps=2, engine=engine)(x[:images], y[:images], draw=0)
            for engine in ("frozen", "eager")
        )
        torch.testing.assert_close(frozen, plain)
