import pytest
import torch

from bat_fast.attacks import PGD
from bat_fast.batch import Batch
from bat_fast.data import ResidentLoader, load
from bat_fast.evaluate import evaluate, pick_device


class Threshold(torch.nn.Module):
    """Class 1 where the only pixel is above 0.5; the margin of a pixel is its distance to 0.5."""

    def forward(self, x):
        score = 10 * (x.flatten(1) - 0.5)
        return torch.cat([-score, score], 1)


def batches(pixels, labels, size=2):
    x, y = torch.tensor(pixels).view(-1, 1, 1, 1), torch.tensor(labels)
    index = torch.arange(len(y))
    return [Batch(x[i : i + size], y[i : i + size], index[i : i + size]) for i in range(0, len(y), size)]


def test_counts_by_hand():
    loader = batches([0.9, 0.55, 0.1, 0.45, 0.9], [1, 1, 0, 0, 0])
    attack = PGD(Threshold(), eps=0.1, step_size=0.1, steps=2)
    assert evaluate(Threshold(), loader, attack) == {"clean_acc": 0.8, "robust_acc": 0.4, "n_examples": 5}
    assert evaluate(Threshold(), loader) == {"clean_acc": 0.8, "n_examples": 5}


def test_no_samples():
    with pytest.raises(ValueError, match="no sample"):
        evaluate(Threshold(), [])


def test_modes_and_weights_are_left_alone():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Dropout(0.5), torch.nn.Flatten())
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loader = [Batch(torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 3]), torch.arange(4))]
    evaluate(model, loader, PGD(model, eps=0.1, steps=1))
    assert [module.training for module in model] == [True, False, True]
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_batch_size_does_not_matter():
    source = load("digits", seed=0).val
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    attack = PGD(model, eps=0.1, steps=3, seed=5)
    results = [
        evaluate(model, ResidentLoader(source, size, shuffle=False, seed=0), attack) for size in (1000, 50, 7)
    ]
    assert results[0] == results[1] == results[2]


def test_pick_device():
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda")
    with pytest.raises(ValueError, match="cuda:99"):
        pick_device("cuda:99")
    with pytest.raises(ValueError, match="auto, cpu, cuda"):
        pick_device("gpu")


def test_labels_are_reported_once_the_last_batch_is_done(monkeypatch):
    """Kernels of a GPU leave word of a wrong label, which the batch after it reports; the last has none."""
    asked = []
    monkeypatch.setattr("bat_fast.evaluate.accuracy.report_labels", asked.append)
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    evaluate(model, [Batch(x, y, torch.arange(4))], PGD(model, steps=1))
    assert asked == [torch.device("cpu")]
