"""PGD: the same images as the textbook loop, and a model that is left untouched."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bat_fast
from bat_fast import PGD, AttackLoss, ops


def network(dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(dropout),
        nn.Flatten(), nn.Linear(6 * 64, 10),
    )  # fmt: skip


def batch(n=5, device="cpu"):
    return torch.rand(n, 1, 8, 8, device=device), torch.randint(0, 10, (n,), device=device)


def textbook(model, x, y, start, eps, step, steps, sign=1.0):
    """The loop as papers print it."""
    adv = start.clone()
    for _ in range(steps):
        adv.requires_grad_()
        loss = sign * F.cross_entropy(model(adv), y, reduction="sum")
        (grad,) = torch.autograd.grad(loss, adv)
        adv = adv.detach() + step * grad.sign()
        adv = torch.clamp(torch.minimum(torch.maximum(adv, x - eps), x + eps), 0, 1)
    return adv.detach()


def snapshot(model):
    return {
        "state": copy.deepcopy(model.state_dict()),
        "modes": [m.training for m in model.modules()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
    }


def assert_untouched(model, before):
    after = snapshot(model)
    assert before["modes"] == after["modes"]
    assert before["requires"] == after["requires"]
    assert before["state"].keys() == after["state"].keys()
    for name, value in before["state"].items():
        assert torch.equal(value, after["state"][name]), name
    for old, new in zip(before["grads"], after["grads"], strict=True):
        assert (old is None and new is None) or torch.equal(old, new)


@pytest.mark.parametrize("steps", [0, 1, 10])
@pytest.mark.parametrize("random_start", [False, True])
def test_equals_the_textbook_loop(steps, random_start, device):
    model = network().eval().to(device)
    x, y = batch(device=device)
    attack = PGD(model, eps=0.1, step_size=0.03, steps=steps, random_start=random_start, seed=5)
    start = ops.random_start(x, eps=0.1, seed=5, draw=2) if random_start else x
    expected = textbook(model, x, y, start, 0.1, 0.03, steps)
    adv = attack(x, y, draw=2)
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-6)
    assert (adv - x).abs().max() <= 0.1 + 1e-6
    assert adv.min() >= 0
    assert adv.max() <= 1


def climbed(model, x, start, y, loss, norm, **inputs):
    """PGD-4 with autograd through the attack loss."""
    adv = start.clone()
    for _ in range(4):
        leaf = adv.clone().requires_grad_()
        z = model(leaf)
        base = loss.partition("+")[0]
        if base == "ce":
            value = F.cross_entropy(z, y, reduction="sum")
        elif base == "margin":
            value = (z.scatter(1, y[:, None], -torch.inf).amax(1) - z.gather(1, y[:, None])[:, 0]).sum()
        elif base == "dlr":
            top = z.sort(dim=1, descending=True).values
            margin = z.scatter(1, y[:, None], -torch.inf).amax(1) - z.gather(1, y[:, None])[:, 0]
            value = (margin / (top[:, 0] - top[:, 2] + 1e-12)).sum()
        else:
            value = F.kl_div(z.log_softmax(1), model(x).softmax(1).detach(), reduction="sum")
        if loss.endswith("te"):
            value = value + inputs["soft_weight"] * (z.softmax(1) - inputs["soft"]).square().mean(1).sum()
        (grad,) = torch.autograd.grad(value, leaf)
        if norm == "linf":
            adv = torch.clamp(adv + 0.025 * grad.sign(), x - 0.1, x + 0.1).clamp(0, 1)
        else:
            v = adv + 0.025 * grad / grad.flatten(1).norm(dim=1)[:, None, None, None] - x
            adv = (x + v * (0.1 / v.flatten(1).norm(dim=1)).clamp(max=1)[:, None, None, None]).clamp(0, 1)
    return adv


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr", "kl", "ce+te", "kl+te"])
def test_every_norm_and_loss(norm, loss):
    torch.manual_seed(5)  # a sign of a gradient close to 0 may differ by rounding; here none does
    model = network().double().eval()
    x, y = batch(8)
    x = x.double()
    inputs = {"soft": torch.rand(8, 10).double().softmax(1), "soft_weight": 3.0} if "te" in loss else {}
    start = ops.random_start(x, eps=0.1, norm=norm, draw=7)  # at the image itself the gradient of kl is 0
    adv = PGD(model, eps=0.1, steps=4, norm=norm)(x, y, objective=AttackLoss(loss, **inputs), draw=7)
    expected = climbed(model, x, start, y, loss, norm, **inputs)
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-8)


def test_targeted_dlr_gets_the_true_class():
    model = network().eval()
    x, y = batch(16)
    goal = (y + 1) % 10
    adv = PGD(model, eps=0.2, loss="dlr", steps=10)(x, y, targets=goal)
    before, after = model(x), model(adv)
    rows = torch.arange(16)
    assert (after[rows, goal] - after[rows, y]).mean() > (before[rows, goal] - before[rows, y]).mean()


def test_gaussian_start_stays_close():
    x, y = batch()
    x = 0.25 + x / 2
    adv = PGD(network().eval(), eps=0.5, steps=0, random_start="gaussian")(x, y)
    assert 0.0005 < (adv - x).std() < 0.002


def test_targeted_moves_towards_the_target(device):
    model = network().eval().to(device)
    x, y = batch(device=device)
    goal = (y + 1) % 10
    adv = PGD(model, eps=0.1, steps=10, random_start=False)(x, y, targets=goal)
    expected = textbook(model, x, goal, x, 0.1, 0.025, 10, sign=-1.0)
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-6)
    assert F.cross_entropy(model(adv), goal) < F.cross_entropy(model(x), goal)


@pytest.mark.parametrize("bn_mode", ["eval", "train"])
@pytest.mark.parametrize("training", [False, True])
def test_model_is_untouched(bn_mode, training, device):
    model = network(dropout=0.5).to(device).train(training)
    model[1].eval()  # a frozen batch norm must stay frozen
    model[0].bias.requires_grad_(False)
    x, y = batch(device=device)
    F.cross_entropy(model(x), y).backward()
    before = snapshot(model)
    PGD(model, eps=0.1, steps=3, bn_mode=bn_mode)(x, y)
    assert_untouched(model, before)


def test_model_is_untouched_after_an_error():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()

        def forward(self, x):
            self.body(x)
            raise RuntimeError("out of cheese")

    model = Broken().train()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="out of cheese"):
        PGD(model, bn_mode="train")(*batch())
    assert_untouched(model, before)


def test_bn_mode_says_which_statistics_are_used():
    model = network().train()
    for _ in range(3):
        model(3 * torch.rand(8, 1, 8, 8))  # running statistics far from those of the batch
    x, y = batch(16)
    frozen = copy.deepcopy(model).eval()
    live = copy.deepcopy(model).train()
    options = {"eps": 0.1, "steps": 3, "random_start": False}
    for bn_mode, same in (("eval", frozen), ("train", live)):
        adv = PGD(model, bn_mode=bn_mode, **options)(x, y)
        torch.testing.assert_close(adv, textbook(same, x, y, x, 0.1, 0.025, 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode):
    model = network().eval()
    x, y = batch()
    expected = PGD(model, eps=0.1, steps=3)(x, y)
    with mode():
        x, y = x.clone(), y.clone()
        assert torch.equal(PGD(model, eps=0.1, steps=3)(x, y), expected)


def test_works_under_autocast_and_with_16_bit_precision(device):
    model = network().eval().to(device)
    x, y = batch(32, device)
    exact = PGD(model, eps=0.1, steps=5)(x, y)
    inside = PGD(model, eps=0.1, steps=5, precision="bf16")(x, y)
    with torch.autocast(device, torch.bfloat16):
        outside = PGD(model, eps=0.1, steps=5)(x, y)
    assert inside.dtype == outside.dtype == torch.float32
    assert torch.equal(inside, outside)
    losses = [F.cross_entropy(model(adv), y).item() for adv in (x, exact, inside)]
    assert losses[2] > losses[0]
    assert abs(losses[2] - losses[1]) < 0.1 * (losses[1] - losses[0])


@pytest.mark.slow
def test_works_with_a_compiled_model():
    model = network().eval()
    x, y = batch()
    adv = PGD(torch.compile(model, backend="aot_eager"), eps=0.1, steps=3)(x, y)
    torch.testing.assert_close(adv, PGD(model, eps=0.1, steps=3)(x, y), rtol=0, atol=1e-6)


def test_a_model_under_bfloat16_or_channels_last_is_attacked():
    x, y = batch()
    model = network().eval()
    last = PGD(model.to(memory_format=torch.channels_last), eps=0.1, steps=3)(
        x.to(memory_format=torch.channels_last), y
    )
    torch.testing.assert_close(last, PGD(model, eps=0.1, steps=3)(x, y), rtol=0, atol=1e-6)


def test_starts_are_keyed_by_index_and_draw():
    model = network().eval()
    x, y = batch(6)
    index = torch.tensor([9, 4, 7, 1, 0, 3])
    attack = PGD(model, eps=0.1, steps=2, seed=1)
    whole = attack(x, y, index=index, draw=3)
    halves = [attack(x[part], y[part], index=index[part], draw=3) for part in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=0, atol=1e-6)
    first, second = attack(x, y, index=index), attack(x, y, index=index)
    assert not torch.equal(first, second)  # calls without a draw start somewhere else every time


def test_no_memory_is_kept_between_calls():
    model = network().eval()
    attack = PGD(model, eps=0.1, steps=2)
    x, y = batch()
    attack(x, y)
    state = {k: v for k, v in vars(attack).items() if k not in ("model", "_calls")}
    assert not any(isinstance(value, torch.Tensor) for value in state.values())
    assert all(p.grad is None for p in model.parameters())


def test_an_empty_batch_is_returned_empty():
    assert PGD(network().eval())(torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.long)).shape == (
        0,
        1,
        8,
        8,
    )


def test_rounding_beyond_the_range_is_tolerated():
    x, y = batch()
    x[0, 0, 0, 0] = -3e-8
    assert PGD(network().eval(), steps=1)(x, y).min() >= 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"x": torch.randn(5, 1, 8, 8) * 3},
            ValueError,
            r"outside \[0, 1\]: .*put the normalisation inside the model",
        ),
        ({"x": torch.rand(5, 1, 8, 8) * torch.nan}, ValueError, "x holds NaN"),
        ({"x": torch.zeros(5, 1, 8, 8, dtype=torch.uint8)}, TypeError, "x must be float32 pixels"),
        ({"y": torch.zeros(4, dtype=torch.long)}, ValueError, r"y must be \[N\] = \[5\], got \[4\]"),
        (
            {"x": torch.rand(1, 8, 8), "y": torch.tensor(0)},
            ValueError,
            r"y must be .* of one image it is x\[None\], y.reshape\(1\)",
        ),
        ({"y": torch.full((5,), 10)}, ValueError, r"target holds class 10, outside \[0, 10\)"),
        ({"targets": torch.zeros(4, dtype=torch.long)}, ValueError, r"targets must be \[N\]"),
    ],
)
def test_bad_batches_are_named(change, error, message):
    x, y = batch()
    with pytest.raises(error, match=message):
        PGD(network().eval())(**({"x": x, "y": y} | change))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("eps", -0.1, r"eps must be in \[0, 1\] for linf"),
        ("step_size", float("nan"), "step_size must be"),
        ("steps", -1, "steps must be an integer >= 0"),
        ("steps", 2.5, "steps must be an integer >= 0"),
        ("norm", "l3", "norm must be one of 'linf', 'l2'"),
        ("random_start", "normal", "random_start must be one of"),
        ("bn_mode", "test", "bn_mode must be one of 'eval', 'train'"),
        ("precision", "int8", "precision must be one of"),
        ("engine", "warp", "engine must be one of"),
        ("lo", 2.0, "lo must not be above hi"),
    ],
)
def test_bad_options_are_named(option, value, message):
    with pytest.raises(ValueError, match=message):
        PGD(network(), **{option: value})


def test_its_text_holds_its_parameters():
    assert "eps=0.1" in repr(bat_fast.PGD(network(), eps=0.1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_projection_images_leave_the_ball_but_not_the_range(norm):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    x, y = torch.rand(16, 3, 2, 2), torch.randint(0, 3, (16,))
    options = {"eps": 0.1, "step_size": 0.1, "steps": 1, "norm": norm, "start_scale": 2.0}
    free, held = PGD(model, project=False, **options), PGD(model, **options)
    order = float("inf") if norm == "linf" else 2
    for attack, most in ((free, 0.3), (held, 0.1)):
        adv = attack(x, y)
        distance = (adv - x).flatten(1).norm(order, dim=1)
        assert distance.max() <= most + 1e-5
        assert adv.min() >= 0
        assert adv.max() <= 1
    assert (free(x, y) - x).flatten(1).norm(order, dim=1).max() > 0.12


def test_the_start_can_be_wider_than_the_ball():
    x = torch.full((64, 1, 4, 4), 0.5)
    model = torch.nn.Flatten()
    reach = (PGD(model, eps=0.1, start_scale=2.0).start(x) - x).abs().amax()
    assert 0.19 < reach <= 0.2 + 1e-6
    with pytest.raises(ValueError, match="start_scale must be a finite number >= 0"):
        PGD(model, start_scale=-1.0)


def test_restarts_keep_the_best_run():
    torch.manual_seed(0)  # a network that a step breaks on some images, and not on others
    model, (x, y) = network().eval(), batch(40)
    with torch.no_grad():
        y = model(x).argmax(1)
    index = torch.arange(100, 140)

    def wrong(attack):
        with torch.no_grad():
            return model(attack(x, y, index=index, draw=0)).argmax(1) != y

    eps = next(e / 100 for e in range(1, 50) if wrong(PGD(model, e / 100, steps=1)).float().mean() > 0.3)
    once, often = PGD(model, eps, steps=1), PGD(model, eps, steps=1, restarts=6)
    assert (wrong(often) >= wrong(once)).all()
    assert torch.equal(PGD(model, eps, steps=1, restarts=1)(x, y, draw=3), once(x, y, draw=3))
    whole = often(x, y, index=index, draw=0)
    assert torch.equal(often(x[5:9], y[5:9], index=index[5:9], draw=0), whole[5:9])
    assert (whole - x).abs().max() <= eps + 1e-6
    right = ~wrong(once) & ~wrong(often)
    with torch.no_grad():
        losses = [
            F.cross_entropy(model(a), y, reduction="none") for a in (once(x, y, index=index, draw=0), whole)
        ]
    assert (losses[1] >= losses[0] - 1e-6)[right].all()
    assert (losses[1] > losses[0])[right].any() or not right.any()


@pytest.mark.parametrize("loss", ["kl", "dlr", "margin"])
def test_restarts_with_other_losses_and_targets(loss):
    model, (x, y) = network().eval(), batch()
    assert PGD(model, 0.1, loss=loss, steps=1, restarts=2)(x, y).shape == x.shape
    if loss != "kl":
        assert PGD(model, 0.1, loss=loss, steps=1, restarts=2)(x, y, targets=(y + 1) % 10).shape == x.shape


def test_restarts_are_checked():
    with pytest.raises(ValueError, match="restarts must be an integer"):
        PGD(network(), restarts=0)
    with pytest.raises(ValueError, match="all runs are the same"):
        PGD(network(), restarts=2, random_start=False)
