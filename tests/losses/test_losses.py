"""Losses: gradients, weights, reductions, extreme predictions, and losses of one's own."""

import numpy as np
import pytest

from cnnlite import losses
from tests.helpers.numeric import numeric_gradient

RNG = np.random.default_rng


def one_hot(classes, count):
    return np.eye(count)[classes]


def probabilities(rng, *shape):
    """Positive numbers that need not sum to 1, far from the clip."""
    return rng.uniform(0.1, 0.9, shape)


def case(loss, rng, shape):
    """Return labels and predictions for a loss, away from its kinks."""
    name, classes = type(loss).__name__, shape[-1]
    from_logits = getattr(loss, "from_logits", False)
    y_pred = 3 * rng.normal(size=shape) if from_logits else probabilities(rng, *shape)
    if name == "CategoricalCrossentropy":
        return rng.uniform(size=shape), y_pred  # labels that need not sum to 1
    if name == "SparseCategoricalCrossentropy":
        return rng.integers(classes, size=shape[:-1]), y_pred
    if name == "BinaryCrossentropy":
        return rng.integers(2, size=shape), y_pred
    errors = rng.choice([-1, 1], shape) * rng.choice([rng.uniform(0.1, 0.6, shape), rng.uniform(0.8, 3, shape)])
    return y_pred - errors, y_pred


ALL = [
    kind(from_logits=from_logits, label_smoothing=smoothing)
    for kind in (losses.CategoricalCrossentropy, losses.SparseCategoricalCrossentropy, losses.BinaryCrossentropy)
    for from_logits in (False, True)
    for smoothing in (0.0, 0.2)
] + [losses.MeanSquaredError(), losses.MeanAbsoluteError(), losses.Huber(), losses.Huber(delta=0.7)]


def label(loss):
    logits = "-logits" if getattr(loss, "from_logits", False) else ""
    return f"{type(loss).__name__}{logits}-{getattr(loss, 'label_smoothing', getattr(loss, 'delta', ''))}"


every_loss = pytest.mark.parametrize("loss", ALL, ids=label)


@every_loss
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 2, 3)])
@pytest.mark.parametrize("weighting", ["none", "samples", "values"])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_the_gradient_is_that_of_the_loss(loss, shape, weighting, reduction):
    rng = RNG(0)
    loss = type(loss)(**{**loss.get_config(), "reduction": reduction})
    y_true, y_pred = case(loss, rng, shape)
    weights = {"none": None, "samples": rng.uniform(0, 2, shape[0]), "values": rng.uniform(0, 2, shape[:-1])}[weighting]
    expected = numeric_gradient(lambda: loss(y_true, y_pred, weights), y_pred)
    gradient = loss.backward(y_true, y_pred, weights)
    assert np.abs(gradient - expected).max() <= 1e-6 * np.abs(expected).max()
    assert gradient.dtype == np.float64


@every_loss
def test_float32_gives_float32_and_the_values_of_float64(loss):
    y_true, y_pred = case(loss, RNG(1), (6, 5))
    single = y_pred.astype(np.float32)
    assert loss.forward(y_true, single).dtype == np.float32
    gradient = loss.backward(y_true, single)
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, loss.backward(y_true, y_pred), rtol=0, atol=1e-5)
    assert loss(y_true, single) == pytest.approx(loss(y_true, y_pred), rel=1e-5)
    assert type(loss(y_true, single)) is float


@every_loss
def test_no_argument_is_written_to_and_any_memory_order_is_read(loss):
    y_true, y_pred = case(loss, RNG(2), (6, 5))
    expected, expected_gradient = loss(y_true, y_pred), loss.backward(y_true, y_pred)
    wide = np.zeros((12, 10))
    wide[::2, ::2] = y_pred
    weights = np.ones(6)
    for array in (np.asfortranarray(y_pred), wide[::2, ::2], y_pred):
        array.setflags(write=False)
        y_true.setflags(write=False)
        weights.setflags(write=False)
        assert loss(y_true, array, weights) == expected
        np.testing.assert_array_equal(loss.backward(y_true, array, weights), expected_gradient)


@every_loss
def test_an_empty_batch_has_loss_0_and_an_empty_gradient(loss):
    y_true, y_pred = case(loss, RNG(3), (2, 5))
    assert loss(y_true[:0], y_pred[:0]) == 0.0
    assert loss.backward(y_true[:0], y_pred[:0]).shape == (0, 5)


@every_loss
def test_a_nan_in_the_predictions_is_a_nan_in_the_loss_and_the_gradient(loss):
    y_true, y_pred = case(loss, RNG(4), (3, 5))
    y_pred[1, 2] = np.nan
    assert np.isnan(loss(y_true, y_pred))
    values = loss.forward(y_true, y_pred)
    assert np.isnan(values[1])
    assert np.isfinite(values[[0, 2]]).all()
    gradient = loss.backward(y_true, y_pred)
    assert np.isnan(gradient[1, 2])
    assert np.isfinite(gradient[[0, 2]]).all()


