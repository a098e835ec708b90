"""compile: how it resolves its arguments, and what it refuses."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.optimizers import SGD
from tests.helpers.models import fit, make_data, make_model, weights_of


@pytest.fixture
def data():
    return make_data()


def test_compiling_from_a_config_gives_the_same_training(data):
    model = make_model(optimizer=SGD(0.05, momentum=0.9))
    copy = make_model()
    copy.compile_from_config(model.get_compile_config())
    fit(model, *data)
    fit(copy, *data)
    np.testing.assert_array_equal(weights_of(copy), weights_of(model))
    assert copy.metrics_names == model.metrics_names
    assert copy.optimizer.momentum == 0.9
    assert cnnlite.Sequential().get_compile_config() is None


def test_compiling_anew_starts_a_new_optimizer(data):
    model = make_model(optimizer="adam")
    fit(model, *data)
    model.compile("adam", "sparse_categorical_crossentropy")
    assert model.optimizer.iterations == 0
    assert model.metrics_names == ["loss"]
    fit(model, *data)


def test_a_failed_compile_changes_nothing(data):
    model = make_model()
    before = (model.optimizer, model.loss, model.metrics)
    for arguments, error, text in [
        (dict(optimizer="adan", loss="mse"), ValueError, "Known: .*adam"),
        (dict(optimizer="adam", loss="msee"), ValueError, "Known: .*mse"),
        (dict(optimizer="adam", loss="mse", metrics=["acuracy"]), ValueError, "Known: .*accuracy"),
        (dict(optimizer="adam", loss="mse", metrics=["mae", "mae"]), ValueError, "must differ.*'mae'"),
        (dict(optimizer="adam", loss=3), TypeError, "loss"),
        (dict(optimizer="adam", loss="mse", loss_weights=["accuracy"]), ValueError, "loss_weights must be None"),
    ]:
        with pytest.raises(error, match=text):
            model.compile(**arguments)
    assert (model.optimizer, model.loss, model.metrics) == before


def test_fit_and_evaluate_need_compile_and_a_loss(data):
    model = cnnlite.Sequential([layers.Dense(2)])
    for call in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match=rf"{call.__name__}: the model must be compiled.*Call compile"):
            call(*data)
    model.compile("sgd")
    with pytest.raises(ValueError, match="must have a loss"):
        model.fit(*data)
    empty = cnnlite.Sequential()
    empty.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must have layers"):
        empty.fit(*data)


@pytest.mark.parametrize("change", [
    lambda model: setattr(model.loss, "label_smoothing", 0.5),
    lambda model: setattr(model, "loss", cnnlite.losses.CategoricalCrossentropy(label_smoothing=0.5)),
])
def test_a_loss_that_is_changed_after_compile_counts_as_it_is_now(change):
    x, y = np.random.default_rng(0).normal(size=(8, 3)), np.eye(3)[np.arange(8) % 3]
    late, early = (cnnlite.Sequential([cnnlite.Input((3,)), layers.Dense(3, "softmax")]) for _ in range(2))
    early.set_weights(late.get_weights())
    late.compile("sgd", "categorical_crossentropy")
    before = late.evaluate(x, y, verbose=0)
    change(late)
    early.compile("sgd", cnnlite.losses.CategoricalCrossentropy(label_smoothing=0.5))
    assert late.evaluate(x, y, verbose=0) == early.evaluate(x, y, verbose=0) != before
    late.train_on_batch(x, y)
    early.train_on_batch(x, y)
    np.testing.assert_array_equal(weights_of(late), weights_of(early))


def test_another_loss_and_optimizer_may_take_the_place_of_those_of_compile():
    x, y = np.ones((2, 3)), np.eye(3)[:2]
    model = cnnlite.Sequential([cnnlite.Input((3,)), layers.Dense(3, "softmax")])
    model.compile("sgd", "categorical_crossentropy")
    model.loss = cnnlite.losses.MeanSquaredError()
    assert model.evaluate(x, y, verbose=0) == pytest.approx(model.loss(y, model.predict(x)))
    model.loss, model.optimizer = "mae", "adam"
    assert model.train_on_batch(x, y) == pytest.approx(abs(model.predict(x) - y).mean(), rel=0.1)
    assert (model.loss.name, model.optimizer.iterations) == ("mean_absolute_error", 1)
    for name, value, error in [("loss", "mad", ValueError), ("optimizer", "add", ValueError), ("loss", 3, TypeError)]:
        with pytest.raises(error, match="Known"):
            setattr(model, name, value)
    assert (model.loss.name, model.optimizer.iterations) == ("mean_absolute_error", 1)
