"""Keras's room for models: `models.Sequential`, `models.load_model`."""

from cnnlite.saving import load_model
from cnnlite.sequential import Sequential

__all__ = ["Sequential", "load_model"]
