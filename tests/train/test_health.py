"""NaN and infinity in training: found in the step they appear in, and never written to a checkpoint."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from bat_fast import data, methods, models, ops
from bat_fast._native import reference_of
from bat_fast.batch import Batch
from bat_fast.config import OptimConfig
from bat_fast.data.order import count_steps, shares
from bat_fast.runs.checkpoint import load_checkpoint
from bat_fast.train import Observer, Trainer
from bat_fast.train.health import Health, check_weights
from bat_fast.train.together import check_same_weights


class Poisoned:
    """A method whose loss is ``value`` times itself in some steps, counted from 0."""

    def __init__(self, method, steps, value):
        self.method, self.steps, self.value, self.done = method, steps, value, 0

    def __getattr__(self, name):
        return getattr(self.method, name)

    def __call__(self, *arguments):
        terms = self.method(*arguments)
        bad = self.done in self.steps
        self.done += 1
        return terms._replace(total=terms.total * self.value) if bad else terms


def poisoned(config, out, steps, value=float("nan")):
    trainer = Trainer(config, out, progress=False)
    trainer.step.method = Poisoned(trainer.step.method, steps, value)
    return trainer


def with_policy(small, policy, **changes):
    return small(optim=dataclasses.replace(small().optim, on_nonfinite=policy), **changes)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_stop_keeps_the_last_good_checkpoint(value, small, tmp_path):
    trainer = poisoned(small(epochs=3), tmp_path / "run", {7}, value)
    steps = len(trainer.loader)
    assert steps < 7 < 2 * steps
    with pytest.raises(
        FloatingPointError,
        match=r"in epoch 2; its batch is kept: .*; the last good .*last\.pt; try a lower --optim\.lr",
    ):
        trainer.fit()
    check_weights(trainer.model)
    assert load_checkpoint(trainer.folder.last)["epoch"] == 1
    Trainer(small(epochs=3), tmp_path / "run", resume=True, progress=False).fit()


def test_skip_leaves_the_update_out(small, tmp_path, capsys):
    trainer = poisoned(with_policy(small, "skip", epochs=1), tmp_path / "run", {2, 4})
    seen = {}

    class Watch(Observer):
        def step(self, *_):
            state = {name: value.clone() for name, value in trainer.model.state_dict().items()}
            seen[len(seen)] = state

    trainer.observers = (Watch(),)
    trainer.fit()
    for name, value in seen[2].items():
        assert torch.equal(value, seen[1][name]), f"{name}: weights and statistics are those of before"
    assert any(not torch.equal(value, seen[2][name]) for name, value in seen[3].items())
    assert trainer.rows[0]["train/left_out"] == 2
    assert trainer.rows[0]["train/loss"] > 0
    assert (
        "step 3: loss or gradient became NaN or infinite; this update is left out" in capsys.readouterr().out
    )


def test_skip_ends_where_it_never_ends(small, tmp_path):
    trainer = poisoned(with_policy(small, "skip"), tmp_path / "run", set(range(3, 100)))
    with pytest.raises(FloatingPointError, match="10 times in a row"):
        trainer.fit()
    check_weights(trainer.model)


def test_restore_goes_back_to_the_last_checkpoint(small, tmp_path, capsys):
    trainer = poisoned(with_policy(small, "restore", epochs=2), tmp_path / "run", {7})
    trainer.fit()
    assert "the weights are those of" in capsys.readouterr().out
    assert trainer.rows[1]["train/left_out"] == 1
    first = poisoned(with_policy(small, "restore", epochs=2), tmp_path / "first", {1})
    with pytest.raises(FloatingPointError, match="there is no checkpoint to restore"):
        first.fit()


def test_weights_that_leave_the_numbers_are_not_saved(small, tmp_path):
    """A finite gradient may throw the weights out: the checkpoint of every step stays one to go on from."""
    config = small(epochs=1, checkpoint_every=1, optim=OptimConfig(lr=1e37, schedule="constant"))
    with pytest.raises(FloatingPointError):
        Trainer(config, tmp_path / "run", progress=False).fit()
    saved = list((tmp_path / "run" / "checkpoints").glob("*.pt"))
    for path in saved:
        for value in load_checkpoint(path)["model"].values() if path.stem != "nonfinite" else ():
            assert value.isfinite().all()


def test_a_gpu_waits_now_and_then(device):
    model = torch.nn.Linear(2, 1).to(device)
    health = Health(OptimConfig(check_every=3), model)
    health._at_once = False  # as on a GPU
    nan = torch.tensor(float("nan"), device=device)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert health.allows([nan])
    assert health.allows([nan * 0 + 1])
    with pytest.raises(FloatingPointError, match="within 3 steps"):
        health.allows([torch.ones((), device=device)])
    model.weight.grad.fill_(float("inf"))
    health.allows([torch.ones((), device=device)])
    with pytest.raises(FloatingPointError, match="within 1 steps"):
        health.settle()
    health.settle()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [200.0, 1e4])
@pytest.mark.parametrize("normalize", ["weights", "batch"])
def test_weights_that_all_vanish(dtype, alpha, normalize, device):
    if dtype == torch.float64 and device == "cuda":
        pytest.skip("no float64 on CUDA")
    logits = torch.tensor([[9.0, 0, 0], [0, 9, 0]], dtype=dtype, device=device, requires_grad=True)
    target = torch.tensor([1, 2], device=device)
    loss, weights = ops.bat_loss(logits, target, alpha=alpha, normalize=normalize)
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert grad.isfinite().all()
    wanted = reference_of("bat_loss")(logits.detach(), target, alpha, normalize)
    torch.testing.assert_close(loss.detach(), wanted[0])
    torch.testing.assert_close(weights, wanted[1])
    if normalize == "weights" and alpha == 1e4:
        mean = torch.nn.functional.cross_entropy(logits, target)
        torch.testing.assert_close(loss, mean)
        torch.testing.assert_close(grad, torch.autograd.grad(mean, logits)[0])


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("count", [1, 5])
def test_a_batch_of_one_class(name, count):
    model = models.create("small_cnn", num_classes=10, in_channels=1, image_size=8).train()
    method = methods.create(name, **({"over": "trades"} if name == "te" else {}))
    method.prepare(10, 10, "cpu")
    for _ in range(2):  # one helper, or two
        method.consult(model)
    batch = Batch(torch.rand(count, 1, 8, 8), torch.full((count,), 3), torch.arange(count))
    terms = method(model, batch, batch.x, 0)
    terms.total.backward()
    assert terms.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("world_size", [1, 3])
def test_no_sample_is_alone(world_size):
    for count in range(world_size, 40):
        size = 4 * world_size
        parts = [shares(torch.arange(count), size, rank, world_size, 2) for rank in range(world_size)]
        assert {len(batches) for batches in parts} == {count_steps(count, size, world_size, 2)}
        assert torch.cat([part for batches in parts for part in batches]).sort().values.tolist() == list(
            range(count)
        )
        sizes = [len(part) for batches in parts for part in batches]
        assert max(sizes) <= 6
        assert min(sizes) > 1 or count < 2 * world_size


def test_a_training_loader_leaves_no_sample_alone():
    source = data.load("digits", seed=0).train
    source = source.part(torch.arange(13))
    train = data.create_loader(source, 4, shuffle=True, seed=0)
    assert [len(batch.y) for batch in train] == [4, 4, 5]
    assert len(train) == 3
    assert [len(b.y) for b in data.create_loader(source, 4, shuffle=False, seed=0)] == [4, 4, 4, 1]
    assert len(data.create_loader(source, 1, shuffle=True, seed=0)) == 13


@pytest.mark.parametrize("value", [-torch.inf, torch.nan, 1.0])
def test_processes_with_the_same_weights_may_have_any_values(value):
    """A mask of attention may be infinite, and a NaN is not what a drift between processes is."""
    model = torch.nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([0.0, value]))
    others = SimpleNamespace(size=2, objects=lambda own: [own, own])
    check_same_weights(others, model)
    drifted = SimpleNamespace(size=2, objects=lambda own: [own, [own[0] * 1.01, *own[1:]]])
    with pytest.raises(RuntimeError, match="weight of the model is another on rank 1"):
        check_same_weights(drifted, model)
