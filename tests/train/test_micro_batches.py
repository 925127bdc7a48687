"""Gradient accumulation: the parts of a batch give the update of the whole."""

import dataclasses

import pytest
import torch
from test_resume import rows
from torch import nn

from bat_fast import Batch
from bat_fast.attacks import PGD
from bat_fast.config import AttackConfig, OptimConfig
from bat_fast.methods import create
from bat_fast.train import Trainer
from bat_fast.train.meter import EpochMeter
from bat_fast.train.micro_batches import cut
from bat_fast.train.step import TrainStep

CLASSES = 4
# Every loss that is a mean over samples. BAT's is one where neither weights nor pairs tie samples together.
SEPARABLE = [
    {"name": "standard"},
    {"name": "pgd_at"},
    {"name": "fgsm_rs"},
    {"name": "n_fgsm"},
    {"name": "free", "replays": 3},
    {"name": "trades"},
    {"name": "mart"},
    {"name": "bat", "beta": 0.0, "normalize": "batch"},
    {"name": "te", "over": "trades", "weight": 30, "start": 0, "end": 2},
]


class Net(nn.Module):
    """Smooth and without batch norm, in float64: what differs is the arithmetic of the parts alone."""

    num_classes = CLASSES

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, CLASSES)
        self.double()

    def forward(self, x):
        return 4 * self.head(self.hidden(x).tanh().mean((2, 3)))


def batch_of(size):
    x = torch.rand(size, 3, 5, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    return Batch(x, torch.randint(0, CLASSES, (size,)), torch.randperm(size) + 3)


def updates(method, parts, sizes=(12, 7, 2), attack_options=None, **optim):
    """Weights after one step of each size, and what the meter saw."""
    torch.manual_seed(4)
    options = dict(method)
    model, how = Net().train(), create(options.pop("name"), **options)
    if hasattr(how, "prepare"):
        how.prepare(64, CLASSES, "cpu")
    options = {"eps": 0.1, "step_size": 0.04, "steps": 3}
    ask = getattr(how, "attack_options", lambda _: {})
    attack = PGD(model, **(options | ask(options)), seed=7)
    sgd = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    optim = OptimConfig(micro_batches=parts, **optim)
    step = TrainStep(model, how, attack, sgd, attack_options or AttackConfig(), optim)
    meter, seen = EpochMeter("cpu"), []
    for size in sizes:
        batch = batch_of(size)
        terms = step(batch, 1, meter)
        meter.add(terms, size)
        seen.append(terms.per_sample)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return weights, meter, seen


@pytest.mark.parametrize("method", SEPARABLE, ids=lambda method: method["name"])
def test_parts_make_the_update_of_the_whole(method):
    """Batches of 12, 7 and 2 in 3 parts: even, uneven, and fewer images than parts."""
    (whole, before, rows_before), (parts, after, rows_after) = (updates(method, n) for n in (1, 3))
    assert not torch.equal(whole, parts)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)
    assert after.means() == pytest.approx(before.means(), rel=1e-9)
    assert after.state_dict()["counts"] == before.state_dict()["counts"]
    for ours, theirs in zip(rows_after, rows_before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "optim",
    [
        {"awp": 0.05, "awp_steps": 2, "awp_below": 1.5},
        {"clip": 0.05},
        {"label_smoothing": 0.3},
        {"awp": 0.05, "clip": 0.05},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "method", [{"name": "trades"}, {"name": "free", "replays": 2}], ids=lambda m: m["name"]
)
def test_what_goes_with_every_method_goes_with_parts(method, optim):
    whole, parts = (updates(method, n, **optim)[0] for n in (1, 4))
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-11)
    assert not torch.allclose(whole, updates(method, 1)[0], rtol=1e-4)


def test_clean_starts_and_targets_are_those_of_the_batch():
    options = AttackConfig(clean_start=0.5, targets="random")
    whole, parts = (updates({"name": "pgd_at"}, n, (6,) * 8, options)[0] for n in (1, 3))
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)


def test_16_bits_go_with_parts():
    method = {"name": "pgd_at"}
    exact, whole, parts = (
        updates(method, n, (16,), precision=p)[0] for n, p in ((1, None), (1, "bf16"), (4, "bf16"))
    )
    start = updates(method, 1, ())[0]
    assert not torch.equal(whole, exact)
    assert torch.cosine_similarity(parts - start, exact - start, dim=0) > 0.99


def test_parts_mix_the_batch_and_keep_its_layout():
    batch = batch_of(10)
    parts = cut(batch, 4)
    assert [len(part.y) for part in parts] == [3, 3, 2, 2]
    for k, part in enumerate(parts):
        assert torch.equal(part.x, batch.x[k::4])
        assert torch.equal(part.index, batch.index[k::4])
        assert part.x.is_contiguous(memory_format=torch.channels_last)
    assert cut(batch, 1) == [batch]
    assert [len(part.y) for part in cut(batch_of(2), 5)] == [1, 1]
    assert all(part.x.is_contiguous() for part in cut(batch._replace(x=batch.x.contiguous()), 2))


def test_images_of_all_parts_are_attacked_with_the_same_model(small, tmp_path):
    """Running statistics move in the training pass; no part may be attacked after them."""
    run = Trainer(small(optim=OptimConfig(micro_batches=4)), tmp_path / "run", progress=False)
    batch_norm, seen, climb = run.model.body[1], [], run.step._climb

    def watch(*arguments):
        seen.append(int(batch_norm.num_batches_tracked))
        return climb(*arguments)

    run.step._climb = watch
    batch = next(iter(run.loader))
    for _ in range(2):
        run.step(batch, 0, EpochMeter("cpu"))
    assert seen == [0] * 4 + [4] * 4


@pytest.mark.slow
def test_a_run_that_is_stopped_within_an_epoch_ends_in_the_same_bits(small, tmp_path):
    optim = OptimConfig(lr=0.05, micro_batches=3, awp=0.005, clip=1.0, average="ema")
    config = small(epochs=2, optim=optim, checkpoint_every=1)
    whole = Trainer(config, tmp_path / "whole", progress=False)
    whole.fit()
    cut_off = Trainer(config, tmp_path / "cut", progress=False)
    step, count = cut_off.step, 0

    def act(*arguments, **options):
        nonlocal count
        count += 1
        if count == len(cut_off.loader) + 3:
            raise RuntimeError("killed")
        return step(*arguments, **options)

    act.set_progress, act.attacks, act.health = step.set_progress, True, step.health
    cut_off.step = act
    with pytest.raises(RuntimeError, match="killed"):
        cut_off.fit()
    again = Trainer(config, tmp_path / "cut", resume=True, progress=False)
    again.fit()
    assert again.folder.model.read_bytes() == whole.folder.model.read_bytes()
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


@pytest.mark.parametrize(
    ("parts", "message"),
    [(0, r"optim\.micro_batches must be at least 1"), (257, r"must be at most batch_size = 256, got 257")],
)
def test_settings_out_of_range(small, tmp_path, parts, message):
    with pytest.raises(ValueError, match=message):
        Trainer(small(optim=dataclasses.replace(small().optim, micro_batches=parts)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
