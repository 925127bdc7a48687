"""Each adapter beside its host: `make test-hosts` runs this where all hosts are installed."""

import copy
import importlib.util
import pickle
import runpy
import sys
import warnings
from collections import namedtuple
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from contract import EPS, MEAN, STD, STEP, STEPS, Untouched, alike, apart, batch, folded, network
from torch import nn
from torch.nn import functional as F

from bat_fast import PGD, integrations
from bat_fast.attacks import untouched
from bat_fast.models import Normalize

HOW = [("eager", False), ("eager", True), ("auto", False), ("auto", True)]


def installed(name: str, absent: tuple[str, ...] = ()):
    """The host, or a skip that says why.

    Args:
        name: of a module.
        absent: what it imports that does not install today and is not needed here, as ``module:class``: an
            empty class stands in.
    """
    for module, _, kind in (word.partition(":") for word in absent):
        if module not in sys.modules and importlib.util.find_spec(module) is None:
            sys.modules[module] = ModuleType(module)
            setattr(sys.modules[module], kind, object)
            sys.modules[module].__path__ = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            pytest.skip(f"{name}: {error}; make test-hosts installs it")


@pytest.fixture(autouse=True)
def no_accelerator_is_left():
    """accelerate keeps one state for the process, which the next accelerator must agree with."""
    yield
    if "accelerate" in sys.modules:
        sys.modules["accelerate"].state.AcceleratorState._reset_state(True)


def normalized(x):
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std


def agree(engine, net, ours, theirs, y):
    """Equal with the engine of autograd; nearly so with the fast ones, which must have been in use."""
    if engine == "eager":
        assert apart(ours, theirs) <= 1e-6
    else:
        assert alike(net, ours, theirs, y)
        assert folded(net)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "targeted"), HOW)
@pytest.mark.parametrize("with_mean", [False, True])
def test_torchattacks(engine, targeted, with_mean):
    host = installed("torchattacks")
    from bat_fast.integrations import torchattacks as adapter

    net, (x, y) = network(), batch()
    ours = adapter.PGD(net, EPS, STEP, STEPS, random_start=False, engine=engine)
    theirs = host.PGD(copy.deepcopy(net).eval(), EPS, STEP, STEPS, random_start=False)
    given = x
    for attack in (ours, theirs):
        if targeted:
            attack.set_mode_targeted_by_function(lambda _, labels: (labels + 1) % 5, quiet=True)
        if with_mean:
            attack.set_normalization_used(MEAN, STD)
            given = normalized(x)
    with Untouched(net), torch.inference_mode():
        found = ours(given, y)
    agree(engine, net, found, theirs(given, y), (y + 1) % 5 if targeted else y)
    if (engine, targeted, with_mean) == ("auto", False, False):
        for twin in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
            assert apart(twin(x, y), found) == 0
        many = host.MultiAttack(
            [adapter.PGD(net, EPS, STEP, 2), adapter.PGD(net, EPS, STEP, 2)], verbose=False
        )
        assert apart(many(x, y), x) <= EPS + 1e-6
        start = adapter.PGD(net, EPS, STEP, 0)
        assert apart(start(x, y), start(x, y)) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "engine", "targeted"),
    [
        *(("LinfPGD", *how) for how in HOW),
        *((kind, *how) for kind in ("L2PGD", "preprocessing", "bounds") for how in HOW[1:3]),
    ],
)
def test_foolbox(kind, engine, targeted):
    host = installed("foolbox")
    from bat_fast.integrations import foolbox as adapter

    name = kind if kind.endswith("PGD") else "LinfPGD"
    net, (x, y) = network(), batch()
    options = {"steps": STEPS, "random_start": False, "rel_stepsize": 0.25}
    ours = getattr(adapter, name)(**options, options={"engine": engine})
    theirs = getattr(host.attacks, name)(**options)
    prepared = {"mean": MEAN, "std": STD, "axis": -3, "flip_axis": -3} if kind == "preprocessing" else None
    twin = copy.deepcopy(net).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a model in train mode
        models = [
            host.PyTorchModel(n, bounds=(0, 1), device="cpu", preprocessing=prepared) for n in (net, twin)
        ]
    scale = 255 if kind == "bounds" else 1
    models = [model.transform_bounds((0, scale)) for model in models] if scale > 1 else models
    radii = [scale * eps * (10 if kind == "L2PGD" else 1) for eps in (EPS, 2 * EPS)]
    goal = host.criteria.TargetedMisclassification((y + 1) % 5) if targeted else y
    with untouched(net, "eval"), Untouched(net), torch.no_grad():
        found = ours(models[0], scale * x, goal, epsilons=radii)
    expected = theirs(models[1], scale * x, goal, epsilons=radii)
    judge = nn.Sequential(Normalize(MEAN, STD), net) if kind == "preprocessing" else net
    for mine, other in zip(found[1], expected[1], strict=True):
        if kind == "preprocessing":
            mine, other = mine.flip(1), other.flip(1)
        agree(engine, judge, mine / scale, other / scale, (y + 1) % 5 if targeted else y)
    assert (found[2] == expected[2]).float().mean() >= (1 if engine == "eager" else 0.95)
    if (engine, targeted, kind) == ("auto", False, "LinfPGD"):
        with pytest.raises(TypeError, match=r"model must be a foolbox\.PyTorchModel, got TransformBounds"):
            ours(host.models.TransformBoundsWrapper(models[0], (0, 2)), x, y, epsilons=EPS)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "targeted"), HOW)
