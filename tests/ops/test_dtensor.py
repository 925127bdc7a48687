"""Tensors spread over devices are refused in a line that names the operator, and stay as they are."""

import pytest
import torch
import torch.distributed as dist

from bat_fast import ops


@pytest.fixture
def images():
    tensor = pytest.importorskip("torch.distributed.tensor")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = tensor.init_device_mesh("cpu", (1,))
        yield tensor.distribute_tensor(torch.rand(2, 3, 4, 4), mesh, [tensor.Replicate()])
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_a_dtensor_is_refused_and_its_local_part_is_taken(images):
    before = images.to_local().clone()
    rows, classes = images.flatten(1), images.flatten(1).argmax(1)
    for name, call in {
        "linf_step_": lambda: ops.linf_step_(images, images, images.clone(), step_size=0.1, eps=0.1),
        "l2_step_": lambda: ops.l2_step_(images, images, images.clone(), step_size=0.1, eps=0.1),
        "smooth_relu": lambda: ops.smooth_relu(images, torch.tensor(20.0)),
        "softplus": lambda: ops.softplus(images),
        "bat_loss": lambda: ops.bat_loss(rows, classes, alpha=1.0),
    }.items():
        with pytest.raises((NotImplementedError, RuntimeError), match=rf"bat_fast\.{name}\b") as error:
            call()
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(RuntimeError, match=r"bat_fast\.linf_step_.*mixed torch.Tensor and DTensor"):
        ops.linf_step_(images, torch.rand(2, 3, 4, 4), images, step_size=0.1, eps=0.1)
    assert torch.equal(images.to_local(), before)
    local = images.to_local()
    ops.linf_step_(local, torch.ones_like(local), before, step_size=0.1, eps=0.05)
    torch.testing.assert_close(images.to_local(), (before + 0.05).clamp(max=1))
