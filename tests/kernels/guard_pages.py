"""Kernels on arrays with a guard page before or after them; run by `test_guard_pages.py`.

Reading a vector past the end of an array does no harm until the array ends on the last mapped page of the process.
Here every array does: one byte too far, and the operating system kills the process.

    python -m tests.kernels.guard_pages NAME
"""

import ctypes
import functools
import mmap
import sys

import numpy as np

from cnnlite import kernels

PAGE = mmap.PAGESIZE
PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_maps = []  # must outlive the arrays in them


def guarded(array, at_end):
    """Return a copy of an array that ends where a guard page begins, or begins where one ends."""
    pages = -(-array.nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    _maps.append(memory)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        if _libc.mprotect(address + page * PAGE, PAGE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    place = PAGE * (pages + 1) - array.nbytes if at_end else PAGE
    copy = np.frombuffer(memory, array.dtype, array.size, place).reshape(array.shape)
    copy[...] = array
    return copy


def normal(*shape, dtype="float32"):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def check(function, at_end, *arrays, out):
    """Assert that `function` writes the same to guarded arrays as to plain ones; `out` are arrays like its results."""
    plain = [np.zeros_like(array) for array in out]
    function(*arrays, *plain)
    mine = [guarded(np.zeros_like(array), at_end) for array in out]
    function(*(guarded(array, at_end) for array in arrays), *mine)
    for a, b in zip(mine, plain):
        np.testing.assert_array_equal(a, b)


def check_convolution(n, size, taps, c, f, groups, strides, pad, dilation, dtype):
    where = strides, ((pad, pad), (pad, pad)), dilation, groups
    x, kernel = normal(n, *size, c, dtype=dtype), normal(*taps, c // groups, f, dtype=dtype)
    bias = normal(f, dtype=dtype)
    y = kernels.conv2d(x, kernel, bias, *where)

    def forward(x, kernel, bias, y):
        kernels.conv2d(x, kernel, bias, *where, out=y)

    def input_gradient(dy, kernel, dx):
        kernels.conv2d_input_gradient(dy, kernel, dx.shape, *where, out=dx)

    def kernel_gradient(x, dy, dkernel):
        kernels.conv2d_kernel_gradient(x, dy, dkernel.shape, *where, out=dkernel)

    def all_gradients(x, dy, kernel, dkernel, dbias, dx):
        kernels.conv2d_backward(x, dy, kernel, *where, dkernel, dbias, dx)

    for at_end in (True, False):
        check(all_gradients, at_end, x, y, kernel, out=[kernel, bias, x])
        check(forward, at_end, x, kernel, bias, out=[y])
        check(input_gradient, at_end, y, kernel, out=[x])
        check(kernel_gradient, at_end, x, y, out=[kernel])


ONE = (1, 1)
NO_PADS = ((0, 0), (0, 0))


def direct():
    for dtype in ("float32", "float64"):
        for n, size, taps, c, f, groups, strides, pad, dilation in [
            (2, (8, 9), (3, 3), 1, 1, 1, ONE, 0, ONE),
            (1, (8, 9), (3, 3), 3, 7, 1, ONE, 0, ONE),
            (2, (7, 7), (3, 2), 3, 17, 1, ONE, 1, ONE),
            (2, (9, 8), (1, 1), 5, 33, 1, ONE, 0, ONE),
            (3, (9, 8), (1, 1), 16, 16, 1, (2, 2), 0, ONE),
            (2, (9, 11), (2, 3), 6, 10, 2, (2, 1), 0, ONE),
            (2, (9, 11), (2, 3), 6, 32, 2, ONE, 2, (2, 3)),
            (17, (3, 3), (3, 3), 13, 15, 1, ONE, 0, ONE),
            (33, (2, 3), (2, 3), 1, 1, 1, ONE, 0, ONE),
            (33, (2, 3), (2, 3), 4, 4, 2, ONE, 0, ONE),
            (1, (40, 41), (3, 3), 4, 24, 1, ONE, 0, ONE),
            (48, (2, 2), (2, 2), 1, 3, 1, ONE, 0, ONE),
            (49, (1, 2), (1, 2), 1, 1, 1, ONE, 0, ONE),
            (64, (1, 2), (1, 1), 2, 3, 1, (2, 2), 0, ONE),
        ]:
            check_convolution(n, size, taps, c, f, groups, strides, pad, dilation, dtype)


def winograd():
    for dtype in ("float32", "float64"):
        for taps in (2, 3, 4, 5):
            for n, size, c, f, pad in [(1, (14, 15), 17, 19, 0), (2, (13, 13), 16, 16, taps // 2),
                                       (17, (8, 10), 31, 33, 0)]:
                check_convolution(n, size, (taps, taps), c, f, 1, ONE, pad, ONE, dtype)
        check_convolution(2, (8, 8), (3, 3), 96, 97, 1, ONE, 1, ONE, dtype)  # the kernel's gradient by 36 products


def matmul():
    for dtype in ("float32", "float64"):
        for m, k, n in [(1, 1, 1), (3, 5, 7), (9, 17, 15), (33, 3, 16), (5, 4, 32), (40, 33, 47), (2, 9, 17),
                        (130, 120, 100)]:
            bias, c = normal(n, dtype=dtype), normal(m, n, dtype=dtype)
            for transpose_a, transpose_b in [(False, False), (True, False), (False, True)]:
                a = normal(*((k, m) if transpose_a else (m, k)), dtype=dtype)
                b = normal(*((n, k) if transpose_b else (k, n)), dtype=dtype)
                run = functools.partial(_matmul, transpose_a, transpose_b)
                for at_end in (True, False):
                    check(run, at_end, a, b, bias, out=[c])
            for at_end in (True, False):
                check(_column_sums, at_end, c, out=[bias])


def _column_sums(x, out):
    kernels.column_sums(x, out=out)


def depthwise():
    for dtype in ("float32", "float64"):
        for c, multiplier in [(1, 1), (7, 1), (8, 1), (15, 1), (16, 1), (17, 1), (33, 1), (3, 2)]:
            x, kernel = normal(2, 6, 7, c, dtype=dtype), normal(3, 2, c, multiplier, dtype=dtype)
            bias = normal(c * multiplier, dtype=dtype)
            for strides, pads in [((1, 1), NO_PADS), ((1, 1), ((1, 1), (1, 0))), ((2, 3), ((2, 0), (0, 1)))]:
                y = kernels.depthwise_conv2d(x, kernel, bias, strides, pads)
                run = functools.partial(_depthwise, strides, pads)
                for at_end in (True, False):
                    check(run, at_end, x, kernel, bias, y, out=[y.copy(), x.copy(), kernel.copy()])


def _depthwise(strides, pads, x, kernel, bias, dy, y, dx, dkernel):
    kernels.depthwise_conv2d(x, kernel, bias, strides, pads, out=y)
    kernels.depthwise_conv2d_input_gradient(dy, kernel, x.shape, strides, pads, out=dx)
    kernels.depthwise_conv2d_kernel_gradient(x, dy, kernel.shape, strides, pads, out=dkernel)


def _matmul(transpose_a, transpose_b, a, b, bias, c):
    kernels.matmul(a, b, bias, transpose_a, transpose_b, out=c)


def pooling():
    for dtype in ("float32", "float64"):
        for c in (1, 3, 7, 8, 9, 15, 16, 17, 31, 33):
            for window, strides in [((2, 2), (2, 2)), ((3, 3), (1, 1)), ((2, 3), (3, 4)), ((1, 1), (1, 1))]:
                check_pooling((window, strides, NO_PADS), c, dtype)
            check_pooling(((2, 2), (2, 2), ((0, 1), (0, 0))), c, dtype)
            check_pooling(((3, 2), (3, 2), ((2, 2), (0, 1))), c, dtype)


def check_pooling(window, c, dtype):
    x = normal(2, 5, 7, c, dtype=dtype)
    y, argmax = kernels.max_pool(x, *window)

    def forward(x, y, argmax):
        kernels.max_pool(x, *window, out=(y, argmax))

    def backward(dy, argmax, dx):
        kernels.max_pool_backward(dy, argmax, dx.shape, *window, out=dx)

    for at_end in (True, False):
        check(forward, at_end, x, out=[y, argmax])
        check(backward, at_end, y, argmax, out=[x])


def normalisation():
    """BatchNorm of images and of matrices, with less than a vector of channels, exactly one, and more."""
    for dtype in ("float32", "float64"):
        for c in (1, 3, 8, 15, 17, 33):
            for shape in ((3, 5, 7, c), (3, c)):
                x, gamma = normal(*shape, dtype=dtype), normal(c, dtype=dtype)
                for at_end in (True, False):
                    check(_normalise, at_end, x, gamma, out=[x, gamma])
                    check(kernels.batchnorm_backward, at_end, x, x, gamma, gamma, gamma, out=[x, gamma, gamma])


def _normalise(x, gamma, y, average):
    mean, variance = kernels.batchnorm_statistics(x)
    kernels.batchnorm_normalize(x, mean, kernels.inverse_deviation(variance, 1.0), gamma, gamma, out=y)
    kernels.move_average(average, variance, 0.5, x)


def faults():
    """Read one number too far, to show that this is detected."""
    x = guarded(normal(10), at_end=True)
    return ctypes.c_float.from_address(x.ctypes.data + x.nbytes).value


if __name__ == "__main__":
    globals()[sys.argv[1]]()