@pytest.mark.parametrize("kind", ["plain", "preprocessing", "l2", "eps of each image"])
def test_art(engine, targeted, kind):
    installed("art")
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    from bat_fast.integrations import art as adapter

    net, (x, y) = network(), batch()

    prepared = tuple(np.array(values)[:, None, None] for values in (MEAN, STD))

    def estimator(net, loss=None):
        return PyTorchClassifier(
            net, loss=loss or nn.CrossEntropyLoss(), input_shape=(3, 8, 8), nb_classes=5,
            clip_values=(0.0, 1.0), preprocessing=prepared if kind == "preprocessing" else None,
            device_type="cpu",
        )  # fmt: skip

    eps, step = EPS, STEP
    if kind == "l2":
        x = 0.3 + 0.4 * x  # ART cuts to the range of a pixel before it projects, and bat_fast afterwards
    if kind.startswith("eps"):
        eps = np.linspace(0.01, 0.2, 16, dtype=np.float32).reshape(16, 1, 1, 1)
        step = eps / 4
    options = {"norm": 2 if kind == "l2" else np.inf, "eps": eps, "eps_step": step, "max_iter": STEPS}
    options |= {"targeted": targeted, "batch_size": 8, "verbose": False}
    goal = ((y + 1) % 5).numpy() if targeted else y.numpy()
    one_hot = np.eye(5, dtype=np.float32)[goal]
    ours = adapter.PGD(estimator(net), options={"engine": engine}, **options)
    with Untouched(net):
        found = ours.generate(x.numpy(), one_hot)
    theirs = ProjectedGradientDescentPyTorch(estimator(copy.deepcopy(net).eval()), **options)
    judge = nn.Sequential(Normalize(MEAN, STD), net) if kind == "preprocessing" else net
    agree(engine, judge, found, theirs.generate(x.numpy(), goal), torch.as_tensor(goal))
    if (engine, targeted, kind) == ("eager", False, "plain"):
        with pytest.raises(ValueError, match="loss: not computed by bat_fast"):
            adapter.PGD(estimator(net, nn.MultiMarginLoss()), **options).generate(x.numpy(), goal)
        with pytest.raises(ValueError, match="mask: not computed by bat_fast"):
            ours.generate(x.numpy(), goal, mask=np.ones_like(x))


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "targeted"), HOW)
def test_secml(engine, targeted):
    installed("foolbox")
    host = installed("secmlt.adv.evasion.pgd")
    from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier

    from bat_fast.integrations import secml as adapter

    net, (x, y) = network(), batch()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    options = {"epsilon": EPS, "num_steps": STEPS, "step_size": STEP, "y_target": 2 if targeted else None}
    ours = adapter.PGD("linf", **options, engine=engine)
    with Untouched(net):
        found = ours(BasePyTorchClassifier(net), loader)
    theirs = host.PGD("linf", **options, random_start=False)
    expected = theirs(BasePyTorchClassifier(copy.deepcopy(net).eval()), loader)
    goal = torch.full_like(y, 2) if targeted else y
    agree(engine, net, found.dataset.tensors[0], expected.dataset.tensors[0], goal)
    with pytest.raises(ValueError, match="perturbation_model must be one of"):
        adapter.PGD("l1", **options)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "targeted"), HOW)
def test_adv_lib(engine, targeted):
    from bat_fast.integrations.adv_lib import attackbench, pgd_linf

    net, (x, y) = network(), batch()
    goal = (y + 1) % 5 if targeted else y
    radii = torch.linspace(0.0, 0.3, 16)
    options = {"targeted": targeted, "steps": STEPS, "random_init": False}
    with Untouched(net):
        found = pgd_linf(net, x, goal, radii, **options, engine=engine)
        called = attackbench(EPS, STEPS)(model=net, inputs=x, labels=y, targets=goal, targeted=targeted)
    net.eval()
    assert bool(((found - x).abs().amax((1, 2, 3)) <= radii + 1e-6).all())
    success = (net(found).argmax(1) == goal) == targeted
    assert torch.equal(found[~success], x[~success])
    assert apart(called, x) <= EPS + 1e-6
    assert folded(net) == (engine == "auto")
    host = installed("adv_lib.attacks", ("visdom:Visdom",))
    expected = host.pgd_linf(net, x, goal, radii, **options)
    theirs = (net(expected).argmax(1) == goal) == targeted
    assert bool((success | ~theirs).all())  # it also sees the point after the last step


