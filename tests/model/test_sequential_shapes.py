"""Which input shapes a model accepts: the one that it was given, or all that its layers can handle."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from tests.helpers.fused import normal, unfused


def convolutional(*first, **kwargs):
    return cnnlite.Sequential([
        *first, layers.Conv2D(4, 3, activation="relu", **kwargs), layers.BatchNorm(), layers.MaxPool(),
        layers.GlobalAveragePool(), layers.Dense(3, "softmax"),
    ])


SIZES = [(2, 10, 10, 3), (2, 8, 9, 3), (5, 10, 10, 3), (1, 12, 7, 3), (1, 8, 9, 3)]


def test_a_model_that_was_given_no_shape_takes_images_of_any_size():
    model = convolutional()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    for _ in range(2):
        for shape in SIZES:
            x, y = normal(*shape), np.arange(shape[0]) % 3
            np.testing.assert_array_equal(model(x), unfused(model, x))
            np.testing.assert_array_equal(model.predict(x, verbose=0), model(x))
            model.fit(x, y, verbose=0)
            model.train_on_batch(x, y)
            model.evaluate(x, y, verbose=0)
    assert cnnlite.check_gradients(model, x, y, max_elements=2).ok
    assert (model.input_shape, model.output_shape) == ((None, 10, 10, 3), (None, 3))  # of the first one, as in Keras


def test_so_does_one_that_was_built_for_a_shape_saved_cloned_or_put_into_another(tmp_path):
    model = convolutional()
    model.build((None, 12, 12, 3))
    model.save(tmp_path / "model.safetensors")
    x = normal(2, 9, 14, 3)
    for other in (model, cnnlite.load_model(tmp_path / "model.safetensors"), cnnlite.models.clone_model(model),
                  cnnlite.Sequential([model])):
        assert other(x).shape == (2, 3)
        assert other(x[:, :8]).shape == (2, 3)


def test_one_row_of_predictions_for_each_pixel_has_the_size_of_its_image():
    model = cnnlite.Sequential([layers.Conv2D(2, 1), layers.Softmax()])
    model.compile("sgd", "sparse_categorical_crossentropy")
    for size in (4, 6, 5):
        model.fit(normal(2, size, size, 3), np.zeros((2, size, size), int), verbose=0)
        assert model.predict(normal(2, size, size, 3), verbose=0).shape == (2, size, size, 2)


@pytest.mark.parametrize("make", [
    lambda: convolutional(layers.Input((12, 12, 3))), lambda: convolutional(input_shape=(12, 12, 3)),
])
def test_a_model_that_was_given_a_shape_keeps_to_it(make):
    model = make()
    for call in (model, lambda x: model.predict(x, verbose=0)):
        with pytest.raises(ValueError, match=r"must have the shape \(None, 12, 12, 3\). Received: shape=.*14"):
            call(normal(2, 9, 14, 3))


def test_a_shape_that_a_layer_can_not_take_is_refused_before_anything_is_changed():
    model = cnnlite.Sequential([layers.Conv2D(4, 3), layers.BatchNorm(), layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", "mse")
    x = normal(2, 8, 8, 3)
    model.fit(x, np.zeros((2, 2)), verbose=0)
    before = model.get_weights()
    for call in (lambda x: model.forward(x, training=True), lambda x: model.fit(x, np.zeros((2, 2)), verbose=0), model):
        with pytest.raises(ValueError, match=r"\(None, 8, 8, 3\).*Received: shape=\(2, 9, 9, 3\)\. dense: axis -1"):
            call(normal(2, 9, 9, 3))
        with pytest.raises(ValueError, match=r"Received: shape=\(2, 8, 8, 1\)\. conv2d: axis -1 of the input"):
            call(normal(2, 8, 8, 1))
    with pytest.raises(ValueError, match=r"Add a batch axis: x\[np.newaxis\]"):
        model(x[0])
    assert all(map(np.array_equal, model.get_weights(), before))


def test_a_model_of_layers_without_weights_takes_any_number_of_axes():
    model = cnnlite.Sequential([layers.Rescaling(2.0), layers.ReLU()])
    for shape in ((2, 3), (2, 3, 4), (2, 3)):
        np.testing.assert_array_equal(model(np.ones(shape)), np.full(shape, 2))


def test_a_number_alone_is_no_batch_of_numbers():
    model = cnnlite.Sequential([cnnlite.Input(()), layers.Reshape((1,)), layers.Dense(2)])
    assert model(np.ones(3)).shape == (3, 2)
    with pytest.raises(ValueError, match=r"the input must have the shape \(None,\).*Received: shape=\(\)"):
        model(np.float32(1))