@every_loss
def test_the_loss_is_the_mean_of_the_per_sample_losses(loss):
    y_true, y_pred = case(loss, RNG(5), (4, 3, 5))
    values = loss.forward(y_true, y_pred)
    assert values.shape == (4, 3)
    assert loss(y_true, y_pred) == pytest.approx(values.mean())
    weights = np.array([0.0, 1.0, 2.0, 0.5])
    # Keras divides by the number of losses, not by the sum of the weights.
    assert loss(y_true, y_pred, weights) == pytest.approx((values * weights[:, None]).sum() / 12)
    assert loss(y_true, y_pred, weights[:, None]) == loss(y_true, y_pred, weights)
    assert loss(y_true, y_pred, 2.0) == pytest.approx(2 * values.mean())


@every_loss
def test_a_config_makes_the_same_loss_again(loss):
    y_true, y_pred = case(loss, RNG(6), (4, 5))
    again = losses.get(losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert again(y_true, y_pred) == loss(y_true, y_pred)


def test_reduction_none_returns_every_loss_and_cannot_be_trained_with():
    loss = losses.MeanSquaredError(reduction="none")
    np.testing.assert_array_equal(loss([[1.0], [2.0]], np.zeros((2, 1)), sample_weight=[1, 2]), [1.0, 8.0])
    assert losses.MeanSquaredError(reduction=None).reduction == "none"
    with pytest.raises(ValueError, match="reduction='none'"):
        loss.backward([[1.0], [2.0]], np.zeros((2, 1)))
    with pytest.raises(ValueError, match="sum_over_batch_size"):
        losses.MeanSquaredError(reduction="average")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1000, -1000])
def test_logits_of_1000_are_safe(dtype, size):
    z = np.array([[size, 0, -size]], dtype)
    for loss, y_true in [
        (losses.CategoricalCrossentropy(from_logits=True), one_hot([1], 3)),
        (losses.SparseCategoricalCrossentropy(from_logits=True), [1]),
        (losses.BinaryCrossentropy(from_logits=True), [[size < 0, 1, 0]]),
    ]:
        assert np.isfinite(loss(y_true, z))
        assert np.isfinite(loss.backward(y_true, z)).all()
    assert losses.SparseCategoricalCrossentropy(from_logits=True)([1], z) == 1000
    assert losses.BinaryCrossentropy(from_logits=True)([[0.0]], z[:, :1]) == max(size, 0)


def test_a_small_binary_loss_from_logits_does_not_round_to_0():
    loss = losses.BinaryCrossentropy(from_logits=True)
    expected = pytest.approx(np.log1p(np.exp(-20.0)), rel=1e-6)
    assert loss([1], np.float32([20])) == expected
    assert loss([0], np.float32([-20])) == expected


@pytest.mark.parametrize("loss", [loss for loss in ALL if getattr(loss, "from_logits", None) is False], ids=label)
def test_from_logits_equals_the_loss_of_the_activation(loss):
    y_true, _ = case(loss, RNG(7), (4, 5))
    z = RNG(8).normal(size=(4, 5))
    activation = {
        "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True),
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    }[loss.fused_activation]
    fused = loss.on_logits()
    assert fused(y_true, z) == pytest.approx(loss(y_true, activation(z)), rel=1e-12)
    assert fused.from_logits
    assert fused.fused_activation is None
    assert not loss.from_logits


def test_a_loss_without_an_activation_to_fuse_with_says_so():
    assert losses.MeanSquaredError().fused_activation is None
    with pytest.raises(ValueError, match="fused"):
        losses.MeanSquaredError().on_logits()


def test_probabilities_of_0_and_1_are_clipped_and_their_gradient_is_0():
    loss = losses.CategoricalCrossentropy()
    certain = np.array([[1.0, 0.0]])
    assert loss([[0, 1]], certain) == pytest.approx(-np.log(1e-7))
    np.testing.assert_array_equal(loss.backward([[0, 1]], certain), 0)
    loss = losses.BinaryCrossentropy()
    assert loss([1, 0], np.array([0.0, 1.0])) == pytest.approx(-np.log(1e-7), rel=1e-6)
    np.testing.assert_array_equal(loss.backward([1, 0], np.array([0.0, 1.0])), 0)


