"""Data sets: MNIST, which comes with the package, and files of your own in the same format."""

from cnnlite.datasets import mnist

__all__ = ["mnist"]
