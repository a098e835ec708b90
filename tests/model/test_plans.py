"""A model keeps its plans until one of its layers changes, and the results never show it."""

import copy
import pickle
import threading
import types
import weakref

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    ReLU,
)
from cnnlite.model import passes
from tests.helpers.fused import (
    WITH_ALL,
    layer_by_layer,
    make,
    memory_in_use,
    model_of,
    normal,
    plans_of,
    randomise,
    unfused,
)
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed

SHAPE = (13, 12, 3)


class Scale(cnnlite.layers.Layer):
    """y = 2 x + 1, in NumPy."""

    def forward(self, x, training=False):
        return 2 * x + 1

    def backward(self, dy):
        return 2 * dy


STACKS = {
    "convolutions": [Conv2D(17, 3, activation="relu"), BatchNorm(), MaxPool(), Conv2D(16, 3), ReLU(),
                     AveragePool(), Flatten(), Dropout(0.5), Dense(5)],
    "dense layers": [Flatten(), Dense(20, activation="relu"), Dense(19), Activation("relu"), Dense(3)],
    "softmax on top": [Conv2D(4, 3, activation="relu"), Flatten(), Dense(4, activation="softmax")],
    "softmax of its own": [Conv2D(4, 3, activation="relu"), Flatten(), Dense(4), Activation("softmax")],
    "NumPy in the middle": [Conv2D(4, 3), ReLU(), Scale(), Flatten(), Dense(4, activation="tanh"), Dense(2)],
    "no plain ReLU": [Flatten(), Dense(4), ReLU(max_value=0.5), Dense(3, activation=ReLU(negative_slope=0.5))],
    "pooling of all": [Conv2D(8, 3, padding="same"), BatchNorm(), ReLU(), GlobalAveragePool(), Dense(2)],
}


def small():
    return model_of(Conv2D(17, 3, activation="relu"), BatchNorm(), MaxPool(), Flatten(), Dense(5), shape=(13, 12, 3))


def assert_right(model, x):
    y = model(x)
    for expected in (unfused(model, x), layer_by_layer(model, x)):
        assert y.dtype == expected.dtype
        assert y.shape == expected.shape
        np.testing.assert_array_equal(y, expected)
        assert np.isnan(y).any() or y.tobytes() == expected.tobytes()
    return y


# Changes to `small()` that show in its next pass.


def set_on(place, name, value):
    return lambda model: setattr(model.layers[place], name, value)


def assign_weights(model):
    model.layers[0].kernel = -model.layers[0].kernel


def write_weights(model):
    model.layers[0].params["kernel"][0] = 7


def patch_forward(model):
    forward = model.layers[2].forward
    model.layers[2].forward = lambda x, training=False: -forward(x, training)


def unpatch_forward(model):
    patch_forward(model)
    model(np.zeros((2, 13, 12, 3), "float32"))
    del model.layers[2].forward


def replace_top(model):
    model.pop()
    model.add(Dense(5, kernel_initializer="ones", activation="tanh"))


CHANGES = {
    "activation": set_on(0, "activation", layers.Linear()),
    "activation of another kind": set_on(0, "activation", ReLU(max_value=0.5)),
    "padding of the pooling": set_on(2, "strides", (1, 2)),
    "window of the pooling": set_on(2, "pool_size", (3, 2)),
    "strides of the convolution": set_on(0, "strides", (2, 1)),
    "epsilon": set_on(1, "epsilon", 0.5),
    "trainable": set_on(1, "trainable", False),
    "weights": assign_weights,
    "numbers of the weights": write_weights,
    "forward on an object": patch_forward,
    "forward taken off again": unpatch_forward,
    "the top layer": replace_top,
}


def small_for(change):
    model = small()
    if change in ("padding of the pooling", "window of the pooling", "strides of the convolution"):
        model.pop()  # because the number of features changes
    return model


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", STACKS)
def test_a_plan_has_the_bits_of_the_layers(name, n):
    model = copy.deepcopy(model_of(*STACKS[name], shape=SHAPE))
    for seed in range(4):
        assert_right(model, normal(n, *SHAPE, seed=seed))


def test_an_empty_batch_and_a_layer_whose_training_has_no_default():
    class Plain(Scale):
        def forward(self, x, training):
            return 2 * x + 1

    model = model_of(Conv2D(4, 3), ReLU(), Plain(), Flatten(), Dense(2), shape=SHAPE)
    for _ in range(5):
        assert_right(model, normal(0, *SHAPE))
        assert_right(model, normal(1, *SHAPE))
        assert_right(model, normal(9, *SHAPE))


