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
from cnnlite.layers.dropout import Dropout
from cnnlite.layers.flatten import Flatten
from cnnlite.layers.input import Input, InputLayer
from cnnlite.layers.rescaling import Rescaling
from cnnlite.layers.reshape import Reshape
from cnnlite.layers.spatial_dropout import SpatialDropout2D
from cnnlite.layers.zero_padding import ZeroPadding2D

__all__ = [
    "ELU",
    "GELU",
    "Activation",
    "ActivationLayer",
    "Dropout",
    "Flatten",
    "Input",
    "InputLayer",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "ReLU",
    "Rescaling",
    "Reshape",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SpatialDropout2D",
    "Tanh",
    "ZeroPadding2D",
]
