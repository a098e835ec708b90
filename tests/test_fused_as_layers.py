"""Layers that run as one behave as layers do: passes forward and back, errors, memory, threads."""

import copy
import threading

import numpy as np
import pytest

import cnnlite
from cnnlite import fusion, layers
from cnnlite.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    MaxPool,
    ReLU,
)
from tests.helpers.fused import (
    WITH_ALL,
    arrays_of,
    assert_fused_is_unfused,
    assert_same_bits,
    layer_by_layer,
    make,
    model_of,
    normal,
    randomise,
    unfused,
)
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed


def test_a_pass_that_was_put_on_an_activation_is_called():
    model = model_of(Conv2D(4, 3, activation="relu"), MaxPool(), shape=(6, 6, 3))
    x = normal(2, 6, 6, 3)
    model.forward(x)
    model.layers[0].activation.forward = lambda x, training=False: np.full_like(x, 7)
    assert (model.forward(x) == 7).all()
    assert (model.forward(x, training=True) == 7).all()


@pytest.mark.parametrize("place", [0, 1])
def test_a_way_back_that_was_put_on_a_layer_is_called(place):
    model = model_of(Conv2D(4, 3), ReLU(), shape=(6, 6, 3))
    x = normal(2, 6, 6, 3)
    layer, called = model.layers[place], []
    backward = layer.backward
    layer.backward = lambda dy: called.append(1) or backward(dy)
    model.backward(model.forward(x, training=True))
    assert called == [1]


def test_backward_takes_back_the_steps_that_ran():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(5, 13, 12, 17)
    for context, near in ((fusion.disabled, 0), (cnnlite.reference_mode, 1e-4)):
        with context():
            y = model.forward(x, training=True)
        dy = normal(*y.shape, seed=1)
        dx = model.backward(dy)
        model.forward(x, training=True)
        with context():
            np.testing.assert_allclose(model.backward(dy), dx, rtol=near, atol=near / 10)


def test_backward_twice_gives_the_same_and_writes_to_nothing():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(5, 13, 12, 17)
    y = model.forward(x, training=True)
    dy = normal(*y.shape, seed=1)
    before = x.copy(), y.copy(), dy.copy()
    dx = model.backward(dy)
    first = dx.copy(), arrays_of(model)
    model.forward(normal(3, 13, 12, 17, seed=7))  # an inference pass in between is none of its business
    again = model.backward(dy)
    assert again.tobytes() == first[0].tobytes()
    assert dx.tobytes() == first[0].tobytes()
    assert_same_bits(arrays_of(model), first[1])
    for array, old in zip((x, y, dy), before):
        np.testing.assert_array_equal(array, old)


def test_backward_without_forward_is_an_error_also_where_forward_failed():
    class Fails(layers.Layer):
        def forward(self, x, training=False):
            if training:
                raise ValueError("on purpose")
            return x

    dy = normal(2, 7, 6, 4)
    model = cnnlite.Sequential([cnnlite.Input((9, 8, 2)), Fails(), Conv2D(4, 3), ReLU()])
    for _ in range(2):
        with pytest.raises(ValueError, match="backward needs a forward pass in training mode"):
            model.backward(dy)
        with pytest.raises(ValueError, match="backward needs a forward pass in training mode"):
            model.backward_weights(dy)
        with pytest.raises(ValueError, match="on purpose"):
            model.forward(normal(2, 9, 8, 2), training=True)


def test_a_layer_in_a_plan_does_not_go_back_from_an_older_pass_of_its_own():
    model = cnnlite.Sequential([cnnlite.Input((9, 8, 2)), Conv2D(4, 3, activation="relu"), BatchNorm(), MaxPool()])
    for _ in range(2):
        with cnnlite.reference_mode():
            y = model.forward(normal(2, 9, 8, 2), training=True)
        model.forward(normal(2, 9, 8, 2, seed=1), training=True)
        for layer, shape in zip(model.layers, [(2, 7, 6, 4), (2, 7, 6, 4), y.shape]):
            with pytest.raises(ValueError, match=r"backward needs a forward.*under `with cnnlite.reference_mode"):
                layer.backward(np.ones(shape, "float32"))


def message(function, *arguments, **named):
    with pytest.raises(ValueError, match=r".") as caught:
        function(*arguments, **named)
    return str(caught.value)


@pytest.mark.parametrize("shape", [(2, 13, 12, 3), (2, 13, 12), (13, 12, 17), (2, 13, 12, 17, 1), (2, 0, 12, 17)])
@pytest.mark.parametrize("training", [True, False])
def test_an_input_of_the_wrong_shape_is_the_same_error(shape, training):
    model = make((None, None, 17), WITH_ALL)
    x = np.ones(shape, "float32")
    before = arrays_of(model)
    assert message(model.forward, x, training=training) == message(unfused, model.forward, x, training)
    assert_same_bits(arrays_of(model), before)


@pytest.mark.parametrize("size", [(2, 9), (9, 2), (3, 3), (4, 5)])
def test_an_image_that_is_too_small_is_the_same_error(size):
    model = make((None, None, 17), WITH_ALL)
    x = np.ones((2, *size, 17), "float32")
    assert "must fit into the image" in message(model.forward, x)
    for training in (False, True):
        assert message(model.forward, x, training) == message(unfused, model.forward, x, training)


