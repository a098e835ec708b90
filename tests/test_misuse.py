"""What the random orders of tests/helpers/model_states.py have found, each in its shortest form."""

import copy
import pickle

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.models import clone_model
from cnnlite.optimizers import Adam
from tests.helpers.model_states import Models

X = np.random.default_rng(0).normal(size=(6, 6, 6, 1)).astype(np.float32)
Y = np.arange(6) % 3


def model(optimizer="adam"):
    cnnlite.utils.set_random_seed(0)
    net = cnnlite.Sequential([
        cnnlite.Input((6, 6, 1)),
        layers.Conv2D(2, 3, strides=2, name="conv"),
        layers.BatchNorm(),
        layers.ReLU(name="relu"),
        layers.Flatten(),
        layers.Dense(3, activation="softmax", name="dense"),
    ])
    net.compile(optimizer, "sparse_categorical_crossentropy")
    return net


# An optimizer and its weights.


def test_an_optimizer_is_not_taken_by_a_second_model_of_the_same_form():
    optimizer = Adam()
    first, second = model(optimizer), model(optimizer)
    first.train_on_batch(X, Y)
    before = pickle.dumps(optimizer.state()), second.get_weights()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"belongs to the weights it was first used with.*Received: others"):
            second.fit(X, Y, verbose=0)
    assert pickle.dumps(optimizer.state()) == before[0]
    for mine, expected in zip(second.get_weights(), before[1]):
        np.testing.assert_array_equal(mine, expected)
    first.train_on_batch(X, Y)


def test_nor_by_a_layer_of_the_name_and_shape_of_one_that_is_gone():
    net = model()
    net.train_on_batch(X, Y)
    net.pop()
    net.add(layers.Dense(3, activation="softmax", name="dense"))
    with pytest.raises(ValueError, match="Compile the model with a new optimizer"):
        net.train_on_batch(X, Y)
    net.compile("adam", net.loss)
    net.train_on_batch(X, Y)


def test_the_same_layer_put_back_goes_on():
    net, expected = model(), model()
    for each in (net, expected):
        each.train_on_batch(X, Y)
    net.add(net.pop())
    for each in (net, expected):
        each.train_on_batch(X, Y)
    for mine, other in zip(net.get_weights(), expected.get_weights()):
        np.testing.assert_array_equal(mine, other)


def test_a_model_compiled_again_with_its_optimizer_goes_on():
    net = model()
    net.train_on_batch(X, Y)
    net.compile(net.optimizer, net.loss)
    net.train_on_batch(X, Y)
    assert net.optimizer.iterations == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_copy_of_a_model_and_one_of_an_optimizer_go_on_for_themselves(copied):
    net = model()
    net.train_on_batch(X, Y)
    twin, optimizer = copied(net), copied(net.optimizer)
    other = model(optimizer)
    other.set_weights(net.get_weights())
    results = []
    for each in (net, twin, other):
        each.train_on_batch(X, Y)
        results.append(b"".join(array.tobytes() for array in each.get_weights()))
    assert results[0] == results[1] == results[2]
    assert net.optimizer.iterations == twin.optimizer.iterations == optimizer.iterations == 2


def test_an_optimizer_of_other_weights_is_left_out_of_a_file(tmp_path):
    net = model()
    net.train_on_batch(X, Y)
    net.pop()
    net.save(tmp_path / "model.safetensors")
    loaded = cnnlite.load_model(tmp_path / "model.safetensors")
    assert loaded.optimizer.iterations == 0
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), net.predict(X, verbose=0))
    net = model()
    net.train_on_batch(X, Y)
    net.save(tmp_path / "model.safetensors")
    assert cnnlite.load_model(tmp_path / "model.safetensors").optimizer.iterations == 1


# Layers that were changed.


