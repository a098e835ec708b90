"""Sums of many numbers keep their digits in float32.

Each case sums the same number many times, so that in a sequential sum all rounding errors have the same sign. The
bounds are chosen so that a sequential sum fails, and a chain of a few thousand stays within its known error.
"""

import numpy as np
import pytest

from cnnlite import kernels, reference
from tests.kernels.drawn import assert_same_bits_with_one_thread_and_two, compiled_kernels_needed, two_threads_needed

A, B = np.float32(0.1), np.float32(0.3)
AB = float(A) * float(B)
NO_PADS = ((0, 0), (0, 0))


def full(value, *shape):
    return np.full(shape, value, np.float32)


def products(number, *shape, name, **arguments):
    """Return a product of constants, and the exact value of each of its numbers."""
    return getattr(kernels, name)(full(A, *shape[0]), full(B, *shape[1]), *shape[2:], **arguments), number * AB


def taken_back(size, channels, filters):
    """Return dx at the one pixel that all windows cover, for a kernel as large as dy, and its exact value."""
    image = 2 * size - 1
    dx = kernels.conv2d_input_gradient(full(A, 1, size, size, filters), full(B, size, size, channels, filters),
                                       (1, image, image, channels))
    return dx[0, size - 1, size - 1], size * size * filters * AB


def depthwise_taken_back(size):
    dx = kernels.depthwise_conv2d_input_gradient(full(A, 1, size, size, 2), full(B, size, size, 2, 1),
                                                 (1, 2 * size - 1, 2 * size - 1, 2))
    return dx[0, size - 1, size - 1], size * size * AB


def average_taken_back(size):
    """Do the same for average pooling: each window gives its pixels a share of 1 / size²."""
    dx = kernels.average_pool_backward(full(A, 1, size, size, 2), (1, 2 * size - 1, 2 * size - 1, 2), (size, size),
                                       (1, 1), NO_PADS)
    return dx[0, size - 1, size - 1], float(A)


def maximum_taken_back(size):
    """Do the same for max pooling, with a maximum that all windows contain."""
    argmax = np.array([[(size - 1 - i) * size + size - 1 - j for j in range(size)] for i in range(size)], np.int32)
    dx = kernels.max_pool_backward(full(A, 1, size, size, 1), argmax.reshape(1, size, size, 1),
                                   (1, 2 * size - 1, 2 * size - 1, 1), (size, size), (1, 1), NO_PADS)
    return dx[0, size - 1, size - 1], size * size * float(A)


def bias_gradient(*shape):
    dbias = full(0, shape[-1])
    kernels.conv2d_backward(full(A, *shape), full(B, *shape), full(0, 1, 1, 1, shape[-1]), groups=shape[-1],
                            dbias=dbias)
    return dbias, np.prod(shape[:-1]) * float(B)


def beta_gradient(*shape):
    channels = shape[-1]
    _, _, dbeta = kernels.batchnorm_backward(full(A, *shape), full(B, *shape), full(0, channels), full(1, channels),
                                             full(1, channels))
    return dbeta, np.prod(shape[:-1]) * float(A)


def average(*shape, window):
    return kernels.average_pool(full(A, *shape), window, window, NO_PADS), float(A)


def softmax(numbers, name):
    """Return the first numbers of a softmax along an axis that is not the last: exp is 1 there, and A elsewhere."""
    x = full(np.log(A), 2, numbers, 3)
    x[:, 0] = 0
    total = 1 + (numbers - 1) * float(A)
    return getattr(kernels, name)(x, 1)[:, 0], {"softmax": 1 / total, "log_softmax": -np.log(total)}[name]


def softmax_back(numbers, name):
    """Return the first numbers of dx, where dy is 0: minus y (or exp(y)) there times a sum."""
    dy, y = full(A, 2, numbers, 3), full(1 / 8192, 2, numbers, 3)
    dy[:, 0] = 0
    total = (numbers - 1) * float(A)
    if name == "softmax_backward":
        return kernels.softmax_backward(dy, y, 1)[:, 0], -total / 8192**2
    return kernels.log_softmax_backward(dy, np.log(y), 1)[:, 0], -total / 8192


