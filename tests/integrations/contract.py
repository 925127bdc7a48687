"""What every attack for another framework promises, on a small network: tests of hosts are made of these."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS, STEP, STEPS = 0.08, 0.02, 10
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def network() -> nn.Module:
    """A trained-looking network in train mode, with a frozen batch norm and a weight without gradient."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    with torch.no_grad():
        for _ in range(3):
            net((torch.rand(64, 3, 8, 8) - 0.5) * 4)
    net[1].eval()
    net[0].weight.requires_grad_(False)
    return net


def batch() -> tuple[Tensor, Tensor]:
    """Images [16, 3, 8, 8] in [0, 1] and classes [16]."""
    torch.manual_seed(1)
    return torch.rand(16, 3, 8, 8), torch.randint(0, 5, (16,))


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference of a pixel."""
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


def alike(net: nn.Module, a: Tensor, b: Tensor, y: Tensor) -> bool:
    """95 % of the pixels are equal, and the losses to 0.1 %."""
    net = net.eval()
    with torch.no_grad():
        losses = [F.cross_entropy(net(torch.as_tensor(images)), y) for images in (a, b)]
    same = ((torch.as_tensor(a) - torch.as_tensor(b)).abs() < 1e-6).float().mean()
    return bool(same >= 0.95) and abs(float(losses[0] / losses[1]) - 1) <= 1e-3


class Untouched:
    """``with Untouched(net):`` modes, flags, buffers and gradients are afterwards as before, and no warning
    said that the network runs as it is."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def state(self) -> list:
        weights = [(w.requires_grad, w.grad is None, w.sum().item()) for w in self.net.parameters()]
        return [
            [m.training for m in self.net.modules()],
            weights,
            [b.sum().item() for b in self.net.buffers()],
        ]

    def __enter__(self) -> None:
        self.before = self.state()
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.filterwarnings("error", message="bat_fast")

    def __exit__(self, *error: object) -> None:
        self.caught.__exit__(*error)
        assert error[0] is not None or self.state() == self.before


def folded(net: nn.Module) -> bool:
    """Whether an engine keeps a program of ``net`` or of parts of it."""
    from bat_fast.attacks.engine import freeze

    own = set(net.modules())
    programs = [
        program
        for module, freezer in list(freeze._FREEZERS.items())
        if own & set(module.modules())
        for program in freezer._programs.values()
    ]
    return bool(programs) and not any(isinstance(program, Exception) for program in programs)
