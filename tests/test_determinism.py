"""What docs/determinism.md says, as far as no other test shows it."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from bat_fast.device import set_backends
from bat_fast.train import Trainer

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_page_names_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/determinism.md").read_text())
    assert len(named) > 8
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


@pytest.fixture
def as_before():
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.whole), 2])
def test_a_run_repeats(threads, small, tmp_path):
    torch.set_num_threads(threads)
    config = dataclasses.replace(small(epochs=1), deterministic=True)
    ends = []
    for name in ("one", "two"):
        run = Trainer(config, tmp_path / name, progress=False)
        assert torch.are_deterministic_algorithms_enabled()
        run.fit()
        ends.append(run.folder.model.read_bytes())
    assert ends[0] == ends[1]


@pytest.mark.usefixtures("as_before")
def test_what_may_choose_another_kernel_is_refused():
    with pytest.raises(ValueError, match=r"deterministic does not go with cuda\.benchmark"):
        set_backends(None, True, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()
