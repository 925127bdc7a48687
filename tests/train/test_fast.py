"""``speed: fast``, the switches of a GPU, and that what is measured is what trains."""

from dataclasses import replace

import pytest
import torch
import yaml

from bat_fast.cli.settings import read_command
from bat_fast.config import AttackConfig, CudaConfig, DataConfig, OptimConfig, TrainConfig, settled
from bat_fast.device import layout
from bat_fast.measure.workload import RandomWorkload
from bat_fast.train import Trainer, build
from bat_fast.train.learner import Autocast
from bat_fast.train.step import TrainStep
from bat_fast.train.validation import eval_attack

SYNTHETIC = DataConfig(name="synthetic", options={"size": 8, "classes": 4, "count": 200})


@pytest.fixture(autouse=True)
def same_backends():
    """Gives the switches of torch back as they were."""
    b = torch.backends
    before = switches()
    yield
    b.cudnn.allow_tf32, b.cuda.matmul.allow_tf32, b.cudnn.benchmark = before


def switches():
    b = torch.backends
    return b.cudnn.allow_tf32, b.cuda.matmul.allow_tf32, b.cudnn.benchmark


def test_fast_fills_in_what_is_none_and_nothing_else():
    config = TrainConfig()
    assert settled(config) is config
    fast = settled(replace(config, speed="fast"))
    assert (fast.attack.precision, fast.optim.precision) == ("bf16", "bf16")
    assert fast.cuda == CudaConfig(tf32=True, benchmark=True)
    asked = replace(
        config,
        speed="fast",
        attack=AttackConfig(precision="fp32"),
        optim=OptimConfig(precision="fp32"),
        cuda=CudaConfig(tf32=False, benchmark=False),
    )
    assert settled(asked) == asked
    assert settled(fast) == fast


@pytest.mark.parametrize("words", [["--fast"], ["--speed", "fast"]])
def test_the_command_line_and_a_file_ask_for_it(words, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("speed: fast\nattack: {precision: fp16}\n")
    config = read_command(["--recipe", "digits-bat", *words]).config
    assert config.speed == "fast"
    assert settled(config).attack.precision == "bf16"
    assert settled(read_command(["--config", str(file)]).config).attack.precision == "fp16"
    assert settled(read_command([*words, "--attack.precision", "fp32"]).config).attack.precision == "fp32"


def test_the_run_folder_says_what_ran(small, tmp_path):
    fast = replace(small(epochs=1), speed="fast", cuda=CudaConfig(tf32=False))
    trainer = Trainer(fast, tmp_path / "run", progress=False)
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["attack"]["precision"] == stored["optim"]["precision"] == "bf16"
    assert stored["cuda"] == {"tf32": False, "benchmark": True}
    assert switches() == (False, False, True)
    assert isinstance(trainer.step._learner, Autocast)


def test_published_leaves_the_switches_of_torch(small, tmp_path):
    before = switches()
    Trainer(small(epochs=1), tmp_path / "run", progress=False)
    assert switches() == before


def test_validation_computes_as_training_does_and_the_test_in_float32(small):
    config = replace(small(), attack=AttackConfig(precision="bf16", engine="eager"))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    val, test = (eval_attack(config, model, "pgd2", split) for split in ("val", "test"))
    assert (val.precision, val.engine) == ("bf16", "eager")
    assert (test.precision, test.engine) == (None, "eager")


def test_layouts():
    assert layout("cpu") is torch.contiguous_format
    assert layout("cuda:1") is torch.channels_last


@pytest.mark.parametrize("speed", ["published", "fast"])
def test_what_is_measured_is_what_trains(speed, monkeypatch, tmp_path):
    """As on a GPU: layouts, precisions, engine and switches of the step that each of the two calls."""
    for module in ("train.build", "data.loaders.base", "measure.workload"):
        monkeypatch.setattr(f"bat_fast.{module}.layout", lambda _: torch.channels_last)
    attack = AttackConfig(steps=1, engine="frozen")
    config = TrainConfig(epochs=1, batch_size=16, device="cpu", speed=speed, data=SYNTHETIC, attack=attack)
    seen = []

    def watch(self, batch, *_, **__):
        last = torch.channels_last
        seen.append(
            {
                "model": [
                    p.is_contiguous(memory_format=last) for p in self.model.parameters() if p.dim() == 4
                ],
                "training": self.model.training,
                "images": (batch.x.is_contiguous(memory_format=last), batch.x.is_contiguous(), batch.x.dtype),
                "attack": (self.attack.engine, self.attack.precision, self.attack.bn_mode, self.attack.steps),
                "learner": type(self._learner),
                "switches": switches(),
            }
        )
        raise InterruptedError

    monkeypatch.setattr(TrainStep, "__call__", watch)
    trainer = Trainer(config, tmp_path / "run", progress=False)
    with pytest.raises(InterruptedError):
        trainer.fit()
    workload = RandomWorkload(config, trainer.feed.shape)
    step = workload.step(workload.config, workload.model(), workload.batch(16))
    with pytest.raises(InterruptedError):
        step()
    trained, measured = seen
    assert trained == measured
    assert all(trained["model"])
    assert trained["images"] == (True, False, torch.float32)
    assert trained["attack"][1] == (None if speed == "published" else "bf16")
    assert build.layout is not layout
