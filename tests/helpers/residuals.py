"""Shared by the tests of Residual: one block of each kind, and a model around it."""

import numpy as np

import cnnlite
from cnnlite.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, Linear, ReLU, Residual

SHAPE = (6, 6, 3)


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def convolution(filters=3, size=3, strides=1, **arguments):
    return Conv2D(filters, size, strides, padding="same", **arguments)


CASES = {
    "identity": lambda: Residual([convolution(), BatchNorm(), ReLU(), convolution()]),
    "projection": lambda: Residual([convolution(5, 3, 2), BatchNorm()], [convolution(5, 1, 2), BatchNorm()]),
    "one layer each": lambda: Residual(convolution(4), convolution(4, 1)),
    "models": lambda: Residual(cnnlite.Sequential([ReLU()]), cnnlite.Sequential([convolution()], name="around")),
    "nested": lambda: Residual([convolution(), Residual([ReLU(), Residual(convolution())]), ReLU()]),
    "the activation last": lambda: Residual([convolution(activation="tanh")]),
    "no weights": lambda: Residual([ReLU()], [Linear()]),
    "weights in the shortcut alone": lambda: Residual(ReLU(), convolution()),
    "dropout": lambda: Residual([convolution(), Dropout(0.5, seed=3)], shortcut=Dropout(0.25, seed=4)),
    "rows": lambda: Residual([Flatten(), Dense(7)], [Flatten(), Dense(7, use_bias=False)]),
}


def model_of(make, **compiled):
    model = cnnlite.Sequential([cnnlite.Input(SHAPE), make(), Flatten(), Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", **compiled)
    return model
