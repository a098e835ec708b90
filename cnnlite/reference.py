"""Every kernel again in a few lines of plain NumPy, under the same name and with the same arguments.

This is what the kernels in `cnnlite/kernels/` are held to by the tests, and what a debugger can step
through in their place: with the environment variable `CNNLITE_KERNELS=reference` the whole library runs
on this file.

Shapes: N images, H rows, W columns, C channels; OH and OW are the size of the output; F filters; a
kernel is (KH, KW, C, F). `pads` is ((top, bottom), (left, right)).
"""

import math

import numpy as np

# ---------------------------------------------------------------- matrix products and convolution


# ---------------------------------------------------------------- pooling


# ---------------------------------------------------------------- batch normalisation


# ---------------------------------------------------------------- activations


def _into(out, values):
    """Return `values`, or `out` with the values copied into it."""
    if out is None:
        return values
    out[...] = values
    return out


def relu(x, out=None):
    return _into(out, np.where(x <= 0, 0, x).astype(x.dtype))


def relu_backward(dy, y, out=None):
    return _into(out, np.where(y <= 0, 0, dy).astype(dy.dtype))


def leaky_relu(x, negative_slope=0.2, out=None):
    return _into(out, np.where(x <= 0, negative_slope * x, x))


def leaky_relu_backward(dy, y, negative_slope=0.2, out=None):
    return _into(out, np.where(y <= 0, negative_slope * dy, dy))


def clipped_relu(x, max_value=None, negative_slope=0.0, threshold=0.0, out=None):
    below = negative_slope * (x - threshold) if negative_slope else np.zeros_like(x)
    return _into(out, np.where(x <= threshold, below, x if max_value is None else np.minimum(x, max_value)))


def clipped_relu_backward(dy, x, max_value=None, negative_slope=0.0, threshold=0.0, out=None):
    above = dy if max_value is None else np.where(x >= max_value, 0, dy)
    return _into(out, np.where(x <= threshold, negative_slope * dy, above).astype(dy.dtype))


def elu(x, alpha=1.0, out=None):
    return _into(out, np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))))


def elu_backward(dy, x, alpha=1.0, out=None):
    return _into(out, np.where(x > 0, dy, alpha * np.exp(np.minimum(x, 0)) * dy))


def _erfc(x):
    return np.array([math.erfc(value) for value in x.ravel()], x.dtype).reshape(x.shape)


def gelu(x, approximate=False, out=None):
    if approximate:
        return _into(out, 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return _into(out, x * _erfc(-math.sqrt(0.5) * x) / 2)


def gelu_backward(dy, x, approximate=False, out=None):
    if approximate:
        t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        return _into(out, dy * 0.5 * (1 + t + x * (1 - t**2) * math.sqrt(2 / math.pi) * (1 + 0.134145 * x**2)))
    return _into(out, dy * (_erfc(-math.sqrt(0.5) * x) / 2 + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)))


def sigmoid(x, out=None):
    return _into(out, np.exp(-np.logaddexp(0, -x)).astype(x.dtype))


def sigmoid_backward(dy, y, out=None):
    return _into(out, dy * y * (1 - y))


def silu(x, out=None):
    return _into(out, x * sigmoid(x))


def silu_backward(dy, x, out=None):
    return _into(out, dy * (sigmoid(x) + x * sigmoid(x) * sigmoid(-x)))


def tanh(x, out=None):
    e = np.expm1(-2 * np.abs(x))
    return _into(out, np.sign(x) * -e / (2 + e))


def tanh_backward(dy, y, out=None):
    return _into(out, dy * (1 - y) * (1 + y))


def softplus(x, out=None):
    return _into(out, np.logaddexp(x, 0).astype(x.dtype))


def softplus_backward(dy, y, out=None):
    return _into(out, dy - dy * np.exp(-y))


def softmax(x, axis=-1, out=None):
    return _into(out, np.exp(log_softmax(x, axis)))


def softmax_backward(dy, y, axis=-1, out=None):
    return _into(out, y * (dy - (dy * y).sum(axis, keepdims=True)))


def log_softmax(x, axis=-1, out=None):
    x = x - x.max(axis, keepdims=True)
    return _into(out, x - np.log(np.exp(x).sum(axis, keepdims=True)))


def log_softmax_backward(dy, y, axis=-1, out=None):
    return _into(out, dy - np.exp(y) * dy.sum(axis, keepdims=True))


# ---------------------------------------------------------------- optimizer steps
