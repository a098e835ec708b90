"""After some passes over one image the kernels are recorded and called again, and nothing of it shows in a result."""

import copy
import pickle
import threading
import types

import numpy as np
import pytest

import cnnlite
from cnnlite import fusion, kernels, layers, recorded
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
from tests.fused import WITH_ALL, make, model_of, normal, randomise, unfused
from tests.test_kept_steps import CHANGES, small

pytestmark = pytest.mark.skipif(not kernels.COMPILED, reason="nothing is recorded of plain Python")

SHAPE = (13, 12, 3)


class Scale(cnnlite.layers.Layer):
    """y = 2 x + 1, by NumPy."""

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


def is_recorded(model, x):
    return model._recordings.recording(x.shape) is not None


def record(model, x):
    """Pass x until it is recorded."""
    unfused(model, x)  # which builds the activations inside layers: a change
    for _ in range(recorded.PASSES_BEFORE_AGAIN + 1):
        model(x)
    assert is_recorded(model, x)


def assert_right(model, x):
    y, expected = model(x), unfused(model, x)
    assert y.dtype == expected.dtype
    assert y.shape == expected.shape
    np.testing.assert_array_equal(y, expected)
    assert np.isnan(y).any() or y.tobytes() == expected.tobytes()
    return y


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", STACKS)
def test_a_recorded_pass_has_the_bits_of_the_layers(name, n):
    model = copy.deepcopy(model_of(*STACKS[name], shape=SHAPE))
    record(model, normal(n, *SHAPE))
    for seed in range(4):
        assert_right(model, normal(n, *SHAPE, seed=seed))
    assert is_recorded(model, normal(n, *SHAPE))


def test_an_empty_batch_and_a_layer_whose_training_has_no_default():
    class Plain(Scale):
        def forward(self, x, training):
            return 2 * x + 1

    model = model_of(Conv2D(4, 3), ReLU(), Plain(), Flatten(), Dense(2), shape=SHAPE)
    for _ in range(5):
        assert_right(model, normal(0, *SHAPE))
        assert_right(model, normal(1, *SHAPE))
        assert_right(model, normal(9, *SHAPE))


def test_float64_and_winograds_method_are_recorded_as_well():
    model = make((13, 12, 17), WITH_ALL, dtype="float64")
    x = normal(1, 13, 12, 17, dtype="float64")
    record(model, x)
    assert_right(model, -x)


def test_an_image_with_a_nan_or_large_numbers_goes_another_way():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(1, 13, 12, 17)
    record(model, x)
    for number in (np.nan, np.inf, 1e30):
        other = x.copy()
        other[0, 4, 5, 6] = number
        assert_right(model, other)
        assert_right(model, x)
    assert is_recorded(model, x)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_layer_shows_in_the_next_pass(change):
    x = normal(1, 13, 12, 3)
    model = small()
    if change in ("padding of the pooling", "window of the pooling", "strides of the convolution"):
        model.pop()  # another number of features
    record(model, x)
    before = model(x)
    CHANGES[change](model)
    after = assert_right(model, x)
    assert (change in ("forward taken off again", "trainable")) == np.array_equal(before, after)
    for _ in range(20):
        assert model(x).tobytes() == after.tobytes()


@pytest.mark.parametrize("name", ["kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"])
def test_one_number_that_is_written_to_a_weight_shows_in_the_next_pass(name):
    x = normal(1, 13, 12, 3)
    model = small()
    record(model, x)
    before = model(x)
    layer = model.layers[0 if name in ("kernel", "bias") else 1]
    getattr(layer, name)[..., 3] += 1
    after = assert_right(model, x)
    assert not np.array_equal(before, after)
    getattr(layer, name)[...] = np.nan
    assert np.isnan(assert_right(model, x)).any()


def test_weights_that_come_back_are_not_taken_for_those_that_were_packed_meanwhile():
    model, x = small(), normal(1, 13, 12, 3)
    record(model, x)
    before = model(x)
    first = model.get_weights()
    randomise(model, seed=5)
    # Batches that are not recorded pack the new weights.
    model(normal(40, 13, 12, 3))
    model.set_weights(first)
    assert model(x).tobytes() == before.tobytes()
    assert is_recorded(model, x)


def test_training_shows_in_the_next_pass_and_is_seldom_recorded():
    model, x = small(), normal(1, 13, 12, 3)
    model.compile("adam", "mse")
    record(model, x)
    for seed in range(20):
        before = model(x)
        model.train_on_batch(normal(4, 13, 12, 3, seed=seed), normal(4, 5, seed=seed))
        assert not np.array_equal(before, assert_right(model, x))
        assert not is_recorded(model, x)
    for _ in range(recorded.PASSES_BEFORE_AGAIN):
        model(x)
    assert is_recorded(model, x)
    assert_right(model, x)


