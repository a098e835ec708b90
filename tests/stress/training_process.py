"""A training run as a script would make it: started again as it is after each kill, it goes on by its backup.

    python -m tests.stress.training_process FOLDER SAVE_FREQ EPOCHS

It reads a line before each step, so that whoever kills it can say how far it may get, and writes one after it. What it
ends with is in FOLDER/result.json.
"""

import json
import sys
from pathlib import Path

import numpy as np

import cnnlite
from cnnlite import callbacks, layers
from cnnlite.files.atomic_write import replace_file

STEPS = 5  # of an epoch


def main(folder, save_freq, epochs):
    folder = Path(folder)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(44, 6, 6, 1)).astype(np.float32), generator.integers(0, 3, 44)
    cnnlite.utils.set_random_seed(0)
    model = cnnlite.Sequential([
        cnnlite.Input(shape=(6, 6, 1)), layers.Conv2D(4, 3), layers.BatchNorm(), layers.ReLU(), layers.MaxPool(),
        layers.SpatialDropout2D(0.2), layers.Flatten(), layers.Dropout(0.3), layers.Dense(3, activation="softmax"),
    ])
    model.compile(cnnlite.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=8, epochs=int(epochs), validation_split=0.1, verbose=0, callbacks=[
        callbacks.BackupAndRestore(folder / "backup", save_freq if save_freq == "epoch" else int(save_freq)),
        callbacks.EarlyStopping(patience=1000, restore_best_weights=True),
        callbacks.ReduceLROnPlateau(patience=1, factor=0.9),
        callbacks.ModelCheckpoint(folder / "best.safetensors", save_best_only=True),
        callbacks.CSVLogger(folder / "log.csv"),
        callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: sys.stdin.readline(),
            on_train_batch_end=lambda batch, logs: print(model.optimizer.iterations, flush=True),
        ),
    ])
    vectors = {name: value for name, value in model.optimizer.state().items() if isinstance(value, np.ndarray)}
    numbers = {
        "history": model.history.history, "epochs": model.history.epoch, "steps": model.optimizer.iterations,
        "rate": model.optimizer.learning_rate, "shuffle": model.shuffle_random.state,
        "random": [layer.random.state for layer in model.walk() if hasattr(layer, "random")],
    }
    arrays = dict(model.params | model.state) | vectors
    result = {"numbers": numbers, "arrays": {name: array.tobytes().hex() for name, array in arrays.items()}}
    replace_file(folder / "result.json", json.dumps(result).encode(), "training_process")


if __name__ == "__main__":
    main(*sys.argv[1:])
