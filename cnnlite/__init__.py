"""cnnlite: convolutional networks from scratch on NumPy and numba."""

from cnnlite import activations, config, initializers, layers, regularizers
from cnnlite._version import __version__
from cnnlite.gradcheck import check_gradients

__all__ = ["__version__", "activations", "check_gradients", "config", "initializers", "layers", "regularizers"]
