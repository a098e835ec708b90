"""Residual in a model: training, names of weights, freezing, files, configs, clones and copies."""

import copy
import pickle

import numpy as np
import pytest

import cnnlite
from cnnlite import check_gradients, layers
from cnnlite.layers import BatchNorm, Dense, Linear, ReLU, Residual
from tests.helpers.models import assert_same_weights
from tests.helpers.residuals import CASES, SHAPE, convolution, model_of, normal

pytestmark = pytest.mark.usefixtures("same_weights_in_every_run")


@pytest.fixture(params=CASES)
def make(request):
    return CASES[request.param]


# In a model.


def test_training_lowers_the_loss(make):
    model = model_of(make)
    x, y = normal(12, *SHAPE), np.arange(12) % 3
    history = model.fit(x, y, epochs=12, batch_size=6, verbose=0).history["loss"]
    assert min(history[-3:]) < 0.9 * history[0]


@pytest.mark.parametrize("place", ["first and last", "in a model"])
def test_it_stands_wherever_a_layer_does(place):
    residual = Residual(Dense(4, activation="softmax", input_shape=(4,)))
    stack = [residual] if place == "first and last" else [cnnlite.Sequential([residual]), Residual(ReLU())]
    model = cnnlite.Sequential(stack)
    assert model.output_shape == (None, 4)
    # The sum with x is no softmax, so that no loss may be computed from what went into one.
    assert model.fusable_activation is None
    assert model.output_activation is None
    model.compile("sgd", "mse")
    x = normal(8, 4)
    model.fit(x, 2 * x, verbose=0)
    assert check_gradients(model, x, 2 * x).ok


def test_freezing_keeps_the_weights_of_both_branches_and_can_be_undone():
    residual = Residual([convolution(4, kernel_regularizer="l2"), BatchNorm()], convolution(4, 1))
    model = model_of(lambda: residual)
    x, y = normal(4, *SHAPE), np.array([0, 1, 2, 0])
    assert model.regularization_loss() == pytest.approx(0.01 * (residual.body.layers[0].kernel ** 2).sum(), rel=1e-5)
    assert len(residual.trainable_weights) == 6
    residual.trainable = False
    assert residual.trainable_weights == []
    assert model.regularization_loss() == 0
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = residual.get_weights()
    model.fit(x, y, verbose=0)
    assert all(np.array_equal(*pair) for pair in zip(residual.get_weights(), before))
    residual.trainable = True
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    assert not any(np.array_equal(*pair) for pair in zip(residual.get_weights(), before))
    frozen = Residual(convolution(), trainable=False)
    assert not frozen.body.layers[0].trainable


def test_weights_are_called_by_their_branch():
    residual = Residual([convolution(4), convolution(4)], convolution(4, 1, name="by"))
    model = model_of(lambda: residual)
    assert [name for name in model.params if name.endswith("kernel")] == [
        "residual/body/conv2d/kernel", "residual/body/conv2d_1/kernel", "residual/shortcut/by/kernel", "dense/kernel"]
    assert list(residual.params)[:2] == ["body/conv2d/kernel", "body/conv2d/bias"]
    assert residual.count_params() == sum(array.size for array in residual.params.values())
    assert model.get_layer("residual") is residual
    assert residual.shortcut.get_layer("by") in list(model.walk())
    alike = Residual(*(cnnlite.Sequential([convolution()], name="block") for _ in range(2)))
    alike.build((None, *SHAPE))
    assert list(alike.params)[::2] == ["block/conv2d/kernel", "block_1/conv2d/kernel"]


# Files, configs and copies.


def test_files_clones_and_copies_hold_all_of_it(make, path):
    model = model_of(make)
    x = normal(2, *SHAPE)
    model.train_on_batch(x, np.array([0, 2]))
    model.save(path)
    for other in (cnnlite.load_model(path), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.get_config() == model.get_config()
        np.testing.assert_array_equal(other(x), model(x))
        others = other.train_on_batch(x, np.array([0, 2])), other.get_weights()
        kept = copy.deepcopy(model)
        assert others[0] == kept.train_on_batch(x, np.array([0, 2]))
        assert all(np.array_equal(*pair) for pair in zip(others[1], kept.get_weights()))
    clone = cnnlite.models.clone_model(model)
    assert clone.get_config() == model.get_config()
    model.save_weights(path)
    clone.load_weights(path)
    assert_same_weights(model, clone)


def test_a_config_keeps_what_is_frozen_layer_by_layer():
    residual = Residual([convolution(), convolution()], name="block", input_shape=SHAPE)
    residual.trainable = False
    residual.body.layers[1].trainable = True
    twin = Residual.from_config(residual.get_config())
    assert [layer.trainable for layer in twin.walk()] == [layer.trainable for layer in residual.walk()]
    assert twin.get_config() == residual.get_config()
    assert twin.given_input_shape == SHAPE


class Double(layers.Layer):
    """y = 2 x: a layer of a user."""

    def forward(self, x, training=False):
        return 2 * self.prepare(x)

    def backward(self, dy):
        return 2 * dy


class Block(Residual):
    """A user's block, which makes its branches itself."""

    def __init__(self, filters, **arguments):
        super().__init__([convolution(filters)], convolution(filters, 1), **arguments)
        self.filters = filters

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable, "filters": self.filters}


def test_layers_of_a_user_s_are_loaded_and_a_subclass_may_make_its_branches_itself(path):
    model = cnnlite.Sequential([cnnlite.Input(SHAPE), Residual([Double(), convolution()], Double()), Block(4)])
    x = normal(2, *SHAPE)
    model.save(path)
    with pytest.raises(ValueError, match="the class 'Double' is not part of cnnlite"):
        cnnlite.load_model(path)
    loaded = cnnlite.load_model(path, custom_objects={"Double": Double, "Block": Block})
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(model.layers[0](x), 2 * x + model.layers[0].body(x))


def test_a_recursive_clone_asks_for_each_layer_of_the_branches():
    model = model_of(lambda: Residual([convolution(), ReLU(), Residual(ReLU())], Linear(), name="block"))
    asked = []

    def clone_function(layer):
        asked.append(layer.name)
        return layers.ELU(name=layer.name) if isinstance(layer, ReLU) else type(layer).from_config(layer.get_config())

    clone = cnnlite.models.clone_model(model, clone_function=clone_function, recursive=True)
    assert asked == ["conv2d", "re_lu", "re_lu", "linear", "flatten", "dense"]
    assert [type(layer).__name__ for layer in clone.walk()] == [
        {"ReLU": "ELU"}.get(type(layer).__name__, type(layer).__name__) for layer in model.walk()]
    assert list(clone.params) == list(model.params)
