"""CUDA graphs: what a capture needs is checked on fake CUDA tensors; where a GPU is, it is captured."""

import ast
import copy
import inspect
import warnings
from contextlib import contextmanager
from dataclasses import fields, replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bat_fast import PGD, AttackLoss, models
from bat_fast.attacks import goal, untouched
from bat_fast.attacks.engine import Engine, cuda_graph
from bat_fast.attacks.engine.program import Program
from bat_fast.attacks.engine.trace import trace
from bat_fast.attacks.pgd import Climb
from bat_fast.attacks.problem import Problem
from bat_fast.attacks.step import Step


def loop_on_fake_gpu(make, bn_mode="eval", dtype=None, targeted=False, loss="ce", **options):
    """The whole loop as a GPU would run it. A read on the host raises, as there is nothing to read."""
    with FakeTensorMode():
        with torch.device("cuda"):
            model = make()
            x, y = torch.rand(4, 3, 16, 16), torch.zeros(4, dtype=torch.int64)
            soft = torch.rand(4, 10) if "te" in loss else None
        attack = PGD(model, steps=2, bn_mode=bn_mode, **options)
        with torch.no_grad(), untouched(model, bn_mode):
            program = Program(trace(model, x), model, x, dtype)
            program.refresh()
            adv = attack.start(x)
            objective = AttackLoss(loss, soft=soft, soft_weight=1.0)
            problem = Problem(x, y, y if targeted else None, objective, None, 0)
            attack.loop_for(objective)(program, adv=adv, **problem.tensors)
        assert adv.is_cuda
    return program


@pytest.mark.parametrize("bn_mode", ["eval", "train"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["small_cnn", "preactresnet18", "timm:resnet18"])
def test_no_step_reads_on_the_host(name, dtype, bn_mode):
    loop_on_fake_gpu(lambda: models.create(name, num_classes=10), bn_mode, dtype)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "margin", "kl", "ce+te", "kl+te", "dlr targeted"])
def test_no_loss_reads_on_the_host(loss, norm):
    def make():
        return models.create("small_cnn", num_classes=10)

    name, _, targeted = loss.partition(" ")
    loop_on_fake_gpu(make, loss=name, targeted=bool(targeted), norm=norm)


def test_a_read_on_the_host_is_found():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 10)

        def forward(self, x):
            return self.head(x.mean((2, 3))) * x.detach().max().item()

    with pytest.raises(DataDependentOutputException):
        loop_on_fake_gpu(lambda: nn.Sequential(Reads()))


class Addresses(TorchDispatchMode):
    """Where the tensors lie that operators read and that no operator inside made."""

    def __init__(self):
        super().__init__()
        self.outside, self.names, self._inside = [], [], set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        for tensor in tensors:
            if id(tensor.untyped_storage()._cdata) and tensor.untyped_storage()._cdata not in self._inside:
                self.outside.append(tensor.data_ptr())
        self.names.append(str(function))
        results = function(*args, **(kwargs or {}))
        for result in torch.utils._pytree.tree_leaves(results):
            if isinstance(result, torch.Tensor):
                storage = result.untyped_storage()._cdata
                if storage not in {t.untyped_storage()._cdata for t in tensors}:
                    self._inside.add(storage)
                    self._kept = [*getattr(self, "_kept", []), result]  # its address is not given out again
        return results


@pytest.mark.parametrize("bn_mode", ["eval", "train"])
def test_weights_stay_where_a_graph_would_read_them(bn_mode):
    """In float64, which takes the path of the GPU: new weights change numbers, not addresses or operators."""
    model = models.create("preactresnet18", num_classes=10).double()
    x, y = torch.rand(2, 3, 8, 8).double(), torch.tensor([1, 2])
    attack = PGD(model, steps=2, bn_mode=bn_mode)
    adv, seen = x.clone(), []
    with torch.no_grad(), untouched(model, bn_mode):
        program = Program(trace(model, x), model, x, None)
        for _ in range(2):
            program.refresh()
            with Addresses() as mode:
                problem = Problem(x, y, None, AttackLoss("ce"), None, 0)
                attack.loop_for(problem.objective)(program, adv=adv, **problem.tensors)
            seen.append(mode)
            for parameter in model.parameters():
                parameter.mul_(1.1)
    assert seen[0].names == seen[1].names
    assert len(seen[0].outside) > 50
    assert seen[0].outside == seen[1].outside


class Counts(dict):
    """Number of captures and replays; arguments of each capture; devices made current."""

    def __init__(self, **numbers):
        super().__init__(**numbers)
        self.arguments, self.devices = [], []


