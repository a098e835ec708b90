"""What plans guarantee: the numbers of eager mode, the same bits however they run, and that they see every change."""

import copy
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnlite
from cnnlite import fusion, layers
from tests.helpers.drawn_nets import SHAPE, net, nets
from tests.helpers.fused import (
    arrays_of,
    assert_fused_is_unfused,
    assert_same_bits,
    everything,
    normal,
    plans_of,
    randomise,
)
from tests.kernels.drawn import compiled_kernels_needed, threads, two_threads_needed


def data(n, dtype="float32", seed=0):
    return normal(n, *SHAPE, seed=seed, dtype=dtype), np.arange(n) % 3


def trained(model, n, steps=3):
    """Return the losses of some training steps of a copy, and its final arrays."""
    model = copy.deepcopy(model)
    model.compile(cnnlite.optimizers.SGD(0.01, momentum=0.5), "sparse_categorical_crossentropy")
    x, y = data(n, model.dtype)
    losses = [model.train_on_batch(x, y) for _ in range(steps)]
    return {"losses": np.array(losses), **arrays_of(model)}


def assert_close(mine, expected, tolerance):
    assert mine.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(mine[name], array, rtol=0, atol=tolerance * max(1, np.abs(array).max(initial=0)),
                                   err_msg=name)


# Nets of all layers in any order.


@settings(max_examples=25, deadline=None)
@given(nets, st.integers(3, 9), st.integers(0, 99))
def test_a_plan_agrees_with_eager_mode(specs, n, seed):
    model = net(specs, "float64")
    randomise(model, seed)
    x, _ = data(n, "float64", seed)
    dy = normal(n, 3, seed=seed, dtype="float64")
    planned, steps = everything(model, x, dy), trained(model, n)
    with cnnlite.reference_mode():
        assert_close(planned, everything(model, x, dy), 1e-10)
        assert_close(steps, trained(model, n), 1e-7)


@settings(max_examples=25, deadline=None)
@given(nets, st.integers(1, 19), st.integers(0, 99))
@compiled_kernels_needed
def test_a_net_has_the_same_bits_joined_or_not_and_layer_by_layer(specs, n, seed):
    model = net(specs)
    randomise(model, seed)
    assert_fused_is_unfused(model, data(n, seed=seed)[0])
    steps = trained(model, n)
    with fusion.disabled():
        assert_same_bits(trained(model, n), steps)


@settings(max_examples=20, deadline=None)
@given(nets, st.integers(0, 99))
@compiled_kernels_needed
def test_a_sample_has_the_same_bits_in_every_batch(specs, seed):
    model = net(specs)
    randomise(model, seed)
    x, _ = data(18, seed=seed)
    y = model(x)
    for first, last in [(0, 1), (17, 18), (3, 5), (2, 9), (1, 18)]:
        np.testing.assert_array_equal(model(x[first:last]), y[first:last])


@settings(max_examples=10, deadline=None)
@given(nets, st.integers(1, 40), st.integers(0, 99))
@two_threads_needed
@compiled_kernels_needed
def test_a_net_has_the_same_bits_by_one_thread_and_by_two(specs, n, seed):
    model = net(specs, shape=(SHAPE[0] * 3, SHAPE[1] * 3, SHAPE[2]), top=False)
    randomise(model, seed)
    x = normal(n, SHAPE[0] * 3, SHAPE[1] * 3, SHAPE[2], seed=seed)
    dy = normal(*model.compute_output_shape(x.shape), seed=seed)
    with threads(1):
        expected = everything(model, x, dy)
    with threads(2):
        assert_same_bits(everything(model, x, dy), expected)


# One plan with many concurrent users, and changes to its model.


def small(seed=0):
    cnnlite.utils.set_random_seed(seed)
    model = cnnlite.Sequential([
        cnnlite.Input(SHAPE), layers.Conv2D(8, 3, activation="relu"), layers.BatchNorm(),
        layers.Residual([layers.DepthwiseConv2D(3, padding="same"), layers.ReLU()]), layers.MaxPool(),
        layers.Flatten(), layers.Dense(3, "softmax"),
    ])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@compiled_kernels_needed
def test_one_plan_is_run_by_eight_threads_at_once():
    model, together, failures = small(), threading.Barrier(8), []
    inputs = [data(n, seed=n)[0] for n in (1, 2, 3, 5, 8, 17, 33, 64)]
    expected = [small()(x) for x in inputs]

    def ask(first):
        together.wait()
        for i in range(30):
            k = (first + i) % 8
            if not np.array_equal(model(inputs[k]), expected[k]):
                failures.append((first, i))

    workers = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert len(plans_of(model)) == 1


