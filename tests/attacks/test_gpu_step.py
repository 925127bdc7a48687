"""Attacks as a GPU would run them, on fake CUDA tensors: operators, layout copies, reads on the host."""

import pytest
import torch
from torch import nn
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bat_fast import PGD, AttackLoss, models
from bat_fast.attacks import Attack, AutoAttack, by_name, untouched
from bat_fast.attacks.engine.program import Program
from bat_fast.attacks.engine.trace import trace
from bat_fast.attacks.problem import Problem
from bat_fast.models.preact_resnet import BasicBlock

aten = torch.ops.aten
# They launch nothing.
VIEWS = {"device", "detach", "view", "expand", "t", "as_strided", "empty", "new_empty"} | {
    "empty_like", "empty_strided", "slice", "promote_types"
}  # fmt: skip


READS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "item", "_unique2"}


class Launches(TorchDispatchMode):
    """Names of the kernels that operators start, and the layout copies.

    Convolutions follow the rules of cuDNN, which a torch without CUDA does not know: forward in channels_last
    if image or weight is; backward the gradient is first laid out like the image, then like the weight.
    """

    def __init__(self):
        super().__init__()
        self.names, self.copies, self.bytes = [], [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.partition("::")[2]
        if name == "cudnn_convolution_relu":  # nothing fakes it
            x, weight, _, stride, padding, dilation, groups = args
            window = (stride, padding, dilation, False, [0, 0], groups)
            result = aten.convolution.default(x, weight, None, *window)
            result = result.to(memory_format=self._either(*(suggest_memory_format(t) for t in (x, weight))))
        else:
            result = function(*args, **(kwargs or {}))
        if name == "convolution":
            image, weight = (suggest_memory_format(t) for t in args[:2])
            self._count_layouts(name, image, self._either(image, weight))
            result = result.to(memory_format=self._either(image, weight))
        elif name == "convolution_backward":
            grad, image, weight = (suggest_memory_format(t) for t in args[:3])
            self._count_layouts(name, grad, image)
            self._count_layouts(name, image, self._either(image, weight))
            result = (result[0].to(memory_format=self._either(image, weight)), *result[1:])
        elif name in ("_to_copy", "clone", "copy_", "contiguous"):
            source = args[1] if name == "copy_" else args[0]
            # Four dimensions larger than 1: any other tensor has both layouts.
            if source.dim() == 4 and min(source.shape) > 1 and 0 not in source.stride():
                self._count_layouts(name, suggest_memory_format(source), suggest_memory_format(result))
        if name not in VIEWS:
            self.names.append(name)
            self._count_bytes(function, name, args, result)
        if (name == "convolution" and args[2] is not None) or name == "constant_pad_nd":
            self.names.append(f"{name}: bias" if name == "convolution" else f"{name}: fill")
        return result

    def _count_bytes(self, function, name, args, result):
        """What is read and written, once each; of the input of a convolution's gradient the shape alone."""
        given = {i: t for i, t in enumerate(args) if isinstance(t, torch.Tensor)}
        if name == "convolution_backward":
            del given[1]
        changed = [a.alias_info is not None and a.alias_info.is_write for a in function._schema.arguments]
        made = [
            t for t in (result if isinstance(result, tuple) else (result,)) if isinstance(t, torch.Tensor)
        ]
        made = [t for t in made if not any(t is other for other in given.values())]
        written = [t for i, t in given.items() if changed[i]]
        self.bytes += sum(t.nbytes for t in [*given.values(), *made, *written])

    def _either(self, first, second):
        last = torch.channels_last
        return last if last in (first, second) else torch.contiguous_format

    def _count_layouts(self, name, before, after):
        if before != after:
            self.copies.append((len(self.names), name))


@pytest.fixture(autouse=True)
def with_cudnn(monkeypatch):
    """The fake GPU has cuDNN."""
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)


def step_on_fake_gpu(make, dtype, size):
    with FakeTensorMode():
        with torch.device("cuda"):
            model = make()
            x, y = torch.rand(4, 3, size, size), torch.zeros(4, dtype=torch.int64)
        attack = PGD(model, steps=1)
        objective = AttackLoss("ce")
        with torch.no_grad(), untouched(model, "eval"):
            program = Program(trace(model, x), model, x, dtype)
            program.refresh()
            adv = attack.start(x)
            with Launches() as launches:
                tensors = Problem(x, y, None, objective, None, 0).tensors
                attack.loop_for(objective)(program, adv=adv, **tensors)
    return launches


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "size", "most"), [("preactresnet18", 64, 82), ("wrn_28_10", 32, 109), ("timm:resnet50", 64, 221)]
)
def test_a_step_lays_nothing_out_anew(name, size, most, dtype):
    launches = step_on_fake_gpu(lambda: models.create(name, num_classes=10), dtype, size)
    convolutions = [i for i, name in enumerate(launches.names) if name.startswith("convolution")]
    first, last = convolutions[0], convolutions[-1]
    assert [copy for copy in launches.copies if first <= copy[0] <= last] == []
    assert len(launches.names) <= most, len(launches.names)


class Blocks(nn.Module):
    """So many residual blocks of 64 channels, between a stem and a head."""

    def __init__(self, count):
        super().__init__()
        blocks = [BasicBlock(64, 64, 1, nn.ReLU) for _ in range(count)]
        head = (nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
        self.layers = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1), *blocks, *head)

    def forward(self, x):
        return self.layers(x)


