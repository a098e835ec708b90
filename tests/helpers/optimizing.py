"""Optimizers of every kind, and parameters without a model for them to train."""

import numpy as np

from cnnlite.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop

ALL = [
    SGD(0.5), SGD(0.5, momentum=0.9), SGD(0.5, momentum=0.9, nesterov=True),
    RMSprop(0.1), RMSprop(0.1, rho=0.8, momentum=0.5, centered=True, epsilon=1e-3),
    Adam(0.1), Adam(0.1, amsgrad=True), AdamW(0.1), Adagrad(0.5),
]
IDS = ["sgd", "momentum", "nesterov", "rmsprop", "rmsprop centered", "adam", "amsgrad", "adamw", "adagrad"]


class Parameters:
    """The part of a model that an optimizer needs: two vectors, the names, and the trainable segments."""

    def __init__(self, *arrays, dtype="float64", frozen=()):
        sizes = [np.size(array) for array in arrays]
        stops = np.cumsum(sizes).tolist()
        self.vector = np.concatenate([np.ravel(array) for array in arrays]).astype(dtype)
        self.gradient = np.zeros_like(self.vector)
        self.slices = [slice(stop - size, stop) for size, stop in zip(sizes, stops)]
        self.names = [f"weight{i}" for i in range(len(arrays))]
        self.frozen = frozen
        self.owners = []

    def note_step(self):
        """Do nothing, as there are no caches of these weights to invalidate."""

    def trainable_segments(self):
        segments = []
        for i, place in enumerate(self.slices):
            if i in self.frozen:
                continue
            if segments and segments[-1][1] == place.start:
                segments[-1] = (segments[-1][0], place.stop)
            else:
                segments.append((place.start, place.stop))
        return segments


def again(optimizer, **changes):
    return type(optimizer)(**{**optimizer.get_config(), **changes})


def random_parameters(dtype="float32", seed=0, frozen=()):
    rng = np.random.default_rng(seed)
    return Parameters(rng.normal(size=(3, 4)), rng.normal(size=5), rng.normal(size=2), dtype=dtype, frozen=frozen)


def train(optimizer, parameters, steps, first=0):
    for step in range(first, first + steps):
        parameters.gradient[:] = np.random.default_rng(100 + step).normal(size=parameters.vector.size)
        optimizer.step(parameters)


def run(optimizer, start, gradients):
    """Return the value of a single parameter after each step."""
    parameters = Parameters([start])
    path = []
    for gradient in gradients:
        parameters.gradient[:] = gradient
        optimizer.step(parameters)
        path.append(float(parameters.vector[0]))
    return path
