"""find_nonfinite names what turned bad first, and TerminateOnNaN ends a fit before it costs the weights."""

import copy
import pickle

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import LambdaCallback, TerminateOnNaN
from cnnlite.initializers import Constant
from cnnlite.optimizers import SGD
from cnnlite.utils import find_nonfinite


def images(n=4):
    return np.random.default_rng(0).normal(size=(n, 6, 6, 1)).astype(np.float32), np.arange(n) % 3


def model(**compiled):
    cnnlite.utils.set_random_seed(0)
    block = cnnlite.Sequential([layers.BatchNorm(), layers.ReLU(), layers.MaxPool()], name="block")
    net = cnnlite.Sequential([
        cnnlite.Input((6, 6, 1)),
        layers.Conv2D(2, 3, name="conv"),
        block,
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(3, activation="softmax", name="dense"),
    ])
    net.compile(**{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", **compiled})
    return net


class Spoil(layers.Layer):
    """y = x, with a number of the output or of the gradient spoilt."""

    def __init__(self, where, value=np.nan, **arguments):
        super().__init__(**arguments)
        self.where, self.value = where, value

    def forward(self, x, training=False):
        return self._pass(self.prepare(x), "forward")

    def backward(self, dy):
        return self._pass(dy, "backward")

    def _pass(self, x, where):
        x = x.copy()
        if self.where == where:
            x.flat[-1] = self.value
        return x


def with_spoiler(where, value=np.nan):
    net = cnnlite.Sequential([
        cnnlite.Input((3,)), layers.Dense(4, name="low"), Spoil(where, value, name="spoiler"),
        layers.Dense(2, name="high"),
    ])
    net.compile("sgd", "mse")
    return net


def test_none_where_all_is_finite():
    x, y = images()
    assert find_nonfinite(model(), x) is None
    assert find_nonfinite(model(), x, y, sample_weight=[1, 2, 0, 1e30]) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bad_input_and_bad_targets(value):
    x, y = images()
    x[2, 1, 3, 0] = value
    found = find_nonfinite(model(), x, y)
    assert (found.kind, found.layer, found.index, found.count, found.size) == ("input", None, (2, 1, 3, 0), 1, x.size)
    np.testing.assert_equal(found.value, value)
    net = with_spoiler("")
    found = find_nonfinite(net, np.ones((2, 3)), [[0, 0], [0, value]])
    assert (found.kind, found.index) == ("target", (1, 1))


def test_the_lowest_of_several_bad_weights():
    x, y = images()
    net = model()
    net.get_layer("dense").bias = [0, np.inf, 0]
    assert str(find_nonfinite(net, x, y)) == "the weight dense/bias is inf at [1], 1 of 3 not finite"
    net.get_layer("block").layers[0].gamma = [0, np.nan]
    for found in (find_nonfinite(net, x, y), find_nonfinite(net, x)):
        assert (found.kind, found.layer, found.name) == ("weight", "block/batch_norm", "gamma")


def test_a_bad_moving_average_counts_where_it_is_used():
    x, y = images()
    net = model()
    norm = net.get_layer("block").layers[0]
    norm.moving_variance = [1, np.nan]
    assert find_nonfinite(net, x).name == "moving_variance"
    assert find_nonfinite(net, x, y) is None
    norm.trainable = False
    assert find_nonfinite(net, x, y).name == "moving_variance"


def test_the_layer_whose_output_turned_bad():
    found = find_nonfinite(with_spoiler("forward"), np.ones((2, 3)))
    assert (found.kind, found.layer, found.index) == ("output", "spoiler", (1, 3))
    assert str(found) == "the output of spoiler is nan at [1, 3], 1 of 8 not finite"


def test_weights_that_are_finite_but_too_large_are_found_by_the_output():
    x, y = images()
    net = model()
    net.get_layer("conv").kernel = np.full((3, 3, 1, 2), 1e38)
    found = find_nonfinite(net, 1e20 * x, y)
    assert (found.kind, found.layer) == ("output", "conv")


def test_the_loss_the_penalty_and_the_gradients():
    x = np.ones((2, 3))
    found = find_nonfinite(with_spoiler("forward", 1e30), x, np.zeros((2, 2)))
    assert str(found) == "the loss is inf"
    net = with_spoiler("backward")
    found = find_nonfinite(net, x, np.zeros((2, 2)))
    assert str(found) == "the gradient that spoiler returned is nan at [1, 3], 1 of 8 not finite"
    net.get_layer("low").trainable = False  # and nobody needs that gradient
    assert find_nonfinite(net, x, np.zeros((2, 2))) is None
    net = with_spoiler("backward", 1e30)
    found = find_nonfinite(net, np.array([[1e30, 0, 0], [1e30, 0, 0]]), np.zeros((2, 2)))
    assert (found.kind, found.layer, found.name) in {("loss", None, None), ("gradient", "low", "kernel")}
    net = cnnlite.Sequential([layers.Dense(2, kernel_regularizer="l2", name="only", input_shape=(1,))])
    net.compile("sgd", "mse")
    net.get_layer("only").kernel = [[1e30, 0]]
    assert str(find_nonfinite(net, [[0.0]], [[0.0, 0.0]])) == "the penalty on only/kernel is inf"


def test_the_gradient_by_a_weight():
    net = cnnlite.Sequential([cnnlite.Input((1,)), layers.Dense(1, name="low"), layers.Dense(1, name="high")])
    net.compile("sgd", "mae")
    net.set_weights([[[1e-20]], [0], [[1e20]], [0]])
    assert find_nonfinite(net, [[1e15]], [[0.0]]) is None
    net.set_weights([[[1e-30]], [0], [[1e30]], [0]])
    found = find_nonfinite(net, [[1e30]], [[0.0]])
    assert str(found) == "the gradient of the weight low/kernel is inf at [0, 0], 1 of 1 not finite"


def residual_net(body=(), shortcut=(), low=()):
    """Return a model with a Residual, with layers put into its branches and below it."""
    net = cnnlite.Sequential([
        cnnlite.Input((3,)), *low, layers.Residual(
            [layers.Dense(3, name="dense"), *body, layers.Dropout(0.5), layers.BatchNorm(name="norm")],
            [layers.Linear(), *shortcut], name="block"),
        layers.Dense(2, name="head"),
    ])
    net.compile("sgd", "mse")
    return net


def test_inside_a_residual_the_layer_is_named_and_so_is_a_sum_that_is_too_large():
    x, y = np.random.default_rng(0).normal(size=(4, 3)), np.ones((4, 2))
    assert find_nonfinite(residual_net(), x) is None
    assert find_nonfinite(residual_net(), x, y) is None
    for place in ("body", "shortcut"):
        found = find_nonfinite(residual_net(**{place: [Spoil("forward", name="spoiler")]}), x, y)
        assert (found.kind, found.layer) == ("output", f"block/{place}/spoiler")
        # What lies below needs the gradient of both branches.
        spoilt = {place: [Spoil("backward", np.inf, name="spoiler")], "low": [layers.Dense(3)]}
        found = find_nonfinite(residual_net(**spoilt), x, y)
        assert (found.kind, found.layer, found.name) == ("gradient", f"block/{place}/spoiler", None)
    # Nobody needs the gradient of a branch without weights at the bottom.
    assert find_nonfinite(residual_net(shortcut=[Spoil("backward")]), x, y) is None
    net = residual_net()
    net.layers[0].body.get_layer("norm").gamma = [0, np.nan, 0]
    assert str(find_nonfinite(net, x)) == "the weight block/body/norm/gamma is nan at [1], 1 of 3 not finite"
    net = cnnlite.Sequential([layers.Residual(layers.Linear(), name="block"), layers.Rescaling(0.0)])
    found = find_nonfinite(net, net(np.ones((1, 1))) + 3e38)
    assert (found.kind, found.layer) == ("output", "block")


def test_the_model_is_left_as_it_was():
    x, y = images()
    net = model()
    net.train_on_batch(x, y)
    net.forward(x, training=True)
    before = pickle.dumps(net), [layer._memory for layer in net.walk()]
    assert find_nonfinite(net, x, y) is None
    assert pickle.dumps(net) == before[0]
    assert all(layer._memory is memory for layer, memory in zip(net.walk(), before[1]))


def test_data_that_does_not_fit_is_refused():
    x, _ = images()
    with pytest.raises(ValueError, match="must have the shape"):
        find_nonfinite(model(), x[..., 0])
    with pytest.raises(ValueError, match="compiled"):
        find_nonfinite(cnnlite.Sequential([layers.Dense(1)]), np.ones((1, 1)), np.ones((1, 1)))


# TerminateOnNaN.


def spoiling_at(step, net, spoil):
    """Return a callback that calls spoil() before a step, and one that keeps what the model was before each step."""
    kept = []

    def begin(batch, logs):
        if net.optimizer.iterations == step:
            spoil()
        kept.append((copy.deepcopy(net.get_weights()), [layer.random.state for layer in net.walk()
                                                         if hasattr(layer, "random")]))

    return LambdaCallback(on_train_batch_begin=begin), kept


@pytest.mark.parametrize("raise_error", [False, True])
def test_training_ends_before_the_step_and_names_the_layer(raise_error, capsys):
    x, y = images(12)
    x = np.abs(x)  # of both signs, it would depend on the order of a sum which infinity it ends at
    net = model()

    def spoil():
        net.get_layer("conv").kernel[...] = 1e38

    spoiler, kept = spoiling_at(4, net, spoil)
    callbacks = [spoiler, TerminateOnNaN(raise_error)]
    named = "First non-finite: the output of conv is inf at"
    arguments = dict(batch_size=4, epochs=5, verbose=0, callbacks=callbacks)
    if raise_error:
        with pytest.raises(RuntimeError, match=rf"the loss is nan after batch 1\. Training stops here\. {named}"):
            net.fit(1e3 * x, y, **arguments)
    else:
        history = net.fit(1e3 * x, y, **arguments)
        assert f"Batch 1: the loss is nan, training stops. {named}" in capsys.readouterr().out
        assert len(history.epoch) == 2
    assert net.optimizer.iterations == 4
    weights, random_states = kept[-1]
    for mine, expected in zip(net.get_weights(), weights):
        np.testing.assert_array_equal(mine, expected)
    assert [layer.random.state for layer in net.walk() if hasattr(layer, "random")] == random_states
    assert net.training_run is None


def test_a_gradient_that_is_not_finite_ends_it_though_the_loss_is(capsys):
    net = with_spoiler("backward")
    before = net.get_weights()
    net.fit(np.ones((4, 3)), np.zeros((4, 2)), epochs=3, verbose=0, callbacks=[TerminateOnNaN()])
    assert "Batch 0: a gradient is not finite, training stops. First non-finite: the gradient that spoiler returned " \
        "is nan at [3, 3], 1 of 16 not finite." in capsys.readouterr().out
    assert net.optimizer.iterations == 0
    for mine, expected in zip(net.get_weights(), before):
        np.testing.assert_array_equal(mine, expected)


def test_large_finite_gradients_whose_sum_is_infinite_are_not_refused():
    net = cnnlite.Sequential([layers.Dense(1, use_bias=False, kernel_initializer=Constant(0.2), input_shape=(2,))])
    net.compile(SGD(0.0), "mae")
    net.fit(np.array([[3e38, 3e38], [3e38, 3e38]]), np.zeros((2, 1)), epochs=3, batch_size=1, verbose=0,
            callbacks=[TerminateOnNaN()])
    assert net.optimizer.iterations == 6


def test_a_healthy_fit_has_the_same_bits_with_it():
    x, y = images(12)
    results = []
    for callbacks in ([], [TerminateOnNaN()]):
        net = model()
        net.fit(x, y, batch_size=5, epochs=3, verbose=0, shuffle=False, callbacks=callbacks)
        results.append(np.concatenate([array.ravel() for array in net.get_weights()]).tobytes())
    assert results[0] == results[1]
