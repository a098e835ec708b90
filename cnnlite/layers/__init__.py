"""The layers, one file each."""

from cnnlite.layers.activation import (
    ELU,
    GELU,
    ActivationLayer,
    LeakyReLU,
    Linear,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from cnnlite.layers.activation_by_name import Activation
from cnnlite.layers.base import Layer

__all__ = [
    "ELU",
    "GELU",
    "Activation",
    "ActivationLayer",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]