@pytest.fixture
def recorded(monkeypatch):
    """Stand-ins for CUDA graphs: a replay calls again what was called at the capture."""
    counts = Counts(captures=0, replays=0)
    current = []

    class Graph:
        def replay(self):
            counts["replays"] += 1
            self.loop()

    @contextmanager
    def capture(graph, **how):
        counts["captures"] += 1
        counts.arguments.append(how | {"device": counts.devices[-1]})
        current.append(graph)
        yield

    class Stream:
        def __init__(self, device):
            self.device = device

        def wait_stream(self, other):
            assert self.device == other.device

    @contextmanager
    def stream(chosen):
        assert chosen.device == counts.devices[-1]
        yield

    @contextmanager
    def device(chosen):
        counts.devices.append(chosen)
        yield
        counts.devices.pop()

    def captured(self, loop, tensors, memory=None):
        original(self, loop, tensors, memory)
        current[-1].loop = lambda: loop(**self._static)

    original = cuda_graph.Captured.__init__
    monkeypatch.setattr(cuda_graph.Captured, "__init__", captured)
    for name, stand_in in {
        "CUDAGraph": Graph, "graph": capture, "Stream": Stream, "stream": stream, "current_stream": Stream,
        "device": device, "graph_pool_handle": object,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return counts


def test_static_buffers_carry_every_batch(recorded):
    def loop(adv, y, soft):
        assert soft is None
        adv.mul_(2).add_(y[:, None])

    x, y = torch.rand(3, 2), torch.tensor([1, 2, 3])
    run = cuda_graph.Captured(loop, {"adv": x, "y": y, "soft": None})
    for _ in range(3):
        x, y = torch.rand(3, 2), torch.randint(0, 9, (3,))
        adv = x.clone()
        run({"adv": adv, "y": y, "soft": None})
        torch.testing.assert_close(adv, 2 * x + y[:, None])
    assert recorded == {"captures": 1, "replays": 3}


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_a_capture_names_device_stream_and_pool(device, recorded):
    """On fake CUDA tensors, while another device is the current one."""
    with FakeTensorMode():
        x = torch.rand(3, 2, device=device)
        first = cuda_graph.Captured(lambda adv: adv.mul_(2), {"adv": x})
        second = cuda_graph.Captured(lambda adv: adv.add_(2), {"adv": x}, first.memory)
    assert first.memory is second.memory
    assert first.memory.stream.device == torch.device(device)
    expected = {"pool": first.memory.pool, "stream": first.memory.stream, "device": torch.device(device)}
    assert recorded.arguments == [expected | {"capture_error_mode": "thread_local"}] * 2
    assert recorded.devices == []


def test_signature_separates_what_one_graph_cannot_serve():
    x = torch.rand(2, 3, 4, 4)
    same = cuda_graph.signature({"adv": x, "soft": None})
    assert cuda_graph.signature({"adv": torch.rand(2, 3, 4, 4), "soft": None}) == same
    last = x.to(memory_format=torch.channels_last)
    for other in (x[:1], x.double(), last):
        assert cuda_graph.signature({"adv": other, "soft": None}) != same
    assert cuda_graph.signature({"adv": x, "soft": x}) != same


STEP = Step("linf", 0.02, 0.1, 0.0, 1.0)
CHANGES = {
    Climb: {"loss": "kl", "soft_weight": 5.0, "steps": 1, "step": replace(STEP, eps=0.01), "keep": "best"},
    Step: {"norm": "l2", "step_size": 0.05, "eps": 0.01, "lo": 0.4, "hi": 0.6, "project": False},
}


@pytest.mark.parametrize("kind", [Climb, Step])
def test_a_loop_reads_fields_of_its_key_alone(kind):
    """It is a frozen dataclass, all of it counts when it is compared, and it sees no settings but its own."""
    names = {field.name for field in fields(kind)}
    assert names == {field.name for field in fields(kind) if field.compare and field.hash is not False}
    assert kind.__dataclass_params__.frozen
    assert names == CHANGES[kind].keys()
    methods = {name for name, value in vars(kind).items() if inspect.isfunction(value)}
    own = ast.walk(ast.parse(inspect.getsource(kind)))
    read = {
        node.attr
        for node in own
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    assert read - methods == names


class OnGPU(torch.Tensor):
    """On the CPU, and says that it is not; what is computed from it says that it is."""

    is_cuda = True
    __torch_function__ = torch._C._disabled_torch_function_impl


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in CHANGES for name in CHANGES[kind]])
def test_a_loop_with_another_setting_is_not_replayed(kind, name, recorded):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(144, 5)).double().eval()
    x, y, soft = torch.rand(6, 3, 8, 8).double(), torch.arange(6) % 5, torch.rand(6, 5).double().softmax(1)
    start = x.add(torch.full_like(x, 0.05)).clamp(0, 1)
    first = Climb("ce+te", 0.5, 3, STEP)
    change = {name: CHANGES[kind][name]}
    second = replace(first, **change) if kind is Climb else replace(first, step=replace(STEP, **change))
    assert second not in {first}
    captured, plain = Engine("graph"), Engine("frozen")

    def result(engine, loop):
        adv = start.clone()
        adv = adv.as_subclass(OnGPU) if engine is captured else adv
        rest = {"clean": x, "y": y, "targets": None, "reference": None}
        with torch.no_grad(), untouched(model, "eval"):
            engine.run(loop, model, None, {"adv": adv, **rest, "soft": soft if "te" in loop.loss else None})
        return adv.as_subclass(torch.Tensor)

    for loop in (first, second, first, second):
        torch.testing.assert_close(result(captured, loop), result(plain, loop), rtol=0, atol=1e-12)
    assert not torch.equal(result(plain, first), result(plain, second))
    assert recorded == {"captures": 2, "replays": 4}


