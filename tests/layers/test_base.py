"""What every layer shares: shapes and weights that are checked, and reached as attributes."""

import copy

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.model.summary import summary_table

MAKERS = [lambda: layers.Conv2D(2, 1), lambda: layers.MaxPool(1), lambda: layers.BatchNorm(), lambda: layers.Dense(2)]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("shape", [(None, 0, 4, 3), (None, 4, -4, 3), (None, 4, 4, 0), (None, 4, "4", 3)])
def test_sizes_must_be_positive_integers(make, shape):
    layer = make()
    with pytest.raises((ValueError, TypeError), match="input_shape must be"):
        layer.build(shape)
    assert not layer.built
    assert not layer.weights


@pytest.mark.parametrize("make", MAKERS)
def test_an_array_of_samples_without_values_is_refused(make):
    layer = make()
    with pytest.raises(ValueError, match="input_shape must be at least 1"):
        layer(np.zeros((2, 4, 4, 0)))
    assert not layer.built


def test_a_shape_must_be_a_tuple():
    with pytest.raises(TypeError, match=r"dense: input_shape must be a tuple.*Received: input_shape=5"):
        layers.Dense(3).build(5)


@pytest.mark.parametrize("wrong", [None, 1, "ab"])
def test_set_weights_takes_a_list(wrong):
    layer = layers.Dense(2)
    layer.build((None, 3))
    with pytest.raises(TypeError, match="set_weights takes a list of arrays"):
        layer.set_weights(wrong)


@pytest.mark.parametrize("bias", [["a", "b"], [1j, 2j], [None, None]])
def test_set_weights_takes_real_numbers_and_otherwise_sets_nothing(bias):
    layer = layers.Dense(2)
    layer.build((None, 3))
    before = layer.get_weights()
    with pytest.raises(TypeError, match="a weight must be an array of real numbers"):
        layer.set_weights([np.ones((3, 2)), bias])
    for mine, array in zip(layer.weights, before):
        np.testing.assert_array_equal(mine, array)


def test_an_initializer_must_return_the_shape_that_it_was_asked_for():
    layer = layers.Dense(2, kernel_initializer=lambda shape, dtype=None: np.ones((9, 9)))
    with pytest.raises(ValueError, match=r"the initializer of kernel must return.*\(3, 2\). Received: shape=\(9, 9\)"):
        layer.build((None, 3))


class Sum(layers.Layer):
    """y = a(x) + b(x), two layers of one name inside"""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner_layers = [layers.Dense(4), layers.Dense(4)]

    def build(self, input_shape):
        super().build(input_shape)
        for layer in self.inner_layers:
            layer.build_once(input_shape)

    def forward(self, x, training=False):
        return sum(layer.forward(x, training) for layer in self.inner_layers)

    def backward(self, dy):
        return sum(layer.backward(dy) for layer in self.inner_layers)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 4)


@pytest.fixture
def model():
    return cnnlite.Sequential([cnnlite.Input(shape=(3,)), Sum(), layers.Dense(2)])


def test_weights_inside_a_layer_are_among_its_own(model):
    layer = model.layers[0]
    assert [array.shape for array in layer.get_weights()] == [(3, 4), (4,), (3, 4), (4,)]
    assert layer.count_params() == 32
    assert model.count_params() == 42
    assert "42" in summary_table(model)
    layer.set_weights([array + 1 for array in layer.get_weights()])
    assert layer.inner_layers[1].params["bias"].tolist() == [1] * 4


def test_layers_of_one_name_inside_a_layer_have_paths_of_their_own(model, tmp_path):
    assert [path for path, _ in model.named_layers()] == ["sum/dense", "sum/dense_1", "dense"]
    model.save(tmp_path / "model")
    loaded = cnnlite.load_model(tmp_path / "model", custom_objects={"Sum": Sum})
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(model(x), loaded(x))


def test_a_frozen_layer_freezes_those_inside(model):
    model.compile("sgd", "mse")
    model.layers[0].trainable = False
    before = model.get_weights()
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    changed = [not np.array_equal(mine, array) for mine, array in zip(model.get_weights(), before)]
    assert changed == [False] * 4 + [True] * 2


def test_an_unknown_argument_is_named_with_the_layer():
    with pytest.raises(TypeError, match=r"Dense takes no argument 'actvation'. Received: actvation='relu'"):
        layers.Dense(3, actvation="relu")


