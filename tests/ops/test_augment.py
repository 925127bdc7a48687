"""crop_flip against a crop of one image at a time, in plain Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import SOME_LABELS, Right
from torch.nn import functional as F

from bat_fast import ops
from bat_fast._random import CROP
from bat_fast.ops import augment

SIZES = [(1, 1, 1), (5, 3, 1), (4, 9, 2), (8, 8, 3), (7, 17, 3), (6, 4, 4), (3, 5, 7), (64, 64, 3)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def images(count, size, device="cpu"):
    return torch.randint(0, 256, (count, *size), dtype=torch.uint8, device=device)


def philox(seed, counter):
    """Philox4x32-10 in Python integers (Salmon et al. 2011)."""
    mask = 0xFFFFFFFF
    keys, c = [seed & mask, seed >> 32 & mask], list(counter)
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [b >> 32 ^ c[1] ^ keys[0], b & mask, a >> 32 ^ c[3] ^ keys[1], a & mask]
        keys = [keys[0] + 0x9E3779B9 & mask, keys[1] + 0xBB67AE85 & mask]
    return c


def slow_crop(image, sample_id, pad, seed, epoch, flip, padding):
    """Pad, slice, flip and divide one image [H, W, C]; the result is [C, H, W]."""
    height, width, _ = image.shape
    word = philox(seed, (0x43524F50, epoch, sample_id & 0xFFFFFFFF, sample_id >> 32 & 0xFFFFFFFF))
    row, column = (w * (2 * pad + 1) >> 32 for w in word[:2])
    mode = {"zero": "constant", "reflect": "reflect"}[padding]
    padded = F.pad(image.permute(2, 0, 1).float(), (pad,) * 4, mode)
    crop = padded[:, row : row + height, column : column + width]
    if flip and word[2] >> 31:
        crop = crop.flip(2)
    return crop / 255


def options_of(size):
    for pad in (0, 1, 4, 30):
        yield {"pad": pad, "padding": "zero"}
        if pad < min(size[:2]):
            yield {"pad": pad, "padding": "reflect"}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_crop_flip_is_the_slow_crop_bit_for_bit(size, dtype, device):
    data = images(9, size, device)
    index = torch.tensor([3, 0, 8, 8, 5, 1], device=device)
    for options in options_of(size):
        for flip, seed, epoch in ((True, 0, 0), (True, -1, 2**32 - 1), (False, 2**63 - 1, 7)):
            rule = {**options, "flip": flip, "seed": seed, "epoch": epoch}
            slow = [slow_crop(data[i].cpu(), i, **rule) for i in index.tolist()]
            expected = torch.stack(slow).to(dtype).to(device)
            for channels_last in (False, True):
                out = ops.crop_flip(data, index, **rule, dtype=dtype, channels_last=channels_last)
                layout = torch.channels_last if channels_last else torch.contiguous_format
                assert out.is_contiguous(memory_format=layout)
                assert torch.equal(out, expected), rule
                reference = torch.empty_like(out)
                plain = (options["pad"], options["padding"] == "reflect", seed, epoch, flip)
                augment._crop_flip_reference(reference, data, index, index, *plain)
                assert torch.equal(reference, expected), rule


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 5)),
    pad=st.integers(0, 50),
    ids=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    seed=st.integers(-(2**63), 2**63 - 1),
    epoch=st.integers(0, 2**32 - 1),
    padding=st.sampled_from(["zero", "reflect"]),
    channels_last=st.booleans(),
)
def test_any_crop_is_the_slow_crop(size, pad, ids, seed, epoch, padding, channels_last):
    pad = min(pad, min(size[:2]) - 1) if padding == "reflect" else pad
    data = images(3, size)
    index = torch.arange(len(ids)) % 3
    rule = {"pad": pad, "seed": seed, "epoch": epoch, "padding": padding}
    sample_ids = torch.tensor(ids, dtype=torch.int64)
    out = ops.crop_flip(data, index, sample_ids=sample_ids, channels_last=channels_last, **rule)
    for image, row, sample_id in zip(out, index.tolist(), ids, strict=True):
        assert torch.equal(image, slow_crop(data[row], sample_id, flip=True, **rule))


def test_without_padding_and_flip_it_is_the_gather(device):
    data = images(6, (5, 7, 3), device)
    index = torch.tensor([5, 5, 0], device=device)
    out = ops.crop_flip(data, index, pad=0, flip=False, seed=3, epoch=4)
    assert torch.equal(out.cpu(), data.cpu()[index.cpu()].permute(0, 3, 1, 2).float() / 255)


def test_a_sample_does_not_depend_on_its_batch(device):
    data = images(20, (8, 8, 3), device)
    index = torch.randperm(20, device=device)
    rule = {"pad": 2, "seed": 1}
    whole = ops.crop_flip(data, index, epoch=3, **rule)
    for part in (index[:1], index[7:12], index.flip(0)):
        place = (index[None] == part[:, None]).int().argmax(1)
        assert torch.equal(ops.crop_flip(data, part, epoch=3, **rule), whole[place])
    assert not torch.equal(ops.crop_flip(data, index, epoch=4, **rule), whole)
    assert not torch.equal(ops.crop_flip(data, index, epoch=3, pad=2, seed=2), whole)
    # A split: other rows, the same ids.
    split = data[index].contiguous()
    rows = torch.arange(20, device=device)
    assert torch.equal(ops.crop_flip(split, rows, epoch=3, sample_ids=index, **rule), whole)


def test_offsets_and_flips_are_uniform_and_independent():
    n, pad = 40000, 4
    row, column, mirrored = augment._draw(torch.arange(n), pad, 5, 6, True)
    lines = 2 * pad + 1
    cell = ((row + pad) * lines + column + pad) * 2 + mirrored.long()
    counts = torch.bincount(cell, minlength=2 * lines**2).double()
    assert counts.shape == (2 * lines**2,)
    chi_square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    freedom = 2 * lines**2 - 1
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_crops_are_not_the_random_numbers_of_the_attack():
    # random_start counts blocks of four pixels in the first counter word: a set that large is impossible.
    assert CROP * 4 > 2**32


def test_rows_outside_give_nan_where_they_are_not_checked(device):
    # Compiled code and CUDA skip the check in Python, so the kernel must be safe by itself.
    data = images(3, (4, 5, 3), device)
    index = torch.tensor([1, 3, -1, -(2**62), 2**62, 2], device=device)
    for layout in (torch.contiguous_format, torch.channels_last):
        for dtype in DTYPES:
            empty = torch.empty(6, 3, 4, 5, device=device, dtype=dtype).to(memory_format=layout)
            if device == "cpu":  # where the values are at hand
                with pytest.raises(RuntimeError, match="index holds 3 in row 1"):
                    torch.ops.bat_fast.crop_flip(empty, data, index, index, 1, False, 0, 0, True)
            native = [] if device == "cpu" else [torch.ops.bat_fast.crop_flip]
            for op in (*native, augment._crop_flip_reference):
                out = empty.clone(memory_format=torch.preserve_format)
                op(out, data, index, index, 1, False, 0, 0, True)
                assert out.isnan().flatten(1).all(1).tolist() == [False, True, True, True, True, False]
                assert out.isnan().flatten(1).any(1).tolist() == [False, True, True, True, True, False]


def test_a_batch_can_be_reused(device):
    data, index = images(6, (8, 8, 3), device), torch.tensor([4, 2], device=device)
    rule = {"pad": 1, "seed": 0, "epoch": 0}
    for channels_last in (False, True):
        fresh = ops.crop_flip(data, index, channels_last=channels_last, **rule)
        buffer = torch.full_like(fresh, 7.0)
        assert ops.crop_flip(data, index, channels_last=channels_last, out=buffer, **rule) is buffer
        assert torch.equal(buffer, fresh)
        # A part of a larger buffer is not aligned as a whole one is.
        part = torch.full((3, 3, 8, 8), 7.0, device=device).flatten()[1 : 1 + fresh.numel()].view(fresh.shape)
        if not channels_last:
            assert torch.equal(ops.crop_flip(data, index, out=part, **rule), fresh)


def test_empty_batches(device):
    none = torch.empty(0, dtype=torch.long, device=device)
    for count in (0, 3):
        data = images(count, (4, 5, 3), device)
        assert ops.crop_flip(data, none, pad=1, seed=0, epoch=0).shape == (0, 3, 4, 5)


def test_strided_index(device):
    data, index = images(9, (4, 4, 3), device), torch.arange(8, device=device)
    rule = {"pad": 1, "seed": 0, "epoch": 0}
    expected = ops.crop_flip(data, index[::2].contiguous(), **rule)
    assert torch.equal(ops.crop_flip(data, index[::2], **rule), expected)


@pytest.mark.cuda
def test_cpu_and_cuda_crop_alike():
    for size in SIZES:
        data, index = images(5, size), torch.tensor([4, 0, 2])
        for dtype in DTYPES:
            rule = {"pad": 3, "seed": 1, "epoch": 2, "dtype": dtype}
            out = ops.crop_flip(data.cuda(), index.cuda(), **rule)
            assert torch.equal(out.cpu(), ops.crop_flip(data, index, **rule))


def test_operator_is_well_formed(device):
    assert ops.is_native("crop_flip", "cpu")
    data, index = images(4, (4, 4, 3), device), torch.tensor([1, 2], device=device)
    out = torch.empty(2, 3, 4, 4, device=device)
    torch.library.opcheck(
        torch.ops.bat_fast.crop_flip.default, (out, data, index, index, 1, False, 0, 0, True)
    )
    rule = {"pad": 1, "seed": 0, "epoch": 0}
    compiled = torch.compile(lambda d, i: ops.crop_flip(d, i, **rule), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(data, index), ops.crop_flip(data, index, **rule))


D, I = images(4, (5, 6, 3)), torch.tensor([0, 3])  # noqa: E741


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": D.float()}, TypeError, "images must be uint8"),
        ({"images": D[0]}, ValueError, r"images must be \[M, H, W, C\]"),
        ({"images": D[:, :0]}, ValueError, r"images must be \[M, H, W, C\] of pixels"),
        ({"images": D.transpose(1, 2)}, ValueError, "images must be contiguous"),
        ({"images": D[:0]}, ValueError, "images is empty"),
        ({"index": torch.tensor([0, 4])}, ValueError, r"index holds row 4, outside \[0, 4\)"),
        ({"index": torch.tensor([-1, 0])}, ValueError, r"index holds row -1, outside \[0, 4\)"),
        ({"index": I.int()}, TypeError, "index must be int64"),
        ({"index": I[None]}, ValueError, r"index must be \[N\]"),
        ({"index": I.to("meta")}, ValueError, "index is on meta, images on cpu"),
        ({"sample_ids": torch.arange(3)}, ValueError, r"sample_ids must be \[N\]"),
        ({"sample_ids": I.float()}, TypeError, "sample_ids must be int64"),
        ({"pad": -1}, ValueError, "pad must be in"),
        ({"pad": 5, "padding": "reflect"}, ValueError, r"pad must be below the size \[5, 6\] to reflect"),
        ({"padding": "wrap"}, ValueError, "padding must be 'zero' or 'reflect', got 'wrap'"),
        ({"seed": 2**63}, ValueError, "seed must fit 64 bits"),
        ({"epoch": -1}, ValueError, "epoch must be in"),
        ({"dtype": torch.float64}, TypeError, "dtype must be float32, float16 or bfloat16"),
        ({"out": torch.empty(2, 3, 6, 5)}, ValueError, "out must be"),
        ({"out": torch.empty(2, 3, 5, 6), "channels_last": True}, ValueError, "out must have the memory"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(change, error, message):
    arguments = {"images": D, "index": I, "pad": 1, "seed": 0, "epoch": 0} | change
    with pytest.raises(error, match=message):
        ops.crop_flip(arguments.pop("images"), arguments.pop("index"), **arguments)


RIGHT = {
    "crop_flip": Right(
        {
            "images": torch.randint(0, 256, (7, 4, 5, 3), dtype=torch.uint8), "index": SOME_LABELS, "pad": 1,
            "seed": 1, "epoch": 0, "padding": "zero", "sample_ids": SOME_LABELS, "dtype": torch.float32,
            "out": torch.empty(3, 3, 4, 5),
        },
        {"images": {"a row less"}, "sample_ids": {"negative", "too large"}},
    )
}  # fmt: skip
DRAWN_BY = {"crop_flip": test_any_crop_is_the_slow_crop}
