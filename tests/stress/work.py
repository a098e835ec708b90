"""What the programs about threads and processes let each of these do: small models, but large enough for the pool."""

import hashlib

import numpy as np

import cnnlite
from cnnlite import layers
from cnnlite.engine import thread_pool
from cnnlite.random import RandomStream

N, SIZE, CLASSES = 256, 16, 10


def make_data(seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(N, SIZE, SIZE, 1)).astype(np.float32), generator.integers(0, CLASSES, N)


def make_model(seed=0, build=True):
    """Return a model whose every number follows from the seed, whatever other threads do."""
    cnnlite.utils.set_random_seed(seed)
    model = cnnlite.Sequential([
        layers.Conv2D(16, 3), layers.BatchNorm(), layers.ReLU(), layers.MaxPool(),
        layers.Conv2D(16, 3, activation="relu"), layers.Flatten(), layers.Dropout(0.3),
        layers.Dense(64, activation="relu"), layers.Dense(CLASSES, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.shuffle_random = RandomStream(seed)
    if build:
        model.build((None, SIZE, SIZE, 1))
    return model


def train(model, seed=0, epochs=1, callbacks=None):
    """Train the model; return a digest of what it has become and of what it says."""
    x, y = make_data(seed)
    history = model.fit(x, y, batch_size=128, epochs=epochs, verbose=0, callbacks=callbacks).history
    return digest(*model.get_weights(), model.predict(x, verbose=0), model.evaluate(x, y, verbose=0), *history.values())


def ask(model, seed=0):
    """Return a digest of the model's answers."""
    x, _ = make_data(seed)
    return digest(model.predict(x, batch_size=N, verbose=0), model(x[: 200 + seed]))


def digest(*values):
    return hashlib.sha256(b"".join(np.asarray(value).tobytes() for value in values)).hexdigest()


class Shares:
    """Counts how often a loop was shared by threads, from when it is made."""

    def __init__(self):
        self.shared = self.alone = 0
        take = thread_pool.take

        def counting():
            threads = take()
            if threads > 1:
                self.shared += 1
            else:
                self.alone += 1
            return threads

        thread_pool.take = counting
