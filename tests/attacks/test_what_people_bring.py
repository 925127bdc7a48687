"""Models, images, labels and losses as people have them: taken, or refused in one line."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bat_fast import PGD, models
from bat_fast.attacks import FGSM
from bat_fast.evaluate import evaluate

Output = namedtuple("Output", "loss logits")


def net(width=8, classes=5):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * width, classes)).eval()


class Returns(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how = net(), how

    def forward(self, x):
        z = self.net(x)
        return {"tuple": (z, x), "list": [z], "dict": {"logits": z}, "output": Output(None, z)}[self.how]


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 3, 8, 8), torch.randint(0, 5, (6,))


@pytest.mark.parametrize("engine", ["eager", "frozen"])
@pytest.mark.parametrize("how", ["tuple", "list", "dict", "output"])
def test_logits_are_found_in_what_a_model_returns(how, engine, batch):
    with torch.random.fork_rng():
        found = PGD(Returns(how), steps=3, engine=engine)(*batch, draw=0)
    torch.testing.assert_close(found, PGD(net(), steps=3, engine=engine)(*batch, draw=0))
    pairs = [(batch[0][:4], batch[1][:4]), (batch[0][4:], batch[1][4:])]
    assert evaluate(Returns(how), pairs) == evaluate(net(), pairs)


@pytest.mark.parametrize("engine", ["eager", "frozen"])
@pytest.mark.parametrize("form", ["function", "forward", "lambda"])
def test_a_function_is_a_model_too(form, engine, batch):
    model = net().train()
    function = {"function": model.__call__, "forward": model.forward, "lambda": lambda x: model(x)}[form]
    found = PGD(function, steps=3, engine=engine)(*batch, draw=0)
    torch.testing.assert_close(found, PGD(model, steps=3, engine="eager")(*batch, draw=0))
    assert model.training
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("targeted", [False, True])
def test_a_loss_of_ones_own_is_climbed(targeted, batch):
    x, y = batch
    targets = (y + 1) % 5 if targeted else None
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="none"), F.cross_entropy):
        for norm, eps in (("linf", 8 / 255), ("l2", 0.5)):
            ours, named = (
                PGD(net(), eps, steps=4, norm=norm, loss=what, engine="frozen")(x, y, targets, draw=0)
                for what in (loss, "ce")
            )
            torch.testing.assert_close(ours, named, atol=2e-6, rtol=0)
    with pytest.raises(TypeError, match="loss must return a tensor that autograd can follow"):
        PGD(net(), loss=lambda *_: 1.0)(x, y)


@pytest.mark.filterwarnings("ignore:bat_fast. attacks on Sequential are not folded. its weights are torch")
@pytest.mark.parametrize("model_dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_precisions(model_dtype, dtype, batch):
    x, y = batch[0].to(dtype), batch[1]
    model, eps = net().to(model_dtype), 0.1
    if dtype == torch.float64 and model_dtype != dtype:
        with pytest.raises(TypeError, match=r"x is float64 and the model torch\.\w+: attack x\.float\(\)"):
            PGD(model)(x, y)
        return
    found = PGD(model, eps, steps=5)(x, y, draw=0)
    assert found.dtype == dtype
    assert (found.double() - x.double()).abs().max() <= eps + 2 * torch.finfo(dtype).eps
    wide = net().double()
    loss = [F.cross_entropy(wide(image.double()), y) for image in (x, found)]
    assert loss[1] > loss[0] + 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_take_what_autocast_gives_on_a_cpu(dtype):
    from bat_fast import ops

    torch.manual_seed(0)
    logits, other, y = torch.randn(7, 5), torch.randn(7, 5), torch.randint(0, 5, (7,))
    index, memory = torch.arange(7), torch.zeros(7, 5)
    calls = {
        "bat_loss": lambda z: ops.bat_loss(z, y, alpha=1.0)[0],
        "soft_target_loss": lambda z: ops.soft_target_loss(z, other.softmax(1))[0],
        "kl_loss": lambda z: ops.kl_loss(z, other.to(z.dtype))[0],
        "mart_loss": lambda z: ops.mart_loss(z, other.to(z.dtype), y)[0],
        "discrimination_loss": lambda z: ops.discrimination_loss(z, y, temperature=0.5),
        "holistic_loss": lambda z: ops.holistic_loss(z[:, 0].abs(), alpha=0.1, r=0.1),
    }
    for name, call in calls.items():
        results = []
        for kind in (dtype, torch.float32):
            leaf = logits.to(dtype).to(kind).requires_grad_()
            other = other.to(dtype).float()
            loss = call(leaf)
            assert loss.dtype == torch.float32, name
            (grad,) = torch.autograd.grad(loss, leaf)
            assert grad.dtype == kind, name
            results.append((loss.detach(), grad.to(dtype)))
        torch.testing.assert_close(*results, msg=name)
    grad, _ = ops.attack_grad(logits.to(dtype), y)
    assert grad.dtype == dtype
    assert ops.ensemble_targets_(memory, index, logits.to(dtype), momentum=0.5).dtype == torch.float32


@pytest.mark.slow
def test_compiled_code_calls_an_attack_as_it_is(batch):
    model = net()
    attack = PGD(model, steps=3)

    @torch.compile(backend="eager")
    def step(x, y):
        x_adv = attack(x * 1.0, y, draw=0)
        return x_adv, F.cross_entropy(model(x_adv), y)

    counted = torch._dynamo.explain(step)(*batch)
    assert counted.graph_count - counted.graph_break_count == 1
    assert counted.graph_break_count <= 1  # around the attack, and none within it
    x_adv, loss = step(*batch)
    expected = attack(*batch, draw=0)
    assert torch.equal(x_adv, expected)
    torch.testing.assert_close(loss, F.cross_entropy(model(expected), batch[1]))


def test_a_model_that_answers_nan_is_wrong(batch):
    class Nan(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :5] * float("nan")

    x, y = batch[0], torch.zeros(6, dtype=torch.int64)
    with pytest.warns(UserWarning, match="the model gives NaN") as said:
        found = evaluate(Nan(), [(x, y)], FGSM(Nan(), engine="eager"))
    assert (found["clean_acc"], found["robust_acc"]) == (0, 0)
    assert [str(warning.message)[:46] for warning in said] == [
        "the model gives NaN for 6 of 6 images, which c",
        "the model gives NaN for 6 of 6 attacked images",
    ]


class Of(nn.Module):
    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, x):
        return self.result(x)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (None, TypeError, r"model must be a torch\.nn\.Module or a function of images, got NoneType"),
        (Of(lambda _: "text"), TypeError, r"the model must return logits \[N, K\], a tuple .*, got str"),
        (Of(lambda x: {"scores": x}), TypeError, "got dict"),
        (Of(lambda x: x), ValueError, r"one row for each of 6 images, got \[6, 3, 8, 8\]"),
        (Of(lambda x: x.flatten(1)[:1]), ValueError, r"for each of 6 images, got \[1, 192\]"),
        (Of(lambda x: x.flatten(1)[:, :1]), ValueError, "the cross-entropy of one class has no gradient"),
    ],
)
@pytest.mark.parametrize("engine", ["eager", "frozen"])
def test_models_that_are_no_classifiers(model, error, message, engine, batch):
    with pytest.raises(error, match=message):
        PGD(model, engine=engine)(*batch)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"x": lambda x: x.numpy()},
            TypeError,
            r"x must be a torch\.Tensor, got ndarray: torch\.as",
        ),
        ({"y": lambda y: y.tolist()}, TypeError, r"y must be a torch\.Tensor, got list"),
        ({"y": lambda _: np.zeros(6, int)}, TypeError, r"y must be a torch\.Tensor, got ndarray"),
        ({"x": lambda x: x * float("nan")}, ValueError, "x holds NaN"),
        ({"x": lambda x: x * 255}, ValueError, r"outside \[0, 1\]: pass raw pixels"),
        ({"x": lambda x: (x * 255).byte()}, TypeError, "x must be float32 pixels"),
    ],
)
def test_images_and_labels_that_are_none(change, error, message, batch):
    given = {"x": batch[0], "y": batch[1]}
    given |= {name: how(given[name]) for name, how in change.items()}
    with pytest.raises(error, match=message):
        PGD(net())(**given)


def test_a_model_made_in_inference_mode(batch):
    with torch.inference_mode():
        model = net()
        with pytest.raises(ValueError, match=r"the model was made under torch\.inference_mode"):
            PGD(model)(*batch)


def test_pairs_are_evaluated_like_batches(batch):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch), batch_size=4)
    found = evaluate(net(), loader, PGD(net(), steps=2))
    assert found["n_examples"] == 6
    with pytest.raises(TypeError, match=r"loader must yield pairs \(images, labels\) or Batch, got Tensor"):
        evaluate(net(), [batch[0]])
    model = models.create("small_cnn", num_classes=5)
    assert evaluate(model, loader)["n_examples"] == 6
