"""Files that older code wrote still load, and a run that it began goes on.

``stored/`` was written at revision 13e966d: a run on the digits, interrupted after three of five steps
of its first epoch, and the model of the same run without the interruption.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from bat_fast.cli.settings import read_command
from bat_fast.evaluate import load_run
from bat_fast.evaluate.saved import evaluate_saved
from bat_fast.train import Trainer

STORED = Path(__file__).parent / "stored"


def test_a_model_of_older_code_is_evaluated():
    model, saved = load_run(STORED / "finished.safetensors")
    assert saved["arch"] == "small_cnn"
    assert saved["eps"].text == "1/10"
    assert not model.training
    metrics = evaluate_saved(STORED / "finished.safetensors", steps=3, device="cpu")["metrics"]
    assert abs(metrics["test/clean_acc"] - 0.6295) < 0.01  # what that code found
    assert abs(metrics["test/pgd3_acc"] - 0.4318) < 0.01


def test_a_run_of_older_code_goes_on(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(STORED, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    command = read_command(["--resume", "--out", str(folder)])
    trainer = Trainer(command.config, command.out, resume=True, progress=False)
    assert trainer.loader.position == 0  # it moves to the third batch when the epoch goes on
    trainer.fit()
    assert trainer.epoch == 2
    ours, theirs = load_file(folder / "model.safetensors"), load_file(STORED / "finished.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():  # the same up to rounding, which another processor does otherwise
        torch.testing.assert_close(tensor, theirs[name], rtol=0.02, atol=0.02, msg=name)
