"""A model in one file: weights, architecture, optimizer and random states, so that training goes on where it stopped.

The file is a safetensors file: a header in JSON, then the bytes of the arrays. Nothing in it is ever run.

    tensors    conv2d/kernel  conv2d/bias  block/dense/kernel ...   the weights, by the path of their layer
               batch_norm/moving_mean ...                           arrays that training changes without a gradient
               optimizer/m  optimizer/v ...                         the optimizer's vectors, as long as all parameters
    metadata   format            "cnnlite"
               format_version    "1"
               cnnlite_version   which version wrote it
               model             JSON: the layers, each with its class's name and its config, and the input's shape
               training          JSON: what compile was given, the optimizer's numbers, the random states
               checksum          SHA-256 of everything above

A file of `save_weights` has neither `model` nor `training`, and no tensors of an optimizer.
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
from cnnlite.support.interrupts import held_back_interrupts

if TYPE_CHECKING:
    from cnnlite.model.sequential import Sequential

# What users call.


def save_model(
    model: Sequential,
    filepath: str | os.PathLike[str],
    overwrite: bool = True,
    include_optimizer: bool = True,
) -> None:
    """Write a model to a file from which `load_model` makes it again and training goes on with the same bits.

    The file appears complete or not at all: a write that fails leaves the old one as it was.

    Args:
        model: a built `Sequential`.
        filepath: where to; "model.safetensors", say, in a folder that exists.
        overwrite: False makes a file that is there already an error.
        include_optimizer: False leaves out the optimizer's vectors and its count of steps, two thirds of the
            file after training with Adam. They are left out, too, if layers were added or taken away since it was
            trained: the optimizer then belongs to weights that the model no longer has, and could not go on.

    Raises:
        ValueError: the model is not built, its layers no longer fit one another or have the same name, a layer's
            config is not made of plain values, or the name of the file ends like that of another format.
        FileExistsError: the file is there and `overwrite` is False.
        OSError: the file can't be written.
    """
    path = check_path_to_write(filepath, "save", overwrite)
    tensors = _weights(model, "save")
    if model.input_shape is not None:
        model.compute_output_shape(model.input_shape)  # or what is written could not be made again
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
    """Make the model that `save_model` wrote, with its weights, its optimizer's state and its random states.

    The layers come from `cnnlite.layers` and from `custom_objects`; nothing that a file names is imported.

    Args:
        filepath: the file.
        custom_objects: the classes and functions that are not cnnlite's, by name: {"Scale": Scale}.
        compile: False gives a model for prediction only, without loss, metrics and optimizer.

    Returns:
        a built `Sequential`; compiled, if the saved one was.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole model of cnnlite, is damaged or newer than this version, or names a class that
            is neither in `cnnlite.layers` nor in `custom_objects`; the message names the file and what was wrong.
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
        filepath: a file of `save_weights` or of `save_model`.

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
            "load_model: custom_objects must be a dict of names and the classes or functions that they stand for. "
            f"Received: custom_objects={custom_objects!r}."
        )
    return custom_objects


# The weights.

# What a model may take over the numbers in its file: enough to build one that does not fit it, and to say where.
_MORE_WEIGHTS = 2**20


def _rebuild_model(entry, custom_objects, tensors):
    """Return the model, its weights zeros; no larger than those in the file justify."""
    check_extent(entry)
    with weights_to_be_loaded(2 * sum(tensor.size for tensor in tensors.values()) + _MORE_WEIGHTS):
        model = rebuild(entry, custom_objects)
    if not is_model(model):
        raise ValueError(f"it is a {type(model).__name__} and not a model")
    if not model.built:
        raise ValueError("it does not say of what shape the input is")
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
    """Return the arrays in the dtypes of the weights; a ValueError if they are not those of the model."""
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
            raise ValueError(f"{owner}: {path} has {shown(name)}, which {its_name} has not. Nothing was loaded.")
    return converted


def assign_weights(model, tensors, path, owner):
    """Move arrays into the weights of the model: all of them, or none and a ValueError."""
    converted = check_weights(model, tensors, path, owner)
    tensors.clear()
    with held_back_interrupts():
        for name, array in _weights(model, owner).items():
            array[...] = converted.pop(name)  # so that the memory of the file's arrays is free one by one
        for layer in model.walk():
            layer._params.version += 1
            layer._state.version += 1


# What training goes on from.


def _training_state(model):
    """Return what `compile` was given and the random states, as plain values."""
    shuffle = model.shuffle_random
    return {
        "compile": model.get_compile_config(),
        "random": {path: list(layer.random.state) for path, layer in random_layers(model).items()},
        "shuffle_random": None if shuffle is None else list(shuffle.state),
    }


def random_layers(layer, path=""):
    """Return {path: layer} of all layers inside that draw random numbers."""
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
    """Let the optimizer go on from what `optimizer_state` returned; a ValueError if it can't."""
    state = training.get("optimizer_state")
    if state is None:
        return
    if state["parameters"] != _parameter_names(model):
        raise ValueError("the optimizer's vectors belong to other weights")
    if vectors:
        model.optimizer.build(model.parameters())
    model.optimizer.load_state({**state["numbers"], **vectors})


def optimizer_state(model):
    """Return the optimizer's numbers, in plain values, and its vectors as tensors."""
    state = model.optimizer.state()
    vectors = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    numbers = {name: value for name, value in state.items() if name not in vectors}
    table = {"numbers": numbers, "vectors": list(vectors), "parameters": _parameter_names(model)}
    return table, {f"optimizer/{name}": vector for name, vector in vectors.items()}


def _take_optimizer_vectors(tensors, training, path):
    """Take the optimizer's vectors from among the tensors and return them."""
    with blaming(path, "its optimizer's state is not whole"):
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
            raise ValueError(f"not a table: {shown(text)}")
        return value


@contextlib.contextmanager
def blaming(path, what, reading_data=False):
    """Turn whatever a damaged or foreign config leads to into a ValueError that names the file.

    Signals wait meanwhile, so that the TimeoutError of an alarm is not taken for a fault of the file. With
    `reading_data`, which may take long, they don't, and only a ValueError is one.
    """
    with contextlib.nullcontext() if reading_data else held_back_interrupts(second_passes=True):
        try:
            yield
        except Exception as error:
            # A layer of a user's may raise anything on arguments that it never expected.
            if reading_data and not isinstance(error, ValueError):
                raise
            text = f"{shown(str(error))} is not there" if isinstance(error, KeyError) else shown(str(error))
            raise ValueError(f"{path}: {what}: {text or type(error).__name__}.") from error
