"""Models that look robust because their gradient is masked; each wraps one that is not robust."""

import torch
from torch import nn
from torch.nn import functional as F


class Rounded(nn.Module):
    """Pixels rounded to 8 bits: no gradient."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x * 255).round() / 255)


class Scaled(Rounded):
    """Logits so large that the cross entropy saturates."""

    def forward(self, x):
        return self.model(x) * 1e4


class GradientKiller(Rounded):
    """Pixels through a staircase with a little slope of the wrong sign."""

    def forward(self, x):
        steps = (x * 64).round() / 64
        return self.model(steps.detach() - 1e-3 * (x - x.detach()))


class RandomResize(Rounded):
    """Another size and place at every call."""

    def forward(self, x):
        size = x.shape[-1]
        smaller = int(torch.randint(size * 3 // 4, size, ()))
        left = int(torch.randint(0, size - smaller + 1, ()))
        shrunk = F.interpolate(x, size=(smaller, smaller), mode="bilinear")
        return self.model(F.pad(shrunk, (left, size - smaller - left) * 2))


class WinnersTakeAll(nn.Module):
    """The k largest activations of each image, the others 0 (Xiao et al. 2020)."""

    def __init__(self, share=0.05):
        super().__init__()
        self.share = share

    def forward(self, x):
        flat = x.flatten(1)
        kept = flat.topk(max(1, int(self.share * flat.shape[1]))).values[:, -1:]
        return (flat * (flat >= kept)).view_as(x)


class Detached(Rounded):
    """Pixels that have left the graph."""

    def forward(self, x):
        return self.model(x.detach()) if not x.requires_grad else self.model(x.detach()) + 0 * x.sum()


class Softmax(Rounded):
    """Probabilities in place of logits."""

    def forward(self, x):
        return self.model(x).softmax(1)


class BatchStatistics(Rounded):
    """Batch norm that never leaves its train mode."""

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = True
        return self
