"""Every method on one process or on several, in float64: what each has found goes to a file, to be compared.

RANK=0 WORLD_SIZE=1 python tests/train/ranks.py FOLDER     or under torchrun; writes FOLDER/WORLD_SIZE.pt
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, distributed, nn

from bat_fast import data
from bat_fast.attacks import APGD, autoattack
from bat_fast.batch import Batch
from bat_fast.config import AttackConfig, EvalConfig, OptimConfig, Ratio, TrainConfig
from bat_fast.models.base import Classifier, Spec
from bat_fast.train import Observer, Trainer, build, finish
from bat_fast.train.meter import EpochMeter
from bat_fast.world.launch import joined
from bat_fast.world.ranks import World

COUNT, BATCH, CLASSES = 47, 13, 5  # uneven shares, and an uneven end
ALL = {"awp": 0.01, "clip": 0.5, "label_smoothing": 0.1, "micro_batches": 2}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # method, and settings of optim
    "standard": ({"name": "standard"}, {}),
    "pgd_at": ({"name": "pgd_at"}, {"micro_batches": 2}),
    "pgd_at, mlcat_wp": (
        {"name": "pgd_at"},
        {"micro_batches": 2, "awp": 0.01, "awp_steps": 3, "awp_norm": "model", "awp_below": 1.6},
    ),
    "fgsm_rs": ({"name": "fgsm_rs"}, {}),
    "n_fgsm": ({"name": "n_fgsm"}, {}),
    "free": ({"name": "free", "replays": 2}, {}),
    "free, all": ({"name": "free", "replays": 2}, ALL),
    "trades": ({"name": "trades"}, {}),
    "trades, all": ({"name": "trades"}, ALL),
    "mart": ({"name": "mart"}, {}),
    "bat": ({"name": "bat"}, {}),
    "bat, all": ({"name": "bat"}, ALL),
    "bat, other options": (
        {"name": "bat", "normalize": "batch", "weighted": True, "denominator": "negatives", "holistic": "hd"},
        {},
    ),
    "hd": ({"name": "holistic"}, {}),
    "hr": ({"name": "holistic", "form": "hr", "alpha": 0.1}, {}),
    "te": ({"name": "te", "start": 0, "end": 2}, {"micro_batches": 2}),
    "gairat": ({"name": "gairat", "start": 0}, {}),
    "gkl": ({"name": "gkl", "gamma": 0.5}, {"micro_batches": 2}),
    "kd_swa": ({"name": "kd_swa", "helper": "given below", "robust_helper": "given below"}, {}),
    "mlcat": ({"name": "mlcat"}, {}),
    "rebat": ({"name": "rebat", "start": 0}, {"average": "ema"}),
    "mail": ({"name": "mail", "start": 0, "normalize": "mean"}, {}),
    "hat": ({"name": "hat", "helper": "given below"}, {}),
    "score": ({"name": "score"}, {}),
}
COLLECTIVES = ("all_gather", "all_reduce", "broadcast", "all_gather_object", "broadcast_object_list")


class Tiny(Classifier):
    """A convolution with batch norm, in float64."""

    def __init__(self) -> None:
        super().__init__(Spec(num_classes=CLASSES, in_channels=1, image_size=8), feature_dim=6)
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.BatchNorm2d(6), nn.Softplus())
        self.head = nn.Linear(6, CLASSES)
        self.double()

    def embed(self, x: Tensor) -> Tensor:
        """The features of ``x``."""
        maps: Tensor = self.body(x.double())
        return maps.mean((2, 3))


def tiny(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny()


def images() -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(COUNT, 1, 8, 8, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(0, CLASSES, (COUNT,), generator=generator), torch.arange(COUNT))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()])


def train(case: str, world: World, *, sync_bn: bool = True, steps: int = 3) -> dict[str, Any]:
    """An epoch of a case: weights, adversarial images, metrics, and what the method remembers.

    What it remembers shows in the second epoch, which such a method has too.
    """
    method, optim = CASES[case]
    config = TrainConfig(
        device="cpu",
        method=method,
        attack=AttackConfig(eps=Ratio("1/10"), steps=steps),
        optim=OptimConfig(lr=0.2, sync_bn=sync_bn, **optim),
    )
    shape, helper = data.Shape(CLASSES, 1, 8), (tiny(1).eval(), {"num_classes": CLASSES})
    with patch.object(build, "load_run", lambda *_: helper):
        parts = build.parts(config, shape, "cpu", samples=COUNT, model=tiny(), world=world)
    parts.model.train()
    seen, metrics, attack = [], [], parts.step._adversarial

    def watched(own, *more):
        made = attack(own, *more)
        seen.extend(world.rows(x, part.sizes) for x, part in zip(made, own, strict=True))
        return made

    parts.step._adversarial = watched  # type: ignore[method-assign]
    batch = images()
    for epoch in range(2 if parts.method.state_dict() else 1):
        for ids in torch.arange(COUNT).split(BATCH):
            mine = ids.tensor_split(world.size)[world.rank]
            terms = parts.step(Batch(*(rows[mine] for rows in batch)), epoch, EpochMeter("cpu"))
            assert len(terms.per_sample) == len(ids)
            if parts.average is not None:
                parts.average.update_parameters(parts.model)
            metrics.append(torch.stack([terms.total, *terms.metrics.values()]).double())
    kept = [parts.method.memory(), *parts.method.state_dict().values()]
    kept = [tensor for tensor in kept if isinstance(tensor, Tensor)]
    found = [weights(parts.model), torch.stack(metrics), *seen, *kept]
    return {"found": found, "same": len({str(w.tolist()) for w in world.objects(found[0])}) == 1}


def difference(one: dict[str, Any], two: dict[str, Any]) -> float:
    """The largest difference of two results of `train`."""
    pairs = zip(one["found"], two["found"], strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def collectives(world: World, steps: int) -> tuple[int, int]:
    """How many collectives a step of BAT has, and how many of them its attack."""
    calls, inside = [], [0]
    config = TrainConfig(device="cpu", attack=AttackConfig(steps=steps), optim=OptimConfig(awp=0.01))
    parts = build.parts(config, data.Shape(CLASSES, 1, 8), "cpu", model=tiny(), world=world)
    parts.model.train()
    attack = parts.step._adversarial

    def watched(*given):
        before = len(calls)
        made = attack(*given)
        inside[0] += len(calls) - before
        return made

    parts.step._adversarial = watched  # type: ignore[method-assign]
    rows = torch.arange(6) + 6 * world.rank
    with ExitStack() as replaced:
        for name in COLLECTIVES:
            original = getattr(distributed, name)
            counted = lambda *a, o=original, n=name, **k: calls.append(n) or o(*a, **k)  # noqa: E731
            replaced.enter_context(patch.object(distributed, name, counted))
        parts.step(Batch(*(t[rows] for t in images())), 0, EpochMeter("cpu"))
    return len(calls), inside[0]


class Stop(Observer):
    """Asks one process to end after some steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, *_: object) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGTERM)


