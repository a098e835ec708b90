"""How gradients become steps. Names, arguments, defaults and formulas are Keras's.

A model holds all its parameters in one flat vector, so an optimizer is a few vectors of the same length
(its slots, such as Adam's averages) and one loop over them, which is in `cnnlite/kernels/optimizers.py`.

>>> import cnnlite
>>> optimizer = cnnlite.optimizers.Adam(learning_rate=1e-3, clipnorm=1.0)
>>> schedule = cnnlite.optimizers.schedules.CosineDecay(0.1, decay_steps=1000)
>>> optimizer = cnnlite.optimizers.SGD(schedule, momentum=0.9, nesterov=True)
"""

from __future__ import annotations

from typing import Any

from cnnlite import schedules
from cnnlite.optimizers.adagrad import Adagrad
from cnnlite.optimizers.adam import Adam, AdamW
from cnnlite.optimizers.base import Optimizer
from cnnlite.optimizers.kernel import is_as_written
from cnnlite.optimizers.kernel import is_traceable as is_traceable
from cnnlite.optimizers.rmsprop import RMSprop
from cnnlite.optimizers.sgd import SGD
from cnnlite.support.identifiers import from_identifier
from cnnlite.types import Config

__all__ = [
    "SGD",
    "AdaGrad",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "get",
    "schedules",
    "serialize",
]

AdaGrad = Adagrad

OPTIMIZERS = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW, "adagrad": Adagrad}
is_as_written.remember(OPTIMIZERS.values())


def get(identifier: Any) -> Optimizer:
    """Return the optimizer for a name ("adam"), a config or an optimizer.

    Raises:
        ValueError: the name is not known; the message lists those that are.
        TypeError: it is none of the three.
    """
    optimizer = from_identifier(identifier, OPTIMIZERS, Optimizer, "optimizer")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a name or an Optimizer. Received: {identifier!r}.")
    return optimizer


def serialize(optimizer: Optimizer) -> Config:
    """Return {"class_name", "config"} for an optimizer."""
    return {"class_name": type(optimizer).__name__, "config": optimizer.get_config()}