# name: (a function that returns the result and the exact value of its numbers, the allowed relative error)
CASES = {
    "a product over 4,000 inputs": (lambda: products(4000, (2, 4000), (4000, 3), name="matmul"), 5e-6),
    "a product over 20,000 inputs": (lambda: products(20_000, (2, 20_000), (20_000, 3), name="matmul"), 5e-6),
    "a product over 20,000 inputs, the second factor transposed": (
        lambda: products(20_000, (2, 20_000), (3, 20_000), name="matmul", transpose_b=True), 5e-6),
    "the gradient of a matrix over 20,000 samples": (
        lambda: products(20_000, (20_000, 9), (20_000, 17), name="matmul", transpose_a=True), 5e-6),
    "a convolution of 20,000 channels": (
        lambda: products(20_000, (1, 2, 2, 20_000), (1, 1, 20_000, 17), name="conv2d"), 5e-6),
    "a convolution of 4,000 numbers": (
        lambda: products(4000, (1, 5, 20, 160), (5, 5, 160, 17), name="conv2d"), 5e-6),
    "a convolution of 10,000 taps": (
        lambda: products(10_000, (1, 100, 103, 1), (100, 100, 1, 2), name="conv2d"), 5e-6),
    "a convolution of 10,000 taps, dilated": (
        lambda: products(10_000, (1, 100, 199, 1), (100, 100, 1, 2), name="conv2d", dilation=(1, 2)), 5e-6),
    "a convolution of 10,000 numbers in groups": (
        lambda: products(10_000, (1, 50, 101, 4), (50, 100, 2, 4), name="conv2d", groups=2), 5e-6),
    "a gradient of the image by 20,000 filters": (lambda: taken_back(1, 2, 20_000), 5e-6),
    "a gradient of the image by many taps of many filters": (lambda: taken_back(20, 16, 32), 5e-6),
    "a gradient of the image by more taps than windows are for": (lambda: taken_back(65, 1, 1), 5e-6),
    "a gradient of the kernel over a large image": (
        lambda: products(40_000, (1, 200, 200, 2), (1, 200, 200, 17), (1, 1, 2, 17), name="conv2d_kernel_gradient"),
        5e-6),
    "a gradient of a 3x3 kernel over a large image": (
        lambda: products(40_000, (1, 202, 202, 3), (1, 200, 200, 9), (3, 3, 3, 9), name="conv2d_kernel_gradient"),
        5e-6),
    "a gradient of the kernel of few filters over a large image": (
        lambda: products(40_000, (1, 202, 202, 8), (1, 200, 200, 1), (3, 3, 8, 1), name="conv2d_kernel_gradient"),
        5e-6),
    "a gradient of the kernel of groups over a large image": (
        lambda: products(40_000, (1, 202, 202, 4), (1, 200, 200, 4), (3, 3, 2, 4), name="conv2d_kernel_gradient",
                         groups=2), 5e-6),
    "a gradient of the kernel over many small images": (
        lambda: products(320_000, (20_000, 4, 4, 2), (20_000, 4, 4, 17), (1, 1, 2, 17),
                         name="conv2d_kernel_gradient"), 3e-5),
    "a gradient of the kernel by Winograd's method over a large image": (
        lambda: products(364**2, (1, 366, 366, 16), (1, 364, 364, 16), (3, 3, 16, 16),
                         name="conv2d_kernel_gradient"), 2e-5),
    "a depthwise convolution of 10,000 taps": (
        lambda: products(10_000, (1, 100, 102, 2), (100, 100, 2, 1), name="depthwise_conv2d"), 5e-6),
    "the gradient of its image": (lambda: depthwise_taken_back(64), 5e-6),
    "a gradient of a depthwise kernel over a large image": (
        lambda: products(40_000, (1, 202, 202, 2), (1, 200, 200, 2), (3, 3, 2, 1),
                         name="depthwise_conv2d_kernel_gradient"), 3e-5),
    "a bias gradient over long lines": (lambda: bias_gradient(1, 2, 30_000, 2), 1e-5),
    "a gradient of beta over long lines": (lambda: beta_gradient(1, 1, 60_000, 2), 1e-5),
    "an average of 10,000 pixels": (lambda: average(1, 100, 100, 3, window=(100, 100)), 5e-7),
    "averages of 80 pixels": (lambda: average(1, 80, 80, 3, window=(8, 10)), 5e-7),
    "the gradient of an average over overlapping windows": (lambda: average_taken_back(40), 5e-6),
    "the gradient of a maximum of overlapping windows": (lambda: maximum_taken_back(50), 5e-6),
    "a softmax along an axis that is not the last": (lambda: softmax(100_000, "softmax"), 5e-6),
    "a log-softmax along it": (lambda: softmax(100_000, "log_softmax"), 5e-6),
    "the gradient of a softmax along it": (lambda: softmax_back(100_000, "softmax_backward"), 5e-6),
    "the gradient of a log-softmax along it": (lambda: softmax_back(100_000, "log_softmax_backward"), 5e-6),
}


