"""linf_step_ and l2_step_ against the equations in plain PyTorch."""

import pytest
import torch
from tables import SOME_IMAGES, Draw, Drawn, Right

from bat_fast import ops

SHAPES = [(1,), (7,), (3, 1, 1, 1), (2, 3, 5, 7), (5, 1, 8, 8), (4, 3, 32, 32), (0, 3, 4, 4), (2, 65537)]


def images(shape, device, dtype=torch.float32):
    return torch.rand(shape, device=device).to(dtype)


def layouts(x):
    yield "contiguous", x
    if x.dim() == 4:
        yield "channels_last", x.to(memory_format=torch.channels_last)
        yield "gaps", torch.stack([x, x], dim=-1)[..., 0]
        yield "transposed", x.transpose(2, 3).contiguous().transpose(2, 3)


def stepped(adv, grad, clean, step_size, eps, lo=0.0, hi=1.0):
    """The textbook line."""
    v = adv + step_size * grad.sign().to(adv.dtype)
    return torch.clamp(torch.maximum(torch.minimum(v, clean + eps), clean - eps), lo, hi)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linf_step_is_the_textbook_line_bit_for_bit(shape, device, dtype):
    clean, grad = images(shape, device, dtype), torch.randn(shape, device=device).to(dtype)
    grad[torch.rand(shape, device=device) < 0.1] = 0.0
    start = (clean + 0.1 * torch.randn_like(clean)).clamp(0, 1)
    for name, adv in layouts(start.clone()):
        for grad_name, g in layouts(grad):
            work = adv.clone(memory_format=torch.preserve_format) if name != "gaps" else layouts_gap(adv)
            expected = stepped(work.clone(), g, clean, 0.02, 0.05)
            out = ops.linf_step_(work, g, clean, step_size=0.02, eps=0.05)
            assert out is work
            assert torch.equal(work, expected), (name, grad_name)


def layouts_gap(adv):
    wide = torch.stack([adv, adv], dim=-1)
    return wide[..., 0]


@pytest.mark.parametrize("grad_dtype", [torch.float16, torch.bfloat16])
def test_linf_step_takes_16_bit_gradients(grad_dtype, device):
    special = torch.tensor(
        [0.0, -0.0, torch.inf, -torch.inf, torch.nan, 6e-8, -6e-8, 1.0, -1.0], device=device
    )
    grad = torch.cat([special, torch.randn(1000, device=device)]).to(grad_dtype)
    clean = torch.full_like(grad, 0.5, dtype=torch.float32)
    adv = ops.linf_step_(clean.clone(), grad, clean, step_size=0.25, eps=1.0)
    sign = (grad.float() > 0).float() - (grad.float() < 0).float()
    assert torch.equal(adv, clean + 0.25 * sign)


def textbook_l2(adv, grad, clean, step_size, eps):
    def length(t):
        return t.flatten(1).norm(dim=1).reshape(-1, *[1] * (t.dim() - 1))

    v = adv + step_size * grad / length(grad) - clean
    v = torch.where(length(v) > eps, v * (eps / length(v)), v)
    return (clean + v).clamp(0, 1)


L2_SHAPES = [(1, 1), (2, 3, 5, 7), (5, 1, 8, 8), (3, 3, 64, 64), (2, 3, 65, 64), (2, 40001), (0, 3, 4, 4)]


@pytest.mark.parametrize("shape", L2_SHAPES, ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6, 1e-38, 1e38])
def test_l2_step_is_the_textbook_step(shape, scale, device, dtype):
    clean, grad = (
        images(shape, device, dtype),
        scale * torch.randn(shape, device=device).to(dtype).clamp(-3, 3),
    )
    start = (clean + 0.1 * torch.randn_like(clean)).clamp(0, 1)
    exact = textbook_l2(start.double(), grad.double(), clean.double(), 0.3, 0.5)
    close = {"rtol": 0, "atol": 2e-6 if dtype == torch.float32 else 1e-13}
    for name, adv in layouts(start):
        for grad_name, g in layouts(grad):
            work = adv.clone(memory_format=torch.preserve_format) if name != "gaps" else layouts_gap(adv)
            assert ops.l2_step_(work, g, clean, step_size=0.3, eps=0.5) is work
            torch.testing.assert_close(work.double(), exact, **close, msg=f"{name}, {grad_name}")


def test_l2_step_where_the_batch_is_not_outermost_in_memory(device, dtype):
    clean, grad = (images((6, 4, 5), device, dtype).transpose(0, 1) for _ in range(2))
    adv = (clean + 0.1).clamp(0, 1)
    assert not adv.is_contiguous()
    exact = textbook_l2(adv.double(), grad.double(), clean.double(), 0.3, 0.5)
    out = ops.l2_step_(adv, grad, clean, step_size=0.3, eps=0.5)
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=2e-6)


