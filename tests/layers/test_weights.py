"""How users reach the weights of layers and models."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers


def small_model():
    return cnnlite.Sequential([
        layers.Conv2D(2, 3, input_shape=(6, 6, 1)), layers.BatchNorm(), layers.Flatten(), layers.Dense(3),
    ])


def test_the_weights_of_a_layer_are_its_attributes_before_and_after_training():
    model = small_model()
    conv, norm, _, dense = model.layers
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 6, 6, 1)), np.zeros((4, 3)), verbose=0)
    for layer, names in [(conv, ["kernel", "bias"]), (dense, ["kernel", "bias"]), (norm, ["gamma", "beta"])]:
        for name in names:
            assert getattr(layer, name) is layer.params[name]
    assert norm.moving_mean is norm.state["moving_mean"]
    assert norm.moving_variance is norm.state["moving_variance"]


def test_a_weight_that_a_layer_does_not_have_is_none():
    assert layers.Dense(3).kernel is None
    layer = layers.Dense(3, use_bias=False, input_shape=(2,))
    cnnlite.Sequential([layer])
    assert layer.bias is None
    with pytest.raises(KeyError, match="not the name of a weight"):
        layer.bias = np.zeros(3)


def test_assigning_to_the_attribute_copies_into_the_weight():
    layer = layers.BatchNorm()
    layer.build((None, 2))
    gamma, given = layer.gamma, np.array([2.0, 3.0])
    layer.gamma = given
    layer.moving_mean = [4.0, 5.0]
    assert layer.params["gamma"] is gamma is not given
    np.testing.assert_array_equal(gamma, [2, 3])
    np.testing.assert_array_equal(layer.state["moving_mean"], [4, 5])


def test_weights_are_either_trainable_or_not():
    model = small_model()
    conv, norm, _, dense = model.layers
    assert len(conv.trainable_weights) == 2
    assert conv.non_trainable_weights == []
    assert [id(array) for array in norm.non_trainable_weights] == [id(norm.moving_mean), id(norm.moving_variance)]
    assert (len(model.trainable_weights), len(model.non_trainable_weights)) == (6, 2)
    dense.trainable = False
    assert dense.trainable_weights == []
    assert (len(model.trainable_weights), len(model.non_trainable_weights)) == (4, 4)
    assert model.trainable_weights[0] is conv.kernel


def dense():
    layer = layers.Dense(3)
    layer.build((None, 2))
    return layer


KERNEL = np.arange(6.0).reshape(2, 3)


def update_by_dict(arrays):
    arrays.update({"kernel": KERNEL, "bias": [7, 8, 9]})


def update_by_pairs(arrays):
    arrays.update([("kernel", KERNEL)], bias=np.array([7, 8, 9]))


def update_in_place(arrays):
    arrays |= {"kernel": KERNEL, "bias": (7.0, 8.0, 9.0)}


@pytest.mark.parametrize("update", [update_by_dict, update_by_pairs, update_in_place])
@pytest.mark.parametrize("kind", ["params", "grads"])
def test_an_update_copies_into_the_arrays(update, kind):
    layer = dense()
    arrays = getattr(layer, kind)
    kernel, bias = arrays["kernel"], arrays["bias"]
    update(arrays)
    assert arrays["kernel"] is kernel is not KERNEL
    assert arrays["bias"] is bias
    np.testing.assert_array_equal(kernel, KERNEL)
    np.testing.assert_array_equal(bias, [7, 8, 9])


@pytest.mark.parametrize("values", [
    {"kernel": KERNEL, "bias": np.zeros(4)}, {"bias": np.zeros(3), "kernal": KERNEL}, {"kernel": KERNEL, "bias": "abc"},
])
def test_an_update_that_does_not_fit_changes_no_array(values):
    layer = dense()
    before = layer.get_weights()
    message = r"has shape \(3,\)|'kernal' is not the name of a weight|bias must be an array of real numbers"
    with pytest.raises((ValueError, KeyError, TypeError), match=message):
        layer.params.update(values)
    assert all(map(np.array_equal, layer.get_weights(), before))


def test_arrays_that_are_updated_from_each_other_are_swapped():
    norm = layers.BatchNorm()
    norm.build((None, 2))
    norm.params.update(gamma=norm.beta, beta=norm.gamma)
    np.testing.assert_array_equal(norm.gamma, [0, 0])
    np.testing.assert_array_equal(norm.beta, [1, 1])


def test_an_update_in_place_of_the_attribute_is_one_too():
    layer, model = dense(), small_model()
    kernel = layer.kernel
    layer.params |= {"kernel": KERNEL}
    layer.grads |= {"bias": [1, 2, 3]}
    model.params |= {"dense/bias": [7, 8, 9]}
    model.state |= {"batch_norm/moving_mean": [1, 2]}
    assert layer.kernel is kernel
    np.testing.assert_array_equal(kernel, KERNEL)
    np.testing.assert_array_equal(layer.grads["bias"], [1, 2, 3])
    np.testing.assert_array_equal(model.layers[3].bias, [7, 8, 9])
    np.testing.assert_array_equal(model.layers[1].moving_mean, [1, 2])
    for owner in (layer, model):
        for arrays in ({"kernel": KERNEL}, dense().params, None):
            with pytest.raises(TypeError, match=r"keeps the arrays that it was built with.*in place of all of them"):
                owner.params = arrays


REFUSED = {
    "pop": lambda arrays: arrays.pop("kernel"), "pop with a default": lambda arrays: arrays.pop("none", None),
    "popitem": lambda arrays: arrays.popitem(), "clear": lambda arrays: arrays.clear(),
    "del": lambda arrays: arrays.__delitem__("kernel"),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_no_array_can_be_taken_out(refused):
    layer = dense()
    for arrays in (layer.params, layer.grads, small_model().params):
        before = dict(arrays)
        with pytest.raises(TypeError, match=r"keeps the arrays that it was built with. Received: .*dict\(\.\.\.\)"):
            REFUSED[refused](arrays)
        assert dict(arrays) == before


def test_a_missing_array_is_not_made():
    layer = dense()
    assert layer.params.setdefault("kernel", None) is layer.kernel
    for make in (lambda: layer.params.setdefault("scale", np.ones(3)), lambda: type(layer.params).fromkeys("ab")):
        with pytest.raises(KeyError, match="is not the name of a weight"):
            make()
    assert type(layer.params | {"scale": 1}) is type(layer.params.copy()) is dict
    assert list(layer.params) == ["kernel", "bias"]


def test_weights_updated_in_a_trained_model_are_used_and_train_on():
    model = small_model()
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 1)).astype(np.float32)
    model.fit(x, np.zeros((4, 3)), verbose=0)
    for _ in range(5):
        model(x[:1])
    given = {"conv2d/kernel": np.ones((3, 3, 1, 2)), "dense/bias": [1, 2, 3]}
    model.params.update(given)
    model.layers[0].params.update(bias=[5, 5])
    np.testing.assert_allclose(model(x[:1]), model(x)[:1], rtol=1e-4, atol=1e-5)
    before = model.layers[0].kernel.copy()
    model.fit(x, np.zeros((4, 3)), verbose=0)
    assert not np.array_equal(model.layers[0].kernel, before)
    np.testing.assert_array_equal(given["conv2d/kernel"], 1)


class Alpha(layers.Layer):
    """y = alpha x, with one number for all."""

    def build(self, input_shape):
        super().build(input_shape)
        self.add_weight("alpha", (), "ones", regularizer="l1")
        self.add_weight("passes", (), "zeros", trainable=False)

    def forward(self, x, training=False):
        x = self.prepare(x)
        if training:
            self.state["passes"] += 1
            self.remember(x)
        return x * self.params["alpha"]

    def backward(self, dy):
        (x,) = self.recall()
        self.grads["alpha"] = (dy * x).sum()
        return dy * self.params["alpha"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adagrad", cnnlite.optimizers.SGD(0.1, clipnorm=0.5)])
def test_a_weight_that_is_a_single_number_trains_and_is_saved(optimizer, tmp_path):
    model = cnnlite.Sequential([cnnlite.Input((3,)), Alpha(), layers.Dense(1)])
    model.compile(optimizer, "mse")
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    y = x.sum(axis=1, keepdims=True)
    model.fit(x, y, verbose=0)
    alpha = model.layers[0].params["alpha"]
    assert alpha.shape == ()
    assert alpha != 1
    assert cnnlite.check_gradients(model, x, y).ok
    model.save(tmp_path / "model.safetensors")
    loaded = cnnlite.load_model(tmp_path / "model.safetensors", custom_objects={"Alpha": Alpha})
    assert loaded.layers[0].state["passes"] == 1
    for each in (model, loaded):
        each.fit(x, y, verbose=0, shuffle=False)
    assert all(map(np.array_equal, loaded.get_weights(), model.get_weights()))
    model.layers[0].params["alpha"] = 3
    np.testing.assert_array_equal(model.layers[0](x), 3 * x)
