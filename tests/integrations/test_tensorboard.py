import pytest

from bat_fast.runs.folder import RunFolder
from bat_fast.train import Trainer

pytest.importorskip("tensorboard", reason="pip install tensorboard")


@pytest.mark.slow
def test_every_metric_of_every_epoch(small, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from bat_fast.integrations.tensorboard import TensorBoard

    observers = [TensorBoard(tmp_path / "events"), TensorBoard()]
    Trainer(small(epochs=2), tmp_path / "run", progress=False, observers=observers).fit()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    rows = RunFolder(tmp_path / "run").rows()
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert set(events.Tags()["scalars"]) == set(rows[0]) - {"epoch"}
    for name in ("train/loss", "val/clean_acc"):
        seen = [(event.step, event.value) for event in events.Scalars(name)]
        assert seen == [(row["epoch"], pytest.approx(row[name])) for row in rows]
