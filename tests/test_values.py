"""What people write becomes the type of the setting, or is refused in one line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from bat_fast.config import AttackConfig, AugmentConfig, DataConfig, OptimConfig, Ratio, TrainConfig
from bat_fast.spelling import hint, meant, nearest
from bat_fast.values import Settings, converted, describe


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, "3", 3),
        (int, 3.0, 3),
        (int, "1e3", 1000),
        (int, np.int64(4), 4),
        (float, "1/4", 0.25),
        (float, "1e-3", 0.001),
        (float, 1, 1.0),
        (float, np.float32(0.5), 0.5),
        (bool, "Yes", True),
        (bool, "off", False),
        (str, Path("a/b"), "a/b"),
        (str, 12, "12"),
        (str | None, "null", None),
        (str | None, "x", "x"),
        (int | None, "None", None),
        (Ratio | None, "8/255", 8 / 255),
        (Literal["linf", "l2"], "L2", "l2"),
        (Literal["pgd_at", "bat"], "PGD-AT", "pgd_at"),
        (bool | Literal["gaussian"], "Gaussian", "gaussian"),
        (bool | Literal["gaussian"], "false", False),
        (tuple[float, ...], "0.5, 0.9", (0.5, 0.9)),
        (tuple[float, ...], "[1/4]", (0.25,)),
        (tuple[float, ...], [75, 90], (75.0, 90.0)),
        (tuple[float, ...], 0.5, (0.5,)),
        (dict[str, Any], {"a": 1}, {"a": 1}),
    ],
)
def test_conversion(hint, value, expected):
    found = converted("x", hint, value)
    assert found == expected
    assert type(found) in (type(expected), Ratio)


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, 3.5, r"x must be a whole number, got 3\.5"),
        (int, True, "x must be a whole number, got True"),
        (int, "inf", "x must be a whole number, got 'inf'"),
        (float, None, "x must be a number, got None"),
        (float, [1], r"x must be a number, got \[1\]"),
        (Ratio, "8/0", "x must be a number or a fraction such as 8/255, got '8/0'"),
        (bool, 1, "x must be true or false, got 1"),
        (str, None, "x must be text, got None"),
        (int | None, "many", "x must be a whole number or null, got 'many'"),
        (
            Literal["warn", "stop"] | None,
            "wran",
            r"x must be one of warn, stop, null, .*; did you mean warn\?",
        ),
        (tuple[float, ...], "a,b", r"x must be a list of numbers such as \[0\.5, 0\.75\], got 'a,b'"),
        (dict[str, Any], "a", "x must be names with values"),
    ],
)
def test_what_does_not_fit_is_one_line(hint, value, message):
    with pytest.raises(ValueError, match=message) as error:
        converted("x", hint, value)
    assert "\n" not in str(error.value)


def test_from_python():
    config = TrainConfig(
        epochs="3", method="trades", data="cifar10", attack={"eps": "8/255"}, optim=OptimConfig(lr="1/2")
    )
    assert config.epochs == 3
    assert config.method == {"name": "trades"}
    assert config.data == DataConfig(name="cifar10")
    assert config.attack.eps == 8 / 255
    assert config.attack.eps.text == "8/255"
    assert config.optim.lr == 0.5
    assert type(AttackConfig(eps=0.25).eps) is Ratio


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainConfig(epochs="three"), "epochs must be a whole number, got 'three'"),
        (lambda: AttackConfig(eps="8/x"), r"attack\.eps must be a number or a fraction such as 8/255"),
        (lambda: AugmentConfig(flip=3), r"data\.augment\.flip must be true or false, got 3"),
        (lambda: TrainConfig(optim={"momentumm": 1}), r"optim has no setting 'momentumm'.*mean momentum\?"),
        (lambda: TrainConfig(attack="pgd"), r"attack must be settings by name \(eps, .*\), got 'pgd'"),
    ],
)
def test_wrong_values_from_python(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_place_is_inherited():
    @dataclass(frozen=True)
    class Inner(Settings, place="here"):
        n: int = 0

    @dataclass(frozen=True)
    class Further(Inner):
        m: int = 0

    with pytest.raises(ValueError, match=r"here\.m must be"):
        Further(m="x")


def test_descriptions():
    assert describe(int) == "a whole number"
    assert describe(bool | Literal["gaussian"]) == "one of true, false, gaussian"
    assert describe(Literal["a"]) == "a"
    assert describe(float | None) == "a number or null"


def test_spelling():
    assert meant("Tiny-ImageNet", ["tiny_imagenet", "imagenet"]) == "tiny_imagenet"
    assert meant("nfgsm", ["n_fgsm", "fgsm_rs"]) == "n_fgsm"
    assert meant("a-b", ["a_b", "ab"]) is None  # either could be meant
    assert meant("a_b", ["a_b", "ab"]) == "a_b"
    assert meant("imagenette", ["imagenet"]) is None
    assert nearest("trian", ["train", "eval"]) == "train"
    assert hint("trian", ["train"]) == "; did you mean train?"
    assert hint("quite else", ["train"]) == ""
