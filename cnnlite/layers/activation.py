"""The activations, each a layer without weights: y = f(x), where x may have any shape and y has the same.

They stand on their own in a model, or inside a layer given `activation="relu"`. Where a docstring gives dy/dx,
backward is dx = dy · dy/dx, element by element; softmax mixes the elements, so its docstring derives dx. All take
name, dtype, trainable and input_shape besides their own arguments. Names and defaults are Keras's.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

from cnnlite import kernels
from cnnlite.layers.base import Layer
from cnnlite.layers.settings import Setting, optional
from cnnlite.support.arguments import boolean, integer, number
from cnnlite.types import Array, ArrayLike, Config, Shape

not_negative = partial(number, minimum=0)

_left_out: ContextVar[ActivationLayer | None] = ContextVar("left_out", default=None)


@contextlib.contextmanager
def leaving_out(activation: ActivationLayer | None) -> Iterator[None]:
    """Within the block, make `activation` pass x and dy through unchanged.

    A cross-entropy is computed from the logits, the input of the model's final softmax or sigmoid: it stays exact where
    probabilities would have been rounded to 0 or 1, and its derivative with respect to the logits is simply y - t.
    """
    token = _left_out.set(activation)
    try:
        yield
    finally:
        _left_out.reset(token)


class ActivationLayer(Layer):
    """The base class of all activations, including your own.

    An activation of your own defines `function` and `gradient`:

    >>> import numpy as np
    >>> import cnnlite
    >>> class Square(cnnlite.layers.ActivationLayer):
    ...     '''y = x², so dy/dx = 2x.'''
    ...     activation_name = "square"
    ...     def function(self, x, out):
    ...         return np.multiply(x, x, out=out)
    ...     def gradient(self, dy, x, y, out):
    ...         return np.multiply(dy, 2 * x, out=out)
    >>> cnnlite.layers.Activation(Square())(np.array([[3.0, -2.0]]))
    array([[9., 4.]], dtype=float32)

    Attributes:
        activation_name: the name that `activation=` takes.
    """

    activation_name = ""

    def function(self, x: Array, out: Array) -> Array:
        """Write y into `out` and return it."""
        raise NotImplementedError(f"{type(self).__name__} must define function(x, out).")

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        """Write dx = dy · dy/dx into `out` and return it."""
        raise NotImplementedError(f"{type(self).__name__} must define gradient(dy, x, y, out).")

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.prepare(x)
        y = x if _left_out.get() is self else self.function(x, self.allocate("y", x.shape, training))
        if training:
            self.remember(x, y)
        return y

    def backward(self, dy: Array) -> Array:
        x, y = self.recall()
        dy = self.prepare_gradient(dy, y.shape)
        return dy if _left_out.get() is self else self.gradient(dy, x, y, self.allocate("dx", y.shape))


class Linear(ActivationLayer):
    """y = x, so dy/dx = 1: what `activation=None` means."""

    activation_name = "linear"

    # Both return what they were given: nothing is written into `out`, so its memory is never touched.

    def function(self, x: Array, out: Array) -> Array:
        return x

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        return dy


class ReLU(ActivationLayer):
    """Rectified linear unit: y = max(x, 0), so dy/dx = 1 where x > 0, else 0 (Nair and Hinton, 2010).

    With all three arguments, y = min(x, max_value) where x > threshold, else negative_slope (x - threshold).

    Args:
        max_value: the largest y, or None (default) for no limit; not negative.
        negative_slope: the slope below the threshold (default 0); not negative.
        threshold: where the unit becomes active (default 0); not negative.

    Raises:
        ValueError: an argument is negative or not finite.

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.ReLU(max_value=4, negative_slope=0.5)([[-2.0, 3.0, 9.0]])
    array([[-1.,  3.,  4.]], dtype=float32)
    """

    activation_name = "relu"
    max_value = Setting(optional(not_negative))
    negative_slope = Setting(not_negative)
    threshold = Setting(not_negative)

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_value = max_value
        self.negative_slope = negative_slope
        self.threshold = threshold

    @property
    def limits(self) -> tuple[float | None, float, float]:
        """(max_value, negative_slope, threshold), as the kernels take them."""
        return self.max_value, self.negative_slope, self.threshold

    def function(self, x: Array, out: Array) -> Array:
        if self.limits == (None, 0, 0):
            return kernels.relu(x, out)
        return kernels.clipped_relu(x, *self.limits, out=out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        if self.limits == (None, 0, 0):
            return kernels.relu_backward(dy, y, out)
        return kernels.clipped_relu_backward(dy, x, *self.limits, out=out)

    def get_config(self) -> Config:
        arguments = {
            "max_value": self.max_value, "negative_slope": self.negative_slope, "threshold": self.threshold
        }
        return {**super().get_config(), **arguments}


class LeakyReLU(ActivationLayer):
    """y = x where x > 0, else negative_slope x (Maas et al., 2013); dy/dx = 1 or negative_slope.

    Args:
        negative_slope: not negative; by default 0.3 for this layer and 0.2 for the name "leaky_relu", as in Keras.

    Raises:
        ValueError: negative_slope is negative or not finite.

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.LeakyReLU(0.1)([[-10.0, 2.0]])
    array([[-1.,  2.]], dtype=float32)
    """

    activation_name = "leaky_relu"
    negative_slope = Setting(not_negative)

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        negative_slope = kwargs.pop("alpha", negative_slope)  # its name in Keras 2, which Keras 3 still takes
        super().__init__(**kwargs)
        self.negative_slope = negative_slope

    def function(self, x: Array, out: Array) -> Array:
        return kernels.leaky_relu(x, self.negative_slope, out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        return kernels.leaky_relu_backward(dy, y, self.negative_slope, out)

    def get_config(self) -> Config:
        return {**super().get_config(), "negative_slope": self.negative_slope}


class ELU(ActivationLayer):
    """y = x where x > 0, else alpha (exp(x) - 1) (Clevert et al., 2015); dy/dx = 1 or alpha exp(x).

    Args:
        alpha: y tends to -alpha as x goes to minus infinity (default 1).

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.ELU()([[-100.0, 2.0]])
    array([[-1.,  2.]], dtype=float32)
    """

    activation_name = "elu"
    alpha = Setting(number)

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha

    def function(self, x: Array, out: Array) -> Array:
        return kernels.elu(x, self.alpha, out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        return kernels.elu_backward(dy, x, self.alpha, out)

    def get_config(self) -> Config:
        return {**super().get_config(), "alpha": self.alpha}


class GELU(ActivationLayer):
    """y = x Φ(x), with Φ the cumulative distribution function of the standard normal (Hendrycks and Gimpel, 2016).

    dy/dx = Φ(x) + x φ(x), with φ the density of the standard normal.

    Args:
        approximate: True uses Φ(x) ≈ (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2; False (default) is exact.

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.GELU()([[-100.0, 0.0, 100.0]])
    array([[ -0.,   0., 100.]], dtype=float32)
    """

    activation_name = "gelu"
    approximate = Setting(boolean)

    def __init__(self, approximate: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.approximate = approximate

    def function(self, x: Array, out: Array) -> Array:
        return kernels.gelu(x, self.approximate, out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        return kernels.gelu_backward(dy, x, self.approximate, out)

    def get_config(self) -> Config:
        return {**super().get_config(), "approximate": self.approximate}


class SiLU(ActivationLayer):
    """y = x s with s = 1 / (1 + exp(-x)), also called swish (Ramachandran et al., 2017); dy/dx = s (1 + x (1 - s)).

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.SiLU()([[0.0, 100.0]])
    array([[  0., 100.]], dtype=float32)
    """

    activation_name = "silu"

    def function(self, x: Array, out: Array) -> Array:
        return kernels.silu(x, out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        return kernels.silu_backward(dy, x, out)


class Sigmoid(ActivationLayer):
    """y = 1 / (1 + exp(-x)), so dy/dx = y (1 - y).

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.Sigmoid()([[-1000.0, 0.0, 1000.0]])
    array([[0. , 0.5, 1. ]], dtype=float32)
    """

    activation_name = "sigmoid"

    def function(self, x: Array, out: Array) -> Array:
        return kernels.sigmoid(x, out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        return kernels.sigmoid_backward(dy, y, out)


class Tanh(ActivationLayer):
    """y = tanh(x), so dy/dx = 1 - y².

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.Tanh()([[-100.0, 0.0, 100.0]])
    array([[-1.,  0.,  1.]], dtype=float32)
    """

    activation_name = "tanh"

    def function(self, x: Array, out: Array) -> Array:
        return kernels.tanh(x, out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        return kernels.tanh_backward(dy, y, out)


class Softplus(ActivationLayer):
    """y = log(1 + exp(x)), so dy/dx = 1 / (1 + exp(-x)) = 1 - exp(-y).

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.Softplus()([[-1000.0, 1000.0]])
    array([[   0., 1000.]], dtype=float32)
    """

    activation_name = "softplus"

    def function(self, x: Array, out: Array) -> Array:
        return kernels.softplus(x, out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        return kernels.softplus_backward(dy, y, out)


def _axes(value: Any, name: str, owner: str) -> tuple[int, ...]:
    axes = tuple(value) if isinstance(value, Iterable) else (value,)
    return tuple(integer(axis, name, owner, minimum=-32) for axis in axes)


class Softmax(ActivationLayer):
    """y_i = exp(x_i) / Σ_j exp(x_j), so that all y_i are positive and add up to 1.

    Every y_j depends on every x_i: ∂y_j/∂x_i = y_j ([i = j] - y_i), where [i = j] is 1 if i = j, else 0. So

        dx_i = Σ_j dy_j y_j ([i = j] - y_i) = y_i (dy_i - Σ_j dy_j y_j)

    Args:
        axis: the axis that the sum runs over (default the last), or several.

    Raises:
        ValueError: when the layer is built, `axis` is not an axis of the input.

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.Softmax()([[1000.0, 1000.0, 0.0]])
    array([[0.5, 0.5, 0. ]], dtype=float32)
    """

    axis = Setting(_axes)

    def __init__(self, axis: int | Iterable[int] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    @property
    def activation_name(self) -> str:  # type: ignore[override]  # a plain string in the base class
        """The name of the activation along the last axis; "" along any other."""
        return "softmax" if self.axis == (-1,) else ""

    def build(self, input_shape: Shape) -> None:
        self.check_axis(input_shape)
        super().build(input_shape)
        over_one = all(input_shape[axis] == 1 for axis in self.axis)
        if over_one and type(self).function in (Softmax.function, LogSoftmax.function):  # not overridden by a subclass
            value = 0 if isinstance(self, LogSoftmax) else 1
            warnings.warn(
                f"{self.name}: the {self.activation_name or 'softmax'} of a single number is always {value}. "
                f"Received: axis={self.axis} of shape={tuple(input_shape)}. "
                'Use activation="sigmoid" for a single unit, or give the layer one unit per class.',
                stacklevel=2,
            )

    @property
    def is_traceable(self) -> bool:
        """Whether every sum stays within a sample, rather than running over the batch."""
        shape = self.input_shape
        return 0 not in self.axis and (shape is None or all(axis % len(shape) for axis in self.axis))

    def check_settings(self) -> None:
        if self.input_shape is not None:
            self.check_axis(self.input_shape)

    def check_fits(self, input_shape: Shape) -> None:
        self.check_axis(input_shape)
        super().check_fits(input_shape)

    def check_axis(self, input_shape: Shape) -> None:
        """Raise a ValueError unless an input of that shape has the axes that the sum runs over."""
        axes = len(input_shape)
        among = all(-axes <= axis < axes for axis in self.axis)
        if not among or len({axis % axes for axis in self.axis}) < len(self.axis):
            raise ValueError(
                f"{self.name}: axis must be one of the {axes} axes of the input, or several distinct ones. "
                f"Received: axis={self.axis}, shape={tuple(input_shape)}."
            )

    def function(self, x: Array, out: Array) -> Array:
        return kernels.softmax(x, self.axis, out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        return kernels.softmax_backward(dy, y, self.axis, out)

    def get_config(self) -> Config:
        axis = self.axis[0] if len(self.axis) == 1 else list(self.axis)
        return {**super().get_config(), "axis": axis}


class LogSoftmax(Softmax):
    """y_i = x_i - log Σ_j exp(x_j), the logarithm of softmax; `axis` as for `Softmax`.

    Here ∂y_j/∂x_i = [i = j] - exp(y_i), so dx_i = dy_i - exp(y_i) Σ_j dy_j.

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.LogSoftmax()([[1000.0, 0.0]])
    array([[    0., -1000.]], dtype=float32)
    """

    @property
    def activation_name(self) -> str:  # type: ignore[override]  # a plain string in the base class
        """See `Softmax`."""
        return "log_softmax" if self.axis == (-1,) else ""

    def function(self, x: Array, out: Array) -> Array:
        return kernels.log_softmax(x, self.axis, out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        return kernels.log_softmax_backward(dy, y, self.axis, out)
