"""What is attacked: for each reader what it may do with bytes that nobody vouches for, and good inputs to start from.

A target takes bytes and a folder to write them to. It returns whether they were accepted, and raises an AssertionError
where the reader did what SECURITY.md says it never does. Any other exception that comes out is such a finding too.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numba
import numpy as np

import cnnlite
from cnnlite import fusion, layers, losses, metrics, optimizers
from cnnlite.architecture import rebuild
from cnnlite.callbacks import BackupAndRestore, Callback, CSVLogger, EarlyStopping, ReduceLROnPlateau
from cnnlite.datasets import mnist
from cnnlite.layers.weights import weights_to_be_loaded
from cnnlite.model_files import read
from cnnlite.optimizers import schedules
from cnnlite.tensor_files import DTYPES
from tests.stress.fuzz import forged
from tests.stress.fuzz.mutations import mutate_bytes, mutate_json

CUT = b"\n----\n"  # between the parts of an input
OLD_FILES = Path(__file__).parents[2] / "data"
LONGEST_MESSAGE = 5000


class Target(NamedTuple):
    attack: Callable[[bytes, Path], bool]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, Random], bytes]


def refuses(read: Callable[[], Any], name: str, kinds: tuple[type[Exception], ...] = (ValueError,)) -> bool:
    """Return whether `read` refused what it got, with an error of one of the kinds, that names the file, if any."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except kinds as error:
        message = str(error)
        if name:
            assert name in message, f"the file is not named: {message[:500]}"
            assert len(message) < LONGEST_MESSAGE, f"a message of {len(message)} characters"
            assert "\x1b" not in message, "a message that moves the cursor"
        cause: BaseException | None = error
        while cause is not None:
            assert not isinstance(cause, MemoryError), f"memory ran out before {message[:500]}"
            cause = cause.__cause__ or cause.__context__
        return True
    return False


# Model files.


def attack_container(data, folder):
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return _load_both(path)


def _load_both(path):
    model, other = [], _small_model()
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
        largest = max(largest, _largest(layer) if isinstance(layer, cnnlite.Sequential) else 0)
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
    parts[chosen] = mutate_json(parts[chosen].decode("utf-8", "replace"), random).encode("utf-8", "replace")
    return CUT.join(parts)


def _small_model():
    return cnnlite.Sequential([cnnlite.Input((5,)), layers.Dense(3), layers.Dropout(0.5), layers.Dense(4, "softmax")])


def _models():
    """Compiled models that have every layer, loss, optimizer and schedule between them."""
    conv = cnnlite.Sequential([
        cnnlite.Input((6, 6, 2)), layers.Rescaling([0.5, 2.0], 0.1), layers.ZeroPadding2D(((1, 0), (0, 1))),
        layers.Conv2D(4, 3, padding="same", groups=2, activation="relu", kernel_regularizer="l2"),
        layers.BatchNorm(), layers.DepthwiseConv2D(2, dilation_rate=2), layers.ReLU(max_value=6), layers.MaxPool(),
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
    return [conv, nested, pooled, _small_model()]


def _seed_files():
    """Yield the metadata and the tensors of good files: the old ones, and new ones of all kinds of models."""
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(OLD_FILES.glob("*.safetensors"))
        for number, model in enumerate(_models()):
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


# Backups of runs.


def attack_backup(data, folder):
    """The JSON of the run; the tensors are those of the good backups together."""
    backup = folder / "backup"
    backup.mkdir(exist_ok=True)
    for file in backup.iterdir():
        file.unlink()
    (folder / "log.csv").write_text("epoch,accuracy,loss\n0,0.5,0.5\n")
    tensors = {name: array for _, arrays in reversed(_backups()) for name, array in arrays.items()}
    content = forged.model_file(tensors, run=data.decode("utf-8", "replace"))
    (backup / "backup.safetensors").write_bytes(content)
    return not refuses(lambda: _train(folder), "backup.safetensors")


def _train(folder, stop_at=None):
    model = cnnlite.Sequential([cnnlite.Input((3,)), layers.Dropout(0.2, seed=1), layers.Dense(2, "softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy", metrics.Precision([0.1, 0.5])])

    class Stop(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if model.optimizer.iterations == stop_at:
                raise KeyboardInterrupt

    x, y = np.ones((6, 3), np.float32), np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0, 1]]
    watching = [EarlyStopping("loss", patience=5, restore_best_weights=True), ReduceLROnPlateau("loss", patience=1)]
    model.fit(x, y, epochs=3, batch_size=2, verbose=0, validation_data=(x, y), callbacks=[
        BackupAndRestore(folder / "backup", save_freq=1, delete_checkpoint=False), *watching,
        CSVLogger(folder / "log.csv", append=True), Stop(),
    ])


_made: list[tuple[str, dict[str, Any]]] = []


def _backups():
    """Return the JSON and the tensors of backups from the middle of an epoch, and from the end."""
    if not _made:
        for stop_at in (5, 2, 6, None):
            with tempfile.TemporaryDirectory() as folder:
                with contextlib.suppress(KeyboardInterrupt):
                    _train(Path(folder), stop_at)
                tensors, metadata = read(Path(folder) / "backup" / "backup.safetensors", "seeds")
            _made.append((metadata["run"], tensors))
    return _made


def seeds_of_backups():
    return [run.encode() for run, _ in _backups()]


# Configs that do not come out of a file of ours.


def attack_config(data, folder):
    """What `from_config` and `get` are given: a refusal, or an object whose config makes it again."""
    text = data.decode("utf-8", "replace")
    accepted = False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    for get in (cnnlite.Sequential.from_config, optimizers.get, losses.get, metrics.get, schedules.get,
                cnnlite.initializers.get, cnnlite.regularizers.get, cnnlite.activations.get):
        made = []
        if not isinstance(value, dict) or ("layers" in value and _size_of(value) > 1e5):
            continue
        if not refuses(lambda get=get, made=made: made.append(get(value)), "", (ValueError, TypeError)):
            accepted = True
            if made[0] is not None and hasattr(made[0], "get_config"):
                json.dumps(made[0].get_config(), default=repr)
    return accepted


def _size_of(config):
    """Return a bound of the weights of a model, as its config alone says nothing of what may be large."""
    sizes = [1]

    def walk(value):
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(inner)
        if isinstance(value, int) and not isinstance(value, bool):
            sizes.append(abs(value))

    walk(config)
    return max(sizes) ** 2


def seeds_of_configs():
    made = _models()
    things = [model.get_config() for model in made]
    things += [value for model in made[:3] for value in _entries(model.get_compile_config())]
    things += [
        schedules.serialize(schedule) for schedule in (
            schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2, 0.3]), schedules.OneCycle(0.1, 10),
            schedules.InverseTimeDecay(0.1, 3, 0.5), schedules.CosineDecay(0.1, 10, warmup_target=0.2, warmup_steps=3),
        )
    ]
    return [json.dumps(thing).encode() for thing in things]


