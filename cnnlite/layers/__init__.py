"""The layers, one file each. Keras's own spellings are the same classes."""

from cnnlite.layers import overrides, serialization
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
from cnnlite.layers.average_pool import AveragePool
from cnnlite.layers.base import Layer
from cnnlite.layers.batchnorm import BatchNorm
from cnnlite.layers.conv2d import Conv2D
from cnnlite.layers.dense import Dense
from cnnlite.layers.depthwise_conv2d import DepthwiseConv2D
from cnnlite.layers.dropout import Dropout
from cnnlite.layers.flatten import Flatten
from cnnlite.layers.global_pool import GlobalAveragePool, GlobalMaxPool
from cnnlite.layers.input import Input, InputLayer
from cnnlite.layers.max_pool import MaxPool
from cnnlite.layers.rescaling import Rescaling
from cnnlite.layers.reshape import Reshape
from cnnlite.layers.residual import Residual
from cnnlite.layers.spatial_dropout import SpatialDropout2D
from cnnlite.layers.zero_padding import ZeroPadding2D

AveragePool2D = AveragePooling2D = AvgPool2D = AveragePool
BatchNormalization = BatchNorm
Convolution2D = Conv2D
GlobalAveragePool2D = GlobalAveragePooling2D = GlobalAvgPool2D = GlobalAveragePool
GlobalMaxPool2D = GlobalMaxPooling2D = GlobalMaxPool
MaxPool2D = MaxPooling2D = MaxPool


__all__ = [
    "ELU",
    "GELU",
    "Activation",
    "ActivationLayer",
    "AveragePool",
    "AveragePool2D",
    "AveragePooling2D",
    "AvgPool2D",
    "BatchNorm",
    "BatchNormalization",
    "Conv2D",
    "Convolution2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "GlobalAveragePool2D",
    "GlobalAveragePooling2D",
    "GlobalAvgPool2D",
    "GlobalMaxPool",
    "GlobalMaxPool2D",
    "GlobalMaxPooling2D",
    "Input",
    "InputLayer",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MaxPool",
    "MaxPool2D",
    "MaxPooling2D",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Residual",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SpatialDropout2D",
    "Tanh",
    "ZeroPadding2D",
]

overrides.remember(globals()[name] for name in __all__)
serialization.register(*{
    cls for cls in map(globals().get, __all__)
    if isinstance(cls, type) and cls not in (Layer, ActivationLayer, InputLayer)
})