def test_a_gradient_of_the_wrong_shape_is_the_same_error():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(2, 13, 12, 17)
    for dy in (np.ones((2, 2, 2, 17), "float32"), np.ones((3, 1, 1, 17), "float32"), np.ones(3, "float32")):
        model.forward(x, training=True)
        mine = message(model.backward, dy)
        assert mine == message(model.backward_weights, dy)
        layer_by_layer(model, x, training=True)
        assert mine == message(model.layers[-1].backward, dy)


def attributes(model):
    """Return all attributes but the ones in which a model keeps its plans, the same for all threads."""
    return [{name: value if not isinstance(value, dict) else dict(value)
             for name, value in vars(layer).items() if name not in ("_memo", "_memos")}
            for layer in model.walk()]


def test_inference_writes_nothing_on_the_layers_and_hands_out_fresh_arrays():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(5, 13, 12, 17)
    model.forward(x, training=True)
    before = attributes(model)
    arrays = arrays_of(model)
    y = model.forward(x)
    for mine, old in zip(attributes(model), before):
        assert mine.keys() == old.keys()
        for name, value in old.items():
            assert mine[name] is value or mine[name] == value, name
    assert_same_bits(arrays_of(model), arrays)
    kept = y.copy()
    assert not np.shares_memory(y, model.forward(2 * x))
    np.testing.assert_array_equal(y, kept)


def test_threads_of_python_may_predict_with_one_model_at_once():
    model = make((13, 12, 17), WITH_ALL)
    x = [normal(n, 13, 12, 17, seed=n) for n in (1, 2, 16, 33)]
    expected = [model.forward(batch) for batch in x]
    failures = []

    def run(i):
        for k in range(12):
            j = (i + k) % len(x)
            if model.forward(x[j]).tobytes() != expected[j].tobytes():
                failures.append((i, j))

    workers = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_after_fit_no_layer_holds_an_array_of_the_batch():
    inner = cnnlite.Sequential([Conv2D(4, 3), BatchNorm(), ReLU(), MaxPool()])
    model = cnnlite.Sequential([
        cnnlite.Input((12, 12, 3)), Conv2D(8, 3, activation="relu"), BatchNorm(), inner, Flatten(), Dense(2)])
    model.compile("adam", "mse")
    x, y = normal(20, 12, 12, 3), normal(20, 2, seed=1)
    model.fit(x, y, batch_size=8, verbose=0)
    assert all(layer._memory is None for layer in model.walk())
    model.train_on_batch(x, y)
    assert all(layer._memory is None for layer in model.walk())


def test_a_training_pass_hands_out_arrays_that_the_next_does_not_overwrite():
    model = make((13, 12, 17), WITH_ALL)
    results = []
    for seed in range(3):
        y = model.forward(normal(5, 13, 12, 17, seed=seed), training=True)
        dx = model.backward(normal(*y.shape, seed=seed))
        results.append((y, dx, y.copy(), dx.copy()))
    for y, dx, old_y, old_dx in results:
        np.testing.assert_array_equal(y, old_y)
        np.testing.assert_array_equal(dx, old_dx)


def test_weights_that_change_between_two_passes_are_seen():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(3, 13, 12, 17)
    for seed in range(4):
        if seed % 2:
            randomise(model, seed)
        else:
            # One number, in place: nothing tells the model of it.
            model.layers[0].params["kernel"][1, 1, 16, seed] += 1
            model.layers[4].params["kernel"][0, 0, 0, 0] = np.nan if seed else 0.5
        assert_fused_is_unfused(model, x)


def test_a_copy_of_a_model_does_not_share_what_that_remembers():
    model = make((13, 12, 17), WITH_ALL)
    x, other = normal(3, 13, 12, 17), normal(3, 13, 12, 17, seed=5)
    y = model.forward(x, training=True)
    dy = normal(*y.shape, seed=1)
    twin = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"Call forward\(x, training=True\) first"):
        twin.backward(dy)
    dx = model.backward(dy)
    twin.forward(x, training=True)
    model.forward(other, training=True)
    assert twin.backward(dy).tobytes() == dx.tobytes()
    for (_, mine), (_, theirs) in zip(twin.named_layers(), model.named_layers()):
        assert not any(np.shares_memory(a, b) for a, b in zip(mine.grads.values(), theirs.grads.values()))


def test_a_few_large_images_have_the_bits_of_a_batch():
    model = model_of(Conv2D(24, 3, activation="relu"), MaxPool(), shape=(120, 121, 3))
    x = normal(3, 120, 121, 3)
    together = model.predict(x, batch_size=3, verbose=0)
    for n in (1, 2):
        np.testing.assert_array_equal(model.predict(x[:n], verbose=0), together[:n])
    np.testing.assert_array_equal(layer_by_layer(model, x), together)


@pytest.mark.parametrize("shape", [(4, 1100, 2), (92, 94, 2), (3, 5, 5000)])
def test_sums_that_are_cut_are_cut_alike(shape):
    # Long lines, more pixels than are summed up in one go, and more channels.
    model = model_of(Conv2D(3, 1), BatchNorm(), ReLU(), MaxPool(), Conv2D(2, (1, 2)), MaxPool(1), shape=shape)
    assert_fused_is_unfused(model, normal(2, *shape))
