import json
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from bat_fast import models
from bat_fast.cli import main
from bat_fast.config import AttackConfig, EvalConfig, Ratio, TrainConfig
from bat_fast.study import complexity, gradients
from bat_fast.study.random_labels import fit, noisy
from bat_fast.train import Trainer


class Flat(nn.Module):
    """Two linear layers on flat images."""

    def __init__(self, *sizes, bias=True):
        super().__init__()
        layers = [nn.Flatten()]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after, bias=bias), nn.ReLU()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, x):
        return self.net(x)


def test_norms_of_two_layers():
    model, start = Flat(4, 6, 3), Flat(4, 6, 3)
    weights = [layer.weight.detach().double() for layer in model.net if isinstance(layer, nn.Linear)]
    vector = nn.utils.parameters_to_vector(model.parameters()).double()
    other = nn.utils.parameters_to_vector(start.parameters()).double()
    assert complexity.l2_norm(model) == pytest.approx(float(vector.detach().norm()))
    assert complexity.distance(model, start) == pytest.approx(float((vector - other).detach().norm()))
    assert complexity.distance(model, model) == 0
    product = math.prod(float(torch.linalg.svdvals(weight)[0]) for weight in weights)
    assert complexity.log_spectral(model) == pytest.approx(math.log(product))
    paths = sum(
        float((weights[1][c, h] * weights[0][h, i]) ** 2)
        for c in range(3) for h in range(6) for i in range(4)
    )  # fmt: skip
    before = vector.clone()
    assert complexity.path_norm(model, (1, 2, 2)) == pytest.approx(math.sqrt(paths))
    assert nn.utils.parameters_to_vector(model.parameters()).double().equal(before)


@pytest.mark.parametrize("activation", ["relu", "silu", "smooth_relu"])
def test_paths_through_batch_norm_are_those_of_the_folded_network(activation):
    spec = {"num_classes": 3, "in_channels": 1, "image_size": 8, "mean": (0.3,), "std": (0.2,)}
    model = models.create("small_cnn", **spec, activation=activation).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight.data, layer.running_var):
                values.uniform_(0.5, 2)
            layer.bias.data.normal_()
            layer.running_mean.normal_()
    convs = [layer for layer in model.body if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in model.body if isinstance(layer, nn.BatchNorm2d)]
    x = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    for conv, norm in zip(convs, norms, strict=True):
        gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        folded = conv.weight.double() * gain[:, None, None, None]
        x = nn.functional.conv2d(x, folded.square(), stride=conv.stride, padding=1)
    wanted = float((x.mean((2, 3)) @ model.head.weight.double().square().T).sum().sqrt().detach())
    assert complexity.path_norm(model, (1, 8, 8)) == pytest.approx(wanted, rel=1e-6)


def test_a_layer_of_zeros_has_no_spectral_norm():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    nn.init.zeros_(model[1].weight)  # as the last norm of a residual branch begins
    assert complexity.log_spectral(model) == -math.inf


def test_no_path_through_what_is_not_known():
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.LayerNorm(4)), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="LayerNorm"):
        complexity.path_norm(model, (1, 2, 2))


def test_the_margin_is_a_percentile():
    logits = torch.zeros(11, 3)
    logits[:, 1] = torch.arange(11.0) - 3
    assert complexity.margin(logits, torch.ones(11, dtype=torch.int64)) == pytest.approx(-2)
    found = complexity.over_margin(3.0, math.log(5), 4.0, 2.0)
    assert found["l2_over_margin"] == pytest.approx(9 / 4)
    assert found["log_spectral_over_margin"] == pytest.approx(math.log(25 / 4))
    assert found["path_over_margin"] == pytest.approx(4)
    assert set(complexity.over_margin(3.0, 1.0, 4.0, 0.0).values()) == {None}


