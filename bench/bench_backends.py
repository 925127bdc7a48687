"""PGD-10 of other frameworks, and the same behind their interface by `bat_fast.integrations`, in one run.

    OMP_NUM_THREADS=1 python bench/bench_backends.py            the small CNN, every host that is installed
    OMP_NUM_THREADS=1 python bench/bench_backends.py --resnet   also PreActResNet-18
    python bench/bench_backends.py --hosts foolbox art          some hosts

Both sides get the same network in eval mode, the same images and no random start. Equal results come first:
95 % of the pixels, and the loss to 0.1 %; in a deep network rounding turns the sign of gradients that are
nearly 0 (on a small one `tests/integrations` compares to 1e-6). Then the two are timed in turns, for several
rounds; the ratio of a round is that of its medians, and their median is printed with smallest and largest.
"""

from __future__ import annotations

import copy
import os
import statistics
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from options import parser, write
from shapes import SHAPES
from torch import Tensor, nn
from torch.nn import functional as F

from bat_fast.measure.timing import interleaved, machine
from bat_fast.train.allocator import keep_freed_memory

EPS, STEPS = 8 / 255, 10
ROUNDS = 7
Call = Callable[[], Any]


def torchattacks(net: nn.Module, x: Tensor, y: Tensor, fast: bool) -> Call:
    """A call of the host's attack; with ``fast``, of the adapter's. The others are alike."""
    import torchattacks as host

    from bat_fast.integrations import torchattacks as adapter

    settings: dict[str, Any] = {"eps": EPS, "alpha": EPS / 4, "steps": STEPS, "random_start": False}
    attack = adapter.PGD(net, **settings) if fast else host.PGD(net, **settings)
    return lambda: attack(x, y)


def foolbox(net: nn.Module, x: Tensor, y: Tensor, fast: bool) -> Call:
    import foolbox as host

    from bat_fast.integrations import foolbox as adapter

    settings: dict[str, Any] = {"abs_stepsize": EPS / 4, "steps": STEPS, "random_start": False}
    model = host.PyTorchModel(net, bounds=(0, 1), device=x.device)
    attack = adapter.LinfPGD(**settings) if fast else host.attacks.LinfPGD(**settings)
    return lambda: attack(model, x, y, epsilons=EPS)[1]


def art(net: nn.Module, x: Tensor, y: Tensor, fast: bool) -> Call:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    from bat_fast.integrations import art as adapter

    estimator = PyTorchClassifier(
        net,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="gpu" if x.is_cuda else "cpu",
    )
    settings: dict[str, Any] = {"eps": EPS, "eps_step": EPS / 4, "max_iter": STEPS, "batch_size": len(x)}
    settings |= {"num_random_init": 0, "verbose": False}
    attack = (
        adapter.PGD(estimator, **settings) if fast else ProjectedGradientDescentPyTorch(estimator, **settings)
    )
    images, labels = x.cpu().numpy(), y.cpu().numpy()
    return lambda: attack.generate(images, labels)


HOSTS = {"torchattacks": torchattacks, "foolbox": foolbox, "art": art}


def prepared(name: str, device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of `SHAPES` with running statistics that fit, images and labels."""
    make, shape = SHAPES[name]
    torch.manual_seed(0)
    model = make().to(device)
    x, y = torch.rand(shape, device=device), torch.randint(0, 10, shape[:1], device=device)
    with torch.no_grad():
        for _ in range(3):
            model.train()(x)
    return model.eval(), x, y


@torch.no_grad()
def alike(net: nn.Module, a: Tensor, b: Tensor, y: Tensor) -> tuple[float, float]:
    """The share of equal pixels, and by how much the losses differ."""
    losses = [float(F.cross_entropy(net(images), y)) for images in (a, b)]
    return float(((a - b).abs() < 1e-6).float().mean()), abs(losses[0] / losses[1] - 1)


def compare(host: str, name: str, device: str, seconds: float, rounds: int = ROUNDS) -> dict[str, Any]:
    """One host on one network: agreement, then medians in ms and ratios.

    Raises:
        RuntimeError: the images are not those of the host, so that a speed would say nothing.
    """
    net, x, y = prepared(name, device)
    calls = {"host": HOSTS[host](copy.deepcopy(net), x, y, False), "adapter": HOSTS[host](net, x, y, True)}
    theirs, ours = (torch.as_tensor(call()).to(x) for call in calls.values())
    equal, loss = alike(net, ours, theirs, y)
    if equal < 0.95 or loss > 1e-3:
        raise RuntimeError(f"{host} on {name}: not equal: {equal:.1%} of the pixels, losses {loss:.2%} apart")
    times = [interleaved(calls, seconds / rounds, least=3, warm=1) for _ in range(rounds)]
    ratios = sorted(one["host"].median / one["adapter"].median for one in times)
    medians = {side: statistics.median(one[side].median for one in times) for side in calls}
    middle, spread = statistics.median(ratios), f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    print(
        f"{host:13} {name:10} {list(x.shape)!s:18} host {medians['host']:9.2f} ms, adapter "
        f"{medians['adapter']:9.2f} ms, ratio {middle:.2f} ({spread}); {equal:.2%} of the pixels equal",
        flush=True,
    )
    return {"host": host, "name": name, "images": list(x.shape), "device": device, "ms": medians,
            "ratios": ratios, "equal_pixels": equal, "loss_apart": loss, "lines": lines(host)}  # fmt: skip


def lines(host: str) -> int:
    """Of the adapter."""
    file = Path(__file__).parents[1] / "bat_fast" / "integrations" / f"{host}.py"
    return len(file.read_text().splitlines())


def main() -> None:
    command = parser(__doc__, 20.0, "each host on each network")
    command.add_argument("--hosts", nargs="+", choices=HOSTS, default=list(HOSTS), metavar="HOST")
    command.add_argument("--resnet", action="store_true", help="also PreActResNet-18")
    options = command.parse_args()
    keep_freed_memory()  # for both sides alike
    print(f"{machine()}, load {os.getloadavg()[0]:.1f} at the start")
    rows = []
    for host in options.hosts:
        if find_spec(host) is None:
            print(f"{host:13} is not installed: pip install -e .[bench]")
            continue
        for name in ("small_cnn", *(("resnet18",) if options.resnet else ())):
            rows.append(compare(host, name, options.device, options.seconds))
            write(options.json, {"machine": machine(), "load": os.getloadavg(), "rows": rows})
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
