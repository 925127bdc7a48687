"""The guard around a model: what it sets inside, and that it leaves no trace, alone and in another guard."""

import itertools
from contextlib import suppress

import pytest
import torch
from torch import nn

from bat_fast import PGD
from bat_fast.attacks import frozen, kept_buffers, untouched


def network() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(4 * 36, 5),
    )  # fmt: skip
    model[1].eval()
    model[0].bias.requires_grad_(False)
    return model


def state(model):
    return (
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [b.clone() for b in model.buffers()],
    )


def same(a, b):
    return a[:2] == b[:2] and all(torch.equal(x, y) for x, y in zip(a[2], b[2], strict=True))


def check_held(model, bn_mode, found):
    """What a guard promises inside, given the modes that it found."""
    assert not any(p.requires_grad for p in model.parameters())
    as_found = bn_mode == "train" and found[0]
    expected = found if as_found else [bn_mode == "train"] * len(found)
    assert [m.training for m in model.modules()] == expected


@pytest.fixture
def walks(monkeypatch):
    """How often the modules of a model were walked over."""
    counts = []
    walk = nn.Module.modules

    def counted(self):
        counts.append(self)
        return walk(self)

    monkeypatch.setattr(nn.Module, "modules", counted)
    return counts


MODES = ("eval", "train")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("modes", list(itertools.product(MODES, MODES, MODES)), ids="-".join)
def test_guards_in_each_other(modes, training):
    model = network()
    model = model if training else model.eval()
    x, before = torch.rand(6, 1, 8, 8), state(model)

    def descend(modes):
        if not modes:
            return
        found = state(model)
        with untouched(model, modes[0]):
            check_held(model, modes[0], found[0])
            model(x)
            descend(modes[1:])
            check_held(model, modes[0], found[0])
        assert same(state(model), found)

    descend(modes)
    assert same(state(model), before)


@pytest.mark.parametrize("bn_mode", MODES)
def test_the_inner_guards_do_not_walk_again(bn_mode, walks):
    model = network()
    with untouched(model, bn_mode):
        for inner in (bn_mode, bn_mode):
            with untouched(model, inner):
                pass
    assert walks == [model]
    with untouched(model, bn_mode):
        pass
    assert walks == [model, model]  # what was found is forgotten with the outermost guard


def test_other_models_are_walked_over(walks):
    model = network()
    wrapper = nn.Sequential(model)
    with untouched(model, "eval"), untouched(wrapper, "eval"), untouched(model[2], "train"):
        assert model[2].training
        assert not model.training
    assert walks == [model, wrapper, model[2]]
    assert model.training


@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", MODES)
def test_an_error_leaves_no_trace(outer, inner, walks):
    model = network()
    before = state(model)
    with suppress(RuntimeError), untouched(model, outer):
        inside = state(model)
        with suppress(RuntimeError), untouched(model, inner):
            model(torch.rand(6, 1, 8, 8))
            raise RuntimeError
        assert state(model)[:2] == inside[:2]
        with untouched(model, "eval"):
            assert not any(m.training for m in model.children())
        raise RuntimeError
    assert same(state(model), before)
    walks.clear()
    model[3] = nn.Sequential(nn.Dropout(0.5))  # a walk of before would miss it
    with untouched(model, "eval"):
        assert not model[3][0].training
    assert walks == [model]
    assert model[3][0].training


def test_an_error_while_the_modes_are_set_leaves_no_trace():
    class Stubborn(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            if not mode:
                raise RuntimeError("I will not")
            return self

    model = Stubborn(*network())
    before = state(model)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="I will not"), untouched(model, "eval"):
            pass
        assert same(state(model), before)


def test_what_was_changed_inside_is_seen_by_the_next_guard():
    model = network()
    before = state(model)
    with untouched(model, "eval"):
        model[2].train()
        model[5].weight.requires_grad_(True)
        with untouched(model, "eval"):
            check_held(model, "eval", before[0])
        assert model[2].training
        assert model[5].weight.requires_grad
    assert state(model)[0] == before[0]


def test_an_attack_inside_does_what_it_does_outside(walks):
    model, x, y = network(), torch.rand(6, 1, 8, 8), torch.arange(6) % 5
    # From eval mode the whole model would be put in train mode, its frozen parts too.
    for bn_mode, held in (("eval", "eval"), ("eval", "train"), ("train", "train")):
        attack = PGD(model, steps=2, bn_mode=bn_mode, engine="eager")
        torch.manual_seed(0)
        expected = attack(x, y, draw=1)
        walks.clear()
        with untouched(model, held):
            torch.manual_seed(0)
            assert torch.equal(attack(x, y, draw=1), expected)
        assert walks == [model]


def test_buffers_are_kept():
    model = network()
    before = state(model)
    with suppress(RuntimeError), kept_buffers(model):
        model(torch.rand(6, 1, 8, 8))
        raise RuntimeError
    assert same(state(model), before)


def test_the_first_name_still_works():
    assert frozen is untouched
