"""Attacks on the files of a training run, the backup and the log, and good backups to start from."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import cnnlite
from cnnlite import layers, metrics
from cnnlite.callbacks import BackupAndRestore, Callback, CSVLogger, EarlyStopping, ReduceLROnPlateau
from cnnlite.files.model_files import read
from tests.stress.fuzz import forged
from tests.stress.fuzz.refusals import refuses


def attack_backup(data, folder):
    """The JSON of the run; the tensors are those of the good backups together."""
    backup = folder / "backup"
    backup.mkdir(exist_ok=True)
    for file in backup.iterdir():
        file.unlink()
    (folder / "log.csv").write_text("epoch,accuracy,loss\n0,0.5,0.5\n")
    tensors = {name: array for _, arrays in reversed(good_backups()) for name, array in arrays.items()}
    content = forged.model_file(tensors, run=data.decode("utf-8", "replace"))
    (backup / "backup.safetensors").write_bytes(content)
    return not refuses(lambda: train(folder, stream=b'"read"' in data), "backup.safetensors")


def train(folder, stop_at=None, stream=False):
    model = cnnlite.Sequential([cnnlite.Input((3,)), layers.Dropout(0.2, seed=1), layers.Dense(2, "softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy", metrics.Precision([0.1, 0.5])])

    class Stop(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if model.optimizer.iterations == stop_at:
                raise KeyboardInterrupt

    x, y = np.ones((6, 3), np.float32), np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0, 1]]
    watching = [EarlyStopping("loss", patience=5, restore_best_weights=True), ReduceLROnPlateau("loss", patience=1)]
    data = {"x": x, "y": y, "batch_size": 2, "validation_data": (x, y)}
    if stream:
        data = {"x": endless(x, y), "steps_per_epoch": 3, "validation_data": endless(x, y), "validation_steps": 2}
    model.fit(**data, epochs=3, verbose=0, callbacks=[
        BackupAndRestore(folder / "backup", save_freq=1, delete_checkpoint=False), *watching,
        CSVLogger(folder / "log.csv", append=True), Stop(),
    ])


def endless(x, y):
    """Yield batches for ever, which nobody may ask for who has nine steps to make."""
    for _ in range(30):
        yield x[:2], y[:2]
    raise AssertionError("a file makes it read for ever")


_made: list[tuple[str, dict[str, Any]]] = []


def good_backups():
    """Return the JSON and the tensors of backups from the middle of an epoch, from the end, and of generators."""
    if not _made:
        for stop_at, stream in ((5, False), (2, False), (6, False), (None, False), (5, True), (7, True)):
            with tempfile.TemporaryDirectory() as folder:
                with contextlib.suppress(KeyboardInterrupt):
                    train(Path(folder), stop_at, stream)
                tensors, metadata = read(Path(folder) / "backup" / "backup.safetensors", "seeds")
            _made.append((metadata["run"], tensors))
    return _made


def seeds_of_backups():
    return [run.encode() for run, _ in good_backups()]


# A log to append to.


def attack_csv(data, folder):
    path = folder / "log.csv"
    path.write_bytes(data)
    logger = CSVLogger(path, append=True)
    if refuses(logger.on_train_begin, path.name):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a column that the file has not
        logger.on_epoch_end(0, {"loss": 0.5})
    return True


def seeds_of_csv():
    return [b"epoch,loss,val_loss\n0,0.5,0.4\n", b""]
