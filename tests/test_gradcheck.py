import numpy as np
import pytest

import cnnlite
from cnnlite.layers import Activation, BatchNorm, Conv2D, Dense, Dropout, Flatten, Layer, MaxPool, ReLU

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4))


class Affine(Layer):
    """y = x @ kernel + bias, with mistakes to order."""

    def __init__(self, mistake=None, **kwargs):
        super().__init__(**kwargs)
        self.mistake = mistake

    def build(self, input_shape):
        super().build(input_shape)
        self.add_weight("kernel", (input_shape[-1], input_shape[-1]))
        self.add_weight("bias", (input_shape[-1],), "zeros")

    def forward(self, x, training=False):
        x = self.prepare(x)
        if training:
            self.remember(x)
        return x @ self.params["kernel"] + self.params["bias"]

    def backward(self, dy):
        (x,) = self.recall()
        kernel, bias = x.T @ dy, dy.sum(axis=0)
        if self.mistake == "kernel times 1.0001":
            kernel *= 1.0001
        elif self.mistake == "kernel transposed":
            kernel = kernel.T
        elif self.mistake == "kernel divided by the batch":
            kernel /= len(x)
        elif self.mistake == "one element of the kernel":
            kernel[2, 1] *= 1.00001
        elif self.mistake == "bias averaged":
            bias = dy.mean(axis=0)
        elif self.mistake == "bias with the wrong sign":
            bias = -bias
        self.grads["kernel"] = kernel
        if self.mistake != "bias missing":
            self.grads["bias"] = bias
        if self.mistake == "bias added to what was there":
            self.grads["bias"] += bias
        dx = dy @ self.params["kernel"].T
        if self.mistake == "dx transposed":
            return dx.T
        if self.mistake == "no dx":
            return None
        if self.mistake == "dx with a NaN":
            dx[0, 0] = np.nan
        return dx * (1 + 1e-5 * (self.mistake == "dx times 1.00001"))


def verdicts(report):
    return {row.name: row.verdict for row in report.rows}


def test_right_gradients_pass_with_room_to_spare():
    report = cnnlite.check_gradients(Affine(), X)
    assert report.ok
    assert verdicts(report) == {"x": "ok", "kernel": "ok", "bias": "ok"}
    assert report.max_error < 1e-10


@pytest.mark.parametrize(("mistake", "name", "verdict"), [
    ("kernel times 1.0001", "kernel", "wrong"),
    ("kernel transposed", "kernel", "wrong"),
    ("kernel divided by the batch", "kernel", "wrong"),
    ("one element of the kernel", "kernel", "wrong"),
    ("bias averaged", "bias", "wrong"),
    ("bias with the wrong sign", "bias", "wrong"),
    ("bias missing", "bias", "missing"),
    ("dx transposed", "x", "shape"),
    ("no dx", "x", "missing"),
    ("dx with a NaN", "x", "wrong"),
    ("dx times 1.00001", "x", "wrong"),
])
def test_every_mistake_is_found_where_it_is(mistake, name, verdict):
    report = cnnlite.check_gradients(Affine(mistake), X)
    assert not report.ok
    assert report.max_error > 1e-6
    assert verdicts(report) == {"x": "ok", "kernel": "ok", "bias": "ok", name: verdict}


def test_gradient_that_is_added_to_what_was_there_is_found():
    assert not cnnlite.check_gradients(Affine("bias added to what was there"), X).ok


def test_gradients_left_from_an_earlier_pass_do_not_count():
    layer = Affine()
    layer(X, training=True)
    layer.backward(np.random.default_rng(0).normal(size=X.shape))
    layer.mistake = "bias missing"
    assert verdicts(cnnlite.check_gradients(layer, X))["bias"] == "missing"