def test_l2_step_of_one_large_entry_among_small_ones(device, dtype):
    clean = images((4, 2 * 12289), device, dtype)  # on a GPU two chunks, whose units differ
    grad = 1e-30 * torch.randn_like(clean)
    grad[0, 7], grad[1, -1], grad[2, 13000], grad[3] = 1e30, 1e-3, 1e10, 0.0
    exact = textbook_l2(clean[:3].double(), grad[:3].double(), clean[:3].double(), 0.3, 0.5)
    out = ops.l2_step_(clean.clone(), grad, clean, step_size=0.3, eps=0.5)
    torch.testing.assert_close(out[:3].double(), exact, rtol=0, atol=2e-6)
    assert torch.equal(out[3], clean[3])


def test_l2_step_without_gradient_radius_or_step(device, dtype):
    clean = images((3, 2, 4, 4), device, dtype)
    moved = (clean + 0.01).clamp(0, 1)
    zero, grad = torch.zeros_like(clean), torch.randn_like(clean)
    torch.testing.assert_close(ops.l2_step_(moved.clone(), zero, clean, step_size=1.0, eps=9.0), moved)
    assert torch.equal(ops.l2_step_(moved.clone(), grad, clean, step_size=1.0, eps=0.0), clean)
    torch.testing.assert_close(ops.l2_step_(moved.clone(), grad, clean, step_size=0.0, eps=9.0), moved)


@pytest.mark.parametrize("grad_dtype", [torch.float16, torch.bfloat16])
def test_l2_step_takes_16_bit_gradients(grad_dtype, device):
    clean = images((3, 2, 4, 4), device)
    grad = torch.randn_like(clean).to(grad_dtype)
    adv = ops.l2_step_(clean.clone(), grad, clean, step_size=0.25, eps=1.0)
    torch.testing.assert_close(adv, textbook_l2(clean, grad.float(), clean, 0.25, 1.0))


def test_linf_step_without_radius_or_step(device):
    clean = images((3, 4), device)
    grad = torch.randn_like(clean)
    assert torch.equal(ops.linf_step_(clean.clone(), grad, clean, step_size=1.0, eps=0.0), clean)
    assert torch.equal(ops.linf_step_(clean.clone(), grad, clean, step_size=0.0, eps=1.0), clean)


def test_linf_step_keeps_other_pixel_ranges(device):
    clean = images((5, 6), device) * 255
    adv = ops.linf_step_(
        clean.clone(), torch.randn_like(clean), clean, step_size=99.0, eps=8.0, lo=0.0, hi=255.0
    )
    assert adv.min() >= 0
    assert adv.max() <= 255
    assert (adv - clean).abs().max() <= 8.0 + 1e-4


X = torch.rand(2, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"eps": -1.0}, ValueError, "eps must be a finite number >= 0, got -1"),
        ({"eps": float("nan")}, ValueError, "eps must be"),
        ({"step_size": float("inf")}, ValueError, "step_size must be"),
        ({"step_size": -0.1}, ValueError, "step_size must be"),
        ({"lo": 1.0, "hi": 0.0}, ValueError, "lo must not be above hi"),
        ({"grad": torch.rand(2, 2)}, ValueError, r"grad must have the shape of adv, \[2, 3\], got \[2, 2\]"),
        ({"clean": X.double()}, TypeError, "clean must have the dtype of adv"),
        ({"grad": X.long()}, TypeError, "grad must be"),
        ({"adv": X.half()}, TypeError, "adv must be one of float32, float64 on cpu"),
        ({"grad": torch.rand(2, 3, device="meta")}, ValueError, "grad is on meta, adv on cpu"),
    ],
)
def test_linf_step_names_what_is_wrong(change, error, message):
    good = {"adv": X.clone(), "grad": X, "clean": X, "step_size": 0.1, "eps": 0.1}
    arguments = good | change
    with pytest.raises(error, match=message):
        ops.linf_step_(arguments.pop("adv"), arguments.pop("grad"), arguments.pop("clean"), **arguments)


def test_operators_are_well_formed(device):
    x = images((2, 3, 4, 4), device)
    for op in (torch.ops.bat_fast.linf_step_, torch.ops.bat_fast.l2_step_):
        torch.library.opcheck(op.default, (x.clone(), torch.randn_like(x), x, 0.1, 0.2, 0.0, 1.0))


STEP = Right(
    {
        "adv": SOME_IMAGES,
        "grad": SOME_IMAGES,
        "clean": SOME_IMAGES,
        "step_size": 0.1,
        "eps": 0.1,
        "lo": 0.0,
        "hi": 1.0,
    },
    {"lo": {"negative"}},
)
RIGHT = {"linf_step_": STEP, "l2_step_": STEP}


def draw_step(d: Draw) -> Drawn:
    shape = d.images()
    clean, grad = d.uniform(*shape), d.normal(*shape)
    adv = d.uniform(*shape)
    return Drawn([adv, grad, clean, d.one_of(0.0, 0.1, 1.0), d.one_of(0.0, 0.05, 2.0), 0.0, 1.0], changed=0)


DRAWN = {"linf_step_": draw_step, "l2_step_": draw_step}
