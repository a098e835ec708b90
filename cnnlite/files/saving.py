"""A model in one file: weights, architecture, optimizer and random states, so that training resumes where it stopped.

The file is a safetensors file: a header in JSON, then the bytes of the arrays. Nothing in it is ever executed.

    tensors    conv2d/kernel  conv2d/bias  block/dense/kernel ...   the weights, by the path of their layer
               batch_norm/moving_mean ...                           arrays that training changes without a gradient
               optimizer/momentum  optimizer/velocity ...           the optimizer's vectors, one entry per parameter
    metadata   format            "cnnlite"
               format_version    "1"
               cnnlite_version   the version that wrote it
               model             JSON: the layers, each with its class name and its config, and the input shape
               training          JSON: the arguments of compile, the optimizer's numbers, the random states
               checksum          SHA-256 of everything above

A file written by `save_weights` has neither `model` nor `training`, and no optimizer tensors.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite.files.model_files import check_path_to_write, read, write
from cnnlite.files.safetensors_reader import parse_json, shown
from cnnlite.layers.serialization import check_extent, describe, is_model, rebuild, revive
from cnnlite.layers.weights import only_reading, weights_to_be_loaded
from cnnlite.random import RandomStream
from cnnlite.support.floating import converted_or_raise
from cnnlite.support.interrupts import deferred_signals

if TYPE_CHECKING:
    from cnnlite.model.sequential import Sequential

# The public functions.


def save_model(
    model: Sequential,
    filepath: str | os.PathLike[str],
    overwrite: bool = True,
    include_optimizer: bool = True,
) -> None:
    """Write a model to a file from which `load_model` restores it and training resumes with the same bits.

    The file appears complete or not at all: a write that fails leaves the old one as it was.

    Args:
        model: a built `Sequential`.
        filepath: where to write it: "model.safetensors", say, in a folder that exists.
        overwrite: False raises an error if the file exists already.
        include_optimizer: False leaves out the optimizer's vectors and its step count, two thirds of the file after
            training with Adam. They are also left out if layers were added or removed after training: the
            optimizer then belongs to weights that the model no longer has, and could not continue.

    Raises:
        ValueError: the model is not built, its layers no longer fit each other or have the same name, a layer's
            config is not made of plain values, or the file name has the extension of another format.
        FileExistsError: the file exists and `overwrite` is False.
        OSError: the file can't be written.
    """
    path = check_path_to_write(filepath, "save", overwrite)
    tensors = _weights(model, "save")
    if model.input_shape is not None:
        model.compute_output_shape(model.input_shape)  # otherwise the file could not be loaded again
    training = _training_state(model)
    if include_optimizer and model.optimizer is not None and model.optimizer.takes(model.named_layers()):
        training["optimizer_state"], vectors = optimizer_state(model)
        clash = sorted(set(vectors) & set(tensors))
        if clash:
            raise ValueError(f"save: a layer and the optimizer both have {clash[0]!r}. Give the layer another name.")
        tensors = {**tensors, **vectors}
    entry = describe(model)
    check_extent(entry, "save: ")
    metadata = {"model": _to_json(entry, "save"), "training": _to_json(training, "save")}
    write(path, tensors, metadata, "save")


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: dict[str, Any] | None = None,
    compile: bool = True,
) -> Sequential:
    """Load the model that `save_model` wrote, with its weights, its optimizer state and its random states.

    The layers come from `cnnlite.layers` and from `custom_objects`; nothing that a file names is imported.

    Args:
        filepath: the file.
        custom_objects: the classes and functions that are not cnnlite's, by name: {"Scale": Scale}.
        compile: False gives a model for prediction only, without loss, metrics or optimizer.

    Returns:
        a built `Sequential`; compiled, if the saved one was.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a complete cnnlite model, is damaged or newer than this version, or names a class that
            is neither in `cnnlite.layers` nor in `custom_objects`; the message names the file and the problem.
    """
    custom_objects = _check_custom_objects(custom_objects)
    tensors, metadata = read(filepath, "load_model")
    if "model" not in metadata:
        raise ValueError(
            f"load_model: {filepath} holds weights without a model. Make the model, then call model.load_weights(path)."
        )
    training = _from_json(metadata.get("training", "{}"), "training", filepath)
    vectors = _take_optimizer_vectors(tensors, training, filepath)
    entry = _from_json(metadata["model"], "model", filepath)
    with blaming(filepath, "the model in it can't be made"):
        model = _rebuild_model(entry, custom_objects, tensors)
    assign_weights(model, tensors, filepath, "load_model")
    with blaming(filepath, "its random states don't fit its layers"):
        _restore_random(model, training)
    if compile and training.get("compile") is not None:
        with blaming(filepath, "the model in it can't be compiled (compile=False loads it for prediction)"):
            model.compile_from_config(revive(training["compile"], custom_objects))
            restore_optimizer(model, training, vectors)
    return model


def save_weights(model: Sequential, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write the weights of a built model, and nothing else, to a file for `load_weights`."""
    path = check_path_to_write(filepath, "save_weights", overwrite)
    write(path, _weights(model, "save_weights"), {}, "save_weights")