def images(count=32):
    torch.manual_seed(2)
    y = torch.arange(count) % 5
    return torch.utils.data.TensorDataset(torch.rand(count, 3, 8, 8) * 0.6 + 0.2, y)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning(precision):
    lightning = installed("lightning")
    from bat_fast.integrations.lightning import AdversarialImages

    class Plain(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.seen = network(), {"train": [], "validate": []}

        def on_after_batch_transfer(self, batch, _):
            self.clean = batch[0]
            return batch

        def training_step(self, batch, _):
            self.seen["train"].append(apart(batch[0], self.clean))
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, _):
            self.seen["validate"].append(apart(batch[0], self.clean))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    module = Plain()
    loader = torch.utils.data.DataLoader(images(), batch_size=16)
    callback = AdversarialImages("net", stages=("train", "validate"), eps=EPS, step_size=STEP, steps=STEPS)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"num_sanity_val_steps": 0, "accelerator": "cpu", "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="bat_fast")
        lightning.Trainer(max_epochs=1, precision=precision, callbacks=[callback], **quiet).fit(
            module, loader, loader
        )
    for moved in (*module.seen["train"], *module.seen["validate"]):
        assert moved == pytest.approx(EPS, abs=1e-5)
    assert len(module.seen["train"]) == len(module.seen["validate"]) == 2
    assert "on_after_batch_transfer" not in vars(module)
    assert folded(module.net)


@pytest.mark.slow
@pytest.mark.parametrize("mixed", ["no", "bf16"])
def test_accelerate(mixed):
    accelerate = installed("accelerate")
    from bat_fast.integrations.accelerate import attack_for

    accelerator = accelerate.Accelerator(mixed_precision=mixed, cpu=True)
    net, (x, y) = network(), batch()
    plain = copy.deepcopy(net)
    prepared = accelerator.prepare(net)
    options = {"step_size": STEP, "steps": STEPS, "random_start": False}
    with Untouched(net):
        found, eager = (
            attack_for(accelerator, prepared, EPS, engine=e, **options)(x, y) for e in ("auto", "eager")
        )
    precision = None if mixed == "no" else "bf16"
    expected = PGD(plain, EPS, precision=precision, engine="eager", **options)(x, y)
    assert apart(eager, expected) <= 1e-6
    assert folded(net)
    same = (found - expected).abs() < 1e-6
    assert float(same.float().mean()) >= (0.95 if mixed == "no" else 0.8)
    other = PGD(plain, EPS, precision="fp16", engine="eager", **options)
    assert attack_for(accelerator, prepared, EPS, precision="fp16").precision == other.precision


@pytest.mark.slow
def test_transformers(tmp_path):
    transformers = installed("transformers")
    installed("accelerate")
    from bat_fast.integrations.transformers import AdversarialTrainer

    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
    )
    model = transformers.ResNetForImageClassification(config)
    x, y = images().tensors
    rows = [{"pixel_values": normalized(a[None])[0], "labels": b} for a, b in zip(x, y, strict=True)]
    told = {"output_dir": str(tmp_path), "max_steps": 2, "per_device_train_batch_size": 16, "report_to": []}
    told |= {"use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
    seen = []

    class Watched(AdversarialTrainer):
        def _attacked(self, model, x, y):
            found = super()._attacked(model, x, y)
            seen.append(apart(found * torch.tensor(STD).view(-1, 1, 1), x * torch.tensor(STD).view(-1, 1, 1)))
            return found

    trainer = Watched(
        model=model, args=transformers.TrainingArguments(**told), train_dataset=rows, eval_dataset=rows,
        attack={"eps": EPS, "step_size": STEP, "steps": STEPS}, image_mean=MEAN, image_std=STD,
    )  # fmt: skip
    trainer.train()
    assert seen == [pytest.approx(EPS, abs=1e-5)] * 2
    trainer.evaluate()
    assert len(seen) == 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["trades", "bat", "standard"])
def test_timm(method):
    installed("timm.task")
    from bat_fast.integrations.timm import AdversarialTask

    net, (x, y) = network(), batch()
    told = {"beta": 0.0} if method == "bat" else {}  # its other loss wants a model that returns features
    task = AdversarialTask(
        net, method, told, attack={"eps": EPS, "step_size": STEP, "steps": STEPS}, verbose=False
    )
    task.set_epoch(1)
    result = task(x, y)
    assert result["output"].shape == (16, 5)
    assert torch.isfinite(result["loss"])
    result["loss"].backward()
    assert net[8].weight.grad is not None
    assert folded(net) == (method != "standard")
    with pytest.raises(ValueError, match="method free takes its steps between updates"):
        AdversarialTask(net, "free", verbose=False)
    with pytest.raises(ValueError, match="method te remembers each sample: it needs bat_fast's trainer"):
        AdversarialTask(net, "te", verbose=False)


