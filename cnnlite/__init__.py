"""cnnlite: convolutional networks from scratch on NumPy and numba."""

from cnnlite import config, initializers, layers, losses, metrics, regularizers
from cnnlite._version import __version__

__all__ = ["__version__", "config", "initializers", "layers", "losses", "metrics", "regularizers"]