def test_flatness_of_a_linear_model_is_that_of_the_normal_distribution():
    """Two classes and one image: noise s moves the margin m by a normal number of deviation s sqrt(2) |x|."""
    model = nn.Linear(5, 2, bias=False)
    x = torch.randn(5)
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.zeros(5), 0.3 * x / x.norm()]))
    m = 0.3 * float(x.norm())
    before = model.weight.detach().clone()
    found = complexity.flatness(model, lambda: float(model(x)[1] <= model(x)[0]), draws=800, steps=9)
    s = m / (1.2816 * math.sqrt(2) * float(x.norm()))  # P[noise > m] = 0.1
    assert found == pytest.approx(1 / s**2, rel=0.3)
    assert model.weight.equal(before)


def test_the_gradient_of_a_parabola():
    """L(w) = w' H w / 2 has the gradient H w."""
    model = nn.Linear(3, 1, bias=False).double()
    h = torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64))
    found = gradients.stability(model, lambda: (model.weight @ h @ model.weight.T).sum() / 2, [0.1, 2.0])
    w = model.weight.detach()[0]
    g = h @ w
    assert found.magnitude == pytest.approx(float(g.norm()))
    for d, cosine in found.along.items():
        there = h @ (w - d * g / g.norm())
        assert cosine == pytest.approx(float(torch.cosine_similarity(g, there, dim=0)))
    assert all(-1 <= cosine <= 1 for cosine in found.by_chance.values())
    assert model.weight.grad is None
    assert model.weight.detach()[0].equal(w)
    with torch.no_grad():
        model.weight.zero_()
    with pytest.raises(ValueError, match="no direction"):
        gradients.stability(model, lambda: (model.weight @ h @ model.weight.T).sum(), [0.1])


def test_random_labels_are_fitted_without_decay(small):
    config = noisy(small(method={"name": "bat", "alpha": 2}), "trades", 0.5)
    assert (config.optim.weight_decay, float(config.data.label_noise.rate)) == (0.0, 0.5)
    assert config.method == {"name": "trades"}
    assert noisy(small(method={"name": "bat", "alpha": 2}), "bat", 1).method["alpha"] == 2
    short = small(epochs=1, batch_size=512, attack=AttackConfig(eps=Ratio("1/10"), steps=1))
    found = fit(short, "pgd_at", 1.0, "pgd1", "cpu")
    assert found["train_clean"] < 0.3  # an epoch fits nothing that is by chance
    assert found["test_robust"] <= found["test_clean"]


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    ball = AttackConfig(eps=Ratio("1/10"), steps=1)
    config: TrainConfig = small(
        epochs=1, batch_size=512, attack=ball, eval=EvalConfig(val_steps=1, test_steps=1)
    )
    Trainer(config, out, progress=False).fit()
    return out


def test_runs_are_measured(run, capsys):
    words = ["--images", "64", "--device", "cpu"]
    assert main(["study", "complexity", str(run), *words, "--draws", "2", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert 0 < found["distance"] < 2 * found["l2"]
    assert found["robust_margin"] < found["margin"]
    assert found["flatness"] >= 1
    assert main(["study", "complexity", str(run), *words, "--draws", "1"]) == 0
    assert "robust_gap" in capsys.readouterr().out
    assert main(["study", "gradients", str(run), *words, "--distances", "0.001"]) == 0
    text = capsys.readouterr().out
    assert "along     0.001: +" in text


def test_the_distance_begins_where_training_did(run):
    from bat_fast.cli.settings import read_run
    from bat_fast.study.subject import initial, read_subject
    from bat_fast.train import build

    config = read_run(run, [])
    subject = read_subject(run, 8, "cpu")
    shape = build.data.Shape(10, 1, 8)
    wanted = build.parts(config, shape, mean=(0.5,), std=(0.5,)).model
    for name, value in initial(config, subject).named_parameters():
        assert value.equal(dict(wanted.named_parameters())[name])


def test_bad_words_are_one_line(run, tmp_path, capsys):
    for words, text in (
        (["complexity", str(tmp_path)], "expected a run folder"),
        (["complexity", str(run), "--images", "1"], "--images"),
        (["gradients", str(run), "--distances", "0"], "--distances"),
        (["random-labels", "--rates", "1.5"], "--rates must be in"),
        (["random-labels", "--methods", "trade"], "did you mean trades?"),
    ):
        assert main(["study", *words]) == 2
        error = capsys.readouterr().err
        assert text in error, error
        assert error.count("\n") == 1
