"""Models for other programs: what is written is read back there, and answers as before."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from bat_fast import models, ops
from bat_fast.cli import main
from bat_fast.config import ModelConfig
from bat_fast.export import export_run
from bat_fast.export.onnx_file import runtime
from bat_fast.export.plain import plain
from bat_fast.export.program import exported
from bat_fast.export.proof import prove
from bat_fast.train import Trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory, small):
    out = tmp_path_factory.mktemp("runs") / "run"
    config = small(epochs=1, model=ModelConfig(name="small_cnn", activation="smooth_relu"))
    Trainer(config, out, progress=False).fit()
    return out


@pytest.fixture(scope="module")
def run_of_timm(tmp_path_factory, small):
    out = tmp_path_factory.mktemp("runs") / "run"
    config = small(epochs=1, model=ModelConfig(name="timm:test_resnet.r160_in1k"))
    Trainer(config, out, progress=False).fit()
    return out


class Calls(nn.Module):
    """Calls operators of this package as functions, so that no layer of it could be swapped."""

    def __init__(self, last=None):
        super().__init__()
        self.beta, self.body, self.last = (
            nn.Parameter(torch.tensor(3.0)),
            nn.Linear(64, 3),
            last or nn.Identity(),
        )

    def forward(self, x):
        z = self.body(ops.smooth_relu(x.flatten(1) - 0.5, self.beta))
        return self.last(ops.softplus(z, sharpness=4.0))


class Turned(nn.Module):
    def forward(self, z):
        return torch.ops.bat_fast.bat_loss(z, z.argmax(1), 1.0, "batch")[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_stands_for_our_operators(dtype):
    smooth_relu, softplus = models.decompositions().values()
    x, wide = torch.randn(4, 50).to(dtype), torch.float64 if dtype == torch.float64 else torch.float32
    near = {"rtol": 1e-5, "atol": 1e-6} if dtype != torch.bfloat16 else {"rtol": 1e-2, "atol": 1e-6}
    for beta in torch.tensor([1.0, 20.0, 1e30]).to(wide):
        torch.testing.assert_close(smooth_relu(x, beta), ops.smooth_relu(x, beta), **near)
    assert smooth_relu(x, torch.zeros((), dtype=wide)).abs().max() < 1e-3
    for sharpness in (0.5, 10.0, 1e4):
        mine = softplus(x, sharpness)
        torch.testing.assert_close(mine, ops.softplus(x, sharpness=sharpness), **near)
        assert mine.dtype == dtype


@pytest.mark.slow
def test_a_model_that_calls_our_operators():
    model, x = Calls(), torch.rand(4, 1, 8, 8)
    program = exported(plain(model), x)
    torch.testing.assert_close(program.module()(x[:3]), model(x[:3]), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"calls bat_fast\.bat_loss\.default, which needs bat_fast"):
        exported(plain(Calls(Turned())), x)


@pytest.mark.slow
def test_a_program_of_torch(run, capsys):
    assert main(["export", str(run), "--to", "torch"]) == 0
    out = capsys.readouterr().out
    assert "the same class on 256 test images and 256 attacked ones" in out
    program = torch.export.load(run / "export-torch" / "model.pt2")
    assert not [node for node in program.graph.nodes if "bat_fast" in str(node.target)]
    assert program.module()(torch.rand(7, 1, 8, 8)).shape == (7, 10)


@pytest.mark.slow
def test_what_robustbench_loads(run, tmp_path, capsys):
    results = tmp_path / "aa.json"
    attack = {"norm": "linf", "eps": 0.1}
    found = {"metrics": {"test/clean_acc": 0.9, "test/aa_acc": 0.512}, "attack": attack, "n_examples": 359}
    results.write_text(json.dumps(found))
    words = ["export", str(run), "--to", "robustbench", "--name", "Some2026Title", "--out", str(tmp_path)]
    assert main([*words, "--results", str(results)]) == 0
    capsys.readouterr()
    name = "some2026title_digits_linf"
    assert timm.is_model(name)
    weights = tmp_path / f"{name}.safetensors"
    assert not [key for key in load_file(weights) if "model." in key or "module." in key]
    model = timm.create_model(name, num_classes=10, pretrained=True, checkpoint_path=str(weights)).eval()
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    claim = json.loads((tmp_path / "Some2026Title.json").read_text())
    assert (claim["clean_acc"], claim["autoattack_acc"], claim["eps"]) == ("90.00", "51.20", "1/10")
    results.write_text(json.dumps(found | {"n_examples": 100}))
    assert main([*words, "--results", str(results)]) == 2
    assert "is of 100 images, not of all 359" in capsys.readouterr().err
    assert main(["export", str(run), "--to", "torch", "--out", str(run)]) == 2
    assert "holds the model itself" in capsys.readouterr().err
    results.write_text(json.dumps({"metrics": {"test/clean_acc": 0.9}}))
    assert main([*words, "--results", str(results)]) == 2
    assert "has no test/aa_acc" in capsys.readouterr().err


@pytest.mark.slow
def test_weights_for_timm(run_of_timm):
    files, proof = export_run(run_of_timm, "timm")
    assert [file.name for file in files] == ["model.safetensors", "load.py"]
    assert "bat_fast" not in files[1].read_text()
    assert proof.images == 256
    assert max(proof.clean, proof.adversarial) < 1e-4


@pytest.mark.slow
def test_onnx(run, tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    assert main(["export", str(run), "--to", "onnx", "--out", str(tmp_path)]) == 0
    assert "the same class" in capsys.readouterr().out
    model = onnx.load(tmp_path / "model.onnx")
    assert {node.domain for node in model.graph.node} == {""}
    assert {entry.key: entry.value for entry in model.metadata_props}["eps"] == "1/10"


@pytest.mark.slow
def test_onnx_of_a_model_that_is_no_run(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    model, x = Calls().eval(), torch.rand(2, 1, 8, 8)
    batch = {"x": {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(model, (x,), dynamic_shapes=batch)  # as docs/evaluation.md has it
    program = program.run_decompositions(models.decompositions())
    names = {"input_names": ["x"], "output_names": ["logits"]}
    torch.onnx.export(program, dynamo=True, verbose=False, **names).save(str(tmp_path / "model.onnx"))
    again = torch.rand(5, 1, 8, 8)
    found = runtime(tmp_path / "model.onnx")(again)
    torch.testing.assert_close(found, model(again).detach(), rtol=1e-5, atol=1e-6)


def test_onnx_without_its_packages_is_one_line(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bat_fast.export.onnx_file.find_spec", lambda _: None)
    assert main(["export", str(run), "--to", "onnx", "--out", str(tmp_path)]) == 2
    assert "pip install onnx onnxscript onnxruntime" in capsys.readouterr().err


def test_a_model_that_answers_otherwise_is_no_export():
    x = {"clean": torch.rand(3, 1, 8, 8), "adversarial": torch.rand(3, 1, 8, 8)}
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    assert prove(model, model, x).clean == 0
    with pytest.raises(RuntimeError, match="3 of 3 clean images another class"):
        prove(model, lambda images: -model(images), x)


def test_errors(run, capsys):
    for words, text in (
        (["--to", "timm"], "is no model of timm's"),
        (["--to", "torchh"], "did you mean torch?"),
        (["--to", "torch", "--name", "x"], "only --to robustbench"),
        ([], "--to"),
    ):
        assert main(["export", str(run), *words]) == 2
        assert text in capsys.readouterr().err
