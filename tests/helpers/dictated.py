"""A minimal model and training loop for tests of callbacks, with values dictated by the test."""

import numpy as np

from cnnlite import optimizers
from cnnlite.callbacks import CallbackList


class Model:
    """The part of a model that callbacks need."""

    def __init__(self, metrics=(), learning_rate=0.1):
        self.metrics = list(metrics)
        self.optimizer = optimizers.SGD(learning_rate)
        self.stop_training = False
        self.weights = 0
        self.saved = []

    def get_weights(self):
        return [np.array(self.weights)]

    def set_weights(self, weights):
        self.weights = int(weights[0])

    def save(self, path):
        self.saved.append(path)

    def save_weights(self, path):
        self.saved.append(f"weights {path}")


def run(callback, values, name="val_loss", model=None):
    """Simulate a training run in which `name` takes these values; return the model and the number of epochs."""
    model = model or Model()
    every = CallbackList([callback], model)
    every.on_train_begin()
    for epoch, value in enumerate(values):
        every.on_epoch_begin(epoch)
        model.weights = epoch
        logs = {} if value is None else {name: value}
        every.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    every.on_train_end()
    return model, epoch + 1
