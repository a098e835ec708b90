"""Keras's namespace for models: `models.Sequential`, `models.load_model`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from cnnlite.files.saving import load_model, save_model
from cnnlite.layers.base import Layer
from cnnlite.layers.input import InputLayer
from cnnlite.layers.residual import Residual
from cnnlite.layers.serialization import describe, rebuild
from cnnlite.model.sequential import Sequential

__all__ = ["Sequential", "clone_model", "load_model", "save_model"]


def clone_model(
    model: Sequential,
    input_tensors: InputLayer | Sequence[InputLayer] | None = None,
    clone_function: Callable[[Any], Layer] | None = None,
    call_function: None = None,
    recursive: bool = False,
) -> Sequential:
    """Return a new model with the same architecture and new weights, compiled if the model is.

    The clone gets a fresh optimizer with the same settings and the current learning rate, a copy of the loss, and
    metrics in their initial state.

    Args:
        model: the model to clone; it is not changed.
        input_tensors: an `Input` for the new model to start with, by default one with the model's input shape.
        clone_function: called with each layer, returns its replacement; by default a new layer with the same config.
        call_function: must be None for a `Sequential`, as in Keras, since building one calls no layers.
        recursive: True applies `clone_function` to the layers inside nested models and `Residual` branches too; by
            default both are cloned like any other layer.

    Raises:
        TypeError: `model` is not a `Sequential`, `clone_function` returned something other than a layer, your own
            optimizer's `get_config` does not fit its `__init__`, or your own loss or metric can't be copied.
        ValueError: `input_tensors` is not one `Input`, or `call_function` is given.

    >>> import cnnlite
    >>> model = cnnlite.Sequential([cnnlite.layers.Dense(2, input_shape=(3,))])
    >>> cnnlite.models.clone_model(model).count_params()
    8
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"clone_model: model must be a Sequential. Received: {model!r}, a {type(model).__name__}.")
    if call_function is not None:
        raise ValueError(
            "clone_model: call_function must be None for a Sequential, whose construction calls no layers. "
            f"Received: call_function={call_function!r}. Return other layers from clone_function."
        )
    if clone_function is not None and not callable(clone_function):
        raise TypeError(
            "clone_model: clone_function must be a function that takes a layer and returns one. "
            f"Received: clone_function={clone_function!r}."
        )
    opening = None if input_tensors is None else _one_input(input_tensors)
    classes = {type(layer).__name__: type(layer) for layer in model.walk()}
    if clone_function is None and opening is None:
        clone = type(model).from_config(model.get_config(), custom_objects=classes)
    else:
        clone = _clone_layer_by_layer(model, opening, clone_function or _new_layer(classes), recursive)
    if model.compiled:
        _compile_like(clone, model)
    return clone


def _one_input(input_tensors: Any) -> InputLayer:
    inputs = input_tensors if isinstance(input_tensors, (list, tuple)) else [input_tensors]
    if len(inputs) != 1 or not isinstance(inputs[0], InputLayer):
        raise ValueError(
            f"clone_model: input_tensors must be one Input, such as Input((28, 28, 1)). Received: {input_tensors!r}."
        )
    return inputs[0]


def _new_layer(classes: dict[str, Any]) -> Callable[[Layer], Layer]:
    return lambda layer: rebuild(describe(layer), classes)


def _clone_layer_by_layer(
    model: Sequential, opening: InputLayer | None, clone_function: Callable[[Layer], Layer], recursive: bool
) -> Sequential:
    if opening is None and model.given_input_shape is not None:
        opening = InputLayer(model.given_input_shape)
    clone = type(model)(name=model.name)
    clone._add_all([] if opening is None else [opening])
    clone._add_all(_clone_layer(layer, clone_function, recursive) for layer in model.layers)
    if opening is None and model.input_shape is not None:
        clone.build(model.input_shape)
    clone._trainable = model.trainable  # not the property, which would set it for the layers too
    return clone


def _clone_layer(layer: Layer, clone_function: Callable[[Any], Layer], recursive: bool) -> Layer:
    if recursive and isinstance(layer, Sequential):
        return _clone_layer_by_layer(layer, None, clone_function, recursive)
    if recursive and type(layer) is Residual:  # a subclass may build its own branches
        branches = [_clone_layer_by_layer(branch, None, clone_function, recursive)  # type: ignore[arg-type]
                    for branch in layer.inner_layers]
        clone = Residual(*branches, name=layer.name, input_shape=layer.given_input_shape)
        clone._trainable = layer.trainable  # not the property, as above
        return clone
    return clone_function(layer)


def _compile_like(clone: Sequential, model: Sequential) -> None:
    cls, config = type(model.optimizer), model.optimizer.get_config()
    try:
        optimizer = cls.from_config(config)
    except TypeError as error:
        raise TypeError(
            f"clone_model: from_config(get_config()) must recreate the optimizer. Received: a {cls.__name__} "
            f"with the config {config}, which fails: {error}. Define get_config() to return what __init__ takes."
        ) from error
    try:
        loss, pairs = copy.deepcopy((model.loss, model._metrics))
    except TypeError as error:  # what copy and pickle raise for locks, files, generators
        raise TypeError(
            f"clone_model: copy.deepcopy must be able to copy the loss and the metrics. Received: {model.loss!r} "
            f"and {model.metrics}, which fails: {error}. Define __deepcopy__ in the class that holds it."
        ) from error
    for metric, _ in pairs:
        metric.reset_state()
    clone.compile(
        optimizer,
        loss,
        metrics=[metric for metric, weighted in pairs if not weighted],
        weighted_metrics=[metric for metric, weighted in pairs if weighted],
        run_eagerly=model.run_eagerly,
    )
