"""A training step as a single plan equals `train_step` layer by layer, whatever has changed since the last step."""

import contextlib
import os
import signal

import numpy as np
import pytest

import cnnlite
from cnnlite import fusion, layers, losses, optimizers
from cnnlite.callbacks import LambdaCallback, TerminateOnNaN
from cnnlite.model.training_step import step_plan
from tests.helpers.models import K, fit, make_data, make_model, weights_of
from tests.kernels.drawn import compiled_kernels_needed

X, Y = make_data()
ONE_HOT = np.eye(K, dtype=np.float32)[Y]


class Own(cnnlite.Sequential):
    """A model with a `train_step` that a plan can't replace, although its layers still run in plans."""

    def train_step(self, x, y, sample_weight=None):
        return super().train_step(x, y, sample_weight)


class OwnLayer(layers.Layer):
    """y = x in Python, so that a new plan has to begin after it."""

    def forward(self, x, training=False):
        return np.array(x)

    def backward(self, dy):
        return np.array(dy)


def stack(way):
    cnnlite.utils.set_random_seed(3)
    model = (Own if way == "train_step" else cnnlite.Sequential)([
        cnnlite.Input((X.shape[1],)), layers.Dense(8, activation="relu"), layers.BatchNorm(),
        *([OwnLayer()] if way == "layer" else []), layers.Dense(8), layers.BatchNorm(), layers.Dense(K),
    ])
    model.compile(optimizers.SGD(0.1, momentum=0.9), losses.SparseCategoricalCrossentropy(from_logits=True),
                  run_eagerly=way == "eager")
    return model


WAYS = ["plan", "unjoined", "eager", "train_step", "layer"]


def mode(way):
    return fusion.disabled() if way == "unjoined" else contextlib.nullcontext()


@compiled_kernels_needed
def test_a_plan_stands_for_a_step_of_the_librarys_own_alone():
    for way in WAYS:
        model = stack(way)
        model._get_ready(X.shape)
        assert (step_plan(model, X, Y, None) is not None) == (way in ("plan", "unjoined", "eager"))
        with cnnlite.reference_mode():
            assert step_plan(model, X, Y, None) is None


# Changes between two steps: (arguments of the model, its labels, the change).
CHANGES = {
    "delta of the loss": ({"loss": losses.Huber(), "activation": None}, ONE_HOT, lambda m: set_(m.loss, delta=0.01)),
    "smoothing": ({"loss": "categorical_crossentropy"}, ONE_HOT, lambda m: set_(m.loss, label_smoothing=0.5)),
    "smoothing of logits": (
        {"loss": losses.CategoricalCrossentropy(from_logits=True), "activation": None}, ONE_HOT,
        lambda m: set_(m.loss, label_smoothing=0.5)),
    "from logits": ({"loss": "sparse_categorical_crossentropy"}, Y, lambda m: set_(m.loss, from_logits=True)),
    "reduction": ({}, Y, lambda m: set_(m.loss, reduction="sum")),
    "reduction of outputs": ({"loss": "mse"}, ONE_HOT, lambda m: set_(m.loss, reduction="sum")),
    "an array in the loss": (
        {"loss": losses.Huber(), "activation": None}, ONE_HOT, lambda m: set_(m.loss, weights=np.ones(3), delta=0.01)),
    "another loss": ({"loss": "mse"}, ONE_HOT, lambda m: set_(m, loss="mae")),
    "another optimizer of the same kind": ({}, Y, lambda m: set_(m, optimizer=optimizers.SGD(0.5))),
    "another optimizer": ({}, Y, lambda m: set_(m, optimizer=optimizers.Adam(0.05))),
    "learning rate": ({"optimizer": "adam"}, Y, lambda m: set_(m.optimizer, learning_rate=0.1)),
    "momentum": ({}, Y, lambda m: set_(m.optimizer, momentum=0.9)),
    "nesterov": ({"optimizer": optimizers.SGD(0.1, 0.9)}, Y, lambda m: set_(m.optimizer, nesterov=True)),
    "amsgrad": ({"optimizer": "adam"}, Y, lambda m: set_(m.optimizer, amsgrad=True, beta_1=0.1)),
    "clipping": ({}, Y, lambda m: set_(m.optimizer, clipnorm=0.01)),
    "decay": ({}, Y, lambda m: set_(m.optimizer, weight_decay=1.0)),
    "a penalty's factor": (
        {"regularizer": cnnlite.regularizers.L2(0.01)}, Y,
        lambda m: set_(m.layers[0].regularizers["kernel"], l2=0.3)),
    "another penalty": (
        {"regularizer": "l2"}, Y, lambda m: m.layers[0].regularizers.update(kernel=cnnlite.regularizers.L1(0.1))),
    "a penalty that goes": (
        {"regularizer": cnnlite.regularizers.L2(0.3)}, Y, lambda m: m.layers[0].regularizers.clear()),
    "a penalty that moves": (
        {"regularizer": cnnlite.regularizers.L2(0.3)}, Y,
        lambda m: m.layers[-1].regularizers.update(kernel=m.layers[0].regularizers.pop("kernel"))),
    "an array in a penalty": (
        {"regularizer": cnnlite.regularizers.L2(0.01)}, Y,
        lambda m: set_(m.layers[0].regularizers["kernel"], l2=np.float32(0.3), note=[1])),
    "a frozen layer": ({}, Y, lambda m: set_(m.layers[0], trainable=False)),
    "weights": ({}, Y, lambda m: m.set_weights([np.full_like(w, 0.25) for w in m.get_weights()])),
    "a weight in place": ({}, Y, lambda m: m.layers[-1].kernel.__imul__(2)),
}