def short() -> None:
    """Let AutoAttack be one attack of few steps."""
    autoattack._VERSIONS["standard"] = {"apgd-ce": (APGD, {"steps": 2})}


RUN = TrainConfig(
    epochs=2,
    batch_size=BATCH,
    device="cpu",
    method={"name": "bat"},
    attack=AttackConfig(eps=Ratio("1/10"), steps=2),
    optim=OptimConfig(lr=0.2, sync_bn=True, average="ema"),
    eval=EvalConfig(val_steps=2, test_steps=2, batch_size=8, autoattack=9),
)


def final(results: dict[str, Any]) -> dict[str, Any]:
    """What the final test says: accuracies, and all of AutoAttack."""
    test = {name: value for name, value in results["metrics"].items() if name.startswith("test/")}
    return test | results["autoattack"]


def trainer(folder: Path, world: World, **options: Any) -> Trainer:
    """A run on ``COUNT`` images, and 30 more to validate and test."""
    generator = torch.Generator().manual_seed(2)
    parts = [
        data.from_arrays(
            torch.rand(count, 1, 8, 8, generator=generator),
            torch.arange(count) % CLASSES,
            name="given",
            class_names=[f"class {number}" for number in range(CLASSES)],
        )
        for count in (COUNT, 17, 13)
    ]
    config = replace(RUN, epochs=options.pop("epochs", RUN.epochs))
    return Trainer(config, folder, splits=data.join(*parts), model=tiny(), world=world, **options)


def main(folder: Path) -> None:
    """All of it; at the end one process fails, if the word ``fail`` is given."""
    torch.set_num_threads(1)
    finish.draw_curves = lambda *_, **__: None  # type: ignore[assignment]  # takes as long as all the rest
    short()
    with joined() as world:
        results: dict[str, Any] = {case: train(case, world) for case in CASES}
        results["local"] = train("bat", world, sync_bn=False)
        results["collectives"] = [collectives(world, steps) for steps in (1, 4)]
        run = trainer(folder / f"run-{world.size}", world)
        found = final(run.fit())
        results["run"] = {"found": [weights(run.model)], "rows": run.rows, "tested": found}
        stopped = trainer(folder / "stopped", world, observers=[Stop(6)] * (world.rank == 1))
        with suppress(KeyboardInterrupt):
            stopped.fit()
            results["not stopped"] = True
        if world.first:
            torch.save(results, folder / f"{world.size}.pt")
        world.barrier()
        if world.rank == world.size - 1:
            raise ValueError("something that is wrong here alone")
        trainer(folder / "never", world)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
