"""Activations, element by element, and softmax along an axis.

The shape is free; y and dx have the shape and the dtype of x. Where a derivative is cheaper from y than
from x, backward takes y. `out` is where the result goes; it must not overlap the arguments.

exp and tanh are left to NumPy, whose loops are vectorised where numba's call a scalar function. erfc is
not in NumPy. What only compares and multiplies is numba's: one pass over memory, on all threads.
"""

import math

import numpy as np

from cnnlite.engine.jit import kernel
from cnnlite.floating import arithmetic
from cnnlite.kernels.checks import require
from cnnlite.kernels.threads import CHUNK, chunk, chunks_of, run


def _like(x, out):
    return np.empty(x.shape, x.dtype) if out is None else out


def _run(task, inputs, out, *numbers):
    """Run a task on chunks of flat arrays, with the numbers in the dtype of the result."""
    first, owner = inputs[0], task.__name__.strip("_")
    out = _like(first, out)
    require(first, "the first array", first.shape, None, owner)
    for array in inputs[1:]:
        require(array, "the second array", first.shape, first.dtype, owner)
    require(out, "out", first.shape, first.dtype, owner)
    if numbers:
        with arithmetic():
            numbers = [out.dtype.type(value) for value in numbers]
    run(task, chunks_of(out.size), (*(x.reshape(-1) for x in inputs), out.reshape(-1), *numbers),
        alone=out.size <= CHUNK)
    return out


# relu: y = max(x, 0)


def relu(x, out=None):
    """Return max(x, 0)."""
    return _run(_relu, (x,), out)


@kernel
def _relu(x, y, unit):
    x, y = chunk(x, unit), chunk(y, unit)
    for i in range(x.size):
        # "not <=" instead of ">", so that NaN passes.
        y[i] = x[i] if not x[i] <= 0 else 0


def relu_backward(dy, y, out=None):
    """Return dy where y > 0, else 0; at x = 0 the derivative is 0, as in Keras and PyTorch."""
    return _run(_relu_backward, (dy, y), out)


@kernel
def _relu_backward(dy, y, dx, unit):
    dy, y, dx = chunk(dy, unit), chunk(y, unit), chunk(dx, unit)
    for i in range(y.size):
        dx[i] = dy[i] if not y[i] <= 0 else 0


# leaky_relu: y = x where x > 0, else negative_slope x


def leaky_relu(x, negative_slope=0.2, out=None):
    """Return x where x > 0, else negative_slope * x; negative_slope must not be negative."""
    return _run(_leaky_relu, (x,), out, negative_slope)


@kernel
def _leaky_relu(x, y, negative_slope, unit):
    x, y = chunk(x, unit), chunk(y, unit)
    for i in range(x.size):
        y[i] = x[i] if not x[i] <= 0 else negative_slope * x[i]


def leaky_relu_backward(dy, y, negative_slope=0.2, out=None):
    """Return dy where y > 0, else negative_slope * dy: y has the sign of x."""
    return _run(_leaky_relu_backward, (dy, y), out, negative_slope)


@kernel
def _leaky_relu_backward(dy, y, dx, negative_slope, unit):
    dy, y, dx = chunk(dy, unit), chunk(y, unit), chunk(dx, unit)
    for i in range(y.size):
        dx[i] = dy[i] if not y[i] <= 0 else negative_slope * dy[i]


# clipped_relu: relu with a ceiling, a slope and a threshold


def clipped_relu(x, max_value=None, negative_slope=0.0, threshold=0.0, out=None):
    """Return min(x, max_value) where x > threshold, else negative_slope * (x - threshold)."""
    out = _like(x, out)
    with arithmetic():
        if negative_slope:
            np.subtract(x, threshold, out=out)
            out *= negative_slope
        else:
            out.fill(0)
        np.copyto(out, x if max_value is None else np.minimum(x, max_value), where=~(x <= threshold))
    return out


