"""Sums over many numbers in float32 are about as near to the exact ones as PyTorch's, or nearer."""

import numpy as np
import pytest

from cnnlite import kernels, layers

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.skipif(not kernels.COMPILED, reason="the definitions go tap by tap")]

FEW_ROUNDINGS = 5e-7  # an error that is as good as none


def constants(*shape):
    return np.full(shape, 0.1, np.float32)


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32) + np.float32(0.1)


def as_torch(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim == 4 else x)


def as_numpy(y):
    y = y.detach().numpy()
    return np.moveaxis(y, 1, -1) if y.ndim == 4 else y


def kernel_gradient(x, dy, size):
    """Return the kernel's gradient by PyTorch, in the dtype of the arguments."""
    shape = (dy.shape[-1], x.shape[-1], size, size)
    return torch.nn.grad.conv2d_weight(as_torch(x), shape, as_torch(dy)).numpy().transpose(2, 3, 1, 0)


# name: (the shapes of the operands, ours, PyTorch's)
CASES = {
    "a global average": (
        [(2, 300, 300, 2)], lambda x: layers.GlobalAveragePool()(x), lambda x: as_torch(x).mean((2, 3)).numpy()),
    "averages of large windows": (
        [(1, 300, 300, 2)], lambda x: layers.AveragePool(100)(x),
        lambda x: as_numpy(torch.nn.functional.avg_pool2d(as_torch(x), 100))),
    "a Dense layer of 50,000 inputs": (
        [(2, 50_000), (50_000, 3)], kernels.matmul, lambda x, w: (as_torch(x) @ as_torch(w)).numpy()),
    "its gradient by the inputs": (
        [(2, 50_000), (3, 50_000)], lambda dy, w: kernels.matmul(dy, w, transpose_b=True),
        lambda dy, w: (as_torch(dy) @ as_torch(w).T).numpy()),
    "the gradient of a Dense layer over 50,000 samples": (
        [(50_000, 4), (50_000, 3)], lambda x, dy: kernels.matmul(x, dy, transpose_a=True),
        lambda x, dy: (as_torch(x).T @ as_torch(dy)).numpy()),
    "a convolution of 30,000 channels": (
        [(1, 2, 2, 30_000), (1, 1, 30_000, 4)], kernels.conv2d,
        lambda x, w: as_numpy(torch.nn.functional.conv2d(as_torch(x), torch.from_numpy(w.transpose(3, 2, 0, 1))))),
    "the gradient of a 1x1 kernel": (
        [(2, 200, 200, 3), (2, 200, 200, 8)], lambda x, dy: kernels.conv2d_kernel_gradient(x, dy, (1, 1, 3, 8)),
        lambda x, dy: kernel_gradient(x, dy, 1)),
    "the gradient of a 3x3 kernel": (
        [(2, 202, 202, 3), (2, 200, 200, 8)], lambda x, dy: kernels.conv2d_kernel_gradient(x, dy, (3, 3, 3, 8)),
        lambda x, dy: kernel_gradient(x, dy, 3)),
}


@pytest.mark.parametrize("draw", [constants, normal])
@pytest.mark.parametrize("name", CASES)
def test_a_long_sum_is_as_exact_as_that_of_torch(name, draw):
    shapes, ours, theirs = CASES[name]
    arrays = [draw(*shape) for shape in shapes]
    exact = theirs(*(array.astype(np.float64) for array in arrays))

    def error(result):
        return np.abs(result - exact).max() / np.abs(exact).max()

    assert error(ours(*arrays)) <= 4 * error(theirs(*arrays)) + FEW_ROUNDINGS