def conv_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(144, 5)).eval()


def moved(engine, loop, model, x, y):
    """``x`` [N, 3, 8, 8] after ``loop``, on what says that it is a GPU where the engine may capture."""
    adv = x.clone() if engine.name == "frozen" else x.clone().as_subclass(OnGPU)
    rest = {"clean": x, "y": y, "targets": None, "reference": None, "soft": None}
    with torch.no_grad(), untouched(model, "eval"):
        engine.run(loop, model, None, {"adv": adv, **rest})
    return adv.as_subclass(torch.Tensor)


@pytest.mark.parametrize("name", ["auto", "graph"])
def test_auto_captures_on_a_gpu(name, recorded):
    model, x, y = conv_net(), torch.rand(6, 3, 8, 8), torch.arange(6) % 5
    loop, engine = Climb("ce", 0.0, 3, STEP), Engine(name)
    expected = moved(Engine("frozen"), loop, model, x, y)
    for _ in range(2):
        assert torch.equal(moved(engine, loop, model, x, y), expected)
    assert recorded == {"captures": 1, "replays": 2}
    again = copy.deepcopy(engine)  # a graph cannot be copied, and is captured anew
    assert torch.equal(moved(again, loop, model, x, y), expected)
    assert recorded == {"captures": 2, "replays": 3}