def test_float64_and_winograds_method_have_the_bits_of_the_layers_as_well():
    model = make((13, 12, 17), WITH_ALL, dtype="float64")
    x = normal(1, 13, 12, 17, dtype="float64")
    assert_right(model, x)
    assert_right(model, -x)


def test_an_image_with_a_nan_or_large_numbers_does_not_show_in_the_next():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(1, 13, 12, 17)
    for number in (np.nan, np.inf, 1e30):
        other = x.copy()
        other[0, 4, 5, 6] = number
        assert_right(model, other)
        assert_right(model, x)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_layer_shows_in_the_next_pass(change):
    x = normal(1, 13, 12, 3)
    model = small_for(change)
    before = assert_right(model, x)
    CHANGES[change](model)
    after = assert_right(model, x)
    assert (change in ("forward taken off again", "trainable")) == np.array_equal(before, after)
    assert model(x).tobytes() == after.tobytes()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_layer_shows_in_the_next_training_pass(change):
    x = normal(3, 13, 12, 3)
    model = small_for(change)
    before = model.forward(x, training=True)
    CHANGES[change](model)
    twin = copy.deepcopy(model)
    after = model.forward(x, training=True)
    np.testing.assert_array_equal(after, layer_by_layer(twin, x, training=True))
    assert (change == "forward taken off again") == np.array_equal(before, after)


@pytest.mark.parametrize("name", ["kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"])
def test_one_number_that_is_written_to_a_weight_shows_in_the_next_pass(name):
    x = normal(1, 13, 12, 3)
    model = small()
    before = model(x)
    layer = model.layers[0 if name in ("kernel", "bias") else 1]
    getattr(layer, name)[..., 3] += 1
    after = assert_right(model, x)
    assert not np.array_equal(before, after)
    getattr(layer, name)[...] = np.nan
    assert np.isnan(assert_right(model, x)).any()


def test_weights_that_come_back_are_not_taken_for_those_that_were_packed_meanwhile():
    model, x = small(), normal(1, 13, 12, 3)
    before = model(x)
    first = model.get_weights()
    randomise(model, seed=5)
    model(normal(40, 13, 12, 3))
    model.set_weights(first)
    assert model(x).tobytes() == before.tobytes()


def test_training_shows_in_the_next_pass():
    model, x = small(), normal(1, 13, 12, 3)
    model.compile("adam", "mse")
    for seed in range(20):
        before = model(x)
        model.train_on_batch(normal(4, 13, 12, 3, seed=seed), normal(4, 5, seed=seed))
        assert not np.array_equal(before, assert_right(model, x))


def test_a_plan_is_kept_for_every_number_of_samples_and_layers_elsewhere_leave_it():
    model = small()
    model.compile("sgd", "mse")
    x = normal(40, 13, 12, 3)

    def use():
        for n in (1, 2, 40):
            model(x[:n])
            model.predict(x[:n], verbose=0)
            model.train_on_batch(x[:n], np.zeros((n, 5), "float32"))
        return plans_of(model)

    first = use()
    assert sorted(key[0] for key in first) == ["inference", "step"]
    layer = layers.Dense(3)
    layer.units = 4
    del layer
    other = small()
    other(x)
    other.layers[0].strides = (2, 1)
    assert use() == first
    model.layers[0].note = 1
    assert not plans_of(model)
    again = use()
    assert sorted(key[0] for key in again) == sorted(key[0] for key in first)
    assert not set(map(id, again.values())) & set(map(id, first.values()))
    unfused(use)
    assert len(plans_of(model)) == 4


def test_results_are_not_overwritten_and_inputs_are_not_kept():
    model = small()
    images = [normal(1, 13, 12, 3, seed=seed) for seed in range(3)]
    results = [model(x) for x in images]
    copies = [y.copy() for y in results]
    for x in images:
        x[...] = 0
        model(x)
    for y, kept in zip(results, copies):
        assert y.tobytes() == kept.tobytes()


def test_inputs_are_checked_and_converted_as_before():
    model, x = small(), normal(1, 13, 12, 3)
    expected = model(x)
    for other in (x.astype("float64"), x.tolist(), np.asfortranarray(x), np.repeat(x, 2, axis=2)[:, :, ::2]):
        assert model(other).tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="must have the shape"):
        model(x[0])
    with pytest.raises(TypeError, match="real numbers"):
        model(x.astype("complex64"))


@pytest.mark.parametrize("place", ["Dense.forward", "Dense.prepare", "ReLU.forward", "Flatten.forward",
                                   "an activation's forward"])