@pytest.mark.slow
def test_robustbench(small, tmp_path):
    host = installed("robustbench.utils", ("autoattack:AutoAttack", "autoattack.state:EvaluationState"))
    from bat_fast.integrations.robustbench import register
    from bat_fast.runs.model_file import load_run
    from bat_fast.train import Trainer

    Trainer(small(epochs=1), tmp_path / "run", progress=False).fit()
    model, described = load_run(tmp_path / "run")
    x = torch.rand(4, described["in_channels"], described["image_size"], described["image_size"])
    told = register(tmp_path / "run", "Somebody2026Digits")
    assert torch.equal(host.load_model(**told)(x), model(x))
    with pytest.raises(FileNotFoundError, match="expected a run folder or a model"):
        register(tmp_path / "another", "Somebody2026Digits")


def test_what_is_missing_is_named_with_the_command(monkeypatch):
    from bat_fast.integrations.attacker import host

    for name, command in (
        ("art", "pip install adversarial-robustness-toolbox"),
        ("nowhere", "pip install nowhere"),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=f"{name} is not installed: {command}"):
            host(name)


def test_a_radius_for_all_images_may_follow_one_for_each():
    from bat_fast.integrations.attacker import Attacker

    attacker, net, (x, y) = Attacker(), network(), batch()
    each, options = torch.full((len(x),), EPS), {"steps": 2, "random_start": False, "engine": "eager"}
    found = [attacker(net, x, y, eps=eps, **options) for eps in (each, EPS, each, EPS, EPS)]
    assert all(apart(found[0], other) <= 1e-6 for other in found)


def beside_an_empty_host(monkeypatch, adapter, module, **kinds):
    """What an adapter defines, where its host has ``kinds`` and does nothing: for what is refused."""
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    for name, kind in kinds.items():
        setattr(sys.modules[module], name, kind)
    return runpy.run_path(integrations.__path__[0] + f"/{adapter}.py")


def test_lightning_names_what_it_cannot_use(monkeypatch):
    images = beside_an_empty_host(monkeypatch, "lightning", "lightning.pytorch", Callback=object)
    images = images["AdversarialImages"]

    class Module(nn.Module):
        on_after_batch_transfer = staticmethod(lambda batch, _: batch)

    def trainer(precision, stage="train"):
        return SimpleNamespace(precision=precision, state=SimpleNamespace(stage=SimpleNamespace(value=stage)))

    module = Module()
    module.net = network()
    with pytest.raises(ValueError, match="stages must be one of 'train', 'validate', 'test', got 'val'"):
        images("net", stages=("train", "val"))
    with pytest.raises(ValueError, match=r"network: .*`nett`: name an attribute that holds the classifier"):
        images("nett").setup(trainer("32-true"), module, "fit")
    with pytest.raises(ValueError, match=r"attacks know 32, .* has 'transformer-engine': say precision="):
        images("net").setup(trainer("transformer-engine"), module, "fit")
    callback = images("net", precision="bf16", engine="eager", steps=1)
    callback.setup(trainer("transformer-engine"), module, "fit")
    x, y = batch()
    pair = namedtuple("Pair", "images classes")
    assert apart(module.on_after_batch_transfer(pair(x, y), 0).images, x) > 0
    with pytest.raises(TypeError, match="batch must begin with images and classes, got a dict"):
        module.on_after_batch_transfer({"image": x, "label": y}, 0)
    callback.teardown(None, module, "fit")
    callback.setup(trainer("32-true", "predict"), module, "fit")
    assert module.on_after_batch_transfer(x, 0) is x


def test_transformers_names_what_is_missing(monkeypatch):
    class Trainer:
        def __init__(self, **options):
            pass

    made = beside_an_empty_host(monkeypatch, "transformers", "transformers", Trainer=Trainer)
    with pytest.raises(ValueError, match="image_mean and image_std belong together"):
        made["AdversarialTrainer"](image_mean=MEAN)
    with pytest.raises(ValueError, match=r"inputs: labels missing; there are \['pixel_values'\]"):
        made["AdversarialTrainer"]().compute_loss(network(), {"pixel_values": batch()[0]})


def test_attackbench_wants_targets():
    from bat_fast.integrations.adv_lib import attackbench

    with pytest.raises(ValueError, match=r"targets \[N\] are missing"):
        attackbench(EPS, 1)(network(), *batch(), targeted=True)
