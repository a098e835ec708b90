"""The piecewise linear activations: relu and its relatives, and their derivatives.

Any shape is allowed; y and dx have the shape and dtype of x. Where a derivative is cheaper to compute from y than from
x, backward takes y. The result is written to `out`, which must not overlap the arguments.
"""

import math

from cnnlite.engine.stages import span
from cnnlite.kernels.numberwise import add_gradient_from_y, add_numberwise, numberwise, part
from cnnlite.kernels.operation import operation
from cnnlite.kernels.rewriting import relu_of_normalized

# relu: y = max(x, 0)


@operation(samples="x out")
def relu(x, out=None):
    """Return max(x, 0)."""
    y = relu_of_normalized(x, out)
    return add_numberwise(_relu, (x,), out) if y is None else y


@numberwise("x", "y")
def _relu(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    x, y = part(run, r.x, where), part(run, r.y, where)
    for i in range(x.size):
        # "not <=" instead of ">", so that NaN passes.
        y[i] = x[i] if not x[i] <= 0 else 0


@operation(samples="dy y out")
def relu_backward(dy, y, out=None):
    """Return dy where y > 0, else 0; at x = 0 the derivative is 0, as in Keras and PyTorch."""
    return add_gradient_from_y(_relu_backward, dy, y, out)


@numberwise("dy y", "dx")
def _relu_backward(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    dy, y, dx = part(run, r.dy, where), part(run, r.y, where), part(run, r.dx, where)
    for i in range(y.size):
        dx[i] = dy[i] if not y[i] <= 0 else 0


# leaky_relu: y = x where x > 0, else negative_slope x


@operation(samples="x out")
def leaky_relu(x, negative_slope=0.2, out=None):
    """Return x where x > 0, else negative_slope * x; negative_slope must not be negative."""
    return add_numberwise(_leaky_relu, (x,), out, negative_slope=negative_slope)


@numberwise("x", "y", "negative_slope")
def _leaky_relu(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    x, y = part(run, r.x, where), part(run, r.y, where)
    negative_slope = x.dtype.type(r.negative_slope)
    for i in range(x.size):
        y[i] = x[i] if not x[i] <= 0 else negative_slope * x[i]


@operation(samples="dy y out")
def leaky_relu_backward(dy, y, negative_slope=0.2, out=None):
    """Return dy where y > 0, else negative_slope * dy: y has the sign of x."""
    return add_gradient_from_y(_leaky_relu_backward, dy, y, out, negative_slope=negative_slope)


@numberwise("dy y", "dx", "negative_slope")
def _leaky_relu_backward(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    dy, y, dx = part(run, r.dy, where), part(run, r.y, where), part(run, r.dx, where)
    negative_slope = y.dtype.type(r.negative_slope)
    for i in range(y.size):
        dx[i] = dy[i] if not y[i] <= 0 else negative_slope * dy[i]


# clipped_relu: relu with a ceiling, a slope and a threshold


@operation(samples="x out")
def clipped_relu(x, max_value=None, negative_slope=0.0, threshold=0.0, out=None):
    """Return min(x, max_value) where x > threshold, else negative_slope * (x - threshold)."""
    return add_numberwise(_clipped_relu, (x,), out, max_value=_limit(max_value), negative_slope=negative_slope,
                          threshold=threshold)


def _limit(max_value):
    """Return max_value; or NaN for None, since nothing is above NaN."""
    return math.nan if max_value is None else max_value


@numberwise("x", "y", "max_value negative_slope threshold")
def _clipped_relu(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    x, y = part(run, r.x, where), part(run, r.y, where)
    max_value, threshold = x.dtype.type(r.max_value), x.dtype.type(r.threshold)
    negative_slope, zero = x.dtype.type(r.negative_slope), x.dtype.type(0)
    for i in range(x.size):
        # A slope of 0 must give 0 for -inf too.
        below = negative_slope * (x[i] - threshold) if negative_slope != zero else zero
        above = max_value if x[i] > max_value else x[i]
        y[i] = below if x[i] <= threshold else above


@operation(samples="dy x out")
def clipped_relu_backward(dy, x, max_value=None, negative_slope=0.0, threshold=0.0, out=None):
    """Return dy where threshold < x < max_value, 0 above that and negative_slope * dy below."""
    return add_numberwise(_clipped_relu_backward, (dy, x), out, max_value=_limit(max_value),
                          negative_slope=negative_slope, threshold=threshold)


@numberwise("dy x", "dx", "max_value negative_slope threshold")
def _clipped_relu_backward(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    dy, x, dx = part(run, r.dy, where), part(run, r.x, where), part(run, r.dx, where)
    max_value, threshold = x.dtype.type(r.max_value), x.dtype.type(r.threshold)
    negative_slope, zero = x.dtype.type(r.negative_slope), x.dtype.type(0)
    for i in range(x.size):
        above = zero if x[i] >= max_value else dy[i]
        dx[i] = negative_slope * dy[i] if x[i] <= threshold else above
