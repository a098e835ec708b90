"""Keras's room for models: `models.Sequential`, `models.load_model`."""

from cnnlite.saving import load_model, save_model
from cnnlite.sequential import Sequential

__all__ = ["Sequential", "clone_model", "load_model", "save_model"]


def clone_model(model: Sequential) -> Sequential:
    """Return a new model of the same architecture, with new weights of its own, not compiled.

    >>> import cnnlite
    >>> model = cnnlite.Sequential([cnnlite.layers.Dense(2, input_shape=(3,))])
    >>> cnnlite.models.clone_model(model).count_params()
    8
    """
    classes = {type(layer).__name__: type(layer) for layer in model.walk()}
    return type(model).from_config(model.get_config(), custom_objects=classes)