def load(model, tmp_path):
    other = small(seed=5)
    other.save_weights(tmp_path / "weights.safetensors")
    model.load_weights(tmp_path / "weights.safetensors")


def by_another_model(model, tmp_path):
    other = cnnlite.Sequential([cnnlite.Input(SHAPE), model.layers[0], layers.Flatten(), layers.Dense(3)])
    other.compile(cnnlite.optimizers.SGD(0.5), "mse")
    other.train_on_batch(data(4)[0], np.ones((4, 3)))


def by_its_vector(model, tmp_path):
    model.parameters().vector[...] *= 1.5


def by_the_vector_of_another_model(model, tmp_path):
    other = cnnlite.Sequential([cnnlite.Input(SHAPE), model.layers[0]])
    other.parameters().vector[...] *= 1.5


WAYS = {
    "in place": lambda model, _: np.multiply(kernel := model.layers[0].kernel, 2, out=kernel),
    "one number": lambda model, _: model.layers[0].params["kernel"].__setitem__((1, 1, 0, 3), 2.0),
    "assignment": lambda model, _: setattr(model.layers[0], "kernel", -model.layers[0].kernel),
    "update": lambda model, _: model.layers[0].params.update(bias=np.ones(8)),
    "set_weights": lambda model, _: model.set_weights([array * 2 for array in model.get_weights()]),
    "set_weights of a layer": lambda model, _: model.layers[1].set_weights(
        [array + 1 for array in model.layers[1].get_weights()]),
    "weights": lambda model, _: np.add(model.weights[0], 1, out=model.weights[0]),
    "state": lambda model, _: np.add(array := model.state["batch_norm/moving_mean"], 1, out=array),
    "load_weights": load,
    "training": lambda model, _: model.train_on_batch(*data(4)),
    "fit": lambda model, _: model.fit(*data(4), verbose=0),
    "a training pass, of moving averages": lambda model, _: model.forward(data(4)[0], training=True),
    "another model's training": by_another_model,
    "the vector of parameters": by_its_vector,
    "another model's vector": by_the_vector_of_another_model,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("handed_out", [False, True])
def test_a_change_of_a_weight_is_seen(way, handed_out, tmp_path):
    model = small()
    if handed_out:
        assert len(model.weights) == len(model.get_weights())
    x, y = data(5)
    for _ in range(2):
        before = model(x)
        model.forward(x, training=True)
        model(x)
        before = model(x)
        WAYS[way](model, tmp_path)
        after = model(x)
        assert not np.array_equal(before, after)
        with cnnlite.reference_mode():
            np.testing.assert_allclose(after, model(x), rtol=1e-4, atol=1e-6)
        twin = copy.deepcopy(model)
        assert model.train_on_batch(x, y) == twin.train_on_batch(x, y)
        np.testing.assert_array_equal(model(x), twin(x))


def test_views_that_were_taken_before_are_seen_to_change():
    model = small()
    views = [model.layers[0].kernel[0], model.layers[-1].params["bias"][1:], model.layers[1].state["moving_mean"][:2]]
    x, _ = data(5)
    for view in views:
        before = model(x)
        view[...] += 1
        after = model(x)
        assert not np.array_equal(before, after)
        np.testing.assert_array_equal(after, copy.deepcopy(model)(x))


class Keeping(cnnlite.optimizers.SGD):
    """Keeps a reference to the weights, like an optimizer that averages them."""

    def step(self, parameters):
        vars(self)["kept"] = parameters.vector
        super().step(parameters)


class KeepingPenalty(cnnlite.regularizers.Regularizer):
    """A zero penalty that keeps a reference to the weights."""

    def __call__(self, weights):
        self.kept = weights
        return 0.0

    def gradient(self, weights):
        return np.zeros_like(weights)


@pytest.mark.parametrize("kind", [Keeping, KeepingPenalty])
def test_what_a_users_optimizer_or_penalty_kept_is_seen_to_change(kind):
    model, keeper = small(), kind()
    if kind is Keeping:
        model.optimizer = keeper
    else:
        model.layers[0].kernel_regularizer = keeper
    x, y = data(5)
    model.fit(x, y, verbose=0)
    before = model(x)
    keeper.kept[...] *= 2
    after = model(x)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, copy.deepcopy(model)(x))


