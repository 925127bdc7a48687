"""linf_step_ and random_start against their references, which are the equations in plain PyTorch."""

import pytest
import torch

from bat_fast import _native, ops
from bat_fast.ops import perturb

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


def test_philox_gives_the_published_numbers():
    zero, full = torch.zeros(1, dtype=torch.int64), torch.full((1,), 0xFFFFFFFF)
    words = [int(w) for w in _native.philox(0, (zero,) * 4)]
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    words = [int(w) for w in _native.philox(-1, (full,) * 4)]
    assert words == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) > 1], ids=str)
def test_random_start_equals_the_reference_bit_for_bit(shape, device, dtype):
    clean = images(shape, device, dtype)
    index = torch.randint(-(2**62), 2**62, shape[:1], device=device)
    for name, x in layouts(clean):
        for seed, draw in ((0, 0), (-1, 7), (2**63 - 1, 2**32 - 1)):
            out = ops.random_start(x, eps=0.1, seed=seed, index=index, draw=draw)
            expected = perturb._random_start_reference(clean, index, 0.1, "linf", seed, draw, 0.0, 1.0)
            assert torch.equal(out, expected), name
            assert out.data_ptr() != x.data_ptr() or not x.numel()


def test_random_start_is_uniform_in_the_ball(device):
    clean = torch.full((64, 4096), 0.5, device=device)
    noise = (ops.random_start(clean, eps=0.25, seed=1) - clean).double() / 0.25
    assert noise.abs().max() <= 1.0
    n = noise.numel()
    assert abs(noise.mean()) < 5 * (1 / 3 / n) ** 0.5
    assert abs(noise.pow(2).mean() - 1 / 3) < 5 * (4 / 45 / n) ** 0.5
    edges = torch.histc(noise.float().cpu(), bins=64, min=-1, max=1) / n * 64
    assert (edges - 1).abs().max() < 0.1


def test_random_start_depends_on_the_sample_and_not_on_its_place(device):
    clean = images((6, 3, 4, 4), device)
    index = torch.tensor([5, 0, 2**40, 17, 3, 8], device=device)
    whole = ops.random_start(clean, eps=0.1, index=index, seed=3)
    order = torch.tensor([4, 2, 0, 5, 1, 3], device=device)
    assert torch.equal(ops.random_start(clean[order], eps=0.1, index=index[order], seed=3), whole[order])
    for changed in ({"seed": 4}, {"draw": 1}, {"index": index + 1}):
        other = ops.random_start(clean, eps=0.1, **{"index": index, "seed": 3, **changed})
        assert not torch.equal(other, whole)


def test_cpu_and_cuda_start_alike():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device: compares CPU and CUDA bit for bit")
    clean = torch.rand(9, 3, 17, 5)
    assert torch.equal(ops.random_start(clean.cuda(), eps=0.1).cpu(), ops.random_start(clean, eps=0.1))


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


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"eps": -1.0}, ValueError, "eps must be"),
        ({"norm": "l7"}, ValueError, "norm must be"),
        ({"draw": -1}, ValueError, "draw must be in"),
        ({"seed": 2**63}, ValueError, "seed must fit 64 bits"),
        ({"index": torch.arange(3)}, ValueError, r"index must be \[N\] = \[2\], got \[3\]"),
        ({"index": torch.rand(2)}, TypeError, "index must be int64"),
    ],
)
def test_random_start_names_what_is_wrong(change, error, message):
    with pytest.raises(error, match=message):
        ops.random_start(X, **({"eps": 0.1} | change))


def test_operators_are_well_formed(device):
    x = images((2, 3, 4, 4), device)
    torch.library.opcheck(
        torch.ops.bat_fast.linf_step_.default, (x.clone(), torch.randn_like(x), x, 0.1, 0.2, 0.0, 1.0)
    )
    index = torch.arange(2, device=device)
    torch.library.opcheck(torch.ops.bat_fast.random_start.default, (x, index, 0.1, "linf", 1, 2, 0.0, 1.0))
