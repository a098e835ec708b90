"""Attacks on `load_model` and `load_weights`, and good files of models to start from."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import warnings
from pathlib import Path

import numba
import numpy as np

import cnnlite
from cnnlite import fusion, layers, losses, metrics, optimizers
from cnnlite.files.model_files import read
from cnnlite.files.safetensors_reader import DTYPES
from cnnlite.layers.serialization import rebuild
from cnnlite.layers.weights import weights_to_be_loaded
from cnnlite.optimizers import schedules
from tests.stress.fuzz import forged
from tests.stress.fuzz.mutations import mutate_bytes, mutate_json_bytes
from tests.stress.fuzz.refusals import CUT, refuses

OLD_FILES = Path(__file__).parents[2] / "data"


def attack_container(data, folder):
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return _load_both(path)


def _load_both(path):
    model, other = [], small_model()
    before = other.get_weights()
    loaded = not refuses(lambda: model.append(cnnlite.load_model(path)), path.name)
    if refuses(lambda: other.load_weights(path), path.name):
        assert all(map(np.array_equal, before, other.get_weights())), "some weights were loaded, and others not"
    if loaded:
        _use(model[0], path)
    return loaded


def _use(model, path):
    """A model that was accepted can be described, saved and loaded again; and used, or the use is refused in words."""
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    assert "\x1b" not in "".join(lines), "a summary that moves the cursor"
    model.save(path)
    again = cnnlite.load_model(path)
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    shape, out = model.input_shape[1:], model.output_shape[1:]
    if None in (*shape, *out) or _largest(model) > 1e5 or not numba.config.DISABLE_JIT:
        return  # compiled kernels would be compiled anew for many an odd dtype and shape
    x = np.zeros((2, *shape), np.float32)
    with warnings.catch_warnings(), contextlib.suppress(ValueError, TypeError), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        model.predict(x, verbose=0)
        with fusion.disabled():
            model.fit(x, np.zeros((2, *out), np.float32), verbose=0)


def _largest(model):
    largest, shape = 0, model.input_shape
    for layer in model.layers:
        stacks = layer.inner_layers if isinstance(layer, layers.Residual) else [layer]
        largest = max(largest, *(_largest(stack) for stack in stacks if isinstance(stack, cnnlite.Sequential)), 0)
        pads = sum(map(sum, getattr(layer, "padding", []))) if isinstance(layer, layers.ZeroPadding2D) else 0
        kernel = math.prod(getattr(layer, "kernel_size", ())) * math.prod(getattr(layer, "strides", ()) or (1,))
        shape = layer.compute_output_shape(shape)
        largest = max(largest, math.prod(size or 1 for size in shape) * max(kernel, 1), pads)
    return max(largest, math.prod(size or 1 for size in model.input_shape))


def attack_model(data, folder):
    """Parts: the JSON of the model, that of the training, and {name: [dtype, shape]} of the tensors.

    Without a third part the tensors are those that the model and the training ask for.
    """
    model, training, table = (part.decode("utf-8", "replace") for part in (*data.split(CUT), b"", b"", b"")[:3])
    path = folder / "model.safetensors"
    metadata = {"model": model, "training": training or "{}"} if model else {}
    tensors = _tensors(table) if table else _tensors_that_fit(model, training)
    path.write_bytes(forged.model_file(tensors, **metadata))
    return _load_both(path)


def _tensors_that_fit(model, training):
    weights, vectors, size, dtype = {}, [], 1, np.float32
    with contextlib.suppress(Exception):  # then there is nothing that could fit
        vectors = [f"optimizer/{name}" for name in json.loads(training)["optimizer_state"]["vectors"]]
    with contextlib.suppress(Exception), weights_to_be_loaded(100_000):
        model = rebuild(json.loads(model))
        weights = {name: np.ones_like(array) for name, array in (model.params | model.state).items()}
        size, dtype = sum(array.size for array in model.params.values()), model.dtype
    tensors = weights | {name: np.ones(size, dtype) for name in vectors}
    return {name: array for name, array in tensors.items() if name.isprintable()}


def _tensors(table):
    try:
        return {
            name: np.ones(shape, DTYPES[dtype]) for name, (dtype, shape) in json.loads(table).items()
            if math.prod(shape) <= 1e5 and name.encode()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, MemoryError):
        return {}


def mutate_model(data, random):
    parts = data.split(CUT)
    if len(parts) != 3 or random.randint(0, 9) == 0:
        return mutate_bytes(data, random)
    chosen = random.choice([0, 0, 0, 1, 1, 2] if parts[2] else [0, 0, 1])
    parts[chosen] = mutate_json_bytes(parts[chosen], random)
    return CUT.join(parts)


def small_model():
    return cnnlite.Sequential([cnnlite.Input((5,)), layers.Dense(3), layers.Dropout(0.5), layers.Dense(4, "softmax")])


def good_models():
    """Compiled models that have every layer, loss, optimizer and schedule between them."""
    conv = cnnlite.Sequential([
        cnnlite.Input((6, 6, 2)), layers.Rescaling([0.5, 2.0], 0.1), layers.ZeroPadding2D(((1, 0), (0, 1))),
        layers.Conv2D(4, 3, padding="same", groups=2, activation="relu", kernel_regularizer="l2"),
        layers.BatchNorm(), layers.DepthwiseConv2D(2, dilation_rate=2), layers.ReLU(max_value=6), layers.MaxPool(),
        layers.Residual([layers.Conv2D(3, 1), layers.Tanh()], shortcut=layers.Conv2D(3, 1, use_bias=False)),
        layers.SpatialDropout2D(0.2), layers.AveragePool(1), layers.Flatten(), layers.Dense(3, activation="softmax"),
    ])
    conv.compile(optimizers.Adam(schedules.CosineDecay(0.1, 10), clipnorm=1.0), "sparse_categorical_crossentropy",
                 metrics=["accuracy"], weighted_metrics=["ce"])
    block = cnnlite.Sequential([layers.Dense(4, activation=layers.ELU(0.5)), layers.Dropout(0.3, seed=1)], name="block")
    nested = cnnlite.Sequential([
        cnnlite.Input((2, 2, 1)), layers.Reshape((4,)), block, layers.Activation("gelu"),
        layers.Dense(2, activation="sigmoid", kernel_initializer=cnnlite.initializers.Orthogonal(seed=1)),
    ])
    nested.layers[1].trainable = False
    nested.compile(optimizers.SGD(schedules.ExponentialDecay(0.1, 5, 0.9), momentum=0.9), losses.Huber(0.5),
                   metrics=[metrics.Precision([0.1, 0.5]), "mse"])
    pooled = cnnlite.Sequential([
        layers.Conv2D(2, (1, 2), strides=2, data_format="channels_first", input_shape=(1, 4, 4), dtype="float64"),
        layers.GlobalAveragePool(data_format="channels_first", dtype="float64"), layers.Softmax(dtype="float64"),
    ])
    pooled.compile(optimizers.RMSprop(0.01, centered=True, weight_decay=0.1), "categorical_crossentropy",
                   metrics=[metrics.TopKCategoricalAccuracy(1)])
    return [conv, nested, pooled, small_model()]


def _seed_files():
    """Yield the metadata and the tensors of good files: the old ones, and new ones of all kinds of models."""
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(OLD_FILES.glob("*.safetensors"))
        for number, model in enumerate(good_models()):
            if model.compiled:
                model.optimizer.build(model.parameters())
            paths.append(Path(folder) / f"{number}.safetensors")
            model.save(paths[-1])
        for path in paths:
            yield (path.read_bytes(), *read(path, "seeds"))


def seeds_of_containers():
    return [content for content, _, _ in _seed_files()]


def seeds_of_models():
    codes = {np.dtype(code): name for name, code in DTYPES.items()}
    seeds = []
    for _, tensors, metadata in _seed_files():
        table = json.dumps({name: [codes[array.dtype], array.shape] for name, array in tensors.items()})
        parts = [metadata.get("model", "").encode(), metadata.get("training", "").encode()]
        seeds += [CUT.join([*parts, table.encode()])] + [CUT.join([*parts, b""])] * 3
    return seeds
