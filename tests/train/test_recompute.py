"""Activation checkpointing: the same bits with less memory, in the training pass alone."""

import dataclasses

import pytest
import torch
from torch import nn

from bat_fast import Batch, models
from bat_fast.attacks import PGD
from bat_fast.config import AttackConfig, ModelConfig, OptimConfig
from bat_fast.methods import create
from bat_fast.train import Trainer
from bat_fast.train.build import dry_run
from bat_fast.train.learner import Recompute
from bat_fast.train.meter import EpochMeter
from bat_fast.train.step import TrainStep

BLOCKS = {"preactresnet18": "blocks.3", "wrn_10_1": "blocks.1", "timm:resnet18": "net.layer2.0"}


def model_of(name):
    torch.manual_seed(1)
    return models.create(name, num_classes=4).train()


def train(model, method="bat", steps=2, **optim):
    """A few steps; returns the attacked images of the last one."""
    torch.manual_seed(2)
    # oneDNN leaves parts of the weight gradient of a bf16 convolution of 1x1 pixels with a stride unwritten.
    size = 32 if hasattr(model, "net") else 16
    attack = PGD(model, eps=0.05, steps=2, seed=7)
    sgd = torch.optim.SGD(model.parameters(), 0.05, 0.9)
    step = TrainStep(model, create(method), attack, sgd, AttackConfig(), OptimConfig(**optim))
    seen, climb = [], step._climb
    step._climb = lambda *arguments: seen.append(climb(*arguments)) or seen[-1]
    for _ in range(steps):
        x, y = torch.rand(6, 3, size, size), torch.randint(0, 4, (6,))
        step(Batch(x, y, torch.arange(6)), 0, EpochMeter("cpu"))
    return seen[-1] if seen else None


def check_same(one, two):
    assert one.state_dict().keys() == two.state_dict().keys()
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


HOW = (
    ("bat", {}),
    ("trades", {"precision": "bf16"}),
    ("pgd_at", {"awp": 0.05, "micro_batches": 2}),
    ("free", {"clip": 0.5}),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method", "optim"),
    [  # the large networks take seconds each: one case of them here
        pytest.param(name, *how, marks=[] if name == "wrn_10_1" or how is kept else pytest.mark.whole)
        for name, kept in zip(BLOCKS, HOW, strict=False)
        for how in HOW
    ],
    ids=str,
)
def test_weights_and_running_statistics_are_those_without(name, method, optim):
    """Also where a block draws random numbers."""
    ends, images, numbers = [], [], []
    for on in (False, True):
        model = model_of(name)
        model.get_submodule(BLOCKS[name]).register_module("extra", nn.Dropout(0.5))
        block = model.get_submodule(BLOCKS[name])
        forward, drop = type(block).forward, block.extra
        block.forward = lambda x, block=block, forward=forward, drop=drop: drop(forward(block, x))
        images.append(train(model, method, grad_checkpointing=on, **optim))
        ends.append(model)
        numbers.append(torch.get_rng_state())
    check_same(*ends)
    assert torch.equal(*numbers)
    if images[0] is not None:
        assert torch.equal(*images)


@pytest.mark.parametrize("engine", ["eager", "frozen"])
def test_blocks_run_again_in_the_training_pass_alone(engine):
    calls = {}
    for on in (False, True):
        model, counts = model_of("wrn_10_1"), {True: 0, False: 0}
        forward = type(model.blocks[0]).forward

        def watch(x, block=model.blocks[0], counts=counts, forward=forward):
            counts[block.training] += 1
            return forward(block, x)

        model.blocks[0].forward = watch
        attack = PGD(model, eps=0.05, steps=3, engine=engine)
        sgd = torch.optim.SGD(model.parameters(), 0.05)
        options = OptimConfig(grad_checkpointing=on)
        step = TrainStep(model, create("pgd_at"), attack, sgd, AttackConfig(), options)
        step(Batch(torch.rand(4, 3, 16, 16), torch.arange(4), torch.arange(4)), 0, EpochMeter("cpu"))
        calls[on] = counts
    assert (calls[False][True], calls[True][True]) == (1, 2)
    assert calls[False][False] == calls[True][False] > 0


@pytest.mark.parametrize("name", BLOCKS)
def test_less_is_kept_for_the_backward_pass(name):
    """Bytes that autograd saves, each storage once."""
    kept = []
    for wrap in (lambda model: model, Recompute):
        model, storages = model_of(name), {}

        def pack(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            wrap(model)(torch.rand(8, 3, 32, 32)).sum()
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        kept.append(sum(storages.values()) - weights)
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.slow
def test_the_saved_run_is_the_same_and_may_be_resumed_either_way(small, tmp_path):
    config = small(epochs=1, model=ModelConfig(name="wrn_10_1"))
    on = dataclasses.replace(config, optim=dataclasses.replace(config.optim, grad_checkpointing=True))
    files = []
    for name, settings in (("off", config), ("on", on)):
        run = Trainer(settings, tmp_path / name, progress=False)
        run.fit()
        files.append(run.folder.model.read_bytes())
    assert files[0] == files[1]
    Trainer(on, tmp_path / "off", resume=True, progress=False)


@pytest.mark.parametrize("name", ["small_cnn", "timm:vgg11"])
def test_models_without_blocks_say_so(small, tmp_path, name):
    config = small(model=ModelConfig(name=name), optim=OptimConfig(grad_checkpointing=True))
    message = r"optim\.grad_checkpointing: (SmallCNN|VGG) has no blocks .* use optim\.micro_batches"
    with pytest.raises(ValueError, match=message):
        dry_run(config)
    if name == "small_cnn":
        with pytest.raises(ValueError, match=message):
            Trainer(config, tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
