"""CUDA graphs: what a capture needs is checked on fake CUDA tensors; where a GPU is, it is captured."""

import ast
import copy
import inspect
import warnings
import weakref
from contextlib import contextmanager
from dataclasses import fields, replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from bat_fast import PGD, AttackLoss, models
from bat_fast.attacks import goal, untouched
from bat_fast.attacks.engine import Engine, cuda_graph
from bat_fast.attacks.engine.program import Program
from bat_fast.attacks.engine.trace import trace
from bat_fast.attacks.pgd import Climb
from bat_fast.attacks.problem import Problem
from bat_fast.attacks.step import Step
from bat_fast.measure.launch_gaps import launches


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
    """Where the tensors lie that operators read or write, and that no operator inside made."""

    def __init__(self):
        super().__init__()
        self.outside, self.names, self._inside = [], [], set()
        self.made = weakref.WeakSet()

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
                    self.made.add(result)
                    self._inside.add(storage)
                    self._kept = [*getattr(self, "_kept", []), result]  # its address is not given out again
        return results


@pytest.mark.parametrize(
    ("bn_mode", "dtype"),
    [("eval", torch.float64), ("train", torch.float64), ("eval", torch.float16)],
    ids=str,
)
def test_weights_stay_where_a_graph_would_read_them(bn_mode, dtype):
    """In types that take the path of the GPU: new weights change numbers, not addresses or operators."""
    wide = torch.promote_types(dtype, torch.float32)
    model = models.create("preactresnet18", num_classes=10).to(wide)
    x, y = torch.rand(2, 3, 8, 8, dtype=wide), torch.tensor([1, 2])
    attack = PGD(model, steps=2, bn_mode=bn_mode)
    adv, seen = x.clone(), []
    with torch.no_grad(), untouched(model, bn_mode):
        program = Program(trace(model, x), model, x, dtype)
        for _ in range(2):
            with Addresses() as mode:
                program.refresh()
                count = len(mode.outside)
                problem = Problem(x, y, None, AttackLoss("ce"), None, 0)
                attack.loop_for(problem.objective)(program, adv=adv, **problem.tensors)
            assert count > 40
            seen.append(mode)
            for parameter in model.parameters():
                parameter.mul_(1.1)
    assert seen[0].names == seen[1].names
    assert seen[0].outside == seen[1].outside


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_nothing_that_a_refresh_makes_outlives_it(dtype):
    """The first one neither: in a capture it would lie in memory that other graphs write over."""
    wide = torch.promote_types(dtype, torch.float32)
    model, x = models.create("preactresnet18", num_classes=10).to(wide), torch.rand(2, 3, 8, 8, dtype=wide)
    with torch.no_grad(), untouched(model, "eval"):
        program = Program(trace(model, x), model, x, dtype)
        with Addresses() as mode:
            program.refresh()
            assert len(mode.made) > 20
        del mode._kept
    assert list(mode.made) == []


class Counts(dict):
    """Number of captures and replays; arguments of each capture; devices made current."""

    def __init__(self, **numbers):
        super().__init__(**numbers)
        self.arguments, self.devices = [], []


class Tape(TorchDispatchMode):
    """Operators in their order: a replay runs them again on the memory that they met, whoever has it now."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        self.calls.append((function, *map(self._memory, (args, kwargs or {}, results))))
        return results

    def _memory(self, tree):
        """``tree`` with other names of the same memory, for a parameter may move to another."""
        return torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, tree)

    def replay(self):
        for function, args, kwargs, results in self.calls:
            again = torch.utils._pytree.tree_leaves(function(*args, **kwargs))
            for old, new in zip(torch.utils._pytree.tree_leaves(results), again, strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def recorded(monkeypatch):
    """Stand-ins for CUDA graphs: a replay runs again the operators that were called at the capture."""
    counts = Counts(captures=0, replays=0)

    class Graph:
        def replay(self):
            counts["replays"] += 1
            with torch.no_grad():
                self.tape.replay()

    @contextmanager
    def capture(graph, **how):
        counts["captures"] += 1
        counts.arguments.append(how | {"device": counts.devices[-1]})
        with Tape() as graph.tape:
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
    model = conv_net()
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
    """In float64, which takes the path of the GPU."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(144, 5)).double().eval()


def moved(engine, loop, model, x, y):
    """``x`` [N, 3, 8, 8] after ``loop``, on what says that it is a GPU where the engine may capture."""
    x = x.to(next(model.parameters()).dtype)
    adv = x.clone() if engine.name in ("frozen", "eager") else x.clone().as_subclass(OnGPU)
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


