"""One NaN or infinity in any array of any kernel shows in the same results as in the definition.

The convolutions, whose paths depend on the geometry, are tested with NaN and infinity in their own files.
"""

import numpy as np
import pytest

from cnnlite import kernels, reference
from tests.kernels.drawn import EPSILON, assert_close

POOL = (3, 2), (2, 1), ((1, 1), (0, 1))
X_SHAPE = (2, 7, 5, 19)  # more channels than a vector has lanes, but not a whole number of vectors
ROWS = (600, 5)  # more than one chunk of the sums over rows

ACTIVATIONS = {
    "relu": {}, "leaky_relu": {"negative_slope": 0.5}, "elu": {"alpha": 0.7}, "gelu": {}, "sigmoid": {}, "silu": {},
    "tanh": {}, "softplus": {}, "softmax": {}, "log_softmax": {},
    "clipped_relu": {"max_value": 0.8, "negative_slope": 0.3, "threshold": 0.1},
}
FROM_X = ("clipped_relu", "elu", "gelu", "silu")  # backward takes x; the others take y


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def results(function, arrays, arguments):
    with np.errstate(all="ignore"):  # NumPy warns of NaN, compiled code doesn't
        result = function(*arrays, **arguments)
    return result if isinstance(result, tuple) else (result,)


def cases():
    """Yield (name of the kernel, arrays, other arguments, index of the array to spoil)."""
    x, rows = normal(*X_SHAPE), normal(*ROWS)
    pooled, argmax = reference.max_pool(x, *POOL)
    pool = dict(zip(("window", "strides", "pads"), POOL))
    windows = dict(window=(3, 2), strides=(2, 1), pads=((1, 0), (0, 1)))
    dy, mean, scale = normal(*ROWS, seed=1), normal(5, seed=2), 1 + normal(5, seed=3) ** 2
    calls = [
        ("average_pool", [x], pool),
        ("average_pool_backward", [pooled], {"x_shape": X_SHAPE, **pool}),
        ("max_pool", [x], pool),
        ("max_pool_backward", [pooled], {"argmax": argmax, "x_shape": X_SHAPE, **pool}),
        ("batchnorm_statistics", [rows], {}),
        ("batchnorm_statistics", [x], {}),
        ("batchnorm_normalize", [rows, mean, scale, mean, scale], {}),
        ("batchnorm_backward", [dy, rows, mean, scale, -scale], {}),
        ("batchnorm_backward", [normal(*X_SHAPE, seed=1), x, *normal(3, 19, seed=2)], {}),
        ("batchnorm_inference_backward", [dy, scale, -scale], {}),
        ("inverse_deviation", [scale], {"epsilon": 0.1}),
        ("matmul", [normal(37, 21), normal(21, 35), normal(35)], {}),
        ("column_sums", [rows], {}),
        ("im2col", [x], windows),
        ("col2im", [reference.im2col(x, **windows)], {"x_shape": X_SHAPE, **windows}),
    ]
    for name, arrays, arguments in calls:
        for i in range(len(arrays)):
            if (name, i) != ("batchnorm_backward", 3):  # 1 / √(variance + epsilon), which can't be infinite
                yield name, arrays, arguments, i
    for name, arguments in ACTIVATIONS.items():
        yield name, [rows], arguments, 0
        y = rows if name in FROM_X else getattr(reference, name)(rows, **arguments)
        yield f"{name}_backward", [dy, y], arguments, 0
    yield "gelu", [rows], {"approximate": True}, 0
    yield "gelu_backward", [dy, rows], {"approximate": True}, 0


CASES = list(cases())
IDS = [f"{name}, array {i}{', approximate' * ('approximate' in arguments)}" for name, _, arguments, i in CASES]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "arrays", "arguments", "spoilt"), CASES, ids=IDS)
def test_it_shows_where_it_shows_in_the_definition(name, arrays, arguments, spoilt, bad):
    arrays = [array.copy() for array in arrays]
    arrays[spoilt].flat[arrays[spoilt].size * 5 // 7] = bad
    mine = results(getattr(kernels, name), arrays, arguments)
    # Not computed in float64: nothing here comes near overflow, so every infinity stems from the spoilt number.
    theirs = results(getattr(reference, name), arrays, arguments)
    for result, expected in zip(mine, theirs):
        assert_close(result, expected, 10 * EPSILON["float32"])
    if name not in ("im2col", "max_pool"):
        assert any(np.isfinite(result).any() for result in mine)  # one bad number has not spoilt everything


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_an_activation_made_of_it_goes_back_as_in_the_definition(name, bad):
    x, dy = normal(6, 5), normal(6, 5, seed=1)
    x[4, 2] = bad
    gradients = []
    for module in (kernels, reference):
        (y,) = results(getattr(module, name), [x], ACTIVATIONS[name])
        backward = getattr(module, f"{name}_backward")
        gradients += results(backward, [dy, x if name in FROM_X else y], ACTIVATIONS[name])
    assert_close(*gradients, 10 * EPSILON["float32"])