@pytest.mark.parametrize("name", CASES)
def test_a_long_sum_keeps_its_digits(name):
    compute, bound = CASES[name]
    result, exact = compute()
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, exact, rtol=bound, atol=0)


@compiled_kernels_needed
@two_threads_needed
@pytest.mark.parametrize("name", [name for name in CASES if "gradient" in name])
def test_the_bits_of_a_long_sum_do_not_depend_on_the_number_of_threads(name):
    compute, _ = CASES[name]
    assert_same_bits_with_one_thread_and_two(lambda: [compute()[0]])


def test_a_long_product_of_one_row_has_the_bits_of_that_row_among_others():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(70, 5000)).astype(np.float32), rng.normal(size=(5000, 17)).astype(np.float32)
    together = kernels.matmul(a, b)
    np.testing.assert_allclose(together, a.astype(float) @ b.astype(float), rtol=0, atol=2e-4)
    if kernels.COMPILED:
        for i in (0, 31, 32, 69):
            assert kernels.matmul(a[i : i + 1], b).tobytes() == together[i].tobytes()


def test_a_long_convolution_adds_the_same_to_a_bias_and_to_zero():
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((1, 3, 3, 1000), (3, 3, 1000, 5)))
    bias = full(1000, 5)
    exact = reference.conv2d(*(array.astype(float) for array in (x, kernel, bias)))
    np.testing.assert_allclose(kernels.conv2d(x, kernel, bias), exact, rtol=2e-7)


@pytest.mark.parametrize(("size", "channels"), [(40, 2), (8, 16), (3, 64), (1, 256)])
def test_a_pixel_of_a_long_convolution_has_the_same_bits_beside_an_infinity(size, channels):
    # An image with an infinity is computed pixel by pixel; with few filters, other images go several pixels at a time.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, size, 60, channels)).astype(np.float32)
    kernel = rng.normal(size=(size, size, channels, 3)).astype(np.float32)
    plain = kernels.conv2d(x, kernel)
    x[0, size // 2, 59, 0] = np.inf
    assert kernels.conv2d(x, kernel)[0, 0, :20].tobytes() == plain[0, 0, :20].tobytes()


def test_nan_and_infinity_pass_through_a_long_sum():
    a, b = full(1, 3, 6000), full(1, 6000, 2)
    a[0, 5999], a[1, 17] = np.nan, -np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(kernels.matmul(a, b), [[np.nan] * 2, [-np.inf] * 2, [6000] * 2])
