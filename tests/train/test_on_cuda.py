"""Training on a GPU: as on a CPU, alike with every engine, and beside what else a run does there."""

import copy
from dataclasses import replace

import pytest
import torch

from bat_fast import PGD, Batch, models
from bat_fast.attacks import report_labels, untouched
from bat_fast.attacks.engine.freeze import freezer_of
from bat_fast.attacks.engine.program import Program
from bat_fast.config import AttackConfig, DataConfig, EvalConfig, OptimConfig, Ratio, TrainConfig
from bat_fast.data import Shape
from bat_fast.train import Observer, Trainer, build
from bat_fast.train.meter import EpochMeter

pytestmark = pytest.mark.cuda

CONFIG = TrainConfig(
    epochs=4,
    batch_size=250,  # the last batch of an epoch of digits is smaller
    device="cuda",
    method={"name": "bat"},
    attack=AttackConfig(eps=Ratio("0.15"), steps=5),
    optim=OptimConfig(lr=0.1, schedule="cyclic"),
    eval=EvalConfig(val_steps=5, test_steps=5),
)


@pytest.mark.parametrize("method", ["bat", "trades", "mart", "te"])
def test_losses_follow_those_on_a_cpu(method):
    config = replace(CONFIG, method={"name": method}, optim=OptimConfig(lr=0.02))
    shape = Shape(10, 1, 8)
    x, y = torch.rand(64, 1, 8, 8), torch.randint(0, 10, (64,))
    model = build.parts(config, shape, "cpu", mean=(0.5,), std=(0.5,)).model
    losses = {}
    for device in ("cpu", "cuda"):
        twin = copy.deepcopy(model).to(device).train()
        step = build.parts(config, shape, device, samples=64, model=twin).step
        batch = Batch(x.to(device), y.to(device), torch.arange(64, device=device))
        meter = EpochMeter(device)
        losses[device] = torch.stack([step(batch, epoch, meter).total.cpu() for epoch in range(20)])
    assert losses["cpu"][-1] < losses["cpu"][0]
    # Signs of gradients near zero differ, and so do the images: the losses do by less than a hundredth.
    torch.testing.assert_close(losses["cuda"], losses["cpu"], rtol=0.03, atol=0.01)


@pytest.mark.parametrize("loader", ["resident", "torch"])
@pytest.mark.parametrize("precision", [None, "bf16"])
def test_a_run_ends_alike_with_every_engine(loader, precision, tmp_path):
    """Through a warm-up of the radius, a smaller last batch, validation, threads that load and pin."""
    found = {}
    for engine in ("eager", "frozen", "graph"):
        attack = replace(CONFIG.attack, engine=engine, precision=precision, warmup=0.5)
        config = replace(CONFIG, attack=attack, data=DataConfig(name="digits", loader=loader, workers=2))
        found[engine] = Trainer(config, tmp_path / engine, progress=False).fit()["metrics"]
    for engine in ("frozen", "graph"):
        for name in ("test/clean_acc", "test/pgd5_acc"):
            assert abs(found[engine][name] - found["eager"][name]) < 0.06, (engine, found)
    assert found["eager"]["test/clean_acc"] > 0.8


class Ends(Observer):
    """Ends a run after its first epoch."""

    def epoch(self, row):
        raise InterruptedError(f"after epoch {row['epoch']}")


def test_a_run_goes_on_where_it_stopped(tmp_path):
    config = replace(CONFIG, epochs=2)
    whole = Trainer(config, tmp_path / "whole", progress=False).fit()["metrics"]
    with pytest.raises(InterruptedError):
        Trainer(config, tmp_path / "halves", progress=False, observers=[Ends()]).fit()
    resumed = Trainer(config, tmp_path / "halves", resume=True, progress=False)
    assert resumed.epoch == 1
    ended = resumed.fit()["metrics"]
    for name in ("test/clean_acc", "test/pgd5_acc"):
        assert abs(ended[name] - whole[name]) < 0.06


@pytest.mark.parametrize("name", ["preactresnet18", "wrn_10_1", "timm:resnet18", "small_cnn"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_program_is_one(name, dtype):
    """A model that could not be taken apart would run in autograd, with one warning and right results."""
    model = models.create(name, num_classes=10).cuda().eval()
    x = torch.rand(4, 3, 32, 32, device="cuda")
    with torch.no_grad(), untouched(model, "eval"):
        program = freezer_of(model).program(model, x, dtype)
    assert isinstance(program, Program)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("channels", "size"), [(8, 16), (64, 64), (512, 4)])
def test_the_relu_of_cudnn_reads_no_memory_that_nobody_wrote(channels, size, dtype):
    """It is given its result as a second summand, times zero: that of NaN would be NaN."""
    last, shape = torch.channels_last, (8, channels, size, size)
    x = torch.randn(shape, device="cuda").to(dtype, memory_format=last)
    weight = torch.randn(channels, channels, 3, 3, device="cuda").to(dtype, memory_format=last)
    bias, window = torch.randn(channels, device="cuda").to(dtype), ([1, 1], [1, 1], [1, 1], 1)
    expected = torch.conv2d(x.double(), weight.double(), bias.double(), *window).relu()
    for _ in range(2):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        poison = torch.full(shape, torch.nan, dtype=dtype, device="cuda")
        address = poison.data_ptr()
        del poison
        y = torch.ops.aten.cudnn_convolution_relu(x, weight, bias, *window)
        assert y.data_ptr() == address
        error = (y.double() - expected).norm() / expected.norm()
        assert error < (1e-4 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("engine", ["eager", "frozen", "graph"])
def test_a_stream_of_the_caller(engine):
    model = models.create("preactresnet18", num_classes=10).cuda().eval()
    x, y = torch.rand(8, 3, 16, 16, device="cuda"), torch.randint(0, 10, (8,), device="cuda")
    attack = PGD(model, steps=3, engine=engine)
    expected = attack(x, y, draw=0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # whoever does not wait for this stream reads zeros
        moved = torch.zeros_like(x).add_(x)
        there = attack(moved, y, draw=0)
    stream.synchronize()
    assert ((there - expected).abs() < 1e-3).float().mean() > 0.95


@pytest.mark.parametrize("engine", ["frozen", "graph"])
def test_a_wrong_label_is_reported(engine):
    model = models.create("small_cnn", num_classes=5).cuda().eval()
    x, y = torch.rand(4, 3, 8, 8, device="cuda"), torch.tensor([0, 1, 2, 3], device="cuda")
    attack = PGD(model, steps=2, engine=engine)

    def climb(labels):
        attack(x, labels, draw=0)
        torch.cuda.synchronize()
        report_labels(torch.device("cuda"))

    climb(y)
    with pytest.raises((RuntimeError, ValueError), match="7"):
        climb(torch.full_like(y, 7))
    climb(y)
