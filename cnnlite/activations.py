"""The activations as functions, and the lookup from a name to the layer that has the derivative.

`cnnlite.activations.relu(x)` computes values; `activation="relu"` and `activation=cnnlite.activations.relu` both
give a layer that activation. Names and defaults are Keras's.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlite import config
from cnnlite.layers.activation import (
    ELU,
    GELU,
    ActivationLayer,
    LeakyReLU,
    Linear,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from cnnlite.layers.overrides import is_untouched
from cnnlite.support.identifiers import from_identifier, to_config
from cnnlite.types import Array, ArrayLike, DTypeLike


def linear(x: Array) -> Array:
    """Return x."""
    return x


def relu(x: ArrayLike, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Array:
    """Return max(x, 0); in general, min(x, max_value) where x > threshold, else negative_slope (x - threshold)."""
    return _apply(ReLU, x, max_value, negative_slope, threshold)


def leaky_relu(x: ArrayLike, negative_slope: float = 0.2) -> Array:
    """Return x where x > 0, else negative_slope x."""
    return _apply(LeakyReLU, x, negative_slope)


def elu(x: ArrayLike, alpha: float = 1.0) -> Array:
    """Return x where x > 0, else alpha (exp(x) - 1)."""
    return _apply(ELU, x, alpha)


def gelu(x: ArrayLike, approximate: bool = False) -> Array:
    """Return x Φ(x), where Φ is the standard normal CDF; `approximate` is as in `layers.GELU`."""
    return _apply(GELU, x, approximate)


def silu(x: ArrayLike) -> Array:
    """Return x sigmoid(x)."""
    return _apply(SiLU, x)


def sigmoid(x: ArrayLike) -> Array:
    """Return 1 / (1 + exp(-x))."""
    return _apply(Sigmoid, x)


def tanh(x: ArrayLike) -> Array:
    """Return tanh(x)."""
    return _apply(Tanh, x)


def softplus(x: ArrayLike) -> Array:
    """Return log(1 + exp(x))."""
    return _apply(Softplus, x)


def softmax(x: ArrayLike, axis: int | Sequence[int] = -1) -> Array:
    """Return exp(x) / sum(exp(x)) along `axis`.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> cnnlite.activations.softmax(np.array([[1000.0, 1000.0]]))
    array([[0.5, 0.5]])
    """
    return _apply(Softmax, x, axis)


def log_softmax(x: ArrayLike, axis: int | Sequence[int] = -1) -> Array:
    """Return x - log(sum(exp(x))) along `axis`."""
    return _apply(LogSoftmax, x, axis)


def _apply(layer_class: type[ActivationLayer], x: ArrayLike, *arguments: Any) -> Array:
    """Return the layer's output, in the precision of x if x is an array of floats."""
    dtype = getattr(x, "dtype", None)
    dtype = dtype if dtype in _FLOATS else np.dtype(config.floatx())
    # Making a layer costs more than computing one row, so layers are cached, except where an axis of size 1 may make
    # one warn about its input: that must happen every time.
    if type(x) is np.ndarray and 1 not in x.shape[1:] and _PLAIN.issuperset(map(type, arguments)):
        layer = _layer(layer_class, dtype, x.ndim, *arguments)
        if layer.built and x.dtype == dtype and x.flags.carray:  # nothing is left for `forward` to check
            return layer.function(x, np.empty_like(x))
        return layer.forward(x)
    return layer_class(*arguments, dtype=dtype).forward(x)


_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_PLAIN = frozenset((int, float, bool, type(None)))


@functools.lru_cache(maxsize=64, typed=True)
def _layer(layer_class: type[ActivationLayer], dtype: DTypeLike, axes: int, *arguments: Any) -> ActivationLayer:
    # One layer per number of axes, since a layer stays built for the first shape that it sees.
    return layer_class(*arguments, dtype=dtype)


ACTIVATIONS = {
    "linear": Linear,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "elu": ELU,
    "gelu": GELU,
    "silu": SiLU,
    "swish": SiLU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "softplus": Softplus,
    "softmax": Softmax,
    "log_softmax": LogSoftmax,
}
_FUNCTIONS = (linear, relu, leaky_relu, elu, gelu, silu, sigmoid, tanh, softplus, softmax, log_softmax)


def get(identifier: Any, dtype: DTypeLike | None = None) -> ActivationLayer:
    """Return a new activation layer for what a user passed as `activation=`.

    Args:
        identifier: None for "linear"; a name; a function of this module; an activation layer, which is
            copied, since every layer keeps what its own backward pass needs; or a config from `serialize`.
        dtype: the precision of the layer that the activation belongs to, by default `cnnlite.config.floatx()`.

    Raises:
        ValueError: the name is unknown (the message lists the known ones), or a function has no derivative here.

    Example:

    >>> import cnnlite
    >>> cnnlite.activations.get("leaky_relu").negative_slope
    0.2
    """
    if identifier is None:
        identifier = "linear"
    if isinstance(identifier, ActivationLayer) and is_untouched(identifier):
        identifier = getattr(identifier, "activation", identifier)  # what an Activation("relu") holds
    if any(identifier is function for function in _FUNCTIONS):  # not ==: it may be an array
        identifier = identifier.__name__
    layer: Any
    if isinstance(identifier, str) and identifier.lower() == "leaky_relu":
        layer = LeakyReLU(negative_slope=0.2)  # Keras: 0.2 by name, 0.3 as a layer
    else:
        layer = from_identifier(identifier, ACTIVATIONS, ActivationLayer, "activation")
    if not isinstance(layer, ActivationLayer):
        raise ValueError(
            f"activation must be one that has a derivative. Received: {layer!r}. Known: "
            f"{', '.join(sorted(ACTIVATIONS))}. For your own, write a cnnlite.layers.ActivationLayer."
        )
    if layer is identifier:
        layer = _another(layer)
    if dtype is not None:
        layer.dtype = np.dtype(dtype)
    layer.name = layer.activation_name or layer.name
    return layer


def _another(activation: ActivationLayer) -> ActivationLayer:
    """Return a copy with its own memory and weights, left unbuilt unless it has weights or state to keep."""
    layer = copy.copy(activation)
    layer._memory, layer.regularizers = None, dict(activation.regularizers)
    layer._params, layer._grads, layer._state = map(
        copy.deepcopy, (activation._params, activation._grads, activation._state)
    )
    if not (layer._params or layer._state):
        layer.built, layer.input_shape = False, None
    return layer


def serialize(activation: ActivationLayer) -> Any:
    """Return an activation layer's name, or {"class_name", "config"} if its arguments aren't those the name implies."""
    name = activation.activation_name
    if name in ACTIVATIONS:
        named = get(name, activation.dtype)
        # A subclass may inherit the name and compute something else.
        if type(named) is type(activation) and named.get_config() == activation.get_config():
            return name
    return to_config(activation)
