"""Warnings about certain mistakes: shown once, with the remedy, without stopping the work."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.losses import BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy

X = np.random.default_rng(0).normal(size=(6, 3))
CLASSES = np.array([0, 1, 2, 0, 1, 2])


def trained(*stack, loss, y):
    model = cnnlite.Sequential([cnnlite.Input((3,)), *stack])
    model.compile("sgd", loss)
    for _ in range(2):
        model.fit(X, y, verbose=0)
    model.train_on_batch(X, y)
    model.evaluate(X, y, verbose=0)
    return model


def messages(recwarn):
    return [str(warning.message) for warning in recwarn.list]


@pytest.mark.parametrize("stack", [
    lambda last: [layers.Dense(3, last)],
    lambda last: [layers.Dense(3), layers.Activation(last)],
    lambda last: [cnnlite.Sequential([cnnlite.Sequential([layers.Dense(3, last)])])],
    lambda last: [layers.Dense(3, last), layers.Reshape((3, 1)), layers.Flatten(), layers.Activation("linear")],
    lambda last: [layers.Reshape((1, 1, 3)), layers.Conv2D(3, 1, activation=last), layers.Flatten()],
], ids=["Dense", "Activation", "inner models", "reshaped", "Conv2D"])
@pytest.mark.parametrize(("last", "loss", "y"), [
    ("softmax", SparseCategoricalCrossentropy(from_logits=True), CLASSES),
    ("softmax", CategoricalCrossentropy(from_logits=True), np.eye(3)[CLASSES]),
    ("sigmoid", BinaryCrossentropy(from_logits=True), np.eye(3)[CLASSES]),
])
def test_logits_above_probabilities_are_said_once(stack, last, loss, y, recwarn):
    trained(*stack(last), loss=loss, y=y)
    (message,) = messages(recwarn)
    assert message == (
        f"compile: {loss.name} takes logits (from_logits=True), but the model ends with the probabilities of a {last}. "
        "Use from_logits=False, or a last layer without an activation."
    )


@pytest.mark.parametrize(("last", "loss", "y", "remedy"), [
    (None, "sparse_categorical_crossentropy", CLASSES, "softmax"),
    ("tanh", "categorical_crossentropy", np.eye(3)[CLASSES], "softmax"),
    ("linear", "binary_crossentropy", np.eye(3)[CLASSES], "sigmoid"),
    ("log_softmax", "categorical_crossentropy", np.eye(3)[CLASSES], "softmax"),
])
def test_probabilities_of_what_is_none_are_said_once(last, loss, y, remedy, recwarn):
    trained(layers.Dense(3, last), loss=loss, y=y)
    (message,) = messages(recwarn)
    assert f"takes probabilities, but the model ends with the activation {last or 'linear'!r}" in message
    assert f'Use activation="{remedy}" in the last layer, or from_logits=True' in message


class Times(layers.Layer):
    def forward(self, x, training=False):
        return abs(x) / abs(x).sum(axis=-1, keepdims=True)

    def backward(self, dy):
        return dy


class Sharper(layers.Softmax):
    def function(self, x, out):
        return super().function(10 * x, out)


@pytest.mark.parametrize(("stack", "loss"), [
    ([layers.Dense(3, "softmax")], "sparse_categorical_crossentropy"),
    ([layers.Dense(3)], SparseCategoricalCrossentropy(from_logits=True)),
    ([layers.Dense(3, "log_softmax")], SparseCategoricalCrossentropy(from_logits=True)),
    ([layers.Dense(3, "sigmoid"), layers.Dense(3)], SparseCategoricalCrossentropy(from_logits=True)),
    ([layers.Dense(3, "softplus")], "sparse_categorical_crossentropy"),
    ([layers.Dense(3), Times()], "sparse_categorical_crossentropy"),
    ([layers.Dense(3, "softmax"), layers.Rescaling(5.0)], SparseCategoricalCrossentropy(from_logits=True)),
    ([layers.Dense(3), Sharper()], SparseCategoricalCrossentropy(from_logits=True)),
])
def test_what_may_be_meant_is_not_warned_of(stack, loss, recwarn):
    trained(*stack, loss=loss, y=CLASSES)
    assert not recwarn.list


def test_layers_that_come_after_compile_are_looked_at_when_the_model_is_used(recwarn):
    model = cnnlite.Sequential()
    model.compile("sgd", BinaryCrossentropy(from_logits=True))
    model.add(layers.Dense(1, "sigmoid"))
    assert not recwarn.list
    for _ in range(2):
        model.evaluate(X, CLASSES > 0, verbose=0)
    (message,) = messages(recwarn)
    assert message.startswith("evaluate: binary_crossentropy takes logits")
    model.compile("sgd", "bce")
    model.fit(X, CLASSES > 0, verbose=0)
    assert len(recwarn.list) == 1


# Softmax over a single number.


@pytest.mark.parametrize("stack", [
    [layers.Dense(1, "softmax")], [layers.Dense(1), layers.Softmax()], [layers.Dense(1), layers.Activation("softmax")],
    [layers.Reshape((1, 3, 1)), layers.Conv2D(1, 1, activation="softmax"), layers.Flatten(), layers.Dense(1)],
    [layers.Dense(1), layers.Reshape((1, 1)), layers.Softmax(axis=(1, 2)), layers.Flatten()],
])
def test_a_softmax_over_one_number_is_said_once(stack, recwarn):
    model = trained(*stack, loss="mse", y=CLASSES)
    model.predict(X)
    (message,) = messages(recwarn)
    assert "of a single number is always 1." in message
    assert 'Use activation="sigmoid" for a single unit' in message


def test_a_log_softmax_over_one_number_is_said_and_other_softmaxes_are_not(recwarn):
    layers.LogSoftmax()(np.ones((2, 1)))
    assert "log_softmax of a single number is always 0" in messages(recwarn)[0]
    layers.Softmax()(np.ones((1, 2)))
    layers.Softmax(axis=1)(np.ones((1, 2, 1)))
    Sharper()(np.ones((2, 1)))
    cnnlite.Sequential([cnnlite.Input((None, None, 2)), layers.Softmax(axis=1)])
    assert len(recwarn.list) == 1
