"""cnnlite: convolutional networks from scratch on NumPy and numba."""

from cnnlite import config, datasets, initializers, layers, optimizers, regularizers, utils
from cnnlite._version import __version__

__all__ = ["__version__", "config", "datasets", "initializers", "layers", "optimizers", "regularizers", "utils"]
