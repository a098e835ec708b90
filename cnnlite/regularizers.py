"""Penalties on large weights: each adds a value to the loss and its derivative to the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlite import kernels
from cnnlite.engine.buffers import is_buffer
from cnnlite.support.arguments import number
from cnnlite.support.as_written import AsWritten
from cnnlite.support.floating import arithmetic
from cnnlite.support.identifiers import from_identifier, to_config
from cnnlite.types import Array, Config


class Regularizer:
    """The base class of all regularizers; subclasses define `__call__(weights)` and `gradient(weights)`."""

    def __call__(self, weights: Array) -> float:
        """Return what the weights add to the loss, as a float."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(weights).")

    def gradient(self, weights: Array) -> Array:
        """Return the derivative of `__call__` with respect to each weight."""
        raise NotImplementedError(f"{type(self).__name__} must define gradient(weights).")

    def add_gradient(self, weights: Array, gradient: Array) -> None:
        """Add the derivative with respect to each weight to a gradient, in place."""
        with arithmetic():
            gradient += self.gradient(weights)


class L1L2(Regularizer):
    """l1 * sum(|w|) + l2 * sum(w²); both factors are 0 by default, and a negative one is a ValueError.

    A factor of 0 leaves its sum out, since 0 times an infinite sum would be NaN.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = number(l1, "l1", type(self).__name__, minimum=0)
        self.l2 = number(l2, "l2", type(self).__name__, minimum=0)

    def __call__(self, weights: Any) -> Any:
        if is_buffer(weights):
            return kernels.l1_l2_penalty(weights, self.l1, self.l2)
        return float(kernels.l1_l2_penalty(_floats(weights), self.l1, self.l2)[0])

    def gradient(self, weights: Array) -> Array:
        weights = _floats(weights)
        gradient = np.zeros_like(weights)
        kernels.add_l1_l2_gradient(weights, gradient, self.l1, self.l2)
        return gradient

    def add_gradient(self, weights: Any, gradient: Any) -> None:
        if is_buffer(weights) or is_as_written(self):
            kernels.add_l1_l2_gradient(weights, gradient, self.l1, self.l2)
        else:
            super().add_gradient(weights, gradient)

    def get_config(self) -> Config:
        """Return the arguments that recreate this regularizer."""
        return {"l1": self.l1, "l2": self.l2}


class L1(L1L2):
    """l1 * sum(|w|); the factor is 0.01 by default."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)

    def get_config(self) -> Config:
        return {"l1": self.l1}


class L2(L1L2):
    """l2 * sum(w²); the factor is 0.01 by default."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)

    def get_config(self) -> Config:
        return {"l2": self.l2}


def _floats(weights: Any) -> Array:
    """Return weights as an array that the kernels accept."""
    array = np.asarray(weights, order="C")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


# The methods that the stages of a plan replace.
is_as_written = AsWritten("__call__", "gradient", "add_gradient")


def is_traceable(regularizer: Regularizer) -> bool:
    """Return whether a plan may run this regularizer as stages, which depend on nothing but l1 and l2."""
    return is_as_written(regularizer)


# Keras's other spelling, as in `kernel_regularizer=regularizers.l2(0.01)`.
l1, l2, l1_l2 = L1, L2, L1L2

REGULARIZERS = {"l1": L1, "l2": L2, "l1_l2": L1L2}
is_as_written.remember(REGULARIZERS.values())


def get(identifier: Any) -> Regularizer | None:
    """Return the regularizer for a name, a config or a regularizer; None for None.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    if identifier is None:
        return None
    return from_identifier(identifier, REGULARIZERS, Regularizer, "regularizer")


def serialize(regularizer: Regularizer | None) -> Config | None:
    """Return {"class_name", "config"} for a regularizer, or None for None."""
    return to_config(regularizer)
