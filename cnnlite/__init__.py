"""cnnlite: convolutional networks from scratch on NumPy and numba."""

from cnnlite import activations, config, initializers, layers, regularizers
from cnnlite._version import __version__

__all__ = ["__version__", "activations", "config", "initializers", "layers", "regularizers"]
