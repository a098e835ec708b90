"""What a user of an installed cnnlite does, in one file that imports nothing else: it prints what came of it as JSON.

It trains on MNIST as it lies in the package, a network of dense layers, or with the argument "convolutions" one with
all that they need. With "data" it reads the data set, too, and saves and loads the model.
"""

import json
import os
import sys
import tempfile

import numba
import numpy as np

import cnnlite
from cnnlite import layers


def train(with_convolutions):
    cnnlite.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 8, 8, 1)).astype("float32"), rng.integers(4, size=64)
    first = [layers.Conv2D(8, 3, activation="relu"), layers.BatchNorm(), layers.MaxPool()] if with_convolutions else []
    model = cnnlite.Sequential([
        cnnlite.Input(shape=(8, 8, 1)), *first, layers.Flatten(),
        layers.Dense(8, activation="relu"), layers.Dense(4, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(x, y, batch_size=32, epochs=2, verbose=0)
    return model, x, history.history["loss"]


def main(*wanted):
    model, x, losses = train("convolutions" in wanted)
    result = {
        "losses": losses, "at": os.path.dirname(cnnlite.__file__), "python": sys.version.split()[0],
        "numba": numba.__version__, "numpy": np.__version__,
    }
    if "data" in wanted:
        (x_train, _), (x_test, _) = cnnlite.datasets.mnist.load_data()
        result["images"] = [len(x_train), len(x_test)]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.safetensors")
            model.save(path)
            result["loaded the same"] = bool(np.array_equal(cnnlite.load_model(path).predict(x, verbose=0),
                                                            model.predict(x, verbose=0)))
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
