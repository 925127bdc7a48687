"""What is asked for and would do nothing is refused; what an ablation switches off is not."""

import pytest
import yaml

from bat_fast.cli.catalogue import types
from bat_fast.cli.settings import read_command
from bat_fast.config import TrainConfig
from bat_fast.config.idle import NEEDS
from bat_fast.runs.plain import flat, plain

# A value that differs from the default, and the setting that makes it idle.
CASES = {
    "data.augment.padding": ("reflect", "data.augment.pad", 0),
    "data.extra.share": (0.5, "data.extra.path", None),
    "data.label_noise.kind": ("nearest", "data.label_noise.rate", 0),
    "data.label_noise.seed": (3, "data.label_noise.rate", 0),
    "optim.beta2": (0.95, "optim.name", "sgd"),
    "optim.decay": ("weights", "optim.weight_decay", 0),
    "optim.peak": (0.5, "optim.schedule", "cosine"),
    "optim.milestones": ([0.6], "optim.schedule", "cosine"),
    "optim.gamma": (0.2, "optim.schedule", "linear"),
    "optim.awp_start": (0.5, "optim.awp", 0),
    "optim.awp_steps": (2, "optim.awp", 0),
    "optim.awp_norm": ("model", "optim.awp", 0),
    "optim.awp_below": (1.5, "optim.awp", 0),
    "optim.average_decay": (0.9, "optim.average", "swa"),
    "optim.average_start": (0.5, "optim.average", "none"),
    "eval.val_steps": (7, "eval.attack", "pgd20"),
    "eval.test_steps": (7, "eval.test_attack", "pgd50x10-any"),
}


def given(*arguments):
    return read_command([*map(str, arguments), "--out", "unused"]).config


def with_settings(settings):
    tree = {}
    for name, value in settings.items():
        *groups, last = name.split(".")
        inner = tree
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return tree


@pytest.mark.parametrize("name", NEEDS)
def test_what_would_do_nothing_is_refused(name, tmp_path):
    value, needed, current = CASES[name]
    assert (needed, name in types()) == (NEEDS[name][0], True)
    stored = plain(TrainConfig())
    assert flat(stored).get(name) != value
    off, asked = {needed: current}, {name: value}
    if needed == "optim.schedule" and current == "linear":
        off |= {"optim.factors": [1, 0]}
    files = {}
    for kind, settings in {"off": off, "both": off | asked, "asked": asked}.items():
        files[kind] = tmp_path / f"{kind}.yaml"
        files[kind].write_text(yaml.safe_dump(with_settings(settings)))
    message = rf"^{name} does nothing where {needed} is .*(, or leave {name} out|leave one of them out)$"
    with pytest.raises(ValueError, match=message):
        given("--config", files["off"], f"--{name}", value)
    if flat(stored).get(needed) == current:  # nobody has said so
        with pytest.raises(ValueError, match=rf"asked\.yaml: {name} does nothing where {needed}"):
            given("--config", files["asked"])
    for words in (["--config", files["both"]], ["--config", files["asked"], "--config", files["off"]]):
        given(*words)


def test_what_a_recipe_has_is_switched_off_by_one_setting(tmp_path):
    config = given("--recipe", "cifar10-mlcat-wp-published", "--optim.awp", 0)
    assert (config.optim.awp, config.optim.awp_steps) == (0, 10)
    again = tmp_path / "config.yaml"
    again.write_text(yaml.safe_dump(plain(config)))
    assert given("--config", again) == config  # so the run goes on
    assert given("--recipe", "cifar10-trades-awp-ema", "--optim.average", "none").optim.average == "none"
    assert given("--recipe", "digits-bat", "--optim.schedule", "constant").optim.schedule == "constant"
    assert given("--optim.awp", 0, "--optim.awp_start", 0.5).optim.awp == 0  # one of several radii
    with pytest.raises(ValueError, match=r"optim\.gamma does nothing where optim\.schedule"):
        given("--optim.schedule", "cosine", "--optim.gamma", 0.2)
