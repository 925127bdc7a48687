"""`bat_loss` by the kernels beside the same in jnp, jitted: equal results first, then times in turns.

python compare.py build/libbat_fast_jax.so [seed] [rounds]
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from bat_fast_jax import bat_loss, register

jax.config.update("jax_enable_x64", True)
register(sys.argv[1])
draw = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 30


def by_hand(logits, target, alpha, normalize="weights"):
    log_p = jax.nn.log_softmax(logits)
    own = jnp.arange(logits.shape[1]) == target[:, None]  # a mask is faster here than indices
    other = jax.lax.stop_gradient(jnp.exp(jnp.where(own, -jnp.inf, log_p).max(1)))
    weights = jnp.where(logits.argmax(1) == target, 1.0, jnp.exp(-alpha * other)).astype(logits.dtype)
    losses = -jnp.where(own, log_p, 0).sum(1)
    return (weights * losses).sum() / (weights.sum() if normalize == "weights" else len(logits)), weights


def both(loss, **options):
    return jax.jit(jax.value_and_grad(lambda z, y: loss(z, y, **options), has_aux=True))


def arrays(rows, classes, dtype):
    target = draw.integers(0, classes, rows)
    return jnp.asarray(5 * draw.standard_normal((rows, classes)), dtype), jnp.asarray(target, jnp.int32)


for dtype, near in (("float64", 1e-12), ("float32", 2e-6)):
    for rows, classes in ((1, 1), (3, 2), (128, 10), (67, 200), (5, 1000)):
        for options in ({"alpha": 4.0}, {"alpha": 0.0}, {"alpha": 1.5, "normalize": "batch"}):
            z, y = arrays(rows, classes, dtype)
            assert z.dtype == dtype
            (ours, w), grad = both(bat_loss, **options)(z, y)
            (theirs, v), expected = both(by_hand, **options)(z, y)
            for a, b in ((ours, theirs), (w, v), (grad, expected)):
                np.testing.assert_allclose(a, b, rtol=near, atol=near)

z, y = arrays(12, 10, "float32")
one = jax.grad(lambda z, y: bat_loss(z, y, alpha=2.0)[0])
each = jax.vmap(one)(
    z.reshape(3, 4, 10), y.reshape(3, 4)
)  # what pmap, scan and per-sample gradients build on
for part in range(3):
    np.testing.assert_array_equal(each[part], one(z[4 * part : 4 * part + 4], y[4 * part : 4 * part + 4]))
assert np.isnan(bat_loss(z, y.at[3].set(10), alpha=2.0)[0])
for words, bad in (("target must be", (z, y[:2])), ("logits must be float32", (z.astype("float16"), y))):
    try:
        bat_loss(*bad, alpha=2.0)
    except (TypeError, ValueError) as error:
        if words in str(error):
            continue
    raise AssertionError(words)
print("equal", flush=True)

for rows, classes in ((128, 10), (128, 200), (4096, 1000)):
    given = arrays(rows, classes, "float32")
    calls = {"kernels": both(bat_loss, alpha=4.0), "jnp": both(by_hand, alpha=4.0)}
    times = {name: [] for name in calls}
    for turn in range(ROUNDS + 3):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call(*given))
            if turn >= 3:
                times[name].append(1e6 * (time.perf_counter() - start))
    middle = {name: statistics.median(values) for name, values in times.items()}
    said = ", ".join(f"{name} {value:.0f} us" for name, value in middle.items())
    print(f"[{rows}, {classes}], loss and gradient: {said}, ratio {middle['jnp'] / middle['kernels']:.2f}")
