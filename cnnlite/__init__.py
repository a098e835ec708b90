"""cnnlite: convolutional networks from scratch on NumPy and numba, with Keras's vocabulary.

>>> import cnnlite
>>> from cnnlite import layers
>>> model = cnnlite.Sequential([layers.Flatten(input_shape=(28, 28)), layers.Dense(10, activation="softmax")])
>>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
>>> model.count_params()
7850
"""

from cnnlite import (
    activations,
    backend,
    callbacks,
    config,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    regularizers,
    schedules,
    utils,
)
from cnnlite._version import __version__
from cnnlite.eager import reference_mode
from cnnlite.files.saving import load_model
from cnnlite.gradcheck import check_gradients
from cnnlite.layers.input import Input
from cnnlite.model.sequential import Sequential

__all__ = [
    "Input",
    "Sequential",
    "__version__",
    "activations",
    "backend",
    "callbacks",
    "check_gradients",
    "config",
    "datasets",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "reference_mode",
    "regularizers",
    "schedules",
    "utils",
]
