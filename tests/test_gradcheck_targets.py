"""What check_gradients can check: any object with the four parts, layers in layers, random ones, losses and models."""

import numpy as np
import pytest

import cnnlite
from cnnlite.layers import Activation, BatchNorm, Conv2D, Dense, Dropout, Flatten, Layer, MaxPool
from tests.helpers.mistakes import Affine, SquaredError, verdicts

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4))


class Plain:
    """Not a Layer: forward, backward and the two dicts are enough."""

    def __init__(self):
        self.params, self.grads = {"scale": np.array([1.0, 2.0, 3.0, 4.0], np.float32)}, {}

    def forward(self, x, training=False):
        self.x = x
        return x * self.params["scale"]

    def backward(self, dy):
        self.grads["scale"] = (dy * self.x).sum(axis=0)
        return dy * self.params["scale"]


def test_any_object_with_the_four_parts_can_be_checked():
    target = Plain()
    report = cnnlite.check_gradients(target, X)
    assert verdicts(report) == {"x": "ok", "scale": "ok"}
    assert target.grads == {}


class Stack(Layer):
    """Layers inside a layer."""

    def __init__(self, *inner_layers):
        super().__init__()
        self.inner_layers += inner_layers

    def forward(self, x, training=False):
        for layer in self.inner_layers:
            x = layer.forward(x, training=training)
        return x

    def backward(self, dy):
        for layer in reversed(self.inner_layers):
            dy = layer.backward(dy)
        return dy


def test_layers_inside_a_layer_are_checked_by_their_paths():
    stack = Stack(Affine(name="first"), Activation("tanh"), Dropout(0.5), Affine("bias averaged", name="second"))
    found = {name.removeprefix("stack/"): verdict for name, verdict in verdicts(
        cnnlite.check_gradients(stack, X)).items()}
    assert found == {
        "x": "ok", "first/kernel": "ok", "first/bias": "ok", "second/kernel": "ok", "second/bias": "wrong"
    }


def test_random_masks_stay_the_same_while_differences_are_taken():
    layer = Dropout(0.5, seed=0)
    report = cnnlite.check_gradients(layer, X)
    assert report.ok, report
    assert layer.random.state == (0, 0)


def test_running_averages_do_not_move_while_differences_are_taken():
    class Centre(Layer):
        """y = x minus a running mean that each training pass moves."""

        def build(self, input_shape):
            super().build(input_shape)
            self.add_weight("mean", (input_shape[-1],), "zeros", trainable=False)

        def forward(self, x, training=False):
            x = self.prepare(x)
            if training:
                self.remember(x)
                self.state["mean"] = self.state["mean"] + 1
            return x - self.state["mean"]

        def backward(self, dy):
            self.recall()
            return dy.copy()

    assert cnnlite.check_gradients(Centre(), X).ok


def test_frozen_parameters_are_named_and_left_out():
    report = cnnlite.check_gradients(Affine("bias averaged", trainable=False), X, training=False)
    assert verdicts(report) == {"x": "ok"}
    assert report.ok
    assert "Frozen, and so not checked: kernel, bias." in str(report)


def test_inference_mode_holds_backward_to_the_inference_pass():
    assert cnnlite.check_gradients(Affine(), X, training=False).ok
    # Dropout does something else in inference, and that must show.
    assert not cnnlite.check_gradients(Dropout(0.5), X, training=False).ok


def test_views_of_the_input_are_no_trouble():
    assert cnnlite.check_gradients(Flatten(), RNG.normal(size=(2, 3, 2))).ok


@pytest.mark.parametrize("sample_weight", [None, np.array([1.0, 0.0, 2.0, 0.5, 1.0])])
def test_losses_are_checked_by_their_predictions(sample_weight):
    y = RNG.normal(size=X.shape)
    report = cnnlite.check_gradients(SquaredError(), X, y, sample_weight=sample_weight)
    assert verdicts(report) == {"y_pred": "ok"}
    assert report.max_error < 1e-9
    assert not cnnlite.check_gradients(SquaredError(factor=2.0002), X, y, sample_weight=sample_weight).ok


class Compiled(Stack):
    """What check_gradients needs of a compiled model: a loss and penalties."""

    loss = SquaredError()

    def regularization_loss(self):
        return float(np.square(self.inner_layers[0].params["kernel"]).sum())

    def add_regularization_gradients(self):
        self.inner_layers[0].grads["kernel"] += self.factor * self.inner_layers[0].params["kernel"]

    factor = 2.0


def test_whole_loss_of_a_compiled_model_is_checked_with_its_penalties():
    y = RNG.normal(size=X.shape)
    model = Compiled(Affine(name="first"), Activation("tanh"), Affine(name="second"))
    weight = np.array([1.0, 0.0, 2.0, 0.5, 1.0])
    assert cnnlite.check_gradients(model, X, y).ok
    assert cnnlite.check_gradients(model, X, y, sample_weight=weight).ok
    model.factor = 2.001
    wrong = {name for name, verdict in verdicts(cnnlite.check_gradients(model, X, y)).items() if verdict != "ok"}
    assert {name.rpartition("first/")[2] for name in wrong} == {"kernel"}


@pytest.fixture(scope="module")
def model():
    cnnlite.utils.set_random_seed(0)
    model = cnnlite.Sequential([
        cnnlite.Input((4, 4, 2)),
        Conv2D(3, 3, padding="same", kernel_regularizer="l2"),
        BatchNorm(),
        Activation("relu"),
        MaxPool(),
        Flatten(),
        Dropout(0.3),
        Dense(3, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def test_whole_network_passes_and_trains_on_afterwards(model):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 4, 4, 2)), np.array([0, 1, 2, 2, 1])
    weights = model.get_weights()
    for report in (cnnlite.check_gradients(model, x, max_elements=2),
                   cnnlite.check_gradients(model, x, y, sample_weight=np.arange(5.0), max_elements=2)):
        assert report.ok, report
        assert [row.name for row in report.rows] == [
            "x", "conv2d/kernel", "conv2d/bias", "batch_norm/gamma", "batch_norm/beta", "dense/kernel", "dense/bias"
        ]
    for before, after in zip(weights, model.get_weights()):
        np.testing.assert_array_equal(before, after)
    model.fit(x, y, verbose=0)
    assert (model.get_weights()[0] != weights[0]).any()


def test_mistake_deep_in_a_network_is_found(model):
    class Scaled(Conv2D):
        def backward(self, dy):
            dx = super().backward(dy)
            self.grads["kernel"] *= 1.0001
            return dx

    wrong = cnnlite.Sequential([Scaled(2, 3, name="wrong"), Activation("tanh"), Flatten(), Dense(2)])
    report = cnnlite.check_gradients(wrong, np.random.default_rng(1).normal(size=(3, 4, 4, 2)), max_elements=6)
    assert {row.name for row in report.rows if row.verdict != "ok"} == {"wrong/kernel"}


def test_fused_cross_entropy_is_right_in_all_its_forms():
    rng = np.random.default_rng(1)
    y, logits = np.array([0, 3, 1, 2, 2]), rng.normal(size=(5, 4))
    loss = cnnlite.losses.get("sparse_categorical_crossentropy")
    assert cnnlite.check_gradients(loss, cnnlite.activations.softmax(logits), y).ok
    assert cnnlite.check_gradients(loss.on_logits(), 3 * logits, y, sample_weight=rng.uniform(size=5)).ok