def test_target_and_arguments_stay_as_they_are():
    layer, x = Affine(), X.astype(np.float32)
    y = layer(x, training=True)
    layer.backward(y)
    before = [layer.params["kernel"].copy(), layer.grads["kernel"].copy(), layer.grads["bias"].copy()]
    stream = cnnlite.random._library.state
    assert cnnlite.check_gradients(layer, x).ok
    assert cnnlite.random._library.state == stream
    assert layer.dtype == layer.params["kernel"].dtype == np.float32
    after = [layer.params["kernel"], layer.grads["kernel"], layer.grads["bias"]]
    for a, b in zip(after, before):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(x, X.astype(np.float32))
    unbuilt = Affine()
    cnnlite.check_gradients(unbuilt, x)
    assert not unbuilt.built


def test_same_seed_gives_the_same_report():
    first, second, other = (str(cnnlite.check_gradients(Affine(), X, seed=seed)) for seed in (1, 1, 2))
    assert first == second
    assert first != other


# Kinks


def test_kink_near_by_is_stepped_past():
    # With the first step, 1e-3, all of these reach across 0.
    x = np.array([[1.0, -3e-4, 5e-5, -2e-5, 4e-6, 1.5e-3]])
    assert cnnlite.check_gradients(ReLU(), x).ok


def test_kink_under_x_is_called_one_and_is_not_ok():
    report = cnnlite.check_gradients(ReLU(), np.array([[0.0, 1.0, -1.0]]))
    assert verdicts(report) == {"x": "kink"}
    assert not report.ok
    assert "Spread the inputs" in str(report)


class WrongReLU(Layer):
    """ReLU with a wrong derivative above 0 or at 0."""

    def __init__(self, above=1.0, at_zero=0.0):
        super().__init__()
        self.above, self.at_zero = above, at_zero

    def forward(self, x, training=False):
        if training:
            self.remember(x)
        return np.maximum(x, 0)

    def backward(self, dy):
        (x,) = self.recall()
        return dy * np.where(x == 0, self.at_zero, np.where(x > 0, self.above, 0))


def test_kink_does_not_hide_a_wrong_gradient():
    x = np.array([[0.0, 1.0, -1.0, 1e-5]])
    assert verdicts(cnnlite.check_gradients(WrongReLU(), x)) == {"x": "kink"}
    assert verdicts(cnnlite.check_gradients(WrongReLU(above=1.0001), x)) == {"x": "wrong"}
    # Even at the kink itself: no slope to the left or right of 0 is 3 or -0.5.
    assert verdicts(cnnlite.check_gradients(WrongReLU(at_zero=3.0), np.zeros((1, 2)))) == {"x": "wrong"}
    assert verdicts(cnnlite.check_gradients(WrongReLU(at_zero=-0.5), np.zeros((1, 2)))) == {"x": "wrong"}


class Maximum(Layer):
    """y = max over the last axis, its gradient to the first maximum."""

    def forward(self, x, training=False):
        if training:
            self.remember(x)
        return x.max(axis=-1)

    def backward(self, dy):
        (x,) = self.recall()
        dx = np.zeros_like(x)
        np.put_along_axis(dx, x.argmax(axis=-1)[..., None], dy[..., None], axis=-1)
        return dx


def test_tie_in_a_maximum_is_a_kink():
    assert verdicts(cnnlite.check_gradients(Maximum(), np.array([[1.0, 2.0, 2.0]]))) == {"x": "kink"}
    assert cnnlite.check_gradients(Maximum(), np.array([[1.0, 2.0, 2.0 + 1e-5]])).ok


def test_gradient_of_zero_is_not_divided_by_zero():
    class Constant(Layer):
        """softmax(x) summed: 1, whatever x is."""

        def forward(self, x, training=False):
            if training:
                self.remember(x.shape)
            e = np.exp(x)
            return (e / e.sum(axis=-1, keepdims=True)).sum(axis=-1)

        def backward(self, dy):
            return np.zeros(self.recall()[0])

    assert cnnlite.check_gradients(Constant(), X).ok


