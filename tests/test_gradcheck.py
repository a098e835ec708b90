"""check_gradients: right gradients pass, every mistake is found where it is, and a kink is called one."""

import numpy as np
import pytest

import cnnlite
from cnnlite.layers import Layer, ReLU
from tests.helpers.mistakes import Affine, SquaredError, verdicts

X = np.random.default_rng(0).normal(size=(5, 4))


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


# The report


def test_report_prints_as_a_table():
    lines = str(cnnlite.check_gradients(Affine("bias averaged"), X)).splitlines()
    assert lines[0] == "Gradients of affine against finite differences with step 0.001"
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

    with pytest.raises(ValueError, match=r"forward must stay in float64.*float32"):
        cnnlite.check_gradients(Rounded(), X)