def clipped_relu_backward(dy, x, max_value=None, negative_slope=0.0, threshold=0.0, out=None):
    """Return dy where threshold < x < max_value, 0 above that and negative_slope * dy below."""
    out = _like(x, out)
    with arithmetic():
        np.multiply(dy, negative_slope, out=out)
        np.copyto(out, dy, where=~(x <= threshold))
        if max_value is not None:
            np.copyto(out, 0, where=(x >= max_value) & (x > threshold))
    return out


# elu: y = x where x > 0, else alpha (exp(x) - 1)


def elu(x, alpha=1.0, out=None):
    """Return x where x > 0, else alpha * (exp(x) - 1)."""
    out = np.minimum(x, 0, out=_like(x, out))
    with arithmetic():
        np.expm1(out, out=out)
        out *= alpha
    np.copyto(out, x, where=x > 0)
    return out


def elu_backward(dy, x, alpha=1.0, out=None):
    """Return dy where x > 0, else alpha * exp(x) * dy."""
    out = np.minimum(x, 0, out=_like(x, out))
    with arithmetic():
        np.exp(out, out=out)
        out *= alpha
        out *= dy
    np.copyto(out, dy, where=x > 0)
    return out


# gelu: y = x Φ(x), with Φ the distribution function of the standard normal and φ its density


def gelu(x, approximate=False, out=None):
    """Return x * Φ(x), Φ(x) = erfc(-x / √2) / 2.

    `approximate=True` takes (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 for Φ(x) (Hendrycks and Gimpel, 2016).
    """
    if not approximate:
        return _run(_gelu, (x,), out)
    with arithmetic():
        # (1 + tanh(u)) / 2 = sigmoid(2u), which keeps its digits where tanh(u) is nearly -1.
        out = sigmoid(_GELU_SCALE * (x + 0.044715 * x * x * x), out)
        out *= x
    return out


_GELU_SCALE = 2 * math.sqrt(2 / math.pi)


@kernel
def _gelu(x, y, unit):
    x, y = chunk(x, unit), chunk(y, unit)
    half, scale = x.dtype.type(0.5), x.dtype.type(-math.sqrt(0.5))
    for i in range(x.size):
        # erfc(-x / √2) and not 1 + erf(x / √2), which for x below -5 is nothing but rounding errors.
        y[i] = x[i] * (half * math.erfc(scale * x[i]))


def gelu_backward(dy, x, approximate=False, out=None):
    """Return dy * (Φ(x) + x φ(x)), φ(x) = exp(-x²/2) / √(2π), or the derivative of the approximation."""
    if not approximate:
        return _run(_gelu_backward, (dy, x), out)
    out = _like(x, out)
    with arithmetic():
        s = sigmoid(_GELU_SCALE * (x + 0.044715 * x * x * x))
        slope = _GELU_SCALE * (1 + 3 * 0.044715 * x * x)
        np.multiply(dy, s * (1 + x * (1 - s) * slope), out=out)
    return out


@kernel
def _gelu_backward(dy, x, dx, unit):
    dy, x, dx = chunk(dy, unit), chunk(x, unit), chunk(dx, unit)
    half, scale = x.dtype.type(0.5), x.dtype.type(-math.sqrt(0.5))
    density = x.dtype.type(1 / math.sqrt(2 * math.pi))
    for i in range(x.size):
        normal = density * math.exp(-half * x[i] * x[i])
        dx[i] = dy[i] * (half * math.erfc(scale * x[i]) + x[i] * normal)


# sigmoid: y = 1 / (1 + exp(-x))


def sigmoid(x, out=None):
    """Return 1 / (1 + exp(-x)). Where exp overflows to infinity, the result is the right one, 0."""
    out = np.negative(x, out=_like(x, out))
    with arithmetic():
        np.exp(out, out=out)
        out += 1
        return np.divide(1, out, out=out)


