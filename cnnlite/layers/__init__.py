"""The layers, one file each."""

from cnnlite.layers.average_pool import AveragePool
from cnnlite.layers.base import Layer
from cnnlite.layers.batchnorm import BatchNorm
from cnnlite.layers.global_pool import GlobalAveragePool, GlobalMaxPool
from cnnlite.layers.max_pool import MaxPool

# Keras's own spellings.
AveragePool2D = AveragePooling2D = AvgPool2D = AveragePool
BatchNormalization = BatchNorm
GlobalAveragePool2D = GlobalAveragePooling2D = GlobalAvgPool2D = GlobalAveragePool
GlobalMaxPool2D = GlobalMaxPooling2D = GlobalMaxPool
MaxPool2D = MaxPooling2D = MaxPool

__all__ = [
    "AveragePool",
    "AveragePool2D",
    "AveragePooling2D",
    "AvgPool2D",
    "BatchNorm",
    "BatchNormalization",
    "GlobalAveragePool",
    "GlobalAveragePool2D",
    "GlobalAveragePooling2D",
    "GlobalAvgPool2D",
    "GlobalMaxPool",
    "GlobalMaxPool2D",
    "GlobalMaxPooling2D",
    "Layer",
    "MaxPool",
    "MaxPool2D",
    "MaxPooling2D",
]
