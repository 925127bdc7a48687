"""Every operator once or twice at small sizes: for compute-sanitizer, and to compare the CPU with the GPU.

compute-sanitizer python bench/gpu_small.py --device cuda
python bench/gpu_small.py --compare
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bat_fast import ops

# A warp and a block walk short and long rows; sizes that no vector or tile divides.
ROWS = [(5, 10), (3, 203), (2, 4099)]
IMAGES = [(3, 3, 8, 8), (2, 3, 33, 35), (2, 3, 96, 96)]
Call = tuple[str, Callable[[], object]]


def with_grad(f: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [t.detach().requires_grad_() for t in inputs]
    loss = f(*leaves)
    return loss.detach(), *torch.autograd.grad(loss.sum(), leaves)


def calls(device: str) -> Iterator[Call]:
    """(operator and size, call) with the same inputs on every device. `=` marks those equal bit for bit."""
    generator = torch.Generator().manual_seed(7)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(device)

    beta = torch.tensor(2.0, device=device)

    def ints(high: int, n: int) -> Tensor:
        return torch.randint(0, high, (n,), generator=generator).to(device)

    for shape in IMAGES:
        x, g = rand(*shape), rand(*shape) - 0.5
        for layout, c, d in (
            ("", x, g),
            ("channels_last", *(t.to(memory_format=torch.channels_last) for t in (x, g))),
        ):
            size = f"{shape} {layout}"
            yield (
                f"linf_step_ {size}=",
                lambda c=c, d=d: ops.linf_step_(c.clone(), d, c, step_size=0.02, eps=0.05),
            )
            yield f"l2_step_ {size}", lambda c=c, d=d: ops.l2_step_(c.clone(), d, c, step_size=0.2, eps=0.5)
            for norm in ("linf", "l2", "gaussian"):
                mark = "=" if norm == "linf" else ""
                yield (
                    f"random_start {norm} {size}{mark}",
                    lambda c=c, n=norm: ops.random_start(c, eps=0.1, norm=n, seed=3),
                )
            yield f"smooth_relu {size}", lambda c=c: with_grad(ops.smooth_relu, 4 * c - 2, beta)
            yield f"softplus {size}", lambda c=c: with_grad(ops.softplus, 4 * c - 2)
        pixels = torch.randint(0, 256, (7, *shape[2:], 3), generator=generator, dtype=torch.uint8).to(device)
        index = ints(7, 4)
        for last in (False, True):
            rule = {"pad": 2, "seed": 5, "epoch": 1, "channels_last": last}
            yield f"crop_flip {shape} {last}=", lambda p=pixels, i=index, r=rule: ops.crop_flip(p, i, **r)
    for n, classes in ROWS:
        z, other, y = 6 * rand(n, classes) - 3, 6 * rand(n, classes) - 3, ints(classes, n)
        soft, size = other.softmax(1), f"{n}x{classes}"
        for loss in ("ce", "margin", "dlr", "kl", "ce+te"):
            extra = (
                {"reference": other}
                if loss == "kl"
                else {"soft": soft, "soft_weight": 2.0}
                if "te" in loss
                else {}
            )
            yield (
                f"attack_grad {loss} {size}",
                lambda z=z, y=y, k=loss, e=extra: ops.attack_grad(z, y, loss=k, **e),
            )
        yield f"bat_loss {size}", lambda z=z, y=y: with_grad(lambda z: ops.bat_loss(z, y, alpha=1.0)[0], z)
        yield f"kl_loss {size}", lambda z=z, o=other: with_grad(lambda a, b: ops.kl_loss(a, b)[0], z, o)
        yield (
            f"mart_loss {size}",
            lambda z=z, o=other, y=y: with_grad(lambda a, b: ops.mart_loss(a, b, y)[0], z, o),
        )
        yield (
            f"soft_target_loss {size}",
            lambda z=z, s=soft: with_grad(lambda z: ops.soft_target_loss(z, s)[0], z),
        )
        if hasattr(ops, "ensemble_targets_"):
            memory, index = rand(9, classes), ints(9, n)
            yield (
                f"ensemble_targets_ {size}",
                lambda m=memory, i=index, z=z: ops.ensemble_targets_(m.clone(), i, z, momentum=0.9),
            )
    for n, width in ((5, 7), (70, 33)):
        h, y = rand(n, width) - 0.5, ints(4, n)
        for denominator in ("all", "negatives"):
            yield (
                f"discrimination_loss {denominator} {n}x{width}",
                lambda h=h, y=y, d=denominator: with_grad(
                    lambda h: ops.discrimination_loss(h, y, denominator=d), h
                ),
            )
    for n in (1, 37, 1500):
        for form in ("hr", "hd") if hasattr(ops, "holistic_weights") else ():
            losses = 3 * rand(n)
            yield (
                f"holistic_weights {form} {n}",
                lambda v=losses, f=form: ops.holistic_weights(v, alpha=0.1, r=0.1, form=f),
            )


def results(device: str) -> dict[str, list[Tensor]]:
    found = {}
    for name, call in calls(device):
        result = call()
        tensors = [result] if isinstance(result, Tensor) else list(result)  # type: ignore[call-overload]
        found[name] = [t.cpu() for t in tensors]
    return found


def differences() -> list[str]:
    """What the CPU and the GPU compute differently: at all where bits must agree, else beyond rounding."""
    wrong, cpu, gpu = [], results("cpu"), results("cuda")
    for name, ours in cpu.items():
        for a, b in zip(ours, gpu[name], strict=True):
            error = float((a - b).norm() / a.norm().clamp_min(1e-30))
            if not torch.equal(a, b) if name.endswith("=") else not error < 1e-5:
                wrong.append(f"{name}: relative difference {error:.1e}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--compare", action="store_true", help="compare the CPU with the GPU")
    options = parser.parse_args()
    if options.compare:
        wrong = differences()
        print(*wrong, sep="\n")
        return int(bool(wrong))
    found = results(options.device)
    print(f"{len(found)} calls ran on {options.device}")
    return int(not all(t.isfinite().all() for tensors in found.values() for t in tensors))


if __name__ == "__main__":
    sys.exit(main())