def load_weights(model: Sequential, filepath: str | os.PathLike[str]) -> None:
    """Copy the weights in a file into a built model: all of them, or none and a ValueError.

    Args:
        model: a model with the layers, by name and shape, of the one that was saved. Weights of another precision are
            converted to the model's.
        filepath: a file written by `save_weights` or `save_model`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of another architecture; the message says which name or shape differs first.
    """
    tensors, metadata = read(filepath, "load_weights")
    _take_optimizer_vectors(tensors, _from_json(metadata.get("training", "{}"), "training", filepath), filepath)
    assign_weights(model, tensors, filepath, "load_weights")


def _check_custom_objects(custom_objects):
    custom_objects = {} if custom_objects is None else custom_objects
    if not isinstance(custom_objects, dict) or not all(callable(thing) for thing in custom_objects.values()):
        raise TypeError(
            "load_model: custom_objects must be a dict from names to the classes or functions that they stand for. "
            f"Received: custom_objects={custom_objects!r}."
        )
    return custom_objects


# The weights.

# How far a model may exceed the numbers in its file: enough to build one that does not match, and to say where.
_MORE_WEIGHTS = 2**20


def _rebuild_model(entry, custom_objects, tensors):
    """Return the model, its weights zero, and no larger than the tensors in the file justify."""
    check_extent(entry)
    with weights_to_be_loaded(2 * sum(tensor.size for tensor in tensors.values()) + _MORE_WEIGHTS):
        model = rebuild(entry, custom_objects)
    if not is_model(model):
        raise ValueError(f"it is a {type(model).__name__} and not a model")
    if not model.built:
        raise ValueError("it does not give the input shape")
    return model


def _weights(model, owner):
    if not model.built:
        raise ValueError(f"{owner}: {model.name} has no weights yet. Call build(input_shape) first.")
    with only_reading():
        return model.params | model.state


def _parameter_names(model):
    with only_reading():
        return list(model.params)


def check_weights(model, tensors, path, owner):
    """Return the arrays in the dtypes of the model's weights; a ValueError if they don't match the weights."""
    mine = _weights(model, owner)
    converted, its_name = {}, shown(model.name)
    for name, array in mine.items():
        weight = shown(name)
        if name not in tensors:
            raise ValueError(f"{owner}: {path} has no {weight}, which {its_name} has. Nothing was loaded.")
        if tensors[name].shape != array.shape:
            raise ValueError(
                f"{owner}: {weight} has shape {tensors[name].shape} in {path} and {array.shape} in {its_name}. "
                "Nothing was loaded."
            )
        if tensors[name].dtype.kind != "f":
            raise ValueError(f"{owner}: {weight} in {path} has dtype {tensors[name].dtype}, which weights can't have.")
        try:
            converted[name] = converted_or_raise(tensors[name], array.dtype)
        except FloatingPointError:
            raise ValueError(
                f"{owner}: {weight} in {path} holds numbers that are too large for {array.dtype}. Nothing was loaded."
            ) from None
    for name in tensors:
        if name not in mine:
            raise ValueError(f"{owner}: {path} has {shown(name)}, which {its_name} does not have. Nothing was loaded.")
    return converted


