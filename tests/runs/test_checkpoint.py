import pytest
import torch
from safetensors import safe_open

from bat_fast.runs.checkpoint import load_checkpoint, save_checkpoint
from bat_fast.runs.model_file import save_model

STATE = {"epoch": 3, "best": None, "model": {"w": torch.arange(5000.0)}, "config": {"eps": "8/255"}}


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "a.pt", STATE)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert torch.equal(loaded.pop("model")["w"], STATE["model"]["w"])
    assert loaded == {key: value for key, value in STATE.items() if key != "model"}


@pytest.mark.parametrize("kept", [0, 1, 10, 1000, -1000, -100, -1])
def test_truncated_file_is_one_clear_error(tmp_path, kept):
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"a\.pt is not a complete checkpoint") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_garbage_and_foreign_files(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"not a checkpoint at all")
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        load_checkpoint(tmp_path / "a.pt")
    torch.save([1, 2], tmp_path / "b.pt")
    with pytest.raises(ValueError, match="not a checkpoint of bat_fast"):
        load_checkpoint(tmp_path / "b.pt")
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")


def test_no_code_is_run_from_a_checkpoint(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("code ran",))

    torch.save({"epoch": Evil()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


def test_export_holds_buffers_and_metadata(tmp_path):
    model = torch.nn.BatchNorm2d(3)
    save_model(tmp_path / "m.safetensors", model, {"model": "x"})
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert file.metadata().items() > {"model": "x"}.items()
        assert file.metadata().keys() == {"model", "sha256"}
        assert set(file.keys()) == set(model.state_dict())
