"""What is orthogonal to the method: curriculum, targets, clean starts, averages, the order of things."""

import dataclasses

import pytest
import torch
import yaml

from bat_fast import AttackLoss
from bat_fast.attacks import PGD, random_targets
from bat_fast.config import AttackConfig, OptimConfig, Ratio, TrainConfig
from bat_fast.methods import create
from bat_fast.runs.checkpoint import load_checkpoint
from bat_fast.train import Trainer
from bat_fast.train.build import build_attack


def trainer(small, tmp_path, **changes):
    return Trainer(small(**changes), tmp_path / "run", progress=False)


def rows(run):
    return [{k: v for k, v in row.items() if "perf/" not in k} for row in run.folder.rows()]


def test_curriculum(small, tmp_path):
    attack = AttackConfig(eps=Ratio("0.2"), steps=9, warmup=0.5, first_steps=1)
    step = trainer(small, tmp_path, attack=attack).step
    for progress, ramp, steps in ((0.0, 0.0, 1), (0.25, 0.5, 5), (0.5, 1.0, 9), (0.9, 1.0, 9)):
        step.set_progress(progress)
        assert step.attack.eps == pytest.approx(0.2 * ramp)
        assert step.attack.step_size == pytest.approx(0.05 * ramp)
        assert step.attack.steps == steps


def test_a_late_attack_is_another_one(small, tmp_path):
    late = {"late_start": 2, "late_eps": Ratio("0.3"), "late_steps": 4}
    attack = AttackConfig(eps=Ratio("0.2"), steps=2, **late)
    step = trainer(small, tmp_path, epochs=4, attack=attack).step
    for epoch, eps, steps in ((0, 0.2, 2), (1, 0.2, 2), (2, 0.3, 4), (3, 0.3, 4), (0, 0.2, 2)):
        step.set_progress(epoch / 4)
        assert (step.attack.eps, step.attack.step_size, step.attack.steps) == (eps, 0.05, steps)


def test_the_curriculum_needs_a_length(small, tmp_path):
    with pytest.raises(ValueError, match=r"attack\.first_steps needs attack\.warmup"):
        trainer(small, tmp_path, attack=AttackConfig(first_steps=1))


def test_random_targets_are_other_classes_and_belong_to_the_sample():
    y, index = torch.randint(0, 5, (4000,)), torch.randperm(4000)
    targets = random_targets(y, index, 5, seed=1, draw=2)
    assert not (targets == y).any()
    share = ((targets - y) % 5).bincount(minlength=5) / 4000
    assert (share[1:] - 0.25).abs().max() < 0.05
    order = torch.randperm(4000)
    assert torch.equal(random_targets(y[order], index[order], 5, seed=1, draw=2), targets[order])
    assert not torch.equal(random_targets(y, index, 5, seed=1, draw=3), targets)
    with pytest.raises(ValueError, match=r"attack\.targets: 1 class"):
        random_targets(y, index, 1)


