"""Saved models with classes that are not cnnlite's."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from tests.helpers.models import assert_same_weights


class Scale(layers.Layer):
    """y = x * factor * scale: a layer of a user."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape):
        super().build(input_shape)
        self.add_weight("scale", (input_shape[-1],), "ones")

    def forward(self, x, training=False):
        return self.prepare(x) * self.params["scale"] * np.asarray(self.factor, self.dtype)

    def backward(self, dy):
        raise NotImplementedError

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def custom_model():
    return cnnlite.Sequential([cnnlite.Input(shape=(5,)), Scale(3.0), layers.Dense(2)])


def test_a_layer_of_a_user_is_loaded_from_custom_objects(path):
    model = custom_model()
    model.layers[0].params["scale"] = np.arange(5)
    model.save(path)
    loaded = cnnlite.load_model(path, custom_objects={"Scale": Scale})
    assert loaded.layers[0].factor == 3.0
    assert_same_weights(model, loaded)


def test_an_unknown_layer_is_named_with_the_remedy(path):
    custom_model().save(path)
    with pytest.raises(ValueError, match=r"model\.safetensors.*'Scale'.*custom_objects"):
        cnnlite.load_model(path)


def test_a_layer_of_a_user_is_not_taken_for_the_one_of_the_same_name(path):
    class Dense(layers.Dense):
        pass

    cnnlite.Sequential([cnnlite.Input(shape=(5,)), Dense(2)]).save(path)
    with pytest.raises(ValueError, match="'Dense' is not part of cnnlite"):
        cnnlite.load_model(path)
    assert type(cnnlite.load_model(path, custom_objects={"Dense": Dense}).layers[0]) is Dense


def test_an_initializer_of_a_user_is_loaded_from_custom_objects(path):
    class Twos(cnnlite.initializers.Initializer):
        def __call__(self, shape, dtype="float32"):
            return np.full(shape, 2, dtype)

    cnnlite.Sequential([cnnlite.Input(shape=(5,)), layers.Dense(2, kernel_initializer=Twos())]).save(path)
    loaded = cnnlite.load_model(path, custom_objects={"Twos": Twos})
    assert isinstance(loaded.layers[0].kernel_initializer, Twos)
    with pytest.raises(ValueError, match="Twos"):
        cnnlite.load_model(path)


def test_custom_objects_must_be_a_dict(path):
    with pytest.raises(TypeError, match="custom_objects must be a dict"):
        cnnlite.load_model(path, custom_objects=[Scale])


def test_a_config_that_json_cannot_hold_is_an_error_before_anything_is_written(path):
    model = cnnlite.Sequential([cnnlite.Input(shape=(5,)), Scale(np.ones(5))])
    with pytest.raises(ValueError, match="plain values"):
        model.save(path)
    assert not path.exists()
