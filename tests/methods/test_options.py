"""Methods by name, and their options."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

from bat_fast import methods
from bat_fast.methods import Method, create, names
from bat_fast.methods.bat import Bat
from bat_fast.methods.pgd_at import PgdAt

NAMES = [
    *("bat", "fgsm_rs", "free", "gairat", "gkl", "hat", "holistic", "kd_swa", "mail", "mart", "mlcat"),
    *("n_fgsm", "pgd_at", "rebat", "score", "standard", "te", "trades"),
]


def test_names():
    assert names() == NAMES
    for name in names():
        assert isinstance(create(name), Method)


def test_defaults():
    assert create("bat") == Bat(
        alpha=1.0,
        beta=0.2,
        temperature=0.1,
        normalize="weights",
        denominator="all",
        weighted=False,
        warmup=0,
    )


def test_text_and_integers_become_the_annotated_types():
    method = create("bat", alpha="2", beta="1/4", temperature=1, weighted="true", warmup="5")
    assert method == Bat(alpha=2.0, beta=0.25, temperature=1.0, weighted=True, warmup=5)
    assert [
        type(getattr(method, name)) for name in ("alpha", "beta", "temperature", "weighted", "warmup")
    ] == [
        float,
        float,
        float,
        bool,
        int,
    ]


@pytest.mark.parametrize("name", ["bats", "base", "options", "outcome", ""])
def test_an_unknown_method_lists_what_exists(name):
    with pytest.raises(ValueError, match=f"there is no method '{name}'; there are {', '.join(NAMES)}"):
        create(name)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "bat",
            {"alhpa": 1},
            r"method bat has no option 'alhpa'; it has alpha, beta, .*; did you mean alpha\?",
        ),
        ("pgd_at", {"alpha": 1}, "method pgd_at has no option 'alpha'; it has none"),
        ("bat", {"alpha": -1}, r"bat\.alpha must be a finite number >= 0, got -1"),
        ("bat", {"alpha": "nan"}, r"bat\.alpha must be a finite number"),
        ("bat", {"alpha": "inf"}, r"bat\.alpha must be a finite number"),
        ("bat", {"alpha": "much"}, r"bat\.alpha must be a number, got 'much'"),
        ("bat", {"alpha": None}, r"bat\.alpha must be a number, got None"),
        ("bat", {"alpha": True}, r"bat\.alpha must be a number, got True"),
        ("bat", {"beta": -0.1}, r"bat\.beta must be a finite number >= 0"),
        ("bat", {"temperature": 0}, r"bat\.temperature must be a finite number > 0, got 0"),
        ("bat", {"warmup": 1.5}, r"bat\.warmup must be a whole number, got 1\.5"),
        ("bat", {"warmup": -1}, r"bat\.warmup must be a finite number >= 0"),
        ("bat", {"weighted": "perhaps"}, r"bat\.weighted must be true or false, got 'perhaps'"),
        ("trades", {"beta": -1}, r"trades\.beta must be a finite number >= 0"),
        ("mart", {"beta": "nan"}, r"mart\.beta must be a finite number >= 0"),
        ("holistic", {"form": "hx"}, r"holistic\.form must be one of hd, hr, got 'hx'"),
        ("holistic", {"r": -1}, r"holistic\.r must be a finite number >= 0"),
        ("fgsm_rs", {"step": 0}, r"fgsm_rs\.step must be a finite number > 0"),
        ("n_fgsm", {"k": -1}, r"n_fgsm\.k must be a finite number >= 0"),
        ("free", {"replays": 0}, r"free\.replays must be a finite number >= 1"),
        ("te", {"momentum": 1}, r"te\.momentum must be below 1"),
        ("te", {"start": 5, "end": 5}, r"te\.end must be after te\.start = 5, got 5"),
        ("te", {"over": "nothing"}, "there is no method 'nothing'"),
        ("te", {"over": "te"}, r"te\.over: te keeps a state"),
        ("te", {"over": "free"}, r"te\.over: free keeps a state or attacks on its own"),
        ("te", {"over": "bat", "options": {"alhpa": 1}}, "method bat has no option 'alhpa'"),
        ("bat", {"holistic": "hx"}, r"bat\.holistic must be one of none, hd, hr"),
        ("bat", {"normalize": "sum"}, r"bat\.normalize must be one of weights, batch, got 'sum'"),
        ("bat", {"denominator": "none"}, r"bat\.denominator must be one of all, negatives"),
    ],
)
def test_wrong_options(method, options, message):
    with pytest.raises(ValueError, match=message):
        create(method, **options)


def test_wrong_values_are_found_without_the_registry_too():
    with pytest.raises(ValueError, match=r"bat\.temperature"):
        Bat(temperature=-1.0)
    with pytest.raises(ValueError, match=r"bat\.normalize"):
        Bat(normalize="sum")


@dataclass(frozen=True)
class Third(PgdAt):
    """A method of another package."""

    gamma: float = 1.0


def _entry_points(monkeypatch, name):
    point = EntryPoint(name, f"{__name__}:Third", "bat_fast.methods")
    monkeypatch.setattr(EntryPoint, "load", lambda _: Third)
    monkeypatch.setattr(methods, "entry_points", lambda group: [point] if group == point.group else [])


def test_a_method_of_another_package(monkeypatch):
    _entry_points(monkeypatch, "third")
    assert names() == [*NAMES, "third"]
    assert create("third", gamma="1/2") == Third(gamma=0.5)
    with pytest.raises(ValueError, match="method third has no option 'gama'; it has gamma"):
        create("third", gama=1)


def test_two_methods_of_one_name(monkeypatch):
    _entry_points(monkeypatch, "bat")
    with pytest.raises(ValueError, match=r"method bat exists in bat_fast and in .*Third"):
        create("bat")
