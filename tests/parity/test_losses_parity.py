"""Losses and metrics have the values, and losses the gradients, of Keras's and PyTorch's."""

import inspect
import os
import re

import numpy as np
import pytest

from cnnlite import losses, metrics

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

RNG = np.random.default_rng
WEIGHTS = np.float32([0.5, 0.0, 2.0, 1.0, 1.0, 0.25])
SMOOTHING = 0.1


def softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def classification(rng, from_logits, shape=(6, 5)):
    """Return classes, one-hot labels, yes-or-no labels, and float32 predictions."""
    classes = rng.integers(shape[-1], size=shape[:-1])
    z = 4 * rng.normal(size=shape)
    y_pred = (z if from_logits else softmax(z)).astype(np.float32)
    return classes, np.eye(shape[-1], dtype=np.float32)[classes], rng.integers(2, size=shape).astype(np.float32), y_pred


def gradient_of(loss, y_pred):
    """Return the value and the gradient that PyTorch finds for `loss`, a function of a tensor."""
    tensor = torch.tensor(y_pred, requires_grad=True)
    value = loss(tensor)
    value.backward()
    return value.item(), tensor.grad.numpy()


def assert_same(loss, y_true, y_pred, reference, weights=None):
    value, gradient = gradient_of(reference, y_pred)
    mine = loss.backward(y_true, y_pred, weights)
    assert loss(y_true, y_pred, weights) == pytest.approx(value, rel=1e-5)
    assert np.abs(mine - gradient).max() <= 1e-5 * np.abs(gradient).max()


@pytest.mark.parametrize("shape", [(6, 5), (6, 3, 2, 4)])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])
@pytest.mark.parametrize("from_logits", [False, True], ids=["probabilities", "logits"])
@pytest.mark.parametrize("smoothing", [0.0, SMOOTHING])
@pytest.mark.parametrize("name", ["CategoricalCrossentropy", "SparseCategoricalCrossentropy", "BinaryCrossentropy"])
def test_cross_entropies_are_those_of_keras(name, smoothing, from_logits, weights, shape):
    if weights is not None and len(shape) > 2:
        weights = np.ascontiguousarray(np.broadcast_to(weights[:, None, None], shape[:-1]))
    classes, one_hot, yes_or_no, y_pred = classification(RNG(0), from_logits, shape)
    y_true = {"C": one_hot, "S": classes, "B": yes_or_no}[name[0]]
    arguments = {"from_logits": from_logits} | ({"label_smoothing": smoothing} if smoothing else {})
    reference, target = name, y_true
    if name.startswith("Sparse") and (smoothing or (not from_logits and len(shape) > 2)):
        # Keras smooths one-hot labels only, and PyTorch says that "grad_input must be contiguous" for images.
        reference, target = "CategoricalCrossentropy", one_hot
    theirs = getattr(keras.losses, reference)(**arguments)
    assert_same(getattr(losses, name)(**arguments), y_true, y_pred, lambda y: theirs(target, y, weights), weights)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weighted"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("MeanSquaredError", {}), ("MeanAbsoluteError", {}), ("Huber", {}), ("Huber", {"delta": 0.3})],
)
def test_regression_losses_are_those_of_keras(name, arguments, weights):
    rng = RNG(1)
    y_true, y_pred = rng.normal(size=(2, 6, 5)).astype(np.float32)
    theirs = getattr(keras.losses, name)(**arguments)
    assert_same(getattr(losses, name)(**arguments), y_true, y_pred, lambda y: theirs(y_true, y, weights), weights)


@pytest.mark.parametrize("smoothing", [0.0, SMOOTHING])
def test_cross_entropies_of_logits_are_those_of_pytorch(smoothing):
    classes, one_hot, yes_or_no, z = classification(RNG(2), from_logits=True)
    functions = torch.nn.functional
    target = torch.tensor(classes)

    def entropy(y):
        return functions.cross_entropy(y, target, label_smoothing=smoothing)

    assert_same(losses.SparseCategoricalCrossentropy(True, label_smoothing=smoothing), classes, z, entropy)
    assert_same(losses.CategoricalCrossentropy(True, smoothing), one_hot, z, entropy)
    target = torch.tensor(yes_or_no * (1 - smoothing) + smoothing / 2)
    assert_same(losses.BinaryCrossentropy(True, smoothing), yes_or_no, z,
                lambda y: functions.binary_cross_entropy_with_logits(y, target))


def test_regression_losses_are_those_of_pytorch():
    y_true, y_pred = RNG(3).normal(size=(2, 6, 5)).astype(np.float32)
    target, functions = torch.tensor(y_true), torch.nn.functional
    assert_same(losses.MeanSquaredError(), y_true, y_pred, lambda y: functions.mse_loss(y, target))
    assert_same(losses.MeanAbsoluteError(), y_true, y_pred, lambda y: functions.l1_loss(y, target))
    assert_same(losses.Huber(0.5), y_true, y_pred, lambda y: functions.huber_loss(y, target, delta=0.5))


