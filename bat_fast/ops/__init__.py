"""The operators: fused kernels on CPU and CUDA, each with a pure-PyTorch reference.

`is_native` tells which of the two answers on a device.
"""

from bat_fast._native import is_native
from bat_fast.ops.activation import smooth_relu, softplus
from bat_fast.ops.augment import crop_flip
from bat_fast.ops.discrimination import discrimination_loss
from bat_fast.ops.perturb import linf_step_, random_start
from bat_fast.ops.row_loss import attack_grad, bat_loss

__all__ = [
    "attack_grad",
    "bat_loss",
    "crop_flip",
    "discrimination_loss",
    "is_native",
    "linf_step_",
    "random_start",
    "smooth_relu",
    "softplus",
]
