"""Every number has a range; units are guarded; parts of the run are fractions or epochs."""

import dataclasses
import re

import pytest
import torch

from bat_fast.cli.catalogue import types
from bat_fast.config import AttackConfig, OptimConfig, Ratio, TrainConfig
from bat_fast.config.limits import LIMITS, allowed, check, check_images, in_fractions, problems
from bat_fast.train.schedule import learning_rate


def changed(name: str, value: object) -> TrainConfig:
    """The default settings but for one."""
    tree: object = value
    for part in reversed(name.split(".")[1:]):
        tree = {part: tree}
    first = name.partition(".")[0]
    if not isinstance(tree, dict):
        return TrainConfig(**{first: tree})
    return TrainConfig(**{first: merged(getattr(TrainConfig(), first), tree)})


def merged(part, tree):
    inner = {
        key: merged(getattr(part, key), value) if isinstance(value, dict) else value
        for key, value in tree.items()
    }
    return dataclasses.replace(part, **inner)


def test_every_number_has_a_range():
    def is_number(hint):
        return any(kind.__name__ in str(hint) or hint is kind for kind in (int, float, Ratio))

    assert {name for name, hint in types().items() if is_number(hint)} == set(LIMITS)
    for name in LIMITS:
        assert allowed(name)
    assert allowed("data.name") == ""


def test_the_defaults_are_in_their_ranges():
    assert list(problems(TrainConfig())) == []


@pytest.mark.parametrize("name", LIMITS)
def test_nothing_is_minus_one_or_nan(name):
    with pytest.raises(ValueError, match=re.escape(name)):
        check(changed(name, -1))
    if "int" not in str(types()[name]):
        with pytest.raises(ValueError, match=re.escape(name)):
            check(changed(name, "nan"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optim.milestones", [75, 120], "or epochs up to 110, got 120"),
        ("optim.warmup", 111, "or epochs up to 110, got 111"),
        ("optim.gamma", 0, r"in \(0, 1\], got 0"),
        ("optim.momentum", 5, r"in \[0, 1\), got 5"),
        ("optim.momentum", 1, r"in \[0, 1\), got 1"),
        ("optim.lr", "inf", "> 0, got inf"),
        ("optim.label_smoothing", 1, r"in \[0, 1\), got 1"),
        ("optim.average_decay", 1, r"in \[0, 1\), got 1"),
        ("optim.micro_batches", 200, "at most batch_size = 128, got 200"),
        ("attack.eps", 8, r"in \[0, 1\] for linf, got 8; pixels are in \[0, 1\]: write 8/255"),
        ("attack.eps", 300, r"in \[0, 1\] for linf, got 300$"),
        ("attack.step_size", 2, "write 2/255"),
        ("attack.step_size", 0, "leave it out for a quarter of the radius"),
        ("eval.step_size", 2, "write 2/255"),
        ("attack.first_steps", 2, r"attack\.first_steps needs attack\.warmup"),
        ("attack.late_start", 0.5, r"attack\.late_start needs attack\.late_eps or late_steps"),
        ("attack.late_eps", "10/255", r"late_eps and late_steps need attack\.late_start"),
        ("optim.awp_below", 0, "> 0, got 0"),
        ("model.num_classes", 1, "at least 2, got 1"),
        ("data.extra.share", 1, r"in \(0, 1\), got 1"),
    ],
)
def test_what_is_out_of_range(name, value, message):
    with pytest.raises(ValueError, match=message):
        check(changed(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optim.milestones", [75, 90]),
        ("optim.milestones", [0.5, 75]),
        ("optim.warmup", 5),
        ("attack.warmup", 110),
        ("optim.awp_start", 1),
        ("attack.eps", 0),
        ("attack.eps", 1),
        ("attack.steps", 0),
        ("optim.weight_decay", 0),
        ("data.workers", None),
    ],
)
def test_what_is_in_range(name, value):
    check(changed(name, value))


def test_a_method_has_a_name():
    with pytest.raises(ValueError, match=r"method\.name is missing"):
        check(TrainConfig(method={"alpha": 1}))


def test_l2_has_a_range_of_its_own():
    check(TrainConfig(attack=AttackConfig(norm="l2", eps=3, step_size=2)))
    with pytest.raises(ValueError, match=r"in \[0, 32\] for l2, got 128; .*write 128/255"):
        check(TrainConfig(attack=AttackConfig(norm="l2", eps=128)))


def test_images_limit_the_augmentation():
    config = TrainConfig(data={"augment": {"pad": 4, "cutout": 8}})
    check_images(config, 8)
    with pytest.raises(ValueError, match=r"data\.augment\.cutout .* at most 7, .* 7x7, got 8"):
        check_images(config, 7)
    with pytest.raises(ValueError, match=r"data\.augment\.pad .* at most 3, .*got 4"):
        check_images(config, 4)


def test_epochs_and_fractions_are_one():
    epochs = {"milestones": (75, 90), "warmup": 5, "awp_start": 50, "average_start": 2}
    fractions = {"milestones": (75 / 110, 90 / 110), "warmup": 5 / 110}
    fractions |= {"awp_start": 50 / 110, "average_start": 2 / 110}
    written = TrainConfig(optim=OptimConfig(**epochs), attack=AttackConfig(warmup=11))
    read = in_fractions(written)
    assert read.optim == OptimConfig(**fractions)
    assert read.attack.warmup == 0.1
    assert written.optim.milestones == (75.0, 90.0)
    assert in_fractions(read) == read


@pytest.mark.parametrize("steps", [1, 7, 391])
def test_an_epoch_begins_with_its_first_step(steps):
    optim = in_fractions(TrainConfig(optim=OptimConfig(lr=1.0, milestones=(75, 90)))).optim
    rates = torch.tensor([learning_rate(optim, step, 110 * steps) for step in range(110 * steps)])
    drops = (rates[1:] < rates[:-1]).nonzero().flatten() + 1
    assert drops.tolist() == [75 * steps, 90 * steps]