def test_auto_runs_what_cannot_be_frozen_as_it_is(recorded):
    class ByValueOnGPU(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(192, 4)

        def forward(self, x):
            z = self.head(x.flatten(1))
            return z if z.sum() > 0 else -z

    model, x, y = ByValueOnGPU().eval(), torch.rand(6, 3, 8, 8), torch.arange(6) % 4
    loop = Climb("ce", 0.0, 3, STEP)
    with pytest.warns(UserWarning, match="attacks on ByValueOnGPU are not folded"):
        ours = moved(Engine("auto"), loop, model, x, y)
    assert torch.equal(ours, moved(Engine("frozen"), loop, model, x, y))
    assert recorded == {"captures": 0, "replays": 0}


def test_on_a_cpu_auto_is_silent():
    class Silent(nn.Sequential):
        pass

    model, x, y = Silent(nn.Flatten(), nn.Linear(12, 4)), torch.rand(2, 3, 2, 2), torch.tensor([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adv = PGD(model, engine="auto", steps=3)(x, y, draw=0)
    assert torch.equal(adv, PGD(model, engine="frozen", steps=3)(x, y, draw=0))


@pytest.mark.parametrize("name", ["auto", "graph"])
def test_a_failed_capture_leaves_the_images_and_runs_frozen(name, recorded, monkeypatch):
    kind = type(f"Uncaptured_{name}", (nn.Sequential,), {})
    model, x, y = kind(*conv_net()).eval(), torch.rand(6, 3, 8, 8), torch.arange(6) % 5
    step = Step.__call__
    attempts = []

    @contextmanager
    def broken(graph, **how):
        attempts.append((graph, how))
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    def fails_when_captured(self, adv, grad, clean, **own):
        step(self, adv, grad, clean, **own)  # the images have moved when it fails
        if recorded.devices:
            calls.append(1)
            if len(calls) == 8:  # two warm-ups of three steps, and the second step of the capture
                raise ValueError("a read on the host")

    calls = []
    monkeypatch.setattr(torch.cuda, "graph", broken)
    monkeypatch.setattr(Step, "__call__", fails_when_captured)
    loop, engine = Climb("ce", 0.0, 3, STEP), Engine(name)
    expected = moved(Engine("frozen"), loop, model, x, y)
    with pytest.warns(UserWarning, match="not captured: ValueError: a read on the host") as said:
        results = [moved(engine, loop, model, x, y) for _ in range(3)]
    assert all(torch.equal(result, expected) for result in results)
    assert len(said) == 1
    assert len(attempts) == 1
    assert recorded == {"captures": 0, "replays": 0}


def test_a_wrong_label_is_reported_at_a_replay(recorded, monkeypatch):
    """With a stand-in for the flag that kernels of a GPU set and operators look at when they are called."""
    flag = []

    def attack_grad(logits, target, **how):
        if flag and len(logits) == 0:
            raise RuntimeError(f"target of an earlier call held class {flag.pop()}")
        return original(logits, target, **how)

    original = goal.ops.attack_grad
    monkeypatch.setattr(goal.ops, "attack_grad", attack_grad)
    model, x, y = conv_net(), torch.rand(6, 3, 8, 8), torch.arange(6) % 5
    attack = PGD(model, steps=2)
    tensors = {"clean": x, "y": y, "targets": None, "reference": None, "soft": None}

    def replay():
        with torch.no_grad(), untouched(model, "eval"):
            attack.iterate(attack.loop_for(AttackLoss("ce")), adv=x.clone().as_subclass(OnGPU), **tensors)

    replay()
    flag.append(7)
    with pytest.raises(RuntimeError, match="class 7"):
        replay()
    replay()
    assert recorded == {"captures": 1, "replays": 3}


def test_a_report_reaches_the_operator_with_nothing_in_it():
    """The native operator, not only the checks before it, is called on no rows."""

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    seen = []
    with Names():
        goal.report_labels(torch.device("cpu"))
    assert "bat_fast.attack_grad.default" in seen


@pytest.mark.usefixtures("recorded")
def test_an_error_of_the_loop_itself_is_not_taken_for_a_failed_capture():
    def loop(*_, **__):
        raise ValueError("a label of no class")

    with pytest.raises(ValueError, match="a label of no class"):
        moved(Engine("graph"), loop, conv_net(), torch.rand(6, 3, 8, 8), torch.arange(6) % 5)


def test_graphs_of_older_settings_and_shapes_go(recorded):
    """A radius that changes every epoch leaves two graphs for each shape, and four in all stay."""
    model, engine = conv_net(), Engine("graph")

    def attack(batch, eps):
        loop = Climb("ce", 0.0, 1, replace(STEP, eps=eps))
        moved(engine, loop, model, torch.rand(batch, 3, 8, 8), torch.arange(batch) % 5)
        return recorded["captures"]

    assert [attack(batch, eps) for eps in (1, 2, 3) for batch in (4, 2)] == [1, 2, 3, 4, 5, 6]
    kept = engine._graphs._kept
    assert len(kept) == 4
    assert len({captured.memory.pool for _, captured in kept.values()}) == 1
    assert attack(4, 2) == 6
    assert attack(4, 1) == 7  # it went; now 3 has not been used for the longest time
    assert attack(4, 2) == 7
    assert attack(4, 3) == 8
    assert [attack(3, 1), attack(2, 3), attack(4, 2)] == [9, 9, 9]  # the last batch of epoch 2 went


def test_without_a_gpu_the_steps_run_one_by_one_and_say_so():
    class Tiny(nn.Sequential):
        pass

    model, x, y = Tiny(nn.Flatten(), nn.Linear(12, 4)), torch.rand(2, 3, 2, 2), torch.tensor([0, 1])
    with pytest.warns(UserWarning, match="not captured: CUDA graphs need a GPU"):
        adv = PGD(model, engine="graph", steps=3)(x, y, draw=0)
    assert torch.equal(adv, PGD(model, engine="frozen", steps=3)(x, y, draw=0))


@pytest.mark.cuda
@pytest.mark.parametrize("precision", [None, "bf16"])
@pytest.mark.parametrize("bn_mode", ["eval", "train"])
def test_captured_attack_equals_the_loop(bn_mode, precision):
    model = models.create("preactresnet18", num_classes=10).cuda()
    options = {"steps": 3, "bn_mode": bn_mode, "precision": precision}
    captured, plain = (PGD(model, engine=engine, **options) for engine in ("graph", "frozen"))
    for batch in (8, 8, 5, 8):  # the last batch of an epoch is smaller
        x, y = torch.rand(batch, 3, 16, 16, device="cuda"), torch.randint(0, 10, (batch,), device="cuda")
        for objective in (AttackLoss("ce"), AttackLoss("kl")):
            ours, expected = (a(x, y, objective=objective, draw=1) for a in (captured, plain))
            assert (ours == expected).float().mean() > 0.95
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)
    before = copy.deepcopy(model.state_dict())
    captured(x, y)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
