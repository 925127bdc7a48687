"""Small networks on a CPU: which they are, that they say what the model says and follow its weights."""

import pytest
import torch
from torch import nn

from bat_fast import PGD, models
from bat_fast.attacks import untouched
from bat_fast.attacks.engine import Plain, SmallNetwork
from bat_fast.attacks.engine.freeze import freezer_of

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="a CPU without AVX2 takes other layers",
)


class Residual(nn.Module):
    """Batch norm before and behind convolutions, one value read by three, in place and not."""

    def __init__(self, act) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding="same", bias=False) for _ in range(3))
        self.act, self.head = act, nn.Linear(6 * 4 * 3, 5)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        h = self.act(self.norms[0](self.first((x - 0.4) / 0.3)))
        r = self.act(self.norms[1](self.convs[0](h)) + h)
        r = self.convs[2](self.act(self.norms[2](self.convs[1](r)))) + r + h
        r = self.act(self.norms[1](r))  # with nothing to fold it into
        return self.head(self.pool(r).flatten(1))


def cnn(activation):
    return models.create(
        "small_cnn", num_classes=5, in_channels=2, activation=activation, mean=(0.4, 0.5), std=(0.2, 0.3)
    )


MAKERS = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 7, 30), nn.ReLU(), nn.Linear(30, 5)),
    "cnn": lambda: cnn("relu"),
    "silu": lambda: cnn("silu"),
    "residual": lambda: Residual(nn.ReLU()),
    "in place": lambda: Residual(nn.ReLU(inplace=True)),
    "smooth": lambda: Residual(nn.SiLU()),
    "preactivation": lambda: nn.Sequential(
        nn.Conv2d(2, 7, 3, stride=2), nn.BatchNorm2d(7), nn.SiLU(), nn.BatchNorm2d(7), nn.Conv2d(7, 4, 2),
        nn.MaxPool2d(2, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    ),
}  # fmt: skip


def ready(make, dtype=torch.float32):
    model = make().to(dtype)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(20, 2, 8, 7, dtype=dtype))
    return model.eval()


def network_of(model, x, bn_mode="eval", dtype=None):
    with torch.no_grad(), untouched(model, bn_mode):
        network = freezer_of(model).program(model, x, dtype)
        network.refresh()
        return network


def answer(network, x):
    logits = network.forward(x)
    return logits, network.backward(torch.ones_like(logits).cumsum(1))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_says_what_the_model_says(name, dtype):
    model, x = ready(MAKERS[name], dtype), torch.rand(21, 2, 8, 7, dtype=dtype)
    network = network_of(model, x)
    assert isinstance(network, SmallNetwork)
    with torch.no_grad(), untouched(model, "eval"):
        (logits, grad), (exact, exact_grad) = answer(network, x), answer(Plain(model, None), x)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-5
    assert (logits - exact).norm() <= tolerance * exact.norm()
    # A ReLU at a rounded 0 may switch: in float32 single images differ, by as much as it carries.
    off = (grad - exact_grad).flatten(1).norm(dim=1) > 10 * tolerance * exact_grad.flatten(1).norm(
        dim=1
    ).mean()
    assert off.sum() <= (2 if dtype == torch.float32 else 0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("loss", "targeted"), [("ce", False), ("ce", True), ("kl", False), ("margin", False), ("margin", True)]
)
def test_attacks_reach_the_same_images(loss, targeted, norm):
    model, x = ready(MAKERS["residual"], torch.float64), torch.rand(21, 2, 8, 7, dtype=torch.float64)
    y = torch.arange(21) % 5
    targets = (y + 1) % 5 if targeted else None
    both = [
        PGD(model, 0.2, steps=4, norm=norm, loss=loss, engine=engine)(x, y, targets, draw=0)
        for engine in ("frozen", "eager")
    ]
    assert isinstance(network_of(model, x), SmallNetwork)
    torch.testing.assert_close(*both, rtol=0, atol=1e-7)
    assert not torch.equal(both[0], x)