@compiled_kernels_needed
def test_what_happens_to_other_layers_leaves_a_models_plans():
    model, other = small(), small()
    x, y = data(5)
    for each in (model, other):
        each(x)
        each.train_on_batch(x, y)
    plans = plans_of(model)
    assert sorted(key[0] for key in plans) == ["inference", "step"]
    made = layers.Conv2D(3, 3)
    made.filters = 4
    del made
    other.layers[0].strides = 2
    other.layers[1].trainable = False
    other.pop()
    del other
    cnnlite.activations.softmax(model(x))
    assert plans_of(model) == plans
    model.layers[1].epsilon = 0.5
    assert not plans_of(model)


# Overridden methods.


class CalledError(Exception):
    """Raised to show that a method was called."""


def raising(*arguments, **named):
    raise CalledError


def conv_images(layer):
    return [layers.Conv2D(4, 3), layer, layers.Flatten(), layers.Dense(3)]


def rows(layer):
    return [layers.Flatten(), layers.Dense(4), layer, layers.Flatten(), layers.Dense(3)]


KINDS = {
    "Conv2D": (conv_images, lambda: layers.Conv2D(3, 2, activation="relu")),
    "DepthwiseConv2D": (conv_images, lambda: layers.DepthwiseConv2D(2, activation="tanh")),
    "Dense": (rows, lambda: layers.Dense(4, activation="sigmoid")),
    "BatchNorm": (conv_images, lambda: layers.BatchNorm()),
    "MaxPool": (conv_images, lambda: layers.MaxPool()),
    "AveragePool": (conv_images, lambda: layers.AveragePool()),
    "GlobalMaxPool": (conv_images, lambda: layers.GlobalMaxPool(keepdims=True)),
    "GlobalAveragePool": (conv_images, lambda: layers.GlobalAveragePool(keepdims=True)),
    "ZeroPadding2D": (conv_images, lambda: layers.ZeroPadding2D(1)),
    "Rescaling": (conv_images, lambda: layers.Rescaling(2.0)),
    "Reshape": (conv_images, lambda: layers.Reshape((-1, 2))),
    "Flatten": (conv_images, lambda: layers.Flatten()),
    "Dropout": (conv_images, lambda: layers.Dropout(0.5)),
    "SpatialDropout2D": (conv_images, lambda: layers.SpatialDropout2D(0.5)),
    "Residual": (conv_images, lambda: layers.Residual([layers.ReLU()])),
    "Activation": (rows, lambda: layers.Activation("tanh")),
    **{name: (rows, getattr(layers, name)) for name in (
        "ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Softmax", "LogSoftmax", "Linear", "Sigmoid", "Softplus", "Tanh")},
}


def called(layer, run):
    """Return the names of a layer's methods that are called, by itself or others, in a run in eager mode."""
    names = set()

    def note(frame, event, _):
        if event == "call" and frame.f_locals.get("self") is layer:
            names.add(frame.f_code.co_name)

    with cnnlite.reference_mode():
        sys.setprofile(note)
        try:
            run()
        finally:
            sys.setprofile(None)
    return {name for name in names if callable(getattr(type(layer), name, None)) and not name.startswith("__")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_that_is_put_on_a_layer_or_its_class_is_called(kind, monkeypatch):
    stack, make = KINDS[kind]
    layer = make()
    model = cnnlite.Sequential([cnnlite.Input(SHAPE), *stack(layer)])
    model.compile("sgd", "mse")
    x, y = data(3)[0], np.zeros((3, 3), "float32")
    runs = {"inference": lambda: model(x), "training": lambda: model.train_on_batch(x, y)}
    model.train_on_batch(x, y)
    # Leave out methods that are called only once, such as for the output shape, or that only inspect the layer.
    aside = {"walk", "memos", "named_inner_layers", "named_layers", "commit", "build_once", "compute_output_shape"}
    methods = {mode: called(layer, run) - aside for mode, run in runs.items()}
    assert {"forward"} <= methods["inference"] < methods["training"]
    assert methods["training"] & {"backward", "backward_weights"}
    for mode, run in runs.items():
        for name in sorted(methods[mode]):
            for target in (layer, type(layer)):
                run()  # so that there is a plan
                with monkeypatch.context() as patch:
                    patch.setattr(target, name, raising)
                    for _ in range(2):
                        with pytest.raises(CalledError):
                            run()
    with monkeypatch.context() as patch:  # on the class, before a model exists
        patch.setattr(type(layer), "forward", raising)
        other = cnnlite.Sequential([cnnlite.Input(SHAPE), *stack(make())])
        with pytest.raises(CalledError):
            other(x)
    assert other(x).shape == (3, 3)