@pytest.mark.parametrize("call", ["fit", "train_on_batch", "save"])
def test_layers_that_no_longer_fit_are_refused_before_anything_is_changed(call, tmp_path):
    net = model()
    net.get_layer("conv").strides = (1, 1)
    before = pickle.dumps(net.get_weights())
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match=r"dense: axis -1 .* must have size 8, .*Received: shape=\(None, 32\)"):
        net.save(path) if call == "save" else getattr(net, call)(X, Y)
    assert pickle.dumps(net.get_weights()) == before
    assert not path.exists()


def test_a_built_layer_that_does_not_fit_is_not_added():
    net, other = model(), model()
    dense = other.pop()
    net.pop()
    net.pop()
    with pytest.raises(ValueError, match=r"dense: axis -1 of the input must have size 8"):
        net.add(dense)
    block = cnnlite.Sequential([layers.Dense(2)], name="block")
    block.build((None, 7))
    net.add(layers.Flatten())
    with pytest.raises(ValueError, match=r"block: the input must have the shape \(None, 7\)"):
        net.add(block)
    assert len(net.layers) == 4


def test_a_layer_that_could_not_be_added_can_be_added_elsewhere():
    net = model()
    pool, dense = layers.MaxPool(5), layers.Dense(2, kernel_regularizer="l2")
    net.pop()
    net.pop()
    with pytest.raises(ValueError, match="max_pool"):
        net.add(pool)
    with pytest.raises(ValueError, match="max_pool"):
        net.add(cnnlite.Sequential([dense, layers.MaxPool(5)]))
    assert not any(layer.built or layer.weights for layer in (pool, dense))
    other = cnnlite.Sequential([cnnlite.Input((9, 9, 4)), pool, layers.Flatten(), dense])
    assert other.output_shape == (None, 2)


def test_a_model_that_could_not_be_built_is_not_built_in_part():
    net = cnnlite.Sequential([layers.Dense(3), layers.Flatten(), layers.SpatialDropout2D(0.5)])
    with pytest.raises(ValueError, match="must have 4 axes"):
        net.build((None, 3, 3, 1))
    assert not any(layer.built or layer.weights for layer in net.layers)
    net.pop()
    net.build((None, 5, 5, 1))
    assert net.output_shape == (None, 75)


def test_two_layers_that_were_given_one_name_are_neither_saved_nor_cloned(tmp_path):
    net = model()
    net.get_layer("relu").name = "conv"
    for refused in (lambda: net.save(tmp_path / "model.safetensors"), lambda: clone_model(net)):
        with pytest.raises(ValueError, match="two layers called 'conv'"):
            refused()
    net.layers[2].name = "relu"
    net.save(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["", "a/b", 3, None])
def test_a_layer_is_not_renamed_to_what_is_no_name(name):
    net = model()
    with pytest.raises(ValueError, match="name must be a printable string without '/'"):
        net.layers[0].name = name
    assert net.layers[0].name == "conv"


def test_a_relu_computes_what_its_attributes_say(tmp_path):
    relu = layers.ReLU()
    relu.max_value, relu.threshold, relu.negative_slope = 2.0, 1.0, 0.5
    x = np.array([[-1.0, 0.5, 1.5, 3.0]])
    np.testing.assert_array_equal(relu(x), [[-1, -0.25, 1.5, 2]])
    np.testing.assert_array_equal(layers.ReLU.from_config(relu.get_config())(x), relu(x))
    net = model()
    fused = net.predict(X, verbose=0)
    net.get_layer("relu").threshold = 0.5  # it no longer runs as one with the convolution
    assert not np.array_equal(net.predict(X, verbose=0), fused)


def test_the_machine_sees_what_a_refused_operation_changed():
    machine = Models()
    machine.begin("images")
    net = machine.models[0]

    def spoil():
        net.layers[0].kernel[...] = 0
        raise ValueError("This was refused, and left a trace all the same.")

    with pytest.raises(AssertionError, match="weights changed by a refused action"):
        machine.attempt(spoil)
    with pytest.raises(AssertionError, match="not refused"):
        machine.attempt(lambda: 3, must_fail=True)
    with pytest.raises(KeyError):
        machine.attempt(lambda: {}["nothing"])
    machine.teardown()