def sigmoid_backward(dy, y, out=None):
    """Return dy * y * (1 - y)."""
    out = np.subtract(1, y, out=_like(y, out))
    with arithmetic():
        out *= y
        out *= dy
    return out


# silu (swish): y = x sigmoid(x)


def silu(x, out=None):
    """Return x * sigmoid(x)."""
    out = sigmoid(x, out)
    with arithmetic():
        out *= x
    return out


def silu_backward(dy, x, out=None):
    """Return dy * s * (1 + x * (1 - s)) with s = sigmoid(x)."""
    s = sigmoid(x)
    out = np.subtract(1, s, out=_like(x, out))
    with arithmetic():
        out *= x
        out += 1
        out *= s
        out *= dy
    return out


# tanh


def tanh(x, out=None):
    """Return tanh(x)."""
    with arithmetic():
        return np.tanh(x, out=_like(x, out))


def tanh_backward(dy, y, out=None):
    """Return dy * (1 - y²)."""
    with arithmetic():
        out = np.multiply(y, y, out=_like(y, out))
        np.subtract(1, out, out=out)
        out *= dy
    return out


# softplus: y = log(1 + exp(x))


def softplus(x, out=None):
    """Return log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|)), in which nothing overflows."""
    out = np.abs(x, out=_like(x, out))
    with arithmetic():
        np.negative(out, out=out)
        np.exp(out, out=out)
        np.log1p(out, out=out)
        out += np.maximum(x, 0)
    return out


def softplus_backward(dy, y, out=None):
    """Return dy * (1 - exp(-y)), which is dy * sigmoid(x)."""
    out = np.negative(y, out=_like(y, out))
    with arithmetic():
        np.expm1(out, out=out)
        np.negative(out, out=out)
        out *= dy
    return out


def _sum(x, axis):
    """Return the sum along an axis, or several, kept with size 1."""
    # Along the last axis NumPy adds in pairs. Along others it adds row after row, which in float32 loses digits.
    if axis in (-1, x.ndim - 1) and x.flags.c_contiguous:
        return x.sum(axis=-1, keepdims=True)
    return x.sum(axis=axis, keepdims=True, dtype=np.float64).astype(x.dtype)


# softmax: y_i = exp(x_i) / sum_j exp(x_j)


def softmax(x, axis=-1, out=None):
    """Return exp(x) / sum(exp(x)) along `axis` (an integer or several).

    The largest x is subtracted first: that changes no quotient, and the largest exp is 1. NaN anywhere in a
    row, or an infinite maximum, makes the row NaN.
    """
    out = _like(x, out)
    with arithmetic():
        np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
        np.exp(out, out=out)
        out /= _sum(out, axis)
    return out


def softmax_backward(dy, y, axis=-1, out=None):
    """Return y * (dy - sum(dy * y))."""
    with arithmetic():
        out = np.multiply(dy, y, out=_like(y, out))
        np.subtract(dy, _sum(out, axis), out=out)
        out *= y
    return out


# log_softmax: y_i = x_i - log(sum_j exp(x_j))


def log_softmax(x, axis=-1, out=None):
    """Return x - log(sum(exp(x))) along `axis`, with the largest x subtracted first."""
    out = _like(x, out)
    with arithmetic():
        np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
        out -= np.log(_sum(np.exp(out), axis))
    return out


def log_softmax_and_softmax(x):
    """Return both along the last axis, for one exp; each has the bits that its own function gives."""
    with arithmetic():
        y = x - x.max(axis=-1, keepdims=True)
        p = np.exp(y)
        total = p.sum(axis=-1, keepdims=True)
        p /= total
        y -= np.log(total)
    return y, p


def log_softmax_backward(dy, y, axis=-1, out=None):
    """Return dy - exp(y) * sum(dy)."""
    with arithmetic():
        out = np.exp(y, out=_like(y, out))
        out *= -_sum(dy, axis)
        out += dy
    return out