def test_a_method_that_was_put_on_a_layer_is_called_each_time(place):
    flatten, dense, relu = Flatten(), Dense(4, activation="relu"), ReLU()
    model = model_of(flatten, dense, relu, shape=SHAPE)
    name = place.partition(".")[2] or "forward"
    layer = {"D": dense, "R": relu, "F": flatten, "a": dense.activation}[place[0]]
    calls = []

    def method(self, x, *arguments, **more):
        calls.append(1)
        return getattr(type(self), name)(self, x, *arguments, **more) + len(calls)

    setattr(layer, name, types.MethodType(method, layer))
    x = normal(1, *SHAPE)
    results = {model(x).tobytes() for _ in range(8)}
    assert (len(calls), len(results)) == (8, 8)


def test_what_can_not_be_copied_stays_on_its_layer_alone():
    model = model_of(Conv2D(4, 3), ReLU(), Flatten(), Dense(3), shape=SHAPE)
    x = normal(2, *SHAPE)
    model.compile("sgd", "mse")
    model.train_on_batch(x, np.zeros((2, 3)))
    for layer in model.layers:
        layer.lock = threading.Lock()
        layer.of = model
    model.train_on_batch(x, np.zeros((2, 3)))
    assert_right(model, -x)
    assert all(layer.of is model for layer in model.layers)


def test_many_threads_ask_one_model():
    model = small()
    images = [normal(1, 13, 12, 3, seed=seed) for seed in range(8)]
    expected = [layer_by_layer(model, x).tobytes() for x in images]
    failures = []

    def ask(first):
        for i in range(200):
            k = (first + i) % len(images)
            if model(images[k]).tobytes() != expected[k]:
                failures.append((first, i))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(plans_of(model)) == 1


def test_copies_and_pickles_make_plans_for_themselves():
    model, x = small(), normal(1, 13, 12, 3)
    y = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not plans_of(twin)
        twin.layers[0].kernel[...] *= 2
        assert not np.array_equal(assert_right(twin, x), y)
    assert model(x).tobytes() == y.tobytes()


def test_making_a_plan_changes_nothing_about_layers():
    model, x = small(), normal(1, 13, 12, 3)

    def attributes():
        return [{name: value for name, value in vars(layer).items() if name not in ("_memos", "_memo")}
                for layer in model.walk()]

    before = [(own, {**layer.params, **layer.state, **layer.grads}) for own, layer in zip(attributes(), model.walk())]
    for n in (1, 2):
        model(normal(n, *x.shape[1:]))
    model.plan(training=True)
    for own, layer, (attributes_before, arrays) in zip(attributes(), model.walk(), before):
        assert own == attributes_before
        assert all({**layer.params, **layer.state, **layer.grads}[name] is array for name, array in arrays.items())


def test_weights_of_a_model_in_a_model_show():
    inner = cnnlite.Sequential([Conv2D(4, 3, activation="relu"), MaxPool()])
    model = model_of(inner, Flatten(), Dense(3), shape=SHAPE)
    x = normal(1, *SHAPE)
    before = assert_right(model, x)
    inner.layers[0].kernel[0, 0, 0, 0] += 1
    assert not np.array_equal(before, assert_right(model, x))
    inner.layers[0].activation = "tanh"
    assert_right(model, x)


def test_plans_of_a_hundred_shapes_are_not_all_kept():
    model = model_of(Conv2D(4, 3), ReLU(), layers.GlobalMaxPool(), shape=(None, None, 3))
    first = normal(1, 5, 9, 3)
    for size in range(6, 40):
        model(normal(1, size, 9, 3))
        model(first)
        if size == 6:
            kept = plans_of(model)
    assert len(plans_of(model)) == passes.PLANS_KEPT == 16
    assert len([key for key in kept if kept[key] is plans_of(model).get(key)]) == 1  # the one that was used


def test_a_plan_lets_go_of_a_batch_with_the_step_and_of_its_memory_with_fit():
    class Mine(layers.Layer):
        def forward(self, x, training=False):
            return x

        def backward(self, dy):
            return dy

    for stack in ([], [Mine()]):
        model = model_of(Conv2D(4, 3), BatchNorm(), *stack, Flatten(), Dense(5), shape=(13, 12, 3))
        model.compile("sgd", "mse")
        before = memory_in_use()
        for train in (model.train_on_batch, lambda x, y, model=model: model.fit(x, y, verbose=0)):
            x, y = normal(4, 13, 12, 3), np.zeros((4, 5), "float32")
            given = weakref.ref(x), weakref.ref(y)
            train(x, y)
            del x, y
            left = memory_in_use() - before  # a little, for kernels that run on their own
            assert [reference() for reference in given] == [None, None]
            assert left > 100_000 if train == model.train_on_batch else left < 4096
