"""What attacks are told in Python: names of other libraries, text, radii of other units."""

import pytest
import torch

import bat_fast
from bat_fast.attacks import APGD, FAB, FGSM, PGD, Attack, AutoAttack, Square
from bat_fast.attacks.options import options_of

KINDS = [PGD, FGSM, APGD, FAB, Square, AutoAttack]


def model(x):
    return x.flatten(1)[:, :4]


@pytest.mark.parametrize("kind", KINDS)
def test_radius_norm_and_text(kind):
    for name in (kind.__name__, "Batch"):
        assert name in bat_fast.__all__
    assert getattr(bat_fast, kind.__name__) is kind
    attack = kind(model, eps="8/255", norm="Linf")
    assert (attack.eps, attack.norm) == (8 / 255, "linf")
    assert kind(model, eps=3, norm="L2").norm == "l2"
    assert kind(model, 8, hi=255).eps == 8
    for bad, text in (
        ({"eps": 8}, r"eps must be in \[0, 1\] for linf, got 8.0; pixels are in \[0, 1\]: write 8/255"),
        ({"eps": 128, "norm": "l2"}, r"eps must be in \[0, 32\] for l2, .*write 128/255"),
        ({"eps": 300, "hi": 255}, r"eps must be in \[0, 255\] for linf, got 300.0$"),
        ({"eps": -0.1}, r"eps must be in \[0, 1\]"),
        ({"eps": float("nan")}, r"eps must be in \[0, 1\]"),
        ({"eps": "8/x"}, "eps must be a number or a fraction such as 8/255, got '8/x'"),
        ({"norm": "l7"}, "norm must be one of 'linf', 'l2', got 'l7'"),
    ):
        with pytest.raises(ValueError, match=text):
            kind(model, **bad)
    with pytest.raises(TypeError, match="eps must be a number or a fraction"):
        kind(model, eps=None)


@pytest.mark.parametrize(
    ("kind", "option", "text"),
    [
        (PGD, "alpha", "PGD takes no 'alpha'; write step_size (it takes eps, step_size, steps"),
        (PGD, "epsilon", "PGD takes no 'epsilon'; write eps"),
        (FGSM, "steps", "FGSM takes no 'steps' (it takes eps, norm"),
        (FGSM, "alpha", "FGSM takes no 'alpha'"),
        (APGD, "alpha", "APGD takes no 'alpha'; it chooses its steps by itself"),
        (APGD, "eot_iter", "write eot"),
        (FAB, "loss", "FAB takes no 'loss' (it takes eps, targets, steps"),
        (Square, "steps", "Square takes no 'steps'; write queries"),
        (Square, "n_queries", "write queries"),
        (AutoAttack, "verbose", "AutoAttack takes no 'verbose' (it takes eps, version"),
        (AutoAttack, "modus", "did you mean mode?"),
    ],
)
def test_an_unknown_option_is_named_with_those_there_are(kind, option, text):
    with pytest.raises(TypeError) as caught:
        kind(model, **{option: 1})
    assert text in str(caught.value)
    assert option not in options_of(kind)


def test_steps_and_losses():
    assert PGD(model, 0.1, "2/255").step_size == 2 / 255
    assert PGD(model, torch.tensor([0.1, 0.2])).eps == pytest.approx(0.2)
    for bad, text in (
        ({"step_size": 9}, "step_size must be in .*write 9/255"),
        ({"eps": torch.tensor([0.1, 8.0])}, "eps must be in .*write 8/255"),
        ({"loss": "dlrr"}, "loss must be one of 'ce', .*got 'dlrr'"),
    ):
        with pytest.raises(ValueError, match=text):
            PGD(model, **bad)


class Own(Attack):
    """Takes an option for itself."""

    def __init__(self, model, eps=0.1, **options):
        self.own = options.pop("own", 1)
        super().__init__(model, eps, **options)

    def run(self, adv, problem):
        pass


def test_an_attack_of_somebody_else_takes_what_it_likes():
    assert Own(model, own=2).own == 2
    with pytest.raises(TypeError, match="Own takes no 'stepsize'; did you mean step_size"):
        Own(model, stepsize=0.1)


def test_what_is_wrong_elsewhere_is_not_blamed_on_an_option():
    class Own(PGD):
        def __init__(self, model, eps, **options):
            options.pop("own")
            super().__init__(model, eps, **options)

    with pytest.raises(TypeError, match="eps must be a number"):
        Own(model, None, own=2)
    with pytest.raises(TypeError, match="Own takes no 'steeps'; did you mean steps"):
        Own(model, 0.1, own=2, steeps=3)
