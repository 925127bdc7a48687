"""AOTInductor, which makes a library of an exported program: it takes those with smooth activations too."""

import os

import pytest
import torch
from torch import nn

from bat_fast.export.plain import plain
from bat_fast.export.program import exported
from bat_fast.models.activation import SmoothReLU


@pytest.mark.slow
@pytest.mark.skipif(
    "BAT_FAST_FAULTS" not in os.environ, reason="half a minute of a compiler: make test-faults"
)
def test_a_smooth_network_compiled_ahead_of_time(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), SmoothReLU(), nn.Linear(4, 3)).eval()
    program = exported(plain(model), torch.rand(2, 1, 4, 4))
    file = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    compiled = torch._inductor.aoti_load_package(file)
    for count in (1, 2, 7):
        x = torch.randn(count, 1, 4, 4)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-6)
