"""null_scale against its equation in float64; and what the tests of all operators ask of it."""

import pytest
import torch
from tables import LAYOUTS, SOME_IMAGES, TOLERANCE, Drawn, Right, laid_out

from bat_fast import ops


@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 5, 7), (0, 3, 4, 4), (3, 40961)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_null_scale_is_its_equation(shape, layout, device, dtype):
    x = laid_out(torch.randn(shape, device=device).to(dtype), layout).requires_grad_()
    grad = torch.randn(shape, device=device).to(dtype)
    y = ops.null_scale(x, scale=0.3)
    (grad_x,) = torch.autograd.grad(y, x, grad)
    assert y.dtype == dtype
    assert y.stride() == torch.empty_like(x).stride()
    torch.testing.assert_close(y.double(), 0.3 * x.double(), rtol=TOLERANCE[dtype], atol=0)
    torch.testing.assert_close(grad_x.double(), 0.3 * grad.double(), rtol=TOLERANCE[dtype], atol=0)


def test_gradients_are_numerically_right():
    x = torch.randn(40, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ops.null_scale(x, scale=-2.0), x)


def test_it_is_well_formed_and_native(device, dtype):
    x = torch.randn(2, 3, 4, 5, device=device).to(dtype)
    for view in (x, x.to(memory_format=torch.channels_last), x.clone().requires_grad_()):
        torch.library.opcheck(torch.ops.bat_fast.null_scale.default, (view, 0.3))
    assert ops.is_native("null_scale", "cpu")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.null_scale(torch.arange(3), scale=1.0), TypeError, "x must be one of float32, float64"),
        (lambda: ops.null_scale(torch.rand(3), scale=torch.nan), ValueError, "scale must be a finite number"),
    ],
)
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# A right call, of which test_errors.py makes every mistake but those that are none here.
RIGHT = {
    "null_scale": Right(
        {"x": SOME_IMAGES, "scale": 0.3},
        {"x": {"a dimension more", "a row less", "meta"}, "scale": {"negative"}},
    )
}
# Random inputs, on which test_properties.py compares the kernel with the reference.
DRAWN = {"null_scale": lambda draw: Drawn([draw.normal(*draw.images()), draw.one_of(0.0, -1.0, 0.3)])}