def test_without_projection_and_with_other_ranges():
    model, x, y = (
        ready(MAKERS["cnn"], torch.float64),
        torch.rand(5, 2, 8, 7, dtype=torch.float64),
        torch.arange(5),
    )
    for options in (
        {"project": False},
        {"lo": -0.5, "hi": 0.9},
        {"random_start": False},
        {"steps": 0},
        {"eps": 0.0},
    ):
        how = {"eps": 0.1, "steps": 3, "step_size": 0.08, **options}
        low = x * 0.9
        ours, plain = (PGD(model, **how, engine=engine)(low, y, draw=2) for engine in ("auto", "eager"))
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-9)


def test_weights_of_the_moment_are_used():
    model, x = ready(MAKERS["residual"]), torch.rand(9, 2, 8, 7)

    def check():
        network = network_of(model, x)
        assert isinstance(network, SmallNetwork)
        with torch.no_grad(), untouched(model, "eval"):
            torch.testing.assert_close(network.forward(x), model(x), rtol=1e-4, atol=1e-4)
            return network.forward(x)

    seen = [check()]
    for change in (
        lambda: model.first.weight.data.mul_(1.7),
        lambda: setattr(model.head.weight, "data", torch.randn_like(model.head.weight)),
        lambda: model.norms[1].running_var.mul_(3.0),
        lambda: model.norms[0].bias.data.add_(0.5),
        lambda: model.load_state_dict(ready(MAKERS["residual"]).state_dict()),
    ):
        change()
        seen.append(check())
        assert not torch.equal(seen[-1], seen[-2])


def ending(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(5))


OTHERS = {
    "activation": lambda: ending(nn.Conv2d(2, 4, 3), nn.GELU()),
    "groups": lambda: ending(nn.Conv2d(2, 4, 3, groups=2)),
    "dilation": lambda: ending(nn.Conv2d(2, 4, 3, dilation=2)),
    "behind flatten": lambda: ending(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.ReLU()),
    "pooling": lambda: ending(nn.MaxPool2d(2, ceil_mode=True)),
    "large": lambda: ending(nn.Flatten(), nn.LazyLinear(3000), nn.ReLU(), nn.LazyLinear(3000)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_small_or_not_known_takes_the_usual_layers(name):
    model, x = OTHERS[name](), torch.rand(64, 2, 8, 7)
    model(x)
    network = network_of(model.eval(), x)
    assert not isinstance(network, (SmallNetwork, Plain))
    with torch.no_grad():
        torch.testing.assert_close(network.forward(x), model(x), rtol=1e-4, atol=1e-4)


def test_statistics_of_the_batch_and_16_bits_take_the_usual_layers():
    model, x = ready(MAKERS["cnn"]), torch.rand(9, 2, 8, 7)
    assert isinstance(network_of(model, x), SmallNetwork)
    assert not isinstance(network_of(model, x, bn_mode="train"), SmallNetwork)
    assert not isinstance(network_of(model, x, dtype=torch.bfloat16), SmallNetwork)


class PerPixel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(112, 5)
        self.register_buffer("mask", torch.rand(1, 1, 8, 7))

    def forward(self, x):
        return self.head((x * self.mask).flatten(1))


def test_a_constant_for_each_pixel_takes_the_usual_layers():
    model, x = PerPixel(), torch.rand(4, 2, 8, 7)
    network = network_of(model, x)
    assert not isinstance(network, (SmallNetwork, Plain))
    with torch.no_grad():
        torch.testing.assert_close(network.forward(x), model(x))


def test_few_images_of_a_larger_network_leave_threads_idle():
    model = ending(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1))
    model(torch.rand(1, 3, 16, 16))
    threads = torch.get_num_threads()
    try:
        for count, images, small in (
            (1, 16, True),
            (1, 15, False),
            (4, 64, True),
            (4, 63, False),
            (4, 130, True),
        ):
            torch.set_num_threads(count)
            model = nn.Sequential(*model).eval()  # the choice is made where a program is built
            network = network_of(model, torch.rand(images, 3, 16, 16))
            assert isinstance(network, SmallNetwork) == small, (count, images)
    finally:
        torch.set_num_threads(threads)