def test_sparse_labels_may_be_a_column_or_floats_or_any_integers():
    loss = losses.SparseCategoricalCrossentropy()
    y_pred = probabilities(RNG(9), 4, 3)
    expected = loss(np.array([2, 0, 1, 1]), y_pred)
    for y_true in ([2, 0, 1, 1], np.array([[2], [0], [1], [1]], np.uint8), np.array([2.0, 0, 1, 1], np.float32)):
        loss.check(y_true, (None, 3))
        assert loss(y_true, y_pred) == expected
    assert loss(np.array([True, False, True, True]), y_pred) == loss([1, 0, 1, 1], y_pred)


@pytest.mark.parametrize(
    "loss", [losses.BinaryCrossentropy(), losses.MeanSquaredError(), losses.MeanAbsoluteError(), losses.Huber()],
    ids=label,
)
def test_a_vector_counts_as_a_column_and_is_never_broadcast(loss):
    y_true, y_pred = np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.7, 0.4])
    expected = loss(y_true, y_pred)
    for t in (y_true, y_true[:, None]):
        for y in (y_pred, y_pred[:, None]):
            loss.check(t, (None, *y.shape[1:]))
            assert loss(t, y) == expected
            assert loss.forward(t, y).shape == (3,)
            assert loss.backward(t, y).shape == y.shape
    for t, y in [(y_true, np.zeros((3, 2))), (np.zeros((3, 2)), y_pred), (y_true[:2], y_pred), (y_true[:1], y_pred)]:
        with pytest.raises(ValueError, match="must have the shape of the predictions"):
            loss(t, y)


@every_loss
def test_another_number_of_labels_than_predictions_is_refused(loss):
    y_true, y_pred = case(loss, RNG(10), (4, 5))
    with pytest.raises(ValueError, match=r"y_true\.shape"):
        loss(y_true[:3], y_pred)


def test_an_overflow_is_an_infinite_loss_and_not_a_warning():
    assert losses.MeanSquaredError()([0.0], np.float32([1e30])) == np.inf


def test_names_are_looked_up_in_any_case_and_unknown_ones_list_the_known():
    assert isinstance(losses.get("mse"), losses.MeanSquaredError)
    assert isinstance(losses.get("MAE"), losses.MeanAbsoluteError)
    assert isinstance(losses.get("BinaryCrossentropy"), losses.BinaryCrossentropy)
    assert isinstance(losses.get(losses.Huber), losses.Huber)
    assert losses.serialize(None) is None
    with pytest.raises(ValueError, match=r"Known: .*huber.*Did you mean 'categorical_crossentropy'"):
        losses.get("categorical_crosentropy")
    with pytest.raises(TypeError, match="loss must be a name"):
        losses.get(None)


@pytest.mark.parametrize("name", sorted(set(losses.__all__) & set(losses.LOSSES)))
def test_the_function_of_a_loss_returns_its_values_and_stands_for_it(name):
    function = getattr(losses, name)
    loss = losses.get(function)
    assert type(loss) is losses.LOSSES[name]
    y_true, y_pred = case(loss, RNG(11), (4, 5))
    np.testing.assert_array_equal(function(y_true, y_pred), loss.forward(y_true, y_pred))


def test_a_function_without_a_gradient_is_refused_with_what_to_subclass():
    with pytest.raises(TypeError, match=r"Subclass cnnlite\.losses\.Loss and define forward.*gradient"):
        losses.get(lambda y_true, y_pred: abs(y_true - y_pred))


