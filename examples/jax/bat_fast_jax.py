"""`bat_loss` of bat_fast for JAX arrays on the CPU: two calls of XLA, and the gradient between them."""

from __future__ import annotations

import ctypes
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

_TYPES = {"float32": "F32", "float64": "F64"}


def register(library: str | Path) -> None:
    """Make the calls of a built ``libbat_fast_jax.so`` known to XLA, once."""
    symbols = ctypes.cdll.LoadLibrary(str(library))
    for name in ("bat_loss", "bat_loss_backward"):
        for kind in _TYPES.values():
            call = jax.ffi.pycapsule(getattr(symbols, f"{name}_{kind}"))
            jax.ffi.register_ffi_target(f"{name}_{kind}", call, platform="cpu")


def bat_loss(
    logits: jax.Array, target: jax.Array, *, alpha: float, normalize: str = "weights"
) -> tuple[jax.Array, jax.Array]:
    """The loss of `bat_fast.ops.bat_loss`, a scalar, and the weights [N], through which no gradient flows.

    Args:
        logits: [N, C] float32, or float64 where JAX has it on.
        target: [N] classes, of any integer type; one outside [0, C) makes the loss NaN.
        alpha, normalize: as there.
    """
    if str(logits.dtype) not in _TYPES:
        raise TypeError(f"logits must be float32 or float64, got {logits.dtype}: convert with .astype")
    if logits.ndim != 2 or target.shape != logits.shape[:1]:
        raise ValueError(f"target must be [N] and logits [N, C], got {target.shape} and {logits.shape}")
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(f"target must hold whole numbers, got {target.dtype}")
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha must be a finite number >= 0, got {alpha}")
    if normalize not in ("weights", "batch"):
        raise ValueError(f"normalize must be 'weights' or 'batch', got {normalize!r}")
    loss, weights = _loss(logits, target.astype(jnp.int32), float(alpha), normalize == "weights")
    return loss, jax.lax.stop_gradient(weights)


def _call(name, logits, results):
    # A batch of batches is done one after the other: each has a mean of its own.
    return jax.ffi.ffi_call(f"{name}_{_TYPES[str(logits.dtype)]}", results, vmap_method="sequential")


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _loss(logits, target, alpha, by_weights):
    return _forward(logits, target, alpha, by_weights)[0]


def _forward(logits, target, alpha, by_weights):
    rows, like = len(logits), partial(jax.ShapeDtypeStruct, dtype=logits.dtype)
    call = _call("bat_loss", logits, (like(()), like((rows,)), like((rows, 2)), like(())))
    loss, weights, norm, total = call(logits, target, alpha=np.float64(alpha), by_weights=by_weights)
    return (loss, weights), (logits, target, weights, norm, total)


def _backward(_alpha, _by_weights, saved, grads):
    logits = saved[0]
    call = _call("bat_loss_backward", logits, jax.ShapeDtypeStruct(logits.shape, logits.dtype))
    return call(grads[0], *saved), None


_loss.defvjp(_forward, _backward)
