"""Metrics by name under a loss of logits: they have the value that they have for the probabilities."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers, losses, metrics
from cnnlite.activations import sigmoid, softmax

RNG = np.random.default_rng

OF_PROBABILITIES = [name for name in metrics.METRICS if not name.startswith(("m", "huber"))]
BINARY = losses.BinaryCrossentropy(from_logits=True)
CATEGORICAL = losses.CategoricalCrossentropy(from_logits=True)
SPARSE = losses.SparseCategoricalCrossentropy(from_logits=True)


def cases():
    z = RNG(0).normal(size=(40, 1)).astype("float32")
    yes_or_no = RNG(1).integers(2, size=(40, 1))
    for name in OF_PROBABILITIES:
        if "categorical" not in name:
            yield pytest.param(name, BINARY, yes_or_no, z, sigmoid(z), id=f"{name} of one sigmoid")
    z = RNG(2).normal(size=(40, 4)).astype("float32")
    several = RNG(3).integers(2, size=(40, 4))
    for name in ("binary_accuracy", "precision", "recall", "binary_crossentropy", "bce"):
        yield pytest.param(name, BINARY, several, z, sigmoid(z), id=f"{name} of several sigmoids")
    classes = RNG(4).integers(4, size=40)
    for name in OF_PROBABILITIES:
        loss, y = (SPARSE, classes) if "sparse" in name else (CATEGORICAL, np.eye(4)[classes])
        yield pytest.param(name, loss, y, z, softmax(z), id=f"{name} of a softmax")
    one_hot = np.eye(4)[classes]
    for name in ("categorical_crossentropy", "categorical_accuracy"):
        yield pytest.param(name, BINARY, one_hot, z, sigmoid(z), id=f"{name} of sigmoids")


@pytest.mark.parametrize(("name", "loss", "y", "z", "p"), list(cases()))
def test_a_metric_by_name_is_that_of_the_probabilities(name, loss, y, z, p):
    metric, expected = metrics.get(name, loss=loss), metrics.get(name)
    metric.update_state(y, z)
    expected.update_state(y, p)
    assert metric.name == name
    assert metric.result() == pytest.approx(expected.result(), rel=1e-5)
    again = metrics.get(metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
    again.set_state(metric.get_state())
    assert again.result() == metric.result()
    metric.reset_state()
    assert metric(y, z) == again.result()


@pytest.mark.parametrize("name", ["accuracy", "acc", "binary_accuracy", "BinaryAccuracy", "precision", "recall"])
def test_single_logits_are_split_at_0_however_near(name):
    z = np.array([[1e-9], [-1e-9], [0.3], [-0.3]], "float32")
    assert metrics.get(name, loss=BINARY)([[1], [0], [1], [0]], z) == 1.0


def test_a_metric_that_is_an_object_takes_predictions_as_they_are():
    z, y = [[0.3], [-0.3]], [[1], [0]]
    for metric in (metrics.BinaryAccuracy(), metrics.Precision(), metrics.BinaryCrossentropy()):
        assert metrics.get(metric, loss=BINARY) is metric
    assert metrics.get(metrics.BinaryAccuracy(), loss=BINARY)(y, z) == 0.5
    assert metrics.get("mse", loss=BINARY)(y, z) == metrics.get("mse")(y, z)


def test_a_model_of_logits_reports_what_the_same_model_of_probabilities_does(tmp_path):
    names = ["accuracy", "binary_accuracy", "precision", "recall", "bce"]
    x = RNG(5).normal(size=(20, 3)).astype("float32")
    y, weights = (x.sum(axis=1) > 0.3).astype("float32"), RNG(6).uniform(size=20)
    results = []
    for activation, loss in ((None, BINARY), ("sigmoid", "binary_crossentropy")):
        model = cnnlite.Sequential([cnnlite.Input((3,)), layers.Dense(1, activation)])
        model.set_weights([np.ones((3, 1)), np.full(1, -0.2)])
        model.compile("sgd", loss, metrics=names, weighted_metrics=names)
        model.save(tmp_path / "model.safetensors")
        loaded = cnnlite.load_model(tmp_path / "model.safetensors")
        results += [other.evaluate(x, y, sample_weight=weights, verbose=0) for other in (model, loaded)]
    assert results[0] == results[1]
    np.testing.assert_allclose(results[0], results[2], rtol=1e-5)
    assert 0 < results[0][1] < 1


def test_classes_and_thresholds_do_not_mix():
    # A logit above 0 is not a probability above 0.5 where there are others.
    z, y = [[2.0, 1.9, 1.8]], [[1, 0, 0]]
    assert metrics.get("precision", loss=CATEGORICAL)(y, z) == 0
    assert metrics.get("binary_accuracy", loss=CATEGORICAL)(y, [[3, 0, 0]]) == 1


@pytest.mark.parametrize(("name", "direction"), [("precision", "max"), ("binary_accuracy", "max"), ("bce", "min")])
def test_callbacks_know_which_way_a_metric_of_logits_improves(name, direction):
    model = cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(4)])
    model.compile("sgd", CATEGORICAL, metrics=[name])
    assert isinstance(model.metrics[0], metrics.OfLogits)
    stopping = cnnlite.callbacks.EarlyStopping(name, patience=1)
    stopping.set_model(model)
    stopping.on_train_begin({})
    for epoch, value in enumerate((0.5, 0.6) if direction == "max" else (0.6, 0.5)):
        stopping.on_epoch_end(epoch, {name: value})
    assert stopping.best_epoch == 1


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("name", OF_PROBABILITIES)
def test_a_loss_of_your_own_that_takes_logits_gives_each_metric_those_of_its_kind(name, activation):
    class Own(losses.Loss):
        from_logits = True

    if activation is not None:
        Own.probability_activation = activation
    z = RNG(2).normal(size=(40, 4)).astype("float32")
    one_hot = np.eye(4)[RNG(4).integers(4, size=40)]
    y, p = (one_hot, sigmoid(z) if name in ("binary_accuracy", "precision", "recall", "bce", "binary_crossentropy")
            else softmax(z))
    y = y.argmax(axis=1) if "sparse" in name else y
    metric, expected = metrics.get(name, loss=Own()), metrics.get(name)
    metric.update_state(y, z)
    expected.update_state(y, p)
    assert metric.result() == pytest.approx(expected.result(), rel=1e-5)