def test_a_residual_block_moves_eighteen_times_its_activation():
    """Forward and backward; by hand with torch.compile it would be 21 times, under autograd 32."""
    one, two = (step_on_fake_gpu(lambda n=n: Blocks(n), torch.bfloat16, 64).bytes for n in (1, 2))
    activation = 4 * 64 * 64 * 64 * 2
    bits, weights = activation / 16, 2 * 2 * 64 * 64 * 9 * 2
    assert two - one - weights - 2 * bits == pytest.approx(18 * activation, rel=1e-3)


class HostReads(TorchDispatchMode):
    """Raises where the host would wait for a value on the device, which no capture survives."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.partition("::")[2]
        result = function(*args, **(kwargs or {})) if name not in READS else None
        moved = name in ("_to_copy", "copy_") and (args[1] if name == "copy_" else args[0]).is_cuda
        if name in READS or (moved and not result.is_cuda):
            raise AssertionError(f"{name} reads on the host")
        self.calls += 1
        return result


@pytest.mark.parametrize(("name", "most"), [("preactresnet18", 167), ("timm:resnet18", 203)])
def test_the_weights_are_taken_over_without_a_read_on_the_host(name, most):
    """So that it is captured with the steps, and costs the host no launch at all."""
    with FakeTensorMode():
        with torch.device("cuda"):
            model, x = models.create(name, num_classes=10), torch.rand(4, 3, 32, 32)
        with torch.no_grad(), untouched(model, "eval"):
            program = Program(trace(model, x), model, x, torch.bfloat16)
            with HostReads(), Launches() as launches:
                program.refresh()
    assert 60 < len(launches.names) <= most, len(launches.names)


class EnoughError(Exception):
    """One loop has run; what an attack reads between its loops does not matter here."""


@pytest.mark.parametrize("name", [name for name, kind in by_name().items() if kind is not AutoAttack])
def test_no_attack_reads_on_the_host_in_its_loop(name, monkeypatch):
    """Every attack there is, called as a user calls it, with the loop on the frozen program.

    AutoAttack has no loop but those of the others.
    """
    calls = []

    def iterate(attack, loop, **tensors):
        x = tensors["adv"]
        program = Program(trace(attack.model, x), attack.model, x, None)
        program.refresh()
        with HostReads() as reads:
            loop(program, **tensors)
        calls.append(reads.calls)
        raise EnoughError

    monkeypatch.setattr(Attack, "iterate", iterate)
    with FakeTensorMode():
        with torch.device("cuda"):
            model = models.create("small_cnn", num_classes=10)
            x, y = torch.rand(4, 3, 16, 16), torch.zeros(4, dtype=torch.int64)
        attack = by_name()[name](model)
        if hasattr(attack, "steps"):
            attack.steps = min(attack.steps, 10)
        attack._range_seen = True  # the first batch alone is looked at
        with pytest.raises(EnoughError):
            attack(x, y)
    assert min(calls) > 20


@pytest.mark.parametrize("read", ["item", "cpu", "nonzero", "tolist", "__bool__"])
def test_a_read_on_the_host_would_be_found(read):
    with FakeTensorMode(), HostReads():
        value = torch.ones(1, device="cuda")
        with pytest.raises(AssertionError, match="reads on the host"):
            getattr(value, read)()


@pytest.mark.parametrize("name", ["preactresnet18", "timm:resnet18"])
def test_a_program_serves_fewer_images_than_it_was_built_for(name):
    """As it does where it is compared with its model; in float64, which takes the path of the GPU.

    cuDNN reads as many images of a gradient as the input has, also beyond its end.
    """
    model = models.create(name, num_classes=10).double().eval()
    x = torch.rand(12, 3, 16, 16).double()
    with torch.no_grad(), untouched(model, "eval"):
        program = Program(trace(model, x), model, x, None)
        program.refresh()
        few = x[:5].clone()
        grad = torch.randn(5, 10).double()
        found = program.forward(few), program.backward(grad)
    leaf = few.requires_grad_()
    logits = model(leaf)
    expected = logits.detach(), torch.autograd.grad(logits, leaf, grad)[0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_pixels_are_filled_up_to_the_channels_of_tensor_cores():
    """In float16, which no CPU packs: the same logits and gradient as of three channels."""
    parts = (nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))
    model = nn.Sequential(*parts).eval()
    x, grad = torch.rand(4, 3, 16, 16), torch.randn(4, 10)
    with torch.no_grad(), untouched(model, "eval"):
        half, whole = (Program(trace(model, x), model, x, dtype) for dtype in (torch.float16, None))
        for _ in range(2):
            found = []
            for program, dtype in ((half, torch.float16), (whole, torch.float32)):
                program.refresh()
                found.append((program.forward(x).float(), program.backward(grad.to(dtype)).float()))
            for ours, exact in zip(*found, strict=True):
                assert ours.shape == exact.shape
                assert (ours - exact).norm() < 0.05 * exact.norm()  # some ReLUs switch
            assert half.layers[0].conv._weight.shape == (16, 8, 3, 3)
            model[0].weight.mul_(-1.5)  # a refresh reaches the weights that are filled up