@pytest.mark.slow
def test_targets_and_clean_starts_reach_the_attack(small, tmp_path, monkeypatch):
    attack = AttackConfig(eps=Ratio("0.1"), steps=1, targets="random", clean_start=0.5)
    run = trainer(small, tmp_path, method={"name": "pgd_at"}, epochs=4, attack=attack)
    seen = []
    call = PGD.__call__

    def watch(self, x, y, targets=None, index=None, **options):
        if options.get("objective") is not None:  # not the evaluation
            seen.append((targets is not None and bool((targets != y).all()), self.random_start))
        return call(self, x, y, targets, index, **options)

    monkeypatch.setattr(PGD, "__call__", watch)
    run.fit()
    assert all(targeted for targeted, _ in seen)
    starts = [start for _, start in seen]
    assert 0.2 < sum(starts) / len(starts) < 0.8
    assert run.step.attack.random_start is True


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_averages(small, tmp_path, average):
    optim = OptimConfig(lr=0.05, average=average, average_decay=0.9, average_start=0.4)
    run = trainer(small, tmp_path, epochs=3, optim=optim, batch_size=512)
    weight = next(run.model.parameters())
    path, expected, update = [], None, run.parts.optimizer.step

    def step(*args, **kwargs):
        update(*args, **kwargs)
        path.append(weight.detach().clone())

    run.parts.optimizer.step = step
    run.fit()
    used = path[6:]  # three steps an epoch; 0.4 of 3 epochs is before the third
    assert len(used) == 3
    expected = used[0]
    for count, value in enumerate(used[1:], 1):
        share = 0.1 if average == "ema" else 1 / (count + 1)
        expected = expected + share * (value - expected)
    state = load_checkpoint(run.folder.last)
    name = next(key for key, value in run.model.state_dict().items() if value.shape == weight.shape)
    assert torch.allclose(state["average"][f"module.{name}"], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_an_averaged_run_resumes_bit_for_bit(small, tmp_path):
    changes = {"epochs": 3, "optim": OptimConfig(lr=0.05, average="ema", awp=0.005, clip=1.0)}
    whole = Trainer(small(**changes), tmp_path / "whole", progress=False)
    whole.fit()
    cut = Trainer(small(**changes), tmp_path / "cut", progress=False)
    save = cut._save

    def stop(row):
        save(row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    cut._save = stop
    with pytest.raises(KeyboardInterrupt):
        cut.fit()
    again = Trainer(small(**changes), tmp_path / "cut", resume=True, progress=False)
    again.fit()
    assert rows(again) == rows(whole)
    assert (again.folder.model).read_bytes() == whole.folder.model.read_bytes()


@pytest.mark.slow
def test_awp_leaves_running_statistics_to_the_one_pass_that_trains(small, tmp_path):
    counts = []
    for gamma in (0.0, 0.01):
        optim = OptimConfig(awp=gamma)
        run = trainer(small, tmp_path / str(gamma), epochs=1, optim=optim, method={"name": "pgd_at"})
        run.fit()
        counts.append(int(run.model.body[1].num_batches_tracked))
    assert counts[0] == counts[1] == len(run.loader)


def test_a_method_sees_the_model_as_the_attack_does(small, tmp_path):
    run = trainer(small, tmp_path, epochs=1)
    seen = []

    def look(model, *_):
        seen.append((model.training, torch.is_grad_enabled(), next(model.parameters()).requires_grad))
        return AttackLoss("ce")

    object.__setattr__(run.method, "attack_loss", look)
    run.fit()
    assert set(seen) == {(False, False, False)}


def test_a_method_sets_options_of_the_attack(small):
    config = small(attack=AttackConfig(eps=Ratio("0.1"), steps=7))
    model = torch.nn.Flatten()
    expected = {
        "pgd_at": {"steps": 7, "step_size": 0.025, "project": True},
        "fgsm_rs": {"steps": 1, "step_size": 0.125, "project": True, "start_scale": 1.0},
        "n_fgsm": {"steps": 1, "step_size": 0.1, "project": False, "start_scale": 2.0},
        "free": {"steps": 1, "step_size": 0.1, "project": True},
    }
    for name, options in expected.items():
        attack = build_attack(config, create(name), model)
        assert {key: getattr(attack, key) for key in options} == pytest.approx(options), name


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("optim", {"clip": 0.0}, r"optim\.clip must be > 0"),
        ("optim", {"awp": -1.0}, r"optim\.awp must be in \[0, 1\], got -1"),
        ("optim", {"label_smoothing": 1.5}, r"optim\.label_smoothing must be in \[0, 1\)"),
        ("optim", {"average_start": -0.1}, r"optim\.average_start must be a fraction of the run in \[0, 1\]"),
        ("attack", {"warmup": 200}, r"attack\.warmup must be a fraction of the run in \[0, 1\], or epochs"),
        ("attack", {"clean_start": -1.0}, r"attack\.clean_start must be in \[0, 1\]"),
    ],
)
def test_settings_out_of_range(small, tmp_path, part, changes, message):
    config = small()
    with pytest.raises(ValueError, match=message):
        trainer(small, tmp_path, **{part: dataclasses.replace(getattr(config, part), **changes)})
    assert not (tmp_path / "run").exists()


def test_smoothing_needs_the_logits(small, tmp_path):
    run = trainer(small, tmp_path, optim=OptimConfig(label_smoothing=0.1))
    inner = run.method

    class Silent:
        def attack_loss(self, *_):
            return None

        def __call__(self, *arguments):
            return inner(*arguments)._replace(logits=None)

    run.step.method = Silent()
    with pytest.raises(TypeError, match=r"optim\.label_smoothing: the method does not say"):
        run.fit()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs", "fractions"),
    [
        ({"milestones": (2, 3)}, {"milestones": (0.5, 0.75)}),
        ({"warmup": 2}, {"warmup": 0.5}),
        ({"awp": 0.01, "awp_start": 2}, {"awp": 0.01, "awp_start": 0.5}),
        ({"average": "ema", "average_start": 2}, {"average": "ema", "average_start": 0.5}),
    ],
    ids=["milestones", "warmup", "awp", "average"],
)
def test_epochs_train_what_fractions_train(small, tmp_path, epochs, fractions):
    weights = []
    for number, optim in enumerate((epochs, fractions)):
        out = tmp_path / str(number)
        run = trainer(small, out, epochs=4, optim=OptimConfig(lr=0.05, **optim))
        run.fit()
        assert TrainConfig(**yaml.safe_load(run.folder.config.read_text())).optim == run.config.optim
        assert run.config.optim == OptimConfig(lr=0.05, **optim)  # recorded as written
        weights.append(torch.cat([p.detach().flatten() for p in run.evaluated.parameters()]))
    assert torch.equal(*weights)


def test_the_warmup_of_the_attack_may_be_epochs(small, tmp_path):
    config = AttackConfig(eps=Ratio("0.1"), steps=4, warmup=2, first_steps=0)
    run = trainer(small, tmp_path, epochs=4, attack=config)
    steps = []
    for epoch in range(4):
        run.step.set_progress(epoch / 4)
        steps.append(run.step.attack.steps)
    assert steps == [0, 2, 4, 4]