def test_layers_that_are_made_again_and_again_have_little_recorded():
    model, x = small(), normal(1, 13, 12, 3)
    record(model, x)
    for _ in range(10):
        layers.Dense(3)  # any layer at all
        for _ in range(recorded.PASSES_BEFORE_AGAIN // 2):
            model(x)
        assert not is_recorded(model, x)
    for _ in range(recorded.PASSES_BEFORE_AGAIN):
        model(x)
    assert is_recorded(model, x)


def test_nothing_is_recorded_of_many_images_large_nets_and_layer_by_layer():
    model, x = small(), normal(1, 13, 12, 3)
    many = normal(recorded.FEW + 1, 13, 12, 3)
    for _ in range(5):
        model(many)
        unfused(model, x)
    assert not is_recorded(model, many)
    assert not is_recorded(model, x)
    record(model, x)
    ran = []
    for layer in model.layers[3:]:
        layer.forward = lambda x, training=False: ran.append(x) or x.reshape(len(x), -1)
    record(model, x)
    ran.clear()
    model(x)
    assert len(ran) == 2


def test_a_model_with_too_many_weights_is_not_kept_twice(monkeypatch):
    monkeypatch.setattr(recorded, "MOST_WEIGHTS", 100)
    model, x = small(), normal(1, 13, 12, 3)
    for _ in range(10):
        assert_right(model, x)
    assert not is_recorded(model, x)


def test_work_for_other_threads_ends_what_is_recorded():
    model = model_of(Conv2D(4, 3), ReLU(), MaxPool(), Flatten(), Dense(2000), Dense(600), Dense(3), shape=SHAPE)
    x = normal(1, *SHAPE)
    for _ in range(5):
        assert_right(model, x)
    assert not is_recorded(model, x)  # too many weights as well
    model = model_of(Conv2D(64, 3, padding="same"), ReLU(), Conv2D(64, 5), ReLU(), Flatten(), Dense(3), shape=SHAPE)
    record(model, x)
    (entry,) = model._recordings._kept[1].values()
    assert len(entry._rest) == 4
    assert_right(model, -x)


def test_results_are_not_overwritten_and_inputs_are_not_kept():
    model = small()
    images = [normal(1, 13, 12, 3, seed=seed) for seed in range(3)]
    record(model, images[0])
    results = [model(x) for x in images]
    copies = [y.copy() for y in results]
    for x in images:
        x[...] = 0
        model(x)
    for y, kept in zip(results, copies):
        assert y.tobytes() == kept.tobytes()


def test_inputs_are_checked_and_converted_as_before():
    model, x = small(), normal(1, 13, 12, 3)
    record(model, x)
    expected = model(x)
    for other in (x.astype("float64"), x.tolist(), np.asfortranarray(x), np.repeat(x, 2, axis=2)[:, :, ::2]):
        assert model(other).tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="must have the shape"):
        model(x[0])
    with pytest.raises(TypeError, match="real numbers"):
        model(x.astype("complex64"))


@pytest.mark.parametrize("place", ["Dense.forward", "Dense.preactivation", "ReLU.forward", "Flatten.forward",
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
    record(model, x)
    assert_right(model, -x)
    assert all(layer.of is model for layer in model.layers)


def test_many_threads_ask_one_model():
    model = small()
    images = [normal(1, 13, 12, 3, seed=seed) for seed in range(8)]
    expected = [unfused(model, x).tobytes() for x in images]
    record(model, images[0])
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
    assert is_recorded(model, images[0])


def test_a_second_thread_goes_the_usual_way_while_one_is_at_work():
    model, x = small(), normal(1, 13, 12, 3)
    record(model, x)
    (entry,) = model._recordings._kept[1].values()
    batch = entry._x.copy()
    with entry._lock:
        assert_right(model, -x)
    np.testing.assert_array_equal(entry._x, batch)
    assert_right(model, -x)
    np.testing.assert_array_equal(entry._x, -x)


def test_copies_and_pickles_record_for_themselves():
    model, x = small(), normal(1, 13, 12, 3)
    record(model, x)
    y = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not is_recorded(twin, x)
        twin.layers[0].kernel[...] *= 2
        record(twin, x)
        assert not np.array_equal(assert_right(twin, x), y)
    assert model(x).tobytes() == y.tobytes()


def test_recording_changes_nothing_about_layers():
    model, x = small(), normal(1, 13, 12, 3)
    unfused(model, x)
    steps = model._steps(model.inner_layers, False)
    before = [(vars(layer).copy(), {**layer.params, **layer.state, **layer.grads}) for layer in model.walk()]
    record(model, x)
    assert model._steps(model.inner_layers, False) is steps
    for layer, (attributes, arrays) in zip(model.walk(), before):
        assert vars(layer) == attributes
        assert all({**layer.params, **layer.state, **layer.grads}[name] is array for name, array in arrays.items())


def test_a_model_in_a_model_is_recorded_too():
    inner = cnnlite.Sequential([Conv2D(4, 3, activation="relu"), MaxPool()])
    model = model_of(inner, Flatten(), Dense(3), shape=SHAPE)
    x = normal(1, *SHAPE)
    for _ in range(6):
        assert_right(model, x)
    assert is_recorded(inner, x)
    inner.layers[0].kernel[0, 0, 0, 0] += 1
    assert_right(model, x)


def test_recordings_of_a_hundred_shapes_are_not_all_kept():
    model = model_of(Conv2D(4, 3), ReLU(), layers.GlobalMaxPool(), shape=(None, None, 3))
    for size in range(5, 40):
        record(model, normal(1, size, 9, 3))
    assert len(model._recordings._kept[1]) <= recorded.MOST_SHAPES
    assert fusion.is_on()
