"""Training a model that is given in Python, and one that begins with weights of somebody."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from bat_fast import data, models
from bat_fast.cli import main
from bat_fast.config import AttackConfig, EvalConfig, ModelConfig, OptimConfig, TrainConfig
from bat_fast.evaluate import load_run
from bat_fast.ratio import Ratio
from bat_fast.runs.weights import put_weights, read_weights
from bat_fast.train import Observer, Trainer, build

SHAPE = data.Shape(10, 1, 8)
CONFIG = TrainConfig(
    epochs=2,
    batch_size=256,
    device="cpu",
    attack=AttackConfig(eps=Ratio("0.1"), steps=1),
    optim=OptimConfig(lr=0.05),
    eval=EvalConfig(val_steps=1, test_steps=1),
)


class Net(nn.Module):
    """As people write them: it normalises itself, and knows nothing of this project."""

    def __init__(self, classes=10, width=8):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, width, 3, stride=2), nn.BatchNorm2d(width)
        self.tail = nn.Sequential(nn.Dropout(0.1), nn.Linear(width * 9, classes))

    def forward(self, x):
        return self.tail(torch.relu(self.norm(self.conv((x - 0.5) / 0.25))).flatten(1))


@pytest.mark.slow
def test_its_own_weights_are_trained_and_it_works_as_before(tmp_path):
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trainer = Trainer(CONFIG, tmp_path / "run", progress=False, model=net)
    results = trainer.fit()
    assert 0 <= results["metrics"]["test/clean_acc"] <= 1
    assert not torch.equal(net.conv.weight, before["conv.weight"])
    x = torch.rand(5, 1, 8, 8)
    model, saved = load_run(tmp_path / "run", model=Net())
    assert saved["arch"] == results["config"]["model"]["name"] == "given:Net"
    torch.testing.assert_close(model(x), net.eval()(x))
    with pytest.raises(ValueError, match=r"given in Python, Net: .*load_run\(path, model=\.\.\.\)"):
        load_run(tmp_path / "run")
    assert main(["eval", str(tmp_path / "run")]) == 2


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    class KilledError(Exception):
        pass

    class Kill(Observer):
        def epoch(self, row):
            raise KilledError(row)

    for name in ("whole", "part"):
        torch.manual_seed(0)
        net = Net()
        if name == "part":
            with pytest.raises(KilledError):
                Trainer(CONFIG, tmp_path / name, progress=False, model=net, observers=[Kill()]).fit()
            net = Net()  # of another process, with weights that do not matter
        Trainer(CONFIG, tmp_path / name, progress=False, model=net, resume=True).fit()
    whole, part = (read_weights(tmp_path / name) for name in ("whole", "part"))
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_a_classifier_stays_what_it_is_and_too_few_logits_are_refused():
    model = models.create("small_cnn", num_classes=10, in_channels=1)
    assert build.parts(CONFIG, SHAPE, model=model).model is model
    with pytest.raises(ValueError, match="model has 4 logits for 10 classes"):
        build.parts(CONFIG, SHAPE, model=models.create("small_cnn", num_classes=4, in_channels=1))
    with pytest.raises(ValueError, match=r"Net gives \[2, 3\] for 2 images of 10 classes"):
        build.parts(CONFIG, SHAPE, model=Net(3))
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
        build.parts(CONFIG, SHAPE, model=lambda x: x)


@pytest.mark.parametrize("container", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod.model."])
def test_weights_of_others_are_found_under_their_names(prefix, container, tmp_path):
    there = Net()
    weights = {prefix + name: value for name, value in there.state_dict().items()}
    torch.save(weights if container is None else {"epoch": 3, container: weights}, tmp_path / "w.pt")
    model = models.wrap(Net(), models.Spec(num_classes=10, in_channels=1, image_size=8))
    assert put_weights(model, read_weights(tmp_path / "w.pt"), "w.pt") == []
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(model.eval()(x), there.eval()(x))


def test_a_number_beside_the_weights_and_an_average_are_no_weights(tmp_path):
    there = Net()
    average = torch.optim.swa_utils.AveragedModel(there)
    average.update_parameters(there)
    torch.save({"state_dict": there.state_dict(), "best_acc1": torch.tensor(71.0)}, tmp_path / "a.pt")
    torch.save(average.state_dict(), tmp_path / "b.pt")
    other = {name: value + 1 for name, value in there.state_dict().items()}
    ours = {"model": other, "average": average.state_dict(), "rng": {}, "epoch": 3}
    torch.save(ours, tmp_path / "c.pt")  # a run validates and saves its average
    for name in "abc":
        model = models.wrap(Net(), models.Spec(num_classes=10, in_channels=1, image_size=8))
        put_weights(model, read_weights(tmp_path / f"{name}.pt"), name)
        x = torch.rand(3, 1, 8, 8)
        torch.testing.assert_close(model.eval()(x), there.eval()(x), msg=name)


def test_a_new_number_of_classes_has_a_new_head_and_nothing_else(tmp_path):
    there = models.create("small_cnn", num_classes=4, in_channels=1, mean=(0.3,), std=(0.2,))
    torch.save(there.state_dict(), tmp_path / "w.pt")
    config = TrainConfig(model=ModelConfig(init=str(tmp_path / "w.pt")), device="cpu")
    model = build.parts(config, SHAPE, mean=(0.5,), std=(0.5,)).model
    own, old = model.state_dict(), there.state_dict()
    other = {
        name for name in own if own[name].shape != old[name].shape or not torch.equal(own[name], old[name])
    }
    assert other == {"head.weight", "head.bias"}
    assert float(model.normalize.mean) == pytest.approx(0.3)
    with pytest.raises(ValueError, match=r"do not fit the model; of another size: head\.weight \[4, "):
        put_weights(model, read_weights(tmp_path / "w.pt"), "w.pt")


def test_what_does_not_fit_is_named():
    model = models.wrap(Net(), models.Spec(num_classes=10, in_channels=1, image_size=8))
    weights = Net().state_dict()
    weights["extra.bias"] = weights.pop("conv.bias")
    message = (
        r"^the weights of a\.pt do not fit the model; missing: net\.conv\.bias; unexpected: net\.extra\.bias$"
    )
    with pytest.raises(ValueError, match=message):
        put_weights(model, weights, "a.pt", new_head=True)


class Evil:
    def __reduce__(self):
        return print, ("was run",)


def test_a_file_runs_no_code_and_damage_is_one_line(tmp_path, capsys):
    torch.save({"state_dict": Net().state_dict(), "args": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="because that would run code"):
        read_weights(tmp_path / "evil.pt")
    assert "was run" not in capsys.readouterr().out
    torch.save(Net().state_dict(), tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:-300])
    for name, content in (("empty.pt", b""), ("text.pt", b"hello"), ("cut.pt", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_weights(tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(ValueError, match=r"none\.pt holds no weights"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(FileNotFoundError, match="holds no weights: expected a run folder"):
        read_weights(tmp_path / "absent")


@pytest.mark.slow
def test_published_weights_come_from_the_cache_of_timm(tmp_path):
    program = """
