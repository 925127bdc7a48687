"""The operators: fused kernels on CPU and CUDA, each with a pure-PyTorch reference.

`is_native` tells which of the two answers on a device.
"""

from bat_fast._native import is_native
from bat_fast.ops.discrimination import discrimination_loss
from bat_fast.ops.holistic import holistic_loss, holistic_weights
from bat_fast.ops.perturb import linf_step_, random_start
from bat_fast.ops.row_loss import attack_grad, bat_loss
from bat_fast.ops.soft_labels import ensemble_targets_

__all__ = [
    "attack_grad",
    "bat_loss",
    "discrimination_loss",
    "ensemble_targets_",
    "holistic_loss",
    "holistic_weights",
    "is_native",
    "linf_step_",
    "random_start",
]
