"""One PGD step as a GPU would run it: operators and layout copies, counted on fake CUDA tensors."""

import pytest
import torch
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bat_fast import PGD, AttackLoss, models
from bat_fast.attacks import untouched
from bat_fast.attacks.attack import Problem
from bat_fast.attacks.engine.program import Program
from bat_fast.attacks.engine.trace import trace

aten = torch.ops.aten
# They launch nothing.
VIEWS = {"device", "detach", "view", "expand", "t", "as_strided", "empty", "new_empty", "empty_like"}


class Launches(TorchDispatchMode):
    """Names of the operators that start a kernel (a convolution adds its bias), and the layout copies.

    Convolutions follow the rules of cuDNN, which a torch without CUDA does not know: forward in channels_last
    if image or weight is; backward the gradient is first laid out like the image, then like the weight.
    """

    def __init__(self):
        super().__init__()
        self.names, self.copies = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function._schema.name.partition("::")[2]
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
        return result

    def _either(self, first, second):
        last = torch.channels_last
        return last if last in (first, second) else torch.contiguous_format

    def _count_layouts(self, name, before, after):
        if before != after:
            self.copies.append((len(self.names), name))


def step_on_fake_gpu(name, dtype, size):
    with FakeTensorMode():
        with torch.device("cuda"):
            model = models.create(name, num_classes=10)
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
    ("name", "size", "most"), [("preactresnet18", 64, 96), ("wrn_28_10", 32, 132), ("timm:resnet50", 64, 248)]
)
def test_a_step_lays_nothing_out_anew(name, size, most, dtype):
    launches = step_on_fake_gpu(name, dtype, size)
    convolutions = [i for i, name in enumerate(launches.names) if name.startswith("convolution")]
    first, last = convolutions[0], convolutions[-1]
    assert [copy for copy in launches.copies if first <= copy[0] <= last] == []
    assert len(launches.names) <= most, len(launches.names)
