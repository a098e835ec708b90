"""A warning, with the remedy, if a model's last activation and its loss clearly don't belong together."""

from __future__ import annotations

import warnings
from typing import Any

from cnnlite.layers.activation import (
    ELU,
    GELU,
    ActivationLayer,
    LeakyReLU,
    Linear,
    LogSoftmax,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from cnnlite.layers.activation_by_name import Activation
from cnnlite.layers.base import Layer
from cnnlite.layers.conv2d import Conv2D
from cnnlite.layers.dense import Dense
from cnnlite.layers.depthwise_conv2d import DepthwiseConv2D
from cnnlite.layers.dropout import Dropout
from cnnlite.layers.flatten import Flatten
from cnnlite.layers.overrides import is_untouched
from cnnlite.layers.reshape import Reshape
from cnnlite.losses import BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy

# Exact classes only: a subclass, or a method assigned to an instance, may compute anything.
_CROSSENTROPIES = (BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy)
_WITH_ACTIVATION = (Dense, Conv2D, DepthwiseConv2D)
_HANDS_ON = (Flatten, Reshape, Dropout, Linear)
_PROBABILITIES = (Sigmoid, Softmax)
_MAY_BE_NEGATIVE = (Linear, LeakyReLU, ELU, GELU, SiLU, Tanh, LogSoftmax)


def advise(model: Any, loss: Any, owner: str) -> None:
    """Warn if a cross-entropy takes logits but the model returns probabilities, or vice versa."""
    if type(loss) not in _CROSSENTROPIES:
        return
    last = _last_activation(_leaves(model))
    if loss.from_logits and type(last) in _PROBABILITIES:
        warnings.warn(
            f"{owner}: {loss.name} takes logits (from_logits=True), but the model ends with the probabilities of a "
            f"{last.activation_name or 'softmax'}. Use from_logits=False, or a last layer without an activation.",
            stacklevel=4,
        )
    elif not loss.from_logits and type(last) in _MAY_BE_NEGATIVE:
        warnings.warn(
            f"{owner}: {loss.name} takes probabilities, but the model ends with the activation "
            f"{last.activation_name or 'log_softmax'!r}, whose outputs may be negative or above 1. "
            f'Use activation="{loss.probability_activation}" in the last layer, or from_logits=True for logits.',
            stacklevel=4,
        )


def _leaves(model: Any) -> list[Layer]:
    """Return the layers in the order in which they run, including those of nested models."""
    found: list[Layer] = []
    for layer in model.layers:
        runs_its_layers = hasattr(layer, "forward_logits") and type(layer).forward is type(model).forward
        found += _leaves(layer) if runs_its_layers else [layer]
    return found


def _last_activation(layers: list[Layer]) -> Any:
    """Return the activation that produces the model's output; None if unknown."""
    for layer in reversed(layers):
        last: Any = layer
        if type(last) in (Activation, *_WITH_ACTIVATION):
            last = last.activation
        if not (is_untouched(layer) and is_untouched(last)):
            return None
        if type(layer) not in _WITH_ACTIVATION and type(last) in _HANDS_ON:
            continue
        return last if isinstance(last, ActivationLayer) else None
    return None