def test_what_keras_has_and_cnnlite_has_not_may_be_none():
    layers.Conv2D(2, 3, kernel_constraint=None, activity_regularizer=None)
    with pytest.raises(ValueError, match=r"Conv2D: kernel_constraint is not supported. Received: kernel_constraint='"):
        layers.Conv2D(2, 3, kernel_constraint="max_norm")


@pytest.mark.parametrize("make", [
    lambda: layers.ReLU(), lambda: layers.Activation("tanh"), lambda: layers.Softmax(), lambda: layers.Dropout(0.5),
    lambda: layers.Flatten(), lambda: layers.Reshape((-1,)), lambda: layers.Rescaling(2.0), lambda: layers.LeakyReLU(),
    lambda: layers.Dense(2, "relu"), lambda: layers.Linear(),
])
def test_one_layer_takes_inputs_of_any_number_of_axes_that_it_can_compute(make):
    layer = make()
    for shape in ((5, 4), (5, 3, 4), (5, 2, 3, 4), (5, 4)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        for training in (False, True):
            y = layer(x, training=training)
            assert y.shape == layer.compute_output_shape(shape)
        assert layer.backward(np.ones_like(y)).shape == shape
        twin = copy.deepcopy(layer)
        twin.input_shape = None
        np.testing.assert_array_equal(layer(x), twin(x))


@pytest.mark.parametrize(("layer", "first", "second"), [
    (layers.BatchNorm(), (5, 4), (5, 3, 4)), (layers.MaxPool(), (1, 4, 4, 2), (1, 4, 2)),
    (layers.Conv2D(2, 1), (1, 4, 4, 2), (4, 4, 2)), (layers.Softmax(axis=2), (5, 3, 4), (5, 3)),
    (layers.Activation(layers.Softmax(axis=2)), (5, 3, 4), (5, 3)),
    (layers.Dropout(0.5, noise_shape=(None, 1)), (5, 4), (5, 3, 4)), (layers.GlobalMaxPool(), (1, 4, 4, 2), (1, 2)),
    (layers.SpatialDropout2D(0.5), (1, 4, 4, 2), (1, 4, 2)), (layers.ZeroPadding2D(), (1, 4, 4, 2), (1, 4, 2)),
])
def test_a_number_of_axes_that_a_layer_can_not_compute_is_refused(layer, first, second):
    layer(np.ones(first), training=True)
    with pytest.raises(ValueError, match=r"(axes|axis).*Received: |noise_shape must.*Received: "):
        layer(np.ones(second), training=True)


class Shifted(layers.Layer):
    """y = x + shift, with a weight for each number of a sample."""

    def build(self, input_shape):
        super().build(input_shape)
        self.add_weight("shift", input_shape[1:], "ones")

    def forward(self, x, training=False):
        return self.prepare(x) + self.params["shift"]


def test_a_layer_with_weights_keeps_to_the_number_of_axes_that_they_were_made_for():
    layer = Shifted()
    layer(np.ones((5, 4)))
    with pytest.raises(ValueError, match=r"must have 2 axes.*built for \(None, 4\). Received: shape=\(5, 3, 4\)"):
        layer(np.ones((5, 3, 4)))


@pytest.mark.parametrize(("shape", "error", "message"), [
    ((-1,), ValueError, r"the shape of w must be at least 0. Received: the shape of w=-1"),
    ((2.0,), TypeError, r"the shape of w must be an integer"),
    ((None, 2), ValueError, r"the shape of w must be fully known. Received: shape=\(None, 2\)"),
    (None, TypeError, r"the shape of w must be a tuple of integers. Received: the shape of w=None"),
])
def test_the_shape_of_a_weight_is_checked(shape, error, message):
    layer = layers.Layer()
    with pytest.raises(error, match=message):
        layer.add_weight("w", shape)
    assert not layer.params


@pytest.mark.parametrize("shape", [3, [3], np.array([3]), (np.int64(3),)])
def test_the_shape_of_a_weight_may_be_given_as_a_number_a_list_or_an_array(shape):
    layer = layers.Layer()
    layer.add_weight("w", shape, "ones")
    np.testing.assert_array_equal(layer.params["w"], [1, 1, 1])
