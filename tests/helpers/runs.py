"""Runs of `fit` that crash and are restarted, shared by the tests of BackupAndRestore."""

import numpy as np

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import BackupAndRestore, Callback
from cnnlite.files.json_arrays import pack
from tests.helpers.models import K, fit, make_data

EPOCHS, BATCH = 5, 10  # 50 samples: 5 steps per epoch


class Crash(Exception):
    pass


class CrashAt(Callback):
    """Simulates a crash on call number `number`, counted from 0, of the hook `moment`."""

    def __init__(self, moment, number):
        self.moment, self.left = moment, number

    def __getattribute__(self, name):
        if name.startswith("on_") and name == super().__getattribute__("moment"):
            return self.count
        return super().__getattribute__(name)

    def count(self, *args, **kwargs):
        if self.left == 0:
            raise Crash
        self.left -= 1


class Sequence:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return 5

    def __getitem__(self, i):
        if not 0 <= i < 5:
            raise IndexError(i)
        return self.x[i * 10 : i * 10 + 10], self.y[i * 10 : i * 10 + 10]


class Iterable:
    """Can be iterated repeatedly, but has neither indexing nor a length."""

    def __init__(self, x, y):
        self.batches = Sequence(x, y)

    def __iter__(self):
        return iter(self.batches[i] for i in range(5))


def endless(x, y):
    i = 0
    while True:
        i += 7
        order = np.arange(i, i + 10) % len(x)
        yield x[order], y[order]


def dropout_model(seed, metrics=("accuracy",), optimizer=None, loss="sparse_categorical_crossentropy"):
    cnnlite.utils.set_random_seed(seed)
    model = cnnlite.Sequential([
        layers.Dense(8, activation="relu"), layers.BatchNorm(), layers.Dropout(0.3),
        layers.Dense(K, activation="softmax"),
    ])
    model.compile(optimizer or cnnlite.optimizers.Adam(0.01), loss, metrics=[
        metric() if callable(metric) else metric for metric in metrics
    ])
    return model


def everything(model):
    """Return the final state of a run, as values that compare bit for bit."""
    state = pack(model.optimizer.state(), vectors := {}, "optimizer")
    return {
        "weights": [array.tobytes() for array in model.get_weights()],
        "optimizer": (state, [vector.tobytes() for vector in vectors.values()]),
        "random": [layer.random.state for layer in model.walk() if hasattr(layer, "random")],
        "shuffle": None if model.shuffle_random is None else model.shuffle_random.state,
        "history": {name: np.array(values).tobytes() for name, values in model.history.history.items()},
        "epochs": model.history.epoch,
    }


def run(folder, save_freq, crash=None, seed=1, data="arrays", metrics=("accuracy",), others=(), optimizer=None,
        loss="sparse_categorical_crossentropy", **arguments):
    """Train a new model, like a restarted script; return its final state, or None after a crash."""
    x, y = make_data()
    if loss == "mse":
        y = np.eye(K, dtype=np.float32)[y]
    model = dropout_model(seed, metrics, optimizer and optimizer(), loss)
    others = [other(folder.parent) for other in others]
    backup = [] if save_freq is None else [BackupAndRestore(folder, save_freq)]
    arguments = {"epochs": EPOCHS, "callbacks": [*backup, *others, *(crash or [])], **arguments}
    validation = (x[::2], y[::2])
    try:
        if data == "arrays":
            fit(model, x, y, batch_size=BATCH, validation_data=validation, **arguments)
        else:
            model.fit(data(x, y), validation_data=validation, verbose=0, **arguments)
    except Crash:
        return None
    return everything(model)
