"""Past bugs of plans, each in the smallest network that shows it."""

import numpy as np
import pytest

import cnnlite
from cnnlite import Input, Sequential, fusion, layers, losses, regularizers
from cnnlite.eager import is_eager
from tests.kernels.drawn import threads

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 8, 8, 3)).astype(np.float32)

planned = pytest.mark.skipif(is_eager(), reason="eager mode has no plans")


def pooled(*top, loss="mse"):
    """Return a network whose backward pass goes through a pooling and a batch normalisation."""
    cnnlite.utils.set_random_seed(1)
    model = Sequential([
        Input((8, 8, 3)), layers.Conv2D(8, 3, padding="same"), layers.BatchNorm(), layers.ReLU(), layers.MaxPool(2),
        *top,
    ])
    model.compile("sgd", loss)
    return model


def assert_same_weights(model, other):
    for mine, theirs in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(mine, theirs)


def test_images_of_another_size_can_come_after_the_first():
    model = Sequential([layers.Conv2D(2, 3), layers.GlobalMaxPool()])
    assert [model(np.ones((2, size, size + 1, 1))).shape for size in (5, 8, 5)] == [(2, 2)] * 3
    with pytest.raises(ValueError, match="can take"):
        model(np.ones((2, 5, 5, 2)))


def test_steps_through_a_pooling_are_the_same_with_all_stages_apart():
    y = RNG.normal(size=(6, 4, 4, 8))
    model, apart = pooled(), pooled()
    for samples in (6, 2, 6):
        model.train_on_batch(X[:samples], y[:samples])
        with fusion.disabled():
            apart.train_on_batch(X[:samples], y[:samples])
        assert_same_weights(model, apart)


@planned
def test_a_thread_makes_all_that_lies_in_its_own_memory_before_it_reads_it():
    model = pooled(layers.DepthwiseConv2D(3), layers.LeakyReLU(), layers.MaxPool(2))
    ((_, plan),) = model.plan(6, training=True).plans
    for group in plan.schedule.groups:
        for track in group:
            local, made = {buffer.number for buffer in track.local}, set()
            for step in track.steps:
                assert {buffer.number for buffer in step.inputs} & local <= made
                made.update(buffer.number for buffer in step.outputs)


def test_a_model_that_only_reshapes_runs_there_and_back_and_trains():
    model = Sequential([Input((8, 8, 3)), layers.Flatten(), layers.Reshape((3, 64))])
    y = model.forward(X, training=True)
    np.testing.assert_array_equal(y, X.reshape(6, 3, 64))
    np.testing.assert_array_equal(model.backward(2 * y), 2 * X)
    model.compile("sgd", "mse", metrics=["mae"])
    assert model.train_on_batch(X, y) == [0, 0]


def test_backward_takes_no_gradient_of_another_shape_than_the_output():
    model = pooled()
    y = model.forward(X, training=True)
    model.backward(y)
    for wrong in (y[:2], y[:, :1], y.reshape(6, -1)):
        with pytest.raises(ValueError, match="dy must have the shape of the output"):
            model.backward(wrong)


@planned
def test_a_plan_is_shown_whose_work_depends_on_the_samples():
    model = pooled(layers.Flatten(), layers.Dense(3))
    assert "MFLOP" in str(model.plan(4)) + str(model.plan(4, training=True))