def set_(thing, **values):
    for name, value in values.items():
        setattr(thing, name, value)


@pytest.mark.parametrize("what", CHANGES)
def test_a_step_goes_by_what_has_changed_since_the_one_before(what):
    arguments, y, change = CHANGES[what]
    reached = {}
    for way in "plan", "eager", "as before":
        copied = {name: type(value)(**value.get_config()) if hasattr(value, "get_config") else value
                  for name, value in arguments.items()}
        model = make_model(metrics=(), batchnorm=True, **copied)
        model.run_eagerly = way == "eager"
        values = [model.train_on_batch(X, y) for _ in range(2)]
        if way != "as before":
            change(model)
        values += [model.train_on_batch(X, y) for _ in range(3)]
        reached[way] = np.concatenate([values, weights_of(model)])
    np.testing.assert_allclose(reached["plan"], reached["eager"], rtol=1e-4, atol=1e-5)
    assert np.abs(reached["plan"] - reached["as before"]).max() > 1e-4


@pytest.mark.parametrize("way", WAYS)
def test_a_refused_step_moves_no_averages_and_no_weights(way):
    x = X.copy()
    x[20:] = 3e38  # whose sums are infinite
    model, expected = stack(way), stack("plan")
    fit(expected, x[:20], Y[:20], batch_size=20, shuffle=False)
    with mode(way):
        fit(model, x, Y, batch_size=20, shuffle=False, callbacks=[TerminateOnNaN()])
    assert model.optimizer.iterations == expected.optimizer.iterations == 1
    np.testing.assert_allclose(weights_of(model), weights_of(expected), rtol=2e-5, atol=1e-6)
    with mode(way):
        fit(model, x[:20], Y[:20], batch_size=20, shuffle=False)
    fit(expected, x[:20], Y[:20], batch_size=20, shuffle=False)
    np.testing.assert_allclose(weights_of(model), weights_of(expected), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_averages_move_with_the_optimizers_step_in_each_way(way):
    model, expected = stack(way), stack("plan")
    start = expected.get_weights()
    with mode(way):
        model.fit(X, Y, batch_size=20, shuffle=False, verbose=0)
    expected.fit(X, Y, batch_size=20, shuffle=False, verbose=0)
    np.testing.assert_allclose(weights_of(model), weights_of(expected), rtol=2e-4, atol=1e-5)
    assert not any(np.array_equal(*pair) for pair in zip(model.get_weights(), start))


def test_two_passes_in_a_step_of_ones_own_both_move_the_averages():
    class Twice(cnnlite.Sequential):
        def train_step(self, x, y, sample_weight=None):
            self.forward(x[:20] + 1, training=True)
            return super().train_step(x, y, sample_weight)

    reached = []
    for eager in (False, True):
        cnnlite.utils.set_random_seed(3)
        model = Twice([cnnlite.Input((X.shape[1],)), layers.Dense(8), layers.BatchNorm(), layers.Dense(K)])
        model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=eager)
        for size in (20, 30):  # the shape of the first pass, and another
            model.train_on_batch(X[:size], Y[:size])
        reached.append(weights_of(model))
    np.testing.assert_allclose(*reached, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(os.name == "nt", reason="signals need POSIX")
@pytest.mark.parametrize("way", WAYS)
def test_a_second_ctrl_c_waits_for_the_end_of_the_segment_that_steps(way):
    class Pressing(cnnlite.optimizers.schedules.LearningRateSchedule):
        """A schedule, which is evaluated at the beginning of a plan's run, and of the optimizer's step."""

        presses = False

        def __call__(self, step):
            if self.presses:
                self.presses = False
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            return 0.1

        def get_config(self):
            return {}

    model, expected = stack(way), stack(way)
    schedule = Pressing()
    model.optimizer, expected.optimizer = optimizers.SGD(schedule), optimizers.SGD(Pressing())

    def press(batch, logs=None):
        schedule.presses = batch == 1

    with mode(way):
        with pytest.raises(KeyboardInterrupt):
            fit(model, X, Y, batch_size=10, shuffle=False, callbacks=[LambdaCallback(on_train_batch_begin=press)])
        fit(expected, X[:20], Y[:20], batch_size=10, shuffle=False)
    assert model.optimizer.iterations == 2
    np.testing.assert_array_equal(weights_of(model), weights_of(expected))
