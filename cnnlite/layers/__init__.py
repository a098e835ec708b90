"""The layers, one file each."""

from cnnlite.layers.base import Layer

__all__ = ["Layer"]