import pathlib, sys, timm, torch
from safetensors.torch import save_file
torch.manual_seed(3)
net = timm.create_model("resnet18")
place = pathlib.Path(sys.argv[1], "models--timm--resnet18.a1_in1k")
(place / "refs").mkdir(parents=True); (place / "refs" / "main").write_text("abc")
(place / "snapshots" / "abc").mkdir(parents=True)
save_file(net.state_dict(), place / "snapshots" / "abc" / "model.safetensors")
from bat_fast import models
made = models.create("timm:resnet18", num_classes=7, pretrained=True, mean=(.5,) * 3, std=(.5,) * 3)
same = [torch.equal(made.net.state_dict()[name], value) for name, value in net.state_dict().items()
        if not name.startswith("fc.")]
print(all(same), made.normalize.mean.flatten().tolist())
try:
    models.create("timm:resnet34", num_classes=7, pretrained=True)
except OSError as error:
    print(error)
"""
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    first, second = run.stdout.splitlines()
    assert first.startswith("True [0.485"), run.stdout
    assert second.startswith("model.pretrained: the weights of timm:resnet34 are not in the cache of timm")


def test_published_weights_of_what_was_never_published():
    with pytest.raises(ValueError, match=r"^model\.pretrained: there are no published weights of small_cnn"):
        models.create("small_cnn", num_classes=10, pretrained=True)
