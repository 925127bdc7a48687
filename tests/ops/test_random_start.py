"""random_start against its reference, bit for bit, and against the distributions it promises."""

import pytest
import torch
from tables import SOME_IMAGES, SOME_LABELS, Draw, Drawn, Right

from bat_fast import _native, ops
from bat_fast._random import philox

SHAPES = [(3, 1, 1, 1), (2, 3, 5, 7), (5, 1, 8, 8), (4, 3, 32, 32), (0, 3, 4, 4), (2, 65537)]


def images(shape, device, dtype=torch.float32):
    return torch.rand(shape, device=device).to(dtype)


def layouts(x):
    yield "contiguous", x
    if x.dim() == 4:
        yield "channels_last", x.to(memory_format=torch.channels_last)
        yield "gaps", torch.stack([x, x], dim=-1)[..., 0]
        yield "transposed", x.transpose(2, 3).contiguous().transpose(2, 3)


def test_philox_gives_the_published_numbers():
    zero, full = torch.zeros(1, dtype=torch.int64), torch.full((1,), 0xFFFFFFFF)
    words = [int(w) for w in philox(0, (zero,) * 4)]
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    words = [int(w) for w in philox(-1, (full,) * 4)]
    assert words == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_start_equals_the_reference_bit_for_bit(shape, device, dtype):
    clean = images(shape, device, dtype)
    index = torch.randint(-(2**62), 2**62, shape[:1], device=device)
    reference = _native.reference_of("random_start")
    for name, x in layouts(clean):
        for seed, draw in ((0, 0), (-1, 7), (2**63 - 1, 2**32 - 1)):
            out = ops.random_start(x, eps=0.1, seed=seed, index=index, draw=draw)
            expected = reference(clean, index, 0.1, "linf", seed, draw, 0.0, 1.0)
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


@pytest.mark.cuda
def test_cpu_and_cuda_start_alike():
    clean = torch.rand(9, 3, 17, 5)
    assert torch.equal(ops.random_start(clean.cuda(), eps=0.1).cpu(), ops.random_start(clean, eps=0.1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", ["l2", "gaussian"])
def test_normal_starts_equal_the_reference(shape, norm, device, dtype):
    clean = images(shape, device, dtype)
    index = torch.randint(-(2**62), 2**62, shape[:1], device=device)
    exact = _native.reference_of("random_start")(clean.double(), index, 0.5, norm, 3, 4, 0.0, 1.0)
    for name, x in layouts(clean):
        out = ops.random_start(x, eps=0.5, norm=norm, seed=3, index=index, draw=4)
        atol = 1e-5 if dtype == torch.float32 else 1e-13
        torch.testing.assert_close(out.double(), exact, rtol=0, atol=atol, msg=name)


def test_normal_starts_are_normal(device):
    clean = torch.full((64, 4096), 0.5, device=device)
    wide = {"lo": -1e9, "hi": 1e9}
    noise = (ops.random_start(clean, eps=1.0, norm="gaussian", **wide) - clean).double()
    n = noise.numel()
    assert abs(noise.mean()) < 5 / n**0.5
    assert abs(noise.pow(2).mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs(noise.pow(4).mean() - 3) < 5 * (96 / n) ** 0.5
    length = (ops.random_start(clean, eps=2.0, norm="l2", **wide) - clean).norm(dim=1)
    assert length.max() <= 2.0 + 1e-4
    assert abs(length.mean() - 1.0) < 5 * (4 / 12 / 64) ** 0.5  # u ~ U(0, 1)


X = torch.rand(2, 3)


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


def test_operator_is_well_formed(device):
    x, index = images((2, 3, 4, 4), device), torch.arange(2, device=device)
    for norm in ("linf", "l2", "gaussian"):
        torch.library.opcheck(torch.ops.bat_fast.random_start.default, (x, index, 0.1, norm, 1, 2, 0.0, 1.0))


RIGHT = {
    "random_start": Right(
        {
            "clean": SOME_IMAGES, "eps": 0.1, "norm": "linf", "seed": 1, "index": SOME_LABELS, "draw": 0,
            "lo": 0.0, "hi": 1.0,
        },
        {"index": {"negative", "too large"}, "lo": {"negative"}},
    )
}  # fmt: skip


def draw_random_start(d: Draw) -> Drawn:
    clean = d.uniform(*d.images())
    index = torch.randint(-(2**62), 2**62, (len(clean),), generator=d.generator)
    norm, draw = d.one_of("linf", "l2", "gaussian"), d.one_of(0, 1, 2**32 - 1)
    return Drawn([clean, index, d.one_of(0.0, 0.1), norm, d.integer(-(2**63), 2**63 - 1), draw, 0.0, 1.0])


DRAWN = {"random_start": draw_random_start}