def test_a_loss_of_your_own_needs_forward_and_gradient_alone():
    class Cube(losses.Loss):
        def forward(self, y_true, y_pred):
            y_true, y_pred = self.prepare(y_true, y_pred)
            return ((y_pred - y_true) ** 3).sum(axis=-1)

        def gradient(self, y_true, y_pred):
            y_true, y_pred = self.prepare(y_true, y_pred)
            return 3 * (y_pred - y_true) ** 2

    loss, y_pred = Cube(), RNG(12).normal(size=(3, 2))
    weights = [1.0, 0.5, 2.0]
    expected = numeric_gradient(lambda: loss(np.ones((3, 2)), y_pred, weights), y_pred)
    np.testing.assert_allclose(loss.backward(np.ones((3, 2)), y_pred, weights), expected, rtol=1e-6)
    for method in ("forward", "gradient"):
        with pytest.raises(NotImplementedError, match=f"Loss must define {method}"):
            getattr(losses.Loss(), method)(y_pred, y_pred)


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    [
        (losses.CategoricalCrossentropy, {"label_smoothing": 1.5}, ValueError, "between 0 and 1"),
        (losses.CategoricalCrossentropy, {"label_smoothing": -0.1}, ValueError, "at least 0"),
        (losses.BinaryCrossentropy, {"from_logits": "yes"}, TypeError, "True or False"),
        (losses.CategoricalCrossentropy, {"axis": 1}, ValueError, "np.moveaxis"),
        (losses.SparseCategoricalCrossentropy, {"ignore_class": 0}, ValueError, "sample_weight=0"),
        (losses.Huber, {"delta": 0}, ValueError, "greater than 0"),
        (losses.MeanSquaredError, {"dtype": "float16"}, ValueError, "float32"),
    ],
)
def test_bad_arguments_are_refused(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(**arguments)


def test_the_dtype_of_a_loss_is_what_it_computes_in_and_the_gradient_keeps_that_of_the_predictions():
    loss = losses.MeanSquaredError(dtype="float64")
    y_pred = np.float32([[0.1], [0.2]])
    assert loss.forward([[0.0], [0.0]], y_pred).dtype == np.float64
    assert loss.backward([[0.0], [0.0]], y_pred).dtype == np.float32


@every_loss
def test_reduction_sum_is_the_mean_times_the_number_of_losses(loss):
    y_true, y_pred = case(loss, RNG(13), (4, 3, 5))
    total = type(loss)(**{**loss.get_config(), "reduction": "sum"})
    assert total(y_true, y_pred) == pytest.approx(12 * loss(y_true, y_pred))
    np.testing.assert_allclose(total.backward(y_true, y_pred), 12 * loss.backward(y_true, y_pred))


def test_smoothed_labels_are_those_of_the_formula():
    y_pred = np.array([[0.2, 0.3, 0.5]])
    expected = -np.log(y_pred) @ [0.1, 0.1, 0.8]
    assert losses.CategoricalCrossentropy(label_smoothing=0.3)([[0, 0, 1]], y_pred) == pytest.approx(expected)
    assert losses.SparseCategoricalCrossentropy(label_smoothing=0.3)([2], y_pred) == pytest.approx(expected)
    expected = -0.85 * np.log(0.2) - 0.15 * np.log(0.8)
    assert losses.BinaryCrossentropy(label_smoothing=0.3)([1], np.array([0.2])) == pytest.approx(expected)


def test_the_mean_of_float32_losses_is_summed_in_float64():
    y_pred = np.ones(3000, np.float32)
    y_pred[::2] = 1e4
    assert losses.MeanSquaredError()(np.zeros(3000), y_pred) == (1e8 + 1) / 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size"])
@pytest.mark.parametrize("kind", [losses.CategoricalCrossentropy, losses.SparseCategoricalCrossentropy])
def test_value_and_gradient_have_the_bits_of_the_two_alone(kind, reduction, smoothing, weighted, dtype):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(7, 3, 5)).astype(dtype) * 20
    y[0, 0] = np.nan
    y[1, 1, 2] = np.inf
    classes = rng.integers(0, 5, (7, 3))
    labels = classes if kind is losses.SparseCategoricalCrossentropy else np.eye(5)[classes]
    weight = rng.uniform(size=7) if weighted else None
    for from_logits in (True, False):
        loss = kind(from_logits=from_logits, label_smoothing=smoothing, reduction=reduction)
        value, gradient = loss.value_and_gradient(labels, y, weight)
        np.testing.assert_array_equal(value, loss(labels, y, weight))
        expected = loss.backward(labels, y, weight)
        np.testing.assert_array_equal(gradient, expected)
        assert gradient.dtype == expected.dtype


def test_a_gradient_of_a_subclass_is_the_one_that_trains():
    class Doubled(losses.SparseCategoricalCrossentropy):
        def gradient(self, y_true, y_pred):
            return 2 * super().gradient(y_true, y_pred)

    y, labels = np.random.default_rng(0).normal(size=(4, 3)), np.array([0, 1, 2, 0])
    plain = losses.SparseCategoricalCrossentropy(from_logits=True).backward(labels, y)
    _, gradient = Doubled(from_logits=True).value_and_gradient(labels, y)
    np.testing.assert_array_equal(gradient, 2 * plain)


def test_value_and_gradient_of_losses_one_by_one_is_refused():
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    with pytest.raises(ValueError, match="reduction='none'"):
        loss.value_and_gradient([0], np.zeros((1, 3)))


def test_a_subclass_that_prepares_its_labels_is_asked():
    class Flipped(losses.SparseCategoricalCrossentropy):
        def prepare(self, y_true, y_pred):
            return super().prepare(2 - np.asarray(y_true), y_pred)

    y, labels = RNG(16).normal(size=(4, 3)), np.array([0, 1, 2, 0])
    for from_logits in (True, False):
        flipped, plain = Flipped(from_logits), losses.SparseCategoricalCrossentropy(from_logits)
        assert flipped(labels, np.abs(y)) == pytest.approx(plain(2 - labels, np.abs(y)))
        np.testing.assert_allclose(flipped.backward(labels, np.abs(y)), plain.backward(2 - labels, np.abs(y)))
