"""The operators: fused kernels on CPU and CUDA, each with a pure-PyTorch reference.

`is_native` tells which of the two answers on a device.
"""

from bat_fast._native import is_native
from bat_fast.ops.activation import smooth_relu, softplus
from bat_fast.ops.affine import affine, affine_grad_
from bat_fast.ops.attack_grad import attack_grad
from bat_fast.ops.augment import crop_flip
from bat_fast.ops.discrimination import discrimination_loss
from bat_fast.ops.holistic import holistic_loss, holistic_weights
from bat_fast.ops.pair_loss import kl_loss, mart_loss
from bat_fast.ops.perturb import l2_step_, linf_step_
from bat_fast.ops.random_start import random_start
from bat_fast.ops.row_loss import bat_loss, soft_target_loss
from bat_fast.ops.soft_labels import ensemble_targets_

__all__ = [
    "affine",
    "affine_grad_",
    "attack_grad",
    "bat_loss",
    "crop_flip",
    "discrimination_loss",
    "ensemble_targets_",
    "holistic_loss",
    "holistic_weights",
    "is_native",
    "kl_loss",
    "l2_step_",
    "linf_step_",
    "mart_loss",
    "random_start",
    "smooth_relu",
    "soft_target_loss",
    "softplus",
]