@planned
def test_the_table_names_the_layer_that_each_stage_is_of():
    residual = layers.Residual([layers.Conv2D(3, 1, name="inner")], name="outer")
    model = Sequential([Input((8, 8, 3)), residual, layers.Flatten(), layers.Dense(2, "softmax", name="top")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    rows = [line.split()[:2] for line in str(model.plan(4, training=True)).splitlines()]
    assert ["add", "outer"] in rows
    assert ["add", "inner"] not in rows
    assert ["sparse_crossentropy_of_logits", "sparse_categorical_crossentropy"] in rows


class Mine(layers.Layer):
    """A layer that runs in Python."""

    def forward(self, x, training=False):
        return x

    def backward(self, dy):
        return dy


@planned
def test_the_table_of_a_step_in_python_has_no_activation_that_the_loss_leaves_out():
    model = Sequential([Input((8, 8, 3)), Mine(), layers.Flatten(), layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert "softmax" in str(model.plan(4))
    assert "softmax" not in str(model.plan(4, training=True))


@pytest.mark.parametrize("axis", [0, (0, 1), -2])
def test_a_softmax_along_the_samples_runs_by_itself(axis):
    model = Sequential([Input((5,)), layers.Dense(3), layers.Softmax(axis=axis), layers.Dense(2)])
    x = X.reshape(6, -1)[:, :5]
    y, dx = model.forward(x, training=True), model.backward(np.ones((6, 2), np.float32))
    with cnnlite.reference_mode():
        np.testing.assert_allclose(y, model.forward(x, training=True), atol=1e-6)
        np.testing.assert_allclose(dx, model.backward(np.ones((6, 2), np.float32)), atol=1e-6)
    np.testing.assert_allclose(y, model(x), atol=1e-6)


def test_a_loss_that_is_changed_after_compile_counts_as_it_is_now():
    x, y = X.reshape(6, -1)[:, :4], RNG.normal(size=(6, 2))
    found = []
    for deltas in ([1.0, 0.01], [0.01]):
        cnnlite.utils.set_random_seed(1)
        model = Sequential([Input((4,)), layers.Dense(2)])
        model.compile(cnnlite.optimizers.SGD(0.0), losses.Huber())
        for delta in deltas:
            model.loss.delta = delta
            found.append(model.train_on_batch(x, y))
    assert found[1] == found[2] != found[0]


def test_a_regularizer_that_moves_to_another_layer_is_seen():
    x, y = X.reshape(6, -1)[:, :4], RNG.normal(size=(6, 4))
    model = Sequential([Input((4,)), layers.Dense(4, kernel_regularizer=regularizers.L2(1.0)), layers.Dense(4)])
    model.compile(cnnlite.optimizers.SGD(0.0), "mse")
    lower, upper = model.layers
    loss = model.train_on_batch(x, y) - float((lower.kernel**2).sum())
    upper.regularizers["kernel"] = lower.regularizers.pop("kernel")
    assert model.train_on_batch(x, y) == pytest.approx(loss + float((upper.kernel**2).sum()), abs=1e-5)


class Doubling(layers.Layer):
    def forward(self, x, training=False):
        return 2 * x

    def backward(self, dy):
        return 2 * dy


@planned
def test_a_model_of_many_segments_makes_no_plan_twice():
    model = Sequential([Input((4,)), *[kind() for _ in range(20) for kind in (layers.ReLU, Doubling)]])
    x = X.reshape(6, -1)[:, :4]
    model(x)
    first = {id(value) for value in model.memo._found.values()}
    model(x)
    assert {id(value) for value in model.memo._found.values()} == first


@planned
def test_who_found_the_layers_before_a_change_makes_no_plan_for_those_who_come_after():
    x = X.reshape(6, -1)[:, :4]
    model = Sequential([Input((4,)), layers.Dense(4, activation="relu")])
    (before,) = model._units(False)  # as held by a thread in the middle of a pass
    model.layers[0].activation = "tanh"
    model._units(False)
    before.forward(x)
    np.testing.assert_array_equal(model(x), np.asarray(layers.Tanh()(model.forward_logits(x))))


def test_an_error_says_how_many_samples_there_are():
    model = Sequential([Input((4,)), Doubling(), layers.Dense(3)])
    model.layers[0].forward = lambda x, training=False: np.ones((6, 9))
    with pytest.raises(ValueError, match=r"Received: shape=\(6, 9\)"):
        model(np.ones((6, 4)))
    model.layers[0].forward = lambda x, training=False: np.float32(1)
    with pytest.raises(ValueError, match=r"Received: shape=\(\)"):
        model(np.ones((6, 4)))


def test_after_a_pass_that_failed_there_is_nothing_to_go_back_from():
    model = Sequential([Input((4,)), layers.Dense(4), Doubling(), layers.Dense(2)])
    x, dy = X.reshape(6, -1)[:, :4], np.ones((6, 2), np.float32)
    model.compile("sgd", "mse")
    model.train_on_batch(x, dy)
    model.forward(x, training=True)
    model.layers[1].forward = lambda x, training=False: np.ones((6, 5), np.float32)
    with pytest.raises(ValueError, match="must have size 4"):
        model.forward(x, training=True)
    with pytest.raises(ValueError, match="needs a forward pass in training mode"):
        model.backward(dy)


@pytest.mark.parametrize("which", [0, None])
def test_who_puts_a_prepare_on_a_model_gets_arrays_there(which):
    model = Sequential([Input((4,)), Sequential([layers.Dense(4)]), layers.Dense(2)])
    model.compile(cnnlite.optimizers.SGD(0.0), "mse")
    x, y = X.reshape(6, -1)[:, :4], np.ones((6, 2), np.float32)
    doubled = model.predict(2 * x, verbose=0), model.train_on_batch(2 * x, y)
    patched = model if which is None else model.layers[which]
    patched.prepare = lambda x: 2 * np.asarray(type(patched).prepare(patched, x))
    np.testing.assert_array_equal(model(x), doubled[0])
    assert model.train_on_batch(x, y) == doubled[1]


@planned
def test_the_table_says_what_runs_in_bands_and_what_in_python():
    model = Sequential([Input((128, 128, 3)), layers.Conv2D(16, 3), Mine(), layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", "mse")
    with threads(2):
        assert "1 of 8 bands" in str(model.plan(1))
        assert "bands" not in str(model.plan(8))
    assert "in Python: mine (Mine)" in str(model.plan(8))
    assert str(model.plan(8, training=True)).endswith("in Python: mean_squared_error, and the step of sgd")
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match="no plans in eager mode"):
        model.plan(8, training=True)


# Their products read the weights and write the gradients as matrices.
LARGE = [((4, 4, 1024), {"filters": 256, "kernel_size": 1}),
         ((9, 9, 17), {"filters": 256, "kernel_size": 5, "strides": 2, "padding": "same"}),
         ((8, 8, 64), {"filters": 256, "kernel_size": 5, "strides": 2, "padding": "same"})]


def large(shape, settings, **more):
    cnnlite.utils.set_random_seed(3)
    model = Sequential([Input(shape), layers.Conv2D(**settings, **more), layers.GlobalAveragePool(), layers.Dense(3)])
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize(("shape", "settings"), LARGE)
def test_the_weights_of_a_large_convolution_are_those_that_training_has_made(shape, settings):
    x, y = RNG.normal(size=(5, *shape)).astype(np.float32), RNG.normal(size=(5, 3)).astype(np.float32)
    model, fresh = large(shape, settings), large(shape, settings)
    model.predict(x, verbose=0)
    dy = RNG.normal(size=(5, 3)).astype(np.float32)
    model.forward(x, training=True)
    model.backward(dy)
    model.fit(x, y, epochs=2, verbose=0)
    fresh.set_weights(model.get_weights())
    np.testing.assert_array_equal(model.predict(x, verbose=0), fresh.predict(x, verbose=0))
    for each in (model, fresh):
        each.params["conv2d/kernel"][...] *= 2
    found = []
    for each in (model, fresh):
        each.forward(x, training=True)
        found.append((each.backward(dy), each.grads["conv2d/kernel"].copy()))
    for mine, theirs in zip(*found):
        np.testing.assert_array_equal(mine, theirs)


@planned
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("shape", "settings"), LARGE)
def test_the_penalty_of_a_large_convolution_is_added_to_its_gradient(shape, settings, count):
    x, y = RNG.normal(size=(2, *shape)).astype(np.float32), RNG.normal(size=(2, 3)).astype(np.float32)
    gradients = []
    for penalty in (None, regularizers.L2(0.5)):
        model = large(shape, settings, kernel_regularizer=penalty)
        weights = model.params["conv2d/kernel"].copy()
        with threads(count):
            model.train_on_batch(x, y)
        gradients.append(model.grads["conv2d/kernel"].copy())
    np.testing.assert_allclose(gradients[1] - gradients[0], weights, rtol=1e-4, atol=1e-6)
