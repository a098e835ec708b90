"""Compiled code does no bounds checking, so a kernel refuses arrays that don't fit before it reads or writes any."""

import numpy as np
import pytest

from cnnlite import kernels
from cnnlite.kernels.checks import require
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed

SHAPE = (2, 5, 4, 3)  # of images; the windows below are (2, 2), the kernels (2, 2, 3, 2)
WINDOW = (2, 2)


def ones(*shape):
    return np.ones(shape, np.float32)


# Every kernel with arrays that fit, in the order of its arguments, and its arguments that are not arrays.
CALLS = {
    "matmul": ({"a": ones(4, 3), "b": ones(3, 5), "bias": ones(5), "out": ones(4, 5)}, {}),
    "matmul, transposed": ({"a": ones(3, 4), "b": ones(5, 3), "bias": ones(5), "out": ones(4, 5)},
                           {"transpose_a": True, "transpose_b": True}),
    "im2col": ({"x": ones(*SHAPE), "out": ones(2 * 4 * 3, 12)}, {"window": WINDOW}),
    "col2im": ({"cols": ones(2 * 4 * 3, 12), "out": ones(*SHAPE)}, {"x_shape": SHAPE, "window": WINDOW}),
    "depthwise_conv2d": ({"x": ones(*SHAPE), "kernel": ones(2, 2, 3, 2), "bias": ones(6), "out": ones(2, 4, 3, 6)},
                         {}),
    "depthwise_conv2d_input_gradient": ({"dy": ones(2, 4, 3, 6), "kernel": ones(2, 2, 3, 2), "out": ones(*SHAPE)},
                                        {"x_shape": SHAPE}),
    "depthwise_conv2d_kernel_gradient": ({"x": ones(*SHAPE), "dy": ones(2, 4, 3, 6), "out": ones(2, 2, 3, 2)},
                                         {"kernel_shape": (2, 2, 3, 2)}),
}
POOL = {"window": WINDOW, "strides": (1, 1), "pads": ((0, 0), (0, 0))}
CALLS |= {
    "average_pool": ({"x": ones(*SHAPE), "out": ones(2, 4, 3, 3)}, POOL),
    "average_pool_backward": ({"dy": ones(2, 4, 3, 3), "out": ones(*SHAPE)}, {"x_shape": SHAPE, **POOL}),
    "batchnorm_normalize": ({"x": ones(*SHAPE), "mean": ones(3), "inv_std": ones(3), "gamma": ones(3), "beta": ones(3),
                             "out": ones(*SHAPE)}, {}),
    "batchnorm_inference_backward": ({"dy": ones(*SHAPE), "inv_std": ones(3), "gamma": ones(3), "out": ones(*SHAPE)},
                                     {}),
}
VECTOR = ones(7)
CALLS |= {
    "add": ({"a": ones(3, 4), "b": ones(3, 4), "out": ones(3, 4)}, {}),
    "relu": ({"x": ones(3, 4), "out": ones(3, 4)}, {}),
    "relu_backward": ({"dy": ones(3, 4), "y": ones(3, 4), "out": ones(3, 4)}, {}),
    "leaky_relu_backward": ({"dy": ones(3, 4), "y": ones(3, 4), "out": ones(3, 4)}, {}),
    "gelu_backward": ({"dy": ones(3, 4), "x": ones(3, 4), "out": ones(3, 4)}, {}),
    "sgd_step": ({"p": VECTOR, "g": VECTOR, "momentum": VECTOR},
                 {"learning_rate": 0.1, "beta": 0.9, "nesterov": False, "decay": 0}),
    "rmsprop_step": ({"p": VECTOR, "g": VECTOR, "velocity": VECTOR, "average_gradient": VECTOR, "momentum": VECTOR},
                     {"learning_rate": 0.1, "rho": 0.9, "beta": 0.9, "epsilon": 1, "decay": 0}),
    "adam_step": ({"p": VECTOR, "g": VECTOR, "momentum": VECTOR, "velocity": VECTOR, "velocity_hat": VECTOR},
                  {"alpha": 0.1, "beta_1": 0.9, "beta_2": 0.9, "epsilon": 1, "decay": 0}),
    "adagrad_step": ({"p": VECTOR, "g": VECTOR, "accumulator": VECTOR},
                     {"learning_rate": 0.1, "epsilon": 1, "decay": 0}),
}
ARRAYS = [(case, name) for case, (arrays, _) in CALLS.items() for name in arrays]


def call(case, **changes):
    arrays, arguments = CALLS[case]
    fresh = {name: array if name == "out" else array.copy() for name, array in arrays.items()}
    return getattr(kernels, case.split(",")[0])(**{**fresh, **arguments, **changes})


@pytest.mark.parametrize("case", CALLS)
def test_arrays_that_fit_are_taken(case):
    assert call(case) is CALLS[case][0].get("out")


@pytest.mark.parametrize(("case", "name"), ARRAYS)
def test_another_dtype_is_refused(case, name):
    array = CALLS[case][0][name]
    for dtype in ("float64", "float16", "int32", array.dtype.newbyteorder()):
        with pytest.raises(TypeError, match=r"must be .*float(32|64)\. Received"):
            call(case, **{name: array.astype(dtype)})


@pytest.mark.parametrize(("case", "name"), ARRAYS)
def test_an_array_that_is_not_contiguous_is_refused(case, name):
    array = CALLS[case][0][name]
    for other in (np.repeat(array, 2, axis=-1)[..., ::2], np.repeat(array, 2, axis=0)[::2]):
        with pytest.raises(ValueError, match=r"must be C-contiguous"):
            call(case, **{name: other})


@pytest.mark.parametrize(("case", "name"), ARRAYS)
def test_a_shape_that_does_not_fit_is_refused(case, name):
    array = CALLS[case][0][name]
    shapes = [array.shape[:-1], (*array.shape, 1)]
    shapes += [tuple(size + step * (axis == i) for i, size in enumerate(array.shape))
               for axis in range(array.ndim) for step in (-1, 1)]
    for shape in shapes:
        with pytest.raises(ValueError, match=r"must (have|broadcast) .* Received"):
            call(case, **{name: np.ones(shape, np.float32)})


def test_float16_is_refused_although_all_arrays_agree():
    # The micro-kernel would treat its 2-byte numbers as the 8-byte numbers of float64.
    half = np.ones((4, 4), np.float16)
    for name, arrays in (("matmul", (half, half)), ("column_sums", (half,))):
        with pytest.raises(TypeError, match=rf"^{name}: . must be float32 or float64\. Received: . of dtype float16"):
            getattr(kernels, name)(*arrays)


def test_an_error_says_what_the_rule_is_what_came_and_what_to_do():
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"^f: x must have the shape \(3, 2\)\. Received: x\.shape=\(2, 3\)\.$"):
        require(x, "x", (3, 2), None, "f")
    with pytest.raises(ValueError, match=r"^f: x must have 4 axes\. Received: x\.shape=\(2, 3\)\.$"):
        require(x, "x", 4, None, "f")
    with pytest.raises(TypeError, match=r"^f: x must be of dtype float32\. Received: x of dtype float64.*astype"):
        require(x, "x", (2, 3), np.dtype("float32"), "f")
    with pytest.raises(ValueError, match=r"C-contiguous.*strides \(8, 24\)\. Use np\.ascontiguousarray\(x\)"):
        require(x.T, "x", 2, None, "f")
