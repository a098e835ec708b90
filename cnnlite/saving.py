"""Saving and loading models and weights, under the public import path; see `cnnlite/files/saving.py`."""

from cnnlite.files.saving import load_model, load_weights, save_model, save_weights

__all__ = ["load_model", "load_weights", "save_model", "save_weights"]
