"""The activations that are built from exponentials: elu, gelu, sigmoid, ..., and their derivatives.

Any shape is allowed; y and dx have the shape and dtype of x. Where a derivative is cheaper to compute from y than from
x, backward takes y. The result is written to `out`, which must not overlap the arguments.
"""

import math

from cnnlite.engine.stages import span
from cnnlite.kernels.llvm.elementary import erfc, exp, expm1, log1p
from cnnlite.kernels.llvm.elementary import sigmoid as sigmoid_of
from cnnlite.kernels.llvm.elementary import tanh as tanh_of
from cnnlite.kernels.numberwise import add_gradient_from_y, add_numberwise, numberwise, part
from cnnlite.kernels.operation import operation

EXP = 20  # operations that exp, or a function like it, counts as


# elu: y = x where x > 0, else alpha (exp(x) - 1)


@operation(samples="x out")
def elu(x, alpha=1.0, out=None):
    """Return x where x > 0, else alpha * (exp(x) - 1)."""
    return add_numberwise(_elu, (x,), out, EXP, alpha=alpha)


@numberwise("x", "y", "alpha")
def _elu(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    x, y = part(run, r.x, where), part(run, r.y, where)
    alpha = x.dtype.type(r.alpha)
    for i in range(x.size):
        below = alpha * expm1(x[i])
        y[i] = x[i] if x[i] > 0 else below


@operation(samples="dy x out")
def elu_backward(dy, x, alpha=1.0, out=None):
    """Return dy where x > 0, else alpha * exp(x) * dy."""
    return add_numberwise(_elu_backward, (dy, x), out, EXP, alpha=alpha)


@numberwise("dy x", "dx", "alpha")
def _elu_backward(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    dy, x, dx = part(run, r.dy, where), part(run, r.x, where), part(run, r.dx, where)
    alpha = x.dtype.type(r.alpha)
    for i in range(x.size):
        below = alpha * exp(x[i]) * dy[i]
        dx[i] = dy[i] if x[i] > 0 else below


# gelu: y = x Φ(x), with Φ the distribution function of the standard normal and φ its density


@operation(samples="x out")
def gelu(x, approximate=False, out=None):
    """Return x * Φ(x), Φ(x) = erfc(-x / √2) / 2.

    `approximate=True` approximates Φ(x) by (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 (Hendrycks and Gimpel, 2016).
    """
    return add_numberwise(_gelu_approximately if approximate else _gelu, (x,), out, 2 * EXP)


_SCALE, _CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715
_DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)
_OF_ERFC = -math.sqrt(0.5)


@numberwise("x", "y")
def _gelu(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    x, y = part(run, r.x, where), part(run, r.y, where)
    half, scale = x.dtype.type(0.5), x.dtype.type(_OF_ERFC)
    for i in range(x.size):
        # erfc(-x / √2) and not 1 + erf(x / √2), which is nothing but rounding error for x below -5.
        y[i] = x[i] * (half * erfc(scale * x[i]))


@numberwise("x", "y")
def _gelu_approximately(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    x, y = part(run, r.x, where), part(run, r.y, where)
    scale, cubic = x.dtype.type(_SCALE), x.dtype.type(_CUBIC)
    for i in range(x.size):
        # (1 + tanh(u)) / 2 = sigmoid(2u), which keeps its digits where tanh(u) is nearly -1.
        y[i] = x[i] * sigmoid_of(scale * (x[i] + cubic * x[i] * x[i] * x[i]))


@operation(samples="dy x out")
def gelu_backward(dy, x, approximate=False, out=None):
    """Return dy * (Φ(x) + x φ(x)), φ(x) = exp(-x²/2) / √(2π), or the derivative of the approximation."""
    return add_numberwise(_gelu_backward_approximately if approximate else _gelu_backward, (dy, x), out, 3 * EXP)


@numberwise("dy x", "dx")
def _gelu_backward(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    dy, x, dx = part(run, r.dy, where), part(run, r.x, where), part(run, r.dx, where)
    half, scale, density = x.dtype.type(0.5), x.dtype.type(_OF_ERFC), x.dtype.type(_DENSITY_AT_0)
    for i in range(x.size):
        normal = density * exp(-half * x[i] * x[i])
        dx[i] = dy[i] * (half * erfc(scale * x[i]) + x[i] * normal)


@numberwise("dy x", "dx")
def _gelu_backward_approximately(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    dy, x, dx = part(run, r.dy, where), part(run, r.x, where), part(run, r.dx, where)
    scale, cubic, one = x.dtype.type(_SCALE), x.dtype.type(_CUBIC), x.dtype.type(1)
    triple = x.dtype.type(3 * _CUBIC)
    for i in range(x.size):
        s = sigmoid_of(scale * (x[i] + cubic * x[i] * x[i] * x[i]))
        slope = scale * (one + triple * x[i] * x[i])
        dx[i] = dy[i] * (s * (one + x[i] * (one - s) * slope))


# sigmoid: y = 1 / (1 + exp(-x))


@operation(samples="x out")
def sigmoid(x, out=None):
    """Return 1 / (1 + exp(-x)), without overflow."""
    return add_numberwise(_sigmoid, (x,), out, EXP)


@numberwise("x", "y")
def _sigmoid(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    x, y = part(run, r.x, where), part(run, r.y, where)
    for i in range(x.size):
        y[i] = sigmoid_of(x[i])


@operation(samples="dy y out")
def sigmoid_backward(dy, y, out=None):
    """Return dy * y * (1 - y)."""
    return add_gradient_from_y(_sigmoid_backward, dy, y, out, 3)


@numberwise("dy y", "dx")
def _sigmoid_backward(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    dy, y, dx = part(run, r.dy, where), part(run, r.y, where), part(run, r.dx, where)
    one = y.dtype.type(1)
    for i in range(y.size):
        dx[i] = (one - y[i]) * y[i] * dy[i]


# silu (swish): y = x sigmoid(x)


@operation(samples="x out")
def silu(x, out=None):
    """Return x * sigmoid(x)."""
    return add_numberwise(_silu, (x,), out, EXP)


@numberwise("x", "y")
def _silu(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    x, y = part(run, r.x, where), part(run, r.y, where)
    for i in range(x.size):
        y[i] = x[i] * sigmoid_of(x[i])


@operation(samples="dy x out")
def silu_backward(dy, x, out=None):
    """Return dy * s * (1 + x * (1 - s)) with s = sigmoid(x)."""
    return add_numberwise(_silu_backward, (dy, x), out, EXP)


@numberwise("dy x", "dx")
def _silu_backward(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    dy, x, dx = part(run, r.dy, where), part(run, r.x, where), part(run, r.dx, where)
    one = x.dtype.type(1)
    for i in range(x.size):
        s = sigmoid_of(x[i])
        dx[i] = (one + x[i] * (one - s)) * s * dy[i]


# tanh


@operation(samples="x out")
def tanh(x, out=None):
    """Return tanh(x)."""
    return add_numberwise(_tanh, (x,), out, EXP)


@numberwise("x", "y")
def _tanh(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    x, y = part(run, r.x, where), part(run, r.y, where)
    for i in range(x.size):
        y[i] = tanh_of(x[i])


@operation(samples="dy y out")
def tanh_backward(dy, y, out=None):
    """Return dy * (1 - y²)."""
    return add_gradient_from_y(_tanh_backward, dy, y, out, 3)


@numberwise("dy y", "dx")
def _tanh_backward(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    dy, y, dx = part(run, r.dy, where), part(run, r.y, where), part(run, r.dx, where)
    one = y.dtype.type(1)
    for i in range(y.size):
        dx[i] = (one - y[i] * y[i]) * dy[i]


# softplus: y = log(1 + exp(x))


@operation(samples="x out")
def softplus(x, out=None):
    """Return log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|)), which can't overflow."""
    return add_numberwise(_softplus, (x,), out, 2 * EXP)


@numberwise("x", "y")
def _softplus(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    x, y = part(run, r.x, where), part(run, r.y, where)
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = (x[i] if x[i] > 0 else zero) + log1p(exp(-abs(x[i])))


@operation(samples="dy y out")
def softplus_backward(dy, y, out=None):
    """Return dy * (1 - exp(-y)), which is dy * sigmoid(x)."""
    return add_gradient_from_y(_softplus_backward, dy, y, out, EXP)


@numberwise("dy y", "dx")
def _softplus_backward(r, run, first, last):
    where = span(run, first, last, r.rows, r.numbers)
    dy, y, dx = part(run, r.dy, where), part(run, r.y, where), part(run, r.dx, where)
    for i in range(y.size):
        dx[i] = -expm1(-y[i]) * dy[i]