def _entries(config):
    for value in config.values():
        yield from (item for item in (value if isinstance(value, list) else [value]) if item is not None)


def mutate_config(data, random):
    return mutate_json(data.decode("utf-8", "replace"), random).encode("utf-8", "replace")


# Data sets.


def attack_npz(data, folder):
    path = folder / "own.npz"
    path.write_bytes(data)
    return _load_data(path, path.name)


def _load_data(path, name):
    loaded = []
    if refuses(lambda: loaded.append(mnist.load_data(path)), name):
        return False
    (x_train, y_train), (x_test, y_test) = loaded[0]
    assert x_train.dtype == x_test.dtype == np.uint8
    assert x_train.ndim == 3
    assert x_train.shape[1:] == x_test.shape[1:]
    assert len(x_train) == len(y_train) > 0
    assert len(x_test) == len(y_test) > 0
    assert all(y.dtype.kind in "iu" and y.min() >= 0 for y in (y_train, y_test))
    return True


def attack_members(data, folder):
    """Parts: a byte that chooses the compression, and the four members, or more of any name."""
    how, *contents = data.split(CUT)
    names = [*mnist.KEYS, *mnist.KEYS[:1], "../../etc/passwd", "/x_train"]
    members = [(f"{name}.npy", content) for name, content in zip(names, contents)]
    path = folder / "own.npz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name
        path.write_bytes(forged.npz(members, zipfile.ZIP_STORED if how == b"0" else zipfile.ZIP_DEFLATED))
    return _load_data(path, path.name)


def attack_idx(data, folder):
    """Parts: the four files, plain or packed."""
    for name, content in zip(mnist.IDX_NAMES, (*data.split(CUT), b"", b"", b"")):
        (folder / name.format("-")).write_bytes(content)
    return _load_data(folder, str(folder))


def seeds_of_npz():
    members = [(f"{key}.npy", forged.npy(array)) for key, array in forged.SMALL.items()]
    return [forged.npz(members), forged.npz(members, zipfile.ZIP_STORED)]


def seeds_of_members():
    arrays = [forged.npy(array) for array in forged.SMALL.values()]
    return [CUT.join([how, *arrays]) for how in (b"0", b"8")] + [CUT.join([b"8", *arrays, arrays[0], b"x"])]


def seeds_of_idx():
    return [CUT.join(forged.idx(array, packed) for array in forged.SMALL.values()) for packed in (False, True)]


# A log to append to.


def attack_csv(data, folder):
    path = folder / "log.csv"
    path.write_bytes(data)
    logger = CSVLogger(path, append=True)
    if refuses(logger.on_train_begin, path.name):
        return False
    logger.on_epoch_end(0, {"loss": 0.5})
    return True


def seeds_of_csv():
    return [b"epoch,loss,val_loss\n0,0.5,0.4\n", b""]


TARGETS = {
    "model files": Target(attack_container, seeds_of_containers, mutate_bytes),
    "model files with a valid checksum": Target(attack_model, seeds_of_models, mutate_model),
    "backups": Target(attack_backup, seeds_of_backups, mutate_config),
    "configs": Target(attack_config, seeds_of_configs, mutate_config),
    "npz files": Target(attack_npz, seeds_of_npz, mutate_bytes),
    "members of npz files": Target(attack_members, seeds_of_members, mutate_bytes),
    "IDX files": Target(attack_idx, seeds_of_idx, mutate_bytes),
    "CSV logs": Target(attack_csv, seeds_of_csv, mutate_bytes),
}