def assign_weights(model, tensors, path, owner):
    """Move arrays into the model's weights: all of them, or none and a ValueError."""
    converted = check_weights(model, tensors, path, owner)
    tensors.clear()
    with deferred_signals():
        for name, array in _weights(model, owner).items():
            array[...] = converted.pop(name)  # frees the file's arrays one by one
        for layer in model.walk():
            layer._params.version += 1
            layer._state.version += 1


# The state from which training resumes.


def _training_state(model):
    """Return the arguments of `compile` and the random states, as plain values."""
    shuffle = model.shuffle_random
    return {
        "compile": model.get_compile_config(),
        "random": {path: list(layer.random.state) for path, layer in random_layers(model).items()},
        "shuffle_random": None if shuffle is None else list(shuffle.state),
    }


def random_layers(layer, path=""):
    """Return {path: layer} for all inner layers that draw random numbers."""
    found = {}
    for name, inner in layer.named_inner_layers():
        if hasattr(inner, "random"):
            found[path + name] = inner
        found |= random_layers(inner, f"{path}{name}/")
    return found


def _restore_random(model, training):
    layers = random_layers(model)
    for path, state in training.get("random", {}).items():
        layers[path].random.state = state
    if training.get("shuffle_random") is not None:
        model.shuffle_random = RandomStream(0)
        model.shuffle_random.state = training["shuffle_random"]


def restore_optimizer(model, training, vectors):
    """Resume the optimizer from what `optimizer_state` returned; a ValueError if that is not possible."""
    state = training.get("optimizer_state")
    if state is None:
        return
    if state["parameters"] != _parameter_names(model):
        raise ValueError("the optimizer's vectors belong to other weights")
    if vectors:
        model.optimizer.build(model.parameters())
    model.optimizer.load_state({**state["numbers"], **vectors})


def optimizer_state(model):
    """Return the optimizer's numbers, as plain values, and its vectors, as tensors."""
    state = model.optimizer.state()
    vectors = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    numbers = {name: value for name, value in state.items() if name not in vectors}
    table = {"numbers": numbers, "vectors": list(vectors), "parameters": _parameter_names(model)}
    return table, {f"optimizer/{name}": vector for name, vector in vectors.items()}


def _take_optimizer_vectors(tensors, training, path):
    """Pop the optimizer's vectors from the tensors and return them."""
    with blaming(path, "its optimizer state is incomplete"):
        names = training.get("optimizer_state", {}).get("vectors", [])
        return {name: tensors.pop(f"optimizer/{name}") for name in names}


# JSON.


def _to_json(value, owner):
    def plain(thing):
        if isinstance(thing, np.generic):
            return thing.item()
        if inspect.isfunction(thing):
            return {"function": thing.__name__}
        raise TypeError(f"{thing!r} of type {type(thing).__name__}")

    try:
        return json.dumps(value, default=plain)
    except TypeError as error:
        raise ValueError(f"{owner}: a config must hold plain values that JSON knows. Received: {error}.") from None
    except RecursionError:
        raise ValueError(f"{owner}: the models within models are nested too deeply for a file.") from None


def _from_json(text, name, path):
    with blaming(path, f"its {name} is not readable"):
        value = parse_json(text)
        if not isinstance(value, dict):
            raise ValueError(f"not a JSON object: {shown(text)}")
        return value


@contextlib.contextmanager
def blaming(path, what, reading_data=False):
    """Turn any error that a damaged or foreign config causes into a ValueError that names the file.

    Signals are deferred meanwhile, so that the TimeoutError of an alarm is not blamed on the file. With
    `reading_data`, which may take long, they are not deferred, and only a ValueError is blamed on the file.
    """
    with contextlib.nullcontext() if reading_data else deferred_signals(second_passes=True):
        try:
            yield
        except Exception as error:
            # A user's layer may raise anything on arguments that it never expected.
            if reading_data and not isinstance(error, ValueError):
                raise
            text = f"{shown(str(error))} is missing" if isinstance(error, KeyError) else shown(str(error))
            raise ValueError(f"{path}: {what}: {text or type(error).__name__}.") from error
