"""ensemble_targets_ against the textbook update in float64, one sample after the other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import SOME_LABELS, SOME_LOGITS, Right

from bat_fast import ops

TOLERANCE = {torch.float32: {"rtol": 2e-6, "atol": 1e-7}, torch.float64: {"rtol": 1e-13, "atol": 1e-14}}
SIZES = [(1, 1, 1), (5, 3, 10), (100, 7, 17), (200, 128, 200), (3, 2, 5000), (70, 300, 2), (9, 0, 4)]


def problem(samples, n, c, device, dtype, unique=False):
    index = torch.randperm(samples)[:n] if unique else torch.randint(0, samples, (n,))
    logits = (5 * torch.randn(len(index), c)).to(device, dtype)
    memory = torch.rand(samples, c).to(device, torch.float64 if dtype == torch.float64 else torch.float32)
    return memory, index.to(device), logits


def textbook(memory, index, logits, momentum):
    memory = memory.double().clone()
    for i, z in zip(index.tolist(), logits.double(), strict=True):
        memory[i] = momentum * memory[i] + (1 - momentum) * z.softmax(0)
    kept = memory[index]
    return memory, kept / kept.sum(1, keepdim=True)


def compare(memory, index, logits, momentum):
    expected_memory, expected = textbook(memory, index, logits, momentum)
    targets = ops.ensemble_targets_(memory, index, logits, momentum=momentum)
    assert targets.dtype == memory.dtype
    assert targets.is_contiguous()
    torch.testing.assert_close(memory.double(), expected_memory, **TOLERANCE[memory.dtype])
    torch.testing.assert_close(targets.double(), expected, **TOLERANCE[memory.dtype])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("unique", [True, False])
def test_the_update_is_the_textbook_one(size, momentum, unique, device, dtype):
    compare(*problem(*size, device, dtype, unique), momentum)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 9),
    n=st.integers(0, 30),
    c=st.integers(1, 12),
    momentum=st.floats(0, 1),
    scale=st.sampled_from([0.0, 1.0, 1e3, 1e30]),
)
def test_any_batch(samples, n, c, momentum, scale):
    memory, index, logits = problem(samples, n, c, "cpu", torch.float64)
    compare(memory, index, logits * scale, momentum)


def test_targets_are_distributions_from_an_empty_memory(device):
    memory, index, logits = problem(50, 20, 10, device, torch.float32, unique=True)
    memory.zero_()
    targets = ops.ensemble_targets_(memory, index, logits, momentum=0.9)
    torch.testing.assert_close(targets, logits.softmax(1), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(memory[index].sum(1), torch.full((20,), 0.1, device=device))
    untouched = torch.ones(50, dtype=torch.bool, device=device).index_fill(0, index, False)
    assert not memory[untouched].any()


def test_the_order_of_duplicates_is_the_order_of_the_batch(device):
    memory = torch.zeros(2, 2, device=device)
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0], [0.0, 200.0]], device=device)
    targets = ops.ensemble_targets_(memory, torch.tensor([1, 1, 0], device=device), logits, momentum=0.5)
    assert memory.tolist() == [[0.0, 0.5], [0.25, 0.5]]
    torch.testing.assert_close(targets, torch.tensor([[1, 2], [1, 2], [0, 3]], device=device) / 3.0)


def test_the_same_batch_gives_the_same_bits(device):
    memory, index, logits = problem(40, 4096, 100, device, torch.float32)
    copies = memory.clone(), memory.clone()
    first, second = (ops.ensemble_targets_(m, index, logits, momentum=0.9) for m in copies)
    assert torch.equal(first, second)
    assert torch.equal(*copies)
    compare(memory[:, :], index, logits, 0.9)


def test_nan_logits_stay_in_their_row(device):
    memory, index, logits = problem(6, 6, 4, device, torch.float32, unique=True)
    logits[2, 1] = torch.nan
    targets = ops.ensemble_targets_(memory, index, logits, momentum=0.5)
    assert targets.isnan().all(1).tolist() == [n == 2 for n in range(6)]
    assert memory.isnan().any(1).sum() == 1


def test_a_row_that_is_still_empty_has_no_targets(device):
    memory = torch.zeros(2, 3, device=device)
    logits = torch.randn(1, 3, device=device)
    targets = ops.ensemble_targets_(memory, torch.tensor([1], device=device), logits, momentum=1.0)
    assert targets.isnan().all()
    assert not memory.any()


def test_layouts(device, dtype):
    memory, index, logits = problem(30, 12, 8, device, dtype)
    expected_memory = memory.clone()
    expected = ops.ensemble_targets_(expected_memory, index, logits, momentum=0.7)
    transposed = memory.T.contiguous().T
    doubled = torch.stack([index, -index], 1)[:, 0]
    targets = ops.ensemble_targets_(transposed, doubled, logits.T.contiguous().T, momentum=0.7)
    assert torch.equal(targets, expected)
    assert torch.equal(transposed, expected_memory)


@pytest.mark.cuda
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_16_bit_logits(half):
    compare(*problem(100, 64, 100, "cuda", half), 0.9)


def test_ids_out_of_range_never_touch_the_memory(device):
    # The check in Python is skipped while compiling and on CUDA, so the kernel must be safe by itself.
    memory, _, logits = problem(5, 4, 3, device, torch.float32)
    before = memory.clone()
    index = torch.tensor([5, -1, 2, -(2**40)], device=device)
    if device == "cpu":  # where the values are at hand
        with pytest.raises(RuntimeError, match="index holds 5 in row 0"):
            torch.ops.bat_fast.ensemble_targets_(memory, index, logits, 0.5)
        assert torch.equal(memory, before)
        return
    targets = torch.ops.bat_fast.ensemble_targets_(memory, index, logits, 0.5)
    assert targets.isnan().all(1).tolist() == [True, True, False, True]
    changed = (memory != before).any(1).tolist()
    assert changed == [False, False, True, False, False]


MEMORY, INDEX, LOGITS = torch.zeros(6, 3), torch.tensor([0, 5]), torch.randn(2, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"index": torch.tensor([0, 6])}, ValueError, r"index holds id 6, outside \[0, 6\)"),
        ({"index": torch.tensor([-1, 0])}, ValueError, r"index holds id -1, outside \[0, 6\)"),
        ({"index": INDEX[:1]}, ValueError, r"index must be \[N\] = \[2\], got \[1\]"),
        ({"index": INDEX.int()}, TypeError, "index must hold int64 ids, got torch.int32"),
        ({"index": INDEX.to("meta")}, ValueError, "index is on meta, logits on cpu"),
        (
            {"memory": MEMORY[:, :2]},
            ValueError,
            r"memory must be \[num_samples, C\] with C = 3, got \[6, 2\]",
        ),
        ({"memory": MEMORY.double()}, TypeError, "memory must be torch.float32 for torch.float32 logits"),
        ({"memory": MEMORY.to("meta")}, ValueError, "memory is on meta, logits on cpu"),
        ({"memory": MEMORY.clone().requires_grad_()}, ValueError, "memory is updated in place"),
        ({"logits": LOGITS[0]}, ValueError, r"logits must be \[N, C\], got \[3\]"),
        ({"logits": LOGITS.long()}, TypeError, "logits must be one of float32, float64 on cpu"),
        ({"momentum": 1.5}, ValueError, r"momentum must be a finite number in \[0, 1\], got 1.5"),
        ({"momentum": -0.1}, ValueError, r"momentum must be a finite number in \[0, 1\], got -0.1"),
        ({"momentum": float("nan")}, ValueError, r"momentum must be a finite number in \[0, 1\], got nan"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        ops.ensemble_targets_(
            **{"memory": MEMORY, "index": INDEX, "logits": LOGITS, "momentum": 0.9, **change}
        )
    assert not MEMORY.any()


def test_the_reference_says_the_same(dtype):
    from bat_fast.ops.soft_labels import _ensemble_reference

    memory, index, logits = problem(10, 40, 6, "cpu", dtype)
    other = memory.clone()
    targets = torch.ops.bat_fast.ensemble_targets_(memory, index, logits, 0.8)
    expected = _ensemble_reference(other, index, logits, 0.8)
    torch.testing.assert_close(targets, expected, equal_nan=True, **TOLERANCE[dtype])
    torch.testing.assert_close(memory, other, **TOLERANCE[dtype])


def test_the_operator_is_well_formed(device, dtype):
    arguments = problem(9, 5, 7, device, dtype, unique=True)
    torch.library.opcheck(torch.ops.bat_fast.ensemble_targets_.default, (*arguments, 0.9))
    assert ops.is_native("ensemble_targets_", device)


def test_no_gradient_flows(device):
    memory, index, logits = problem(9, 5, 7, device, torch.float32)
    assert not ops.ensemble_targets_(memory, index, logits.requires_grad_(), momentum=0.9).requires_grad


def test_under_compile(device):
    memory, index, logits = problem(9, 5, 7, device, torch.float32)
    other = memory.clone()
    compiled = torch.compile(
        lambda m, i, z: ops.ensemble_targets_(m, i, z, momentum=0.9), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(
        compiled(memory, index, logits), ops.ensemble_targets_(other, index, logits, momentum=0.9)
    )
    assert torch.equal(memory, other)


RIGHT = {
    "ensemble_targets_": Right(
        {"memory": torch.rand(9, 6), "index": SOME_LABELS, "logits": SOME_LOGITS, "momentum": 0.9},
        {"memory": {"a row less"}, "logits": {"float16"}},
    )
}
DRAWN_BY = {"ensemble_targets_": test_any_batch}
