"""Eager mode: the same numbers from reference.py, layer after layer, so that a debugger stops in every line."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import cnnlite
from cnnlite import check_gradients, fusion, layers, optimizers, reference
from cnnlite.eager import is_eager
from cnnlite.models import clone_model
from tests.kernels.drawn import compiled_kernels_needed

N = 12


def make(dtype="float32", **arguments):
    """Return a model with one layer of most kinds, some of which run as one."""
    cnnlite.utils.set_random_seed(3)
    stack = [
        layers.Conv2D(4, 3, activation="relu"), layers.MaxPool(), layers.SpatialDropout2D(0.25),
        layers.DepthwiseConv2D(2, padding="same"), layers.BatchNorm(), layers.LeakyReLU(), layers.ZeroPadding2D(1),
        layers.Residual([layers.Conv2D(8, 1), layers.ReLU()], shortcut=layers.Conv2D(8, 1)),
        layers.Conv2D(16, 3), layers.BatchNorm(), layers.ReLU(), layers.AveragePool(2, padding="same"),
        layers.Rescaling(2.0), layers.Activation("gelu"), layers.Flatten(), layers.Dropout(0.5),
        layers.Dense(8, activation="tanh", kernel_regularizer="l2"), layers.Dense(3, activation="softmax"),
    ]
    for layer in stack:
        layer.dtype = dtype
    model = cnnlite.Sequential([cnnlite.Input((10, 9, 2)), *stack])
    model.compile(optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"], **arguments)
    return model


def data(dtype="float32"):
    generator = np.random.default_rng(0)
    return generator.normal(size=(N, 10, 9, 2)).astype(dtype), generator.integers(0, 3, N)


def result_of(model):
    """Return what a training comes to: the history, an evaluation, predictions and weights, in bytes that compare."""
    x, y = data(model.dtype)
    history = model.fit(x, y, batch_size=5, epochs=2, verbose=0, shuffle=False).history
    scores = model.evaluate(x, y, verbose=0)
    return history, scores, model.predict(x, verbose=0).tobytes(), [array.tobytes() for array in model.get_weights()]


def test_the_three_ways_into_it_are_the_same():
    by_compile = result_of(make(run_eagerly=True))
    with cnnlite.reference_mode():
        in_a_context = result_of(make())
    assert in_a_context == by_compile
    program = "from tests.test_eager import *; print(repr(result_of(make())[:2]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env={**os.environ, "CNNLITE_KERNELS": "reference"})
    assert done.stdout.strip() == repr(by_compile[:2])


@compiled_kernels_needed
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-10)])
def test_each_layer_agrees_with_its_compiled_kernels_on_equal_input(dtype, tolerance):
    model = make(dtype)
    y, _ = data(dtype)
    for layer in model.layers:
        randoms = layer.random.state if hasattr(layer, "random") else None
        compiled = layer(y, training=True)
        dy = np.random.default_rng(1).normal(size=compiled.shape).astype(dtype)
        expected = [compiled, layer.backward(dy), *(array.copy() for array in layer.grads.values())]
        if randoms is not None:
            layer.random.state = randoms
        with cnnlite.reference_mode():
            eager = layer(y, training=True)
            found = [eager, layer.backward(dy), *layer.grads.values()]
        for mine, other in zip(found, expected, strict=True):
            assert mine.dtype == other.dtype
            assert np.abs(mine - other).max() <= tolerance * max(1, np.abs(other).max()), layer.name
        y = compiled


@compiled_kernels_needed
def test_twenty_steps_end_where_compiled_ones_do():
    x, y = data("float64")
    weights = []
    for eager in (True, False):
        model = make("float64", run_eagerly=eager)
        for _ in range(20):
            model.train_on_batch(x, y)
        weights.append(model.get_weights())
    for mine, other in zip(*weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-7, atol=1e-7)


def test_a_profiler_sees_every_layer_and_the_definitions():
    model = make(run_eagerly=True)
    x, y = data()
    seen = set()

    def note(frame, event, argument):
        if event == "call":
            seen.add((frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name, id(
                frame.f_locals.get("self"))))

    sys.setprofile(note)
    try:
        model.fit(x, y, batch_size=N, verbose=0)
    finally:
        sys.setprofile(None)
    names = {name for name, _ in seen}
    assert {"conv2d", "conv2d_backward", "max_pool", "matmul", "adam_step"} <= names
    assert reference.conv2d.__code__.co_filename.endswith("reference.py")
    in_another = {id(layer.activation) for layer in model.layers if isinstance(layer, layers.Activation)}
    for layer in model.walk():
        if layer is not model and id(layer) not in in_another:  # of that, `function` and `gradient` are called
            passes = {name.rsplit(".", 1)[-1] for name, owner in seen if owner == id(layer)}
            assert {"forward", "backward"} <= passes, layer.name


@compiled_kernels_needed
def test_the_mode_ends_with_its_context_and_is_that_of_its_thread():
    modes = []

    def fail():
        with cnnlite.reference_mode():
            thread = threading.Thread(target=lambda: modes.append(is_eager()))
            thread.start()
            thread.join()
            with cnnlite.reference_mode():
                pass
            modes.extend([is_eager(), fusion.is_on()])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert modes == [False, True, False]
    assert not is_eager()
    assert fusion.is_on()


@compiled_kernels_needed
def test_only_the_model_that_runs_eagerly_does_so():
    eager, other = make(run_eagerly=True), make()
    modes = []

    class Ask(cnnlite.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            modes.append(is_eager())
            other.predict(data()[0], verbose=0)

    class Loss(cnnlite.losses.MeanSquaredError):
        def forward(self, y_true, y_pred):
            modes.append(is_eager())
            return super().forward(y_true, y_pred)

    eager.compile("sgd", Loss(), run_eagerly=True)
    x, _ = data()
    eager.fit(x, np.zeros((N, 3)), batch_size=N, verbose=0, callbacks=[Ask()])
    assert modes == [True, False]


def test_it_is_kept_in_files_and_copies(path):
    model = make(run_eagerly=True)
    model.save(path)
    assert cnnlite.load_model(path).run_eagerly
    assert clone_model(model).run_eagerly
    model.run_eagerly = False
    assert not model.run_eagerly
    with pytest.raises(TypeError, match="run_eagerly must be True or False"):
        model.compile("sgd", "mse", run_eagerly="yes")
    assert model.loss.name == "sparse_categorical_crossentropy"


def test_gradients_are_those_of_finite_differences():
    with cnnlite.reference_mode():
        model = cnnlite.Sequential([layers.Conv2D(2, 2, activation="tanh"), layers.Flatten(), layers.Dense(2)])
        assert check_gradients(model, np.random.default_rng(0).normal(size=(2, 4, 4, 1))).ok
