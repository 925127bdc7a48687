"""How fast an attack and a training step run here, engine by engine: ``bat-fast bench``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bat_fast.batch import Batch
from bat_fast.config import TrainConfig
from bat_fast.measure.launch_gaps import launch_gaps
from bat_fast.measure.memory import growth_mib
from bat_fast.measure.peers import peers
from bat_fast.measure.strength import strength
from bat_fast.measure.timing import interleaved
from bat_fast.measure.workload import RandomWorkload, RunWorkload
from bat_fast.train import build

Attack = Callable[[Batch], Tensor]


def measure_speed(
    config: TrainConfig,
    *,
    engines: Iterable[str] = ("eager", "frozen"),
    precisions: Iterable[str | None] = (None, "bf16"),
    seconds: float = 5.0,
    with_peers: bool = False,
    run: Path | None = None,
    images: int = 1000,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Time the attack and the training step of ``config``, and see how strong the attack is.

    On a new model and random images of the shape of its data; with ``run`` on the trained model and the test
    images of that run, where strength means something. Every variant works on a copy of the model. The
    attacks start at the same points, so what they reach compares. Turns are interleaved; times, of one
    batch, are medians with quartiles, in milliseconds.

    Args:
        config: model, method, attack, batch size and device, as for training.
        engines: of `bat_fast.PGD`.
        precisions: of the attack.
        seconds: for each of the two comparisons.
        with_peers: add `bat_fast.measure.peers`.
        run: folder of a finished run with the model and the data of ``config``.
        images: of that run, to see the strength on; more where that fills a batch.
        tell: hears what is being done, and of each variant what was found first.

    Returns:
        ``rows``, one dict per variant: ``name``, ``attack_ms``, ``attack_img_s``, ``step_ms``,
        ``step_img_s``, ``epoch_s``, ``utilisation`` (of the speed of a large matrix product), ``memory_mib``
        (growth of the peak during one step), ``attack_gaps`` and ``step_gaps`` (`launch_gaps`); ``loss`` and
        ``robust_acc`` of the float32 model on the attacked images, and how they differ from those of the
        attack ``eager fp32`` (`Strength.beside`). ``other_start`` has the same of ``eager fp32`` from another
        random start: what chance does. And what all were measured on. None where something does not apply.

    Raises:
        ValueError: a setting is out of range. OSError: no such run, or its data are not there.
    """
    workload = RandomWorkload(config) if run is None else RunWorkload(config, run, images)
    device, model = workload.device, workload.model()
    batches = workload.batches()
    batch = batches[0]
    x = batch.x
    workload.settle(model, batch)
    judge = copy.deepcopy(model).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        judge(x)
    forward = counter.get_total_flops()
    ours: dict[str, Attack] = {}
    steps: dict[str, Callable[[], object]] = {}
    for engine in engines:
        for precision in precisions:
            how: dict[str, Any] = {"engine": engine, "precision": precision or "fp32"}
            setting = replace(config, attack=replace(config.attack, **how))
            name = f"{engine} {precision or 'fp32'}"
            ours[name] = _attack(setting, copy.deepcopy(model))
            steps[name] = workload.step(setting, copy.deepcopy(model), batch)
    others: dict[str, Attack] = {}
    options = (config.attack.norm, config.attack.bn_mode)
    if with_peers and options == ("linf", "eval"):
        rival = copy.deepcopy(model).eval()
        same = build.build_attack(config, build.build_method(config), rival)
        found = peers(rival, eps=same.eps, step_size=same.step_size, steps=same.steps)
        others = {name: partial(_peer, attack) for name, attack in found.items()}
    reached = {}
    for name, attack in (ours | others).items():
        reached[name] = strength(judge, batches, attack)
        if tell is not None:
            tell(f"{name}: loss {reached[name].loss:.4f}")
    clean = strength(judge, batches)
    eager = replace(config, attack=replace(config.attack, engine="eager", precision="fp32"))
    plain = reached.get("eager fp32") or strength(judge, batches, _attack(eager, copy.deepcopy(model)))
    again = _attack(replace(eager, seed=config.seed + 1), copy.deepcopy(model))
    other_start = strength(judge, batches, again).beside(plain, clean)
    attacks: dict[str, Callable[[], object]] = {name: partial(attack, batch) for name, attack in ours.items()}
    attacks |= {name: partial(attack, batch) for name, attack in others.items()}
    memory = {name: growth_mib(call, device) for name, call in (attacks | steps).items()}
    times = []
    for what, variants in (("attack", attacks), ("step", steps)):
        say = None if tell is None else partial(_tell, tell, what)
        times.append(interleaved(variants, seconds, least=3, warm=1, tell=say))
    attack_times, step_times = times
    peaks = {kind: _product_speed(device, kind) for kind in (torch.float32, torch.bfloat16)}
    rows = []
    for name, (attack_ms, low, high, turns) in attack_times.items():
        kind = torch.bfloat16 if name.endswith("bf16") else torch.float32
        work = 2 * forward * config.attack.steps  # a gradient at the input costs as much as the pass
        step = step_times.get(name)
        speed = None if step is None else len(x) / step.median * 1e3
        rows.append(
            {
                "name": name,
                "attack_ms": attack_ms,
                "attack_quartiles": [low, high],
                "attack_n": turns,
                "attack_img_s": len(x) / attack_ms * 1e3,
                "step_ms": None if step is None else step.median,
                "step_img_s": speed,
                "epoch_s": None if speed is None or workload.images is None else workload.images / speed,
                "utilisation": work / (attack_ms / 1e3) / peaks[kind],
                "memory_mib": memory[name],
                "attack_gaps": launch_gaps(attacks[name], device),
                "step_gaps": None if step is None else launch_gaps(steps[name], device),
            }
            | reached[name].beside(plain, clean)
        )
    return {
        "model": config.model.name, "images": list(x.shape), "data": config.data.name, "device": device,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "method": config.method["name"],
        "attack_steps": config.attack.steps, "forward_gflop": forward / 1e9,
        "run": None if run is None else str(run), "judged_images": sum(len(batch.y) for batch in batches),
        "clean_loss": clean.loss, "clean_acc": clean.robust_acc,
        "plain_loss": plain.loss, "plain_robust_acc": plain.robust_acc,
        "other_start": other_start, "rows": rows,
    }  # fmt: skip


def _tell(tell: Callable[[str], None], what: str, line: str) -> None:
    tell(f"{what}, {line}")


def _attack(config: TrainConfig, model: nn.Module) -> Attack:
    """The attack of a configuration, always from the same start, on a model whose weights no step moves."""
    attack = build.build_attack(config, build.build_method(config), model.train())
    return lambda batch: attack(batch.x, batch.y, index=batch.index, draw=0)


def _peer(attack: Callable[[Tensor, Tensor], Tensor], batch: Batch) -> Tensor:
    return attack(batch.x, batch.y)


def _product_speed(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, the yardstick of utilisation."""
    n = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    times = interleaved({"product": lambda: a @ b}, 0.2, least=5)
    return 2 * n**3 / (times["product"].low / 1e3)