class Changeable(nn.Module):
    """With all that a program reads: folded and other norms, autograd, tensors that nobody registered."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.head = nn.Linear(144, 5)
        self.scale = torch.tensor(1.5)

    def forward(self, x):
        z = F.gelu(self.last(F.relu(self.norm(self.conv(x))) * self.scale))
        return self.head(z.flatten(1))


def learnt(model, x, y):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def replaced(model, *_):
    model.conv.weight = nn.Parameter(-model.conv.weight.detach())


def swapped(model, *_):
    """As those do who evaluate an average of the weights and come back."""
    for parameter in model.parameters():
        parameter.data = parameter.data.roll(1, 0)


def assigned(model, *_):
    model.load_state_dict(
        {k: v.roll(1, 0) if v.dim() else v for k, v in model.state_dict().items()}, assign=True
    )


# What happens to a model between two attacks, and whether its graph can be replayed.
HAPPENINGS = {
    "an update": (learnt, True),
    "a pass in train mode": (lambda model, x, _: model.train()(3 * x), True),
    "weights written through .data": (lambda model, *_: model.head.weight.data.mul_(-1), True),
    "a parameter that does not learn": (lambda model, *_: model.conv.weight.requires_grad_(False), True),
    "another parameter": (replaced, False),
    "weights swapped through .data": (swapped, False),
    "weights that are assigned": (assigned, False),
    "running statistics that are another tensor": (
        lambda model, *_: setattr(model.norm, "running_mean", model.norm.running_mean + 1), False
    ),
    "another tensor that nobody registered": (lambda model, *_: setattr(model, "scale", -model.scale), False),
    "another constant of a norm": (lambda model, *_: setattr(model.last, "eps", 1.0), False),
    "another layout": (lambda model, *_: model.to(memory_format=torch.channels_last), False),
}  # fmt: skip


@pytest.mark.parametrize("happening", HAPPENINGS)
def test_a_replay_meets_the_model_of_the_moment(happening, recorded):
    """The tape holds what was captured, down to addresses: what it shows is what a graph would do."""
    model, x, y = Changeable().double().eval(), torch.rand(6, 3, 8, 8).double(), torch.arange(6) % 5
    model.train()(x)
    loop, captured, plain = Climb("ce", 0.0, 3, STEP), Engine("graph"), Engine("eager")
    change, replayed = HAPPENINGS[happening]
    before = moved(captured, loop, model, x, y)
    torch.testing.assert_close(before, moved(plain, loop, model, x, y), rtol=0, atol=1e-9)
    change(model, x, y)
    after = moved(captured, loop, model, x, y)
    torch.testing.assert_close(after, moved(plain, loop, model, x, y), rtol=0, atol=1e-9)
    assert recorded["captures"] == 2 - replayed
    if happening not in ("a parameter that does not learn", "another layout"):
        assert not torch.equal(before, after)


@pytest.mark.usefixtures("recorded")
def test_outside_of_a_replay_the_weights_are_not_touched(monkeypatch):
    events, refresh, replay = [], Program.refresh, Tape.replay
    monkeypatch.setattr(Program, "refresh", lambda program: (events.append("refresh"), refresh(program)))
    monkeypatch.setattr(Tape, "replay", lambda tape: (events.append("replay"), replay(tape)))
    model, x, y = Changeable().double(), torch.rand(6, 3, 8, 8).double(), torch.arange(6) % 5
    loop, engine = Climb("ce", 0.0, 3, STEP), Engine("graph")
    for _ in range(3):
        moved(engine, loop, model, x, y)
        learnt(model, x, y)
    warm_up_and_capture = 3
    assert events[-3:] == ["replay"] * 3
    assert events[:-3].count("refresh") == 1 + warm_up_and_capture  # 1: to compare it with the model


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
    model, x, y = kind(*conv_net()).float().eval(), torch.rand(6, 3, 8, 8), torch.arange(6) % 5
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
    model, x, y = conv_net(), torch.rand(6, 3, 8, 8).double(), torch.arange(6) % 5
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


@pytest.mark.cuda
@pytest.mark.parametrize("precision", [None, "bf16"])
def test_after_an_update_an_attack_is_one_launch_of_a_graph(precision):
    """Beside it are the random start, the copies of the batch, and nothing for the weights."""
    model = models.create("preactresnet18", num_classes=10).cuda()
    x, y = torch.rand(8, 3, 16, 16, device="cuda"), torch.arange(8, device="cuda")
    captured, plain = (PGD(model, steps=3, engine=e, precision=precision) for e in ("graph", "frozen"))
    captured(x, y)
    for _ in range(3):
        learnt(model, x, y)
        images = []
        found = launches(lambda: images.append(captured(x, y, draw=1)), "cuda")  # noqa: B023
        graphs = sum(count for name, count in found.items() if "GraphLaunch" in name)
        assert (graphs, found.total() <= 12) == (1, True), found
        assert (images[0] == plain(x, y, draw=1)).float().mean() > 0.95
