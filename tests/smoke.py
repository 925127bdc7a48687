"""Whether an installed bat_fast works: run by `tests/torch_range.py`, and needs no test runner.

python tests/smoke.py
"""

from __future__ import annotations

import sys

import torch

import bat_fast
from bat_fast import _native, ops


def main() -> None:
    assert _native.build_info()["version"] == bat_fast.__version__
    assert [name for name in _native.operators() if not ops.is_native(name, "cpu")] == []

    logits = torch.randn(32, 10, dtype=torch.float64, requires_grad=True)
    target = torch.arange(32) % 10
    loss, weights = ops.bat_loss(logits, target, alpha=1.0)
    loss.backward()
    expected, expected_weights, *_ = _native.reference_of("bat_loss")(logits.detach(), target, 1.0, "weights")
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close(weights, expected_weights)
    assert logits.grad is not None

    # An error is thrown on one side of the stable interface, and caught on the other.
    said = ""
    try:
        torch.ops.bat_fast.attack_grad(logits.detach().half(), target, "ce", None, None, 0.0, False, None)
    except RuntimeError as error:
        said = str(error)
    assert "float32 and float64" in said

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
    x = torch.rand(8, 3, 8, 8)
    adv = bat_fast.PGD(model, eps=8 / 255, steps=3)(x, target[:8])
    assert 0 < float((adv - x).abs().max()) <= 8 / 255 + 1e-6

    build = _native.build_info()
    cuda = f"CUDA {build['cuda']}" if build["cuda"] else "without CUDA"
    print(f"works: Python {sys.version.split()[0]}, torch {torch.__version__}, the library built {cuda}")


if __name__ == "__main__":
    main()