@pytest.mark.parametrize("kind", ["CategoricalCrossentropy", "BinaryCrossentropy"])
def test_clipped_probabilities_have_the_loss_and_gradient_of_keras(kind):
    y_true, y_pred = np.float32([[0, 1], [1, 0]]), np.float32([[1, 0], [0.7, 0.3]])
    theirs = getattr(keras.losses, kind)()
    assert_same(getattr(losses, kind)(), y_true, y_pred, lambda y: theirs(y_true, y))


def test_logits_of_1000_have_the_loss_of_keras():
    z = np.float32([[1000, 0, -1000], [-1000, 1000, 0]])
    theirs, classes = keras.losses.SparseCategoricalCrossentropy(from_logits=True), np.array([1, 1])
    assert_same(losses.SparseCategoricalCrossentropy(from_logits=True), classes, z, lambda y: theirs(classes, y))


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", "none"])
def test_reductions_are_those_of_keras(reduction):
    classes, _, _, y_pred = classification(RNG(4), from_logits=False)
    mine = losses.SparseCategoricalCrossentropy(reduction=reduction)(classes, y_pred, WEIGHTS)
    theirs = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)(classes, y_pred, WEIGHTS)
    np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-5)


METRICS = [
    ("SparseCategoricalAccuracy", {}, "classes"),
    ("CategoricalAccuracy", {}, "one_hot"),
    ("BinaryAccuracy", {}, "yes_or_no"),
    ("BinaryAccuracy", {"threshold": 0.2}, "yes_or_no"),
    ("TopKCategoricalAccuracy", {"k": 2}, "one_hot"),
    ("SparseTopKCategoricalAccuracy", {"k": 3}, "classes"),
    ("Precision", {}, "yes_or_no"),
    ("Precision", {"thresholds": [0.1, 0.3, 0.35]}, "yes_or_no"),
    ("Precision", {"top_k": 2}, "one_hot"),
    ("Precision", {"class_id": 1, "thresholds": 0.2}, "one_hot"),
    ("Precision", {"top_k": 3, "class_id": 2}, "one_hot"),
    ("Recall", {}, "yes_or_no"),
    ("Recall", {"top_k": 2}, "one_hot"),
    ("Recall", {"class_id": 0, "thresholds": 0.2}, "one_hot"),
    ("SparseCategoricalCrossentropy", {}, "classes"),
    ("CategoricalCrossentropy", {"label_smoothing": SMOOTHING}, "one_hot"),
    ("BinaryCrossentropy", {"label_smoothing": SMOOTHING}, "yes_or_no"),
    ("MeanSquaredError", {}, "yes_or_no"),
    ("MeanAbsoluteError", {}, "yes_or_no"),
]


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize(("name", "arguments", "form"), METRICS)
def test_metrics_over_uneven_batches_are_those_of_keras(name, arguments, form, weighted):
    classes, one_hot, yes_or_no, y_pred = classification(RNG(5), from_logits=False, shape=(16, 5))
    y_true = {"classes": classes, "one_hot": one_hot, "yes_or_no": yes_or_no}[form]
    weights = RNG(6).uniform(0, 2, 16).astype(np.float32)
    mine, theirs = getattr(metrics, name)(**arguments), getattr(keras.metrics, name)(**arguments)
    # Keras counts the metrics that it names after their class.
    assert mine.name == re.sub(r"_\d+$", "", theirs.name)
    for piece in (slice(0, 7), slice(7, 14), slice(14, 16)):
        batch = (y_true[piece], y_pred[piece], weights[piece] if weighted else None)
        mine.update_state(*batch)
        theirs.update_state(*batch)
    np.testing.assert_allclose(mine.result(), theirs.result().numpy(), rtol=1e-5)


def test_ties_in_top_k_are_counted_as_in_keras():
    y_pred = RNG(7).integers(3, size=(40, 6)).astype(np.float32)
    classes = RNG(8).integers(6, size=40)
    for k in (1, 2, 4):
        mine, theirs = metrics.SparseTopKCategoricalAccuracy(k), keras.metrics.SparseTopKCategoricalAccuracy(k)
        theirs.update_state(classes, y_pred)
        assert mine(classes, y_pred) == pytest.approx(float(theirs.result()))


@pytest.mark.parametrize("module", ["losses", "metrics"])
def test_arguments_have_the_names_order_and_defaults_of_keras(module):
    mine, theirs = {"losses": losses, "metrics": metrics}[module], getattr(keras, module)
    names = [name for name in mine.__all__ if hasattr(theirs, name) and name not in ("get", "serialize")]
    assert len(names) > 10
    for name in names:
        arguments = signature(getattr(mine, name))
        expected = [argument for argument in signature(getattr(theirs, name)) if argument[0] != "from_sorted_ids"]
        assert arguments[: len(expected)] == expected, name


def signature(function):
    return [(argument.name, argument.default) for argument in inspect.signature(function).parameters.values()]