def test_steep_functions_and_edges_of_a_domain_are_met_with_smaller_steps():
    class Logarithm(Layer):
        """y = log(x)"""

        def forward(self, x, training=False):
            if training:
                self.remember(x)
            return np.log(x)

        def backward(self, dy):
            return dy / self.recall()[0]

    report = cnnlite.check_gradients(Logarithm(), np.array([[1.0, 0.1, 1e-3]]))
    assert report.ok, report


# What can be checked


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


class SquaredError:
    """mean over samples of Σ (y_pred - y_true)²"""

    name = "squared_error"

    def __init__(self, factor=2.0):
        self.factor = factor

    def forward(self, y_true, y_pred):
        return np.square(y_pred - y_true).sum(axis=-1)

    def __call__(self, y_true, y_pred, sample_weight=None):
        losses = self.forward(y_true, y_pred)
        return float((losses if sample_weight is None else losses * sample_weight).mean())

    def backward(self, y_true, y_pred, sample_weight=None):
        weight = np.ones(len(y_pred)) if sample_weight is None else sample_weight
        return self.factor * (y_pred - y_true) * weight[:, None] / len(y_pred)


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


# The report


def test_report_prints_as_a_table():
    lines = str(cnnlite.check_gradients(Affine("bias averaged"), X)).splitlines()
    assert lines[0] == "Gradients of affine against differences of step 0.001"
    assert lines[1].split("  ")[0] == "name"
    assert [line.split()[0] for line in lines[3:]] == ["x", "kernel", "bias"]
    assert [line.split()[-1] for line in lines[3:]] == ["ok", "ok", "wrong"]
    assert "(4, 4)" in lines[4]


def test_sample_of_elements_is_said_to_be_one():
    report = cnnlite.check_gradients(Affine(), X, max_elements=5)
    assert [row.checked for row in report.rows] == [5, 5, 4]
    assert "5 of 20" in str(report)
    assert "all" in str(report)
    assert not cnnlite.check_gradients(Affine("kernel times 1.0001"), X, max_elements=5).ok


def test_integers_are_converted():
    assert cnnlite.check_gradients(Affine(), [[1, 2], [3, 5]]).ok


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: cnnlite.check_gradients(3, X), TypeError, "must be a layer, a model or a loss.*Received: 3"),
    (lambda: cnnlite.check_gradients(Affine, X), TypeError, "must be a layer, a model or a loss"),
    (lambda: cnnlite.check_gradients(Affine(), X * np.nan), ValueError, "x must be finite"),
    (lambda: cnnlite.check_gradients(Affine(), X[:0]), ValueError, r"at least one element.*\(0, 4\)"),
    (lambda: cnnlite.check_gradients(Affine(), "abc"), TypeError, "x must be an array of real numbers"),
    (lambda: cnnlite.check_gradients(SquaredError(), X), ValueError, "a loss needs labels"),
    (lambda: cnnlite.check_gradients(Affine(), X, X), ValueError, "Compile the model"),
    (lambda: cnnlite.check_gradients(Affine(), X, epsilon=0), ValueError, "epsilon must be greater than 0"),
    (lambda: cnnlite.check_gradients(Affine(), X, tolerance=-1), ValueError, "tolerance must be greater than 0"),
    (lambda: cnnlite.check_gradients(Affine(), X, max_elements=0), ValueError, "max_elements must be at least 1"),
    (lambda: cnnlite.check_gradients(Affine(), X, training=1), TypeError, "training must be True or False"),
])
def test_wrong_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_layer_that_falls_back_to_float32_is_told_so():
    class Rounded(Layer):
        def forward(self, x, training=False):
            return x.astype(np.float32)

        def backward(self, dy):
            return dy

    with pytest.raises(ValueError, match=r"forward must keep to float64.*float32"):
        cnnlite.check_gradients(Rounded(), X)
