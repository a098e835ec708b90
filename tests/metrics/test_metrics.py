"""Metrics: sums over batches, forms of labels, weights, ties and NaN."""

import numpy as np
import pytest

from cnnlite import losses, metrics

RNG = np.random.default_rng

NAMED = sorted(metrics.METRICS)


def batch(name, count, rng, classes=7):
    """Return labels and predictions that the metric of that name accepts."""
    scores = rng.uniform(0.1, 0.9, (count, classes))
    if "sparse" in name:
        return rng.integers(classes, size=count), scores
    if "categorical" in name or name in ("accuracy", "acc", "crossentropy", "ce"):
        return np.eye(classes)[rng.integers(classes, size=count)], scores
    return rng.integers(2, size=(count, classes)), scores


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("weighted", [False, True])
def test_batches_of_any_size_give_the_result_of_all_samples_at_once(name, weighted):
    y_true, y_pred = batch(name, 10, RNG(0))
    weights = RNG(1).uniform(0, 2, 10) if weighted else None
    whole, parts = metrics.get(name), metrics.get(name)
    whole.update_state(y_true, y_pred, weights)
    for start, stop in [(0, 4), (4, 8), (8, 8), (8, 10)]:
        piece = slice(start, stop)
        parts.update_state(y_true[piece], y_pred[piece], None if weights is None else weights[piece])
    assert parts.result() == pytest.approx(whole.result(), rel=1e-12)
    assert type(parts.result()) is float
    assert whole.result() > 0


@pytest.mark.parametrize("name", NAMED)
def test_reset_forgets_and_a_metric_without_samples_is_0(name):
    metric = metrics.get(name)
    assert metric.result() == 0.0
    y_true, y_pred = batch(name, 6, RNG(2))
    metric.update_state(y_true[:0], y_pred[:0])
    assert metric.result() == 0.0
    first = metric(y_true, y_pred)
    metric.reset_state()
    assert metric.result() == 0.0
    assert metric(y_true, y_pred) == first


@pytest.mark.parametrize("name", NAMED)
def test_a_config_makes_the_same_metric_again(name):
    metric = metrics.get(name)
    again = metrics.get(metrics.serialize(metric))
    assert type(again) is type(metric)
    assert again.get_config() == metric.get_config()
    assert again.name == name
    y_true, y_pred = batch(name, 6, RNG(3))
    assert again(y_true, y_pred) == metric(y_true, y_pred)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.BinaryAccuracy(threshold=0.3),
        metrics.TopKCategoricalAccuracy(k=2),
        metrics.Precision(thresholds=[0.2, 0.4], class_id=1),
        metrics.Recall(top_k=2, name="r2"),
        metrics.BinaryCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics.Huber(delta=2.0),
        metrics.LossMetric(losses.Huber(delta=2.0)),
        metrics.AccuracyByForm(from_logits=True),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_a_config_holds_the_arguments(metric):
    again = metrics.get(metrics.serialize(metric))
    assert type(again) is type(metric)
    assert again.get_config() == metric.get_config()


@pytest.mark.parametrize("name", NAMED)
def test_weights_count_samples_more_than_once(name):
    y_true, y_pred = batch(name, 5, RNG(4))
    times = np.array([0, 1, 2, 3, 1])
    weighted, repeated = metrics.get(name), metrics.get(name)
    weighted.update_state(y_true, y_pred, times)
    repeated.update_state(y_true.repeat(times, axis=0), y_pred.repeat(times, axis=0))
    assert weighted.result() == pytest.approx(repeated.result())


@pytest.mark.parametrize(
    ("y_true", "y_pred", "kind"),
    [
        ([2, 0], [[0.1, 0.2, 0.7], [0.1, 0.2, 0.7]], metrics.SparseCategoricalAccuracy),
        ([[2], [0]], [[0.1, 0.2, 0.7], [0.1, 0.2, 0.7]], metrics.SparseCategoricalAccuracy),
        ([[0, 0, 1], [1, 0, 0]], [[0.1, 0.2, 0.7], [0.1, 0.2, 0.7]], metrics.CategoricalAccuracy),
        ([[1], [0]], [[0.7], [0.8]], metrics.BinaryAccuracy),
        ([1, 0], [[0.7], [0.8]], metrics.BinaryAccuracy),
        ([1, 0], [0.7, 0.8], metrics.BinaryAccuracy),
    ],
)
def test_accuracy_follows_the_form_of_the_labels(y_true, y_pred, kind):
    metric = metrics.get("acc")
    metric.update_state(np.array(y_true), np.array(y_pred))
    assert type(metric.metric) is kind
    assert metric.result() == 0.5
    assert metric.name == "acc"


def test_crossentropy_follows_the_form_of_the_labels_and_the_logits_of_the_loss():
    z = RNG(5).normal(size=(4, 3))
    labels = np.array([0, 2, 1, 1])
    expected = losses.SparseCategoricalCrossentropy(from_logits=True)(labels, z)
    for y_true in (labels, np.eye(3)[labels]):
        metric = metrics.get("crossentropy", loss=losses.SparseCategoricalCrossentropy(from_logits=True))
        assert metric(y_true, z) == pytest.approx(expected)
    assert metrics.get("ce")([1, 0], [[0.5], [0.5]]) == pytest.approx(np.log(2))


def test_accuracy_splits_single_logits_at_0():
    z = np.array([[0.2], [-0.2]])
    assert metrics.get("accuracy", loss=losses.BinaryCrossentropy(from_logits=True))([[1], [0]], z) == 1.0
    assert metrics.get("accuracy", loss=losses.BinaryCrossentropy())([[1], [0]], z) == 0.5


@pytest.mark.parametrize("name", ["binary_accuracy", "categorical_accuracy", "top_k_categorical_accuracy"])
def test_a_prediction_with_nan_is_wrong(name):
    metric = metrics.get(name)
    metric.update_state(np.eye(3), np.full((3, 3), np.nan))
    assert metric.result() == 0.0


def test_a_loss_of_nan_predictions_is_nan():
    assert np.isnan(metrics.get("mse")(np.zeros((2, 2)), np.full((2, 2), np.nan)))


def test_ties_in_top_k_count_for_the_label():
    y_pred = np.array([[0.3, 0.3, 0.3, 0.1]])
    for label, expected in [(0, 1.0), (2, 1.0), (3, 0.0)]:
        assert metrics.SparseTopKCategoricalAccuracy(k=1)([label], y_pred) == expected
        assert metrics.TopKCategoricalAccuracy(k=1)(np.eye(4)[[label]], y_pred) == expected
    assert metrics.SparseTopKCategoricalAccuracy(k=9)([3], y_pred) == 1.0


def test_of_equal_predictions_the_first_is_the_class():
    assert metrics.SparseCategoricalAccuracy()([0, 1], np.full((2, 3), 0.5)) == 0.5


def test_images_of_labels_are_counted_by_pixel():
    rng = RNG(6)
    y_true, y_pred = rng.integers(3, size=(2, 4, 5)), rng.normal(size=(2, 4, 5, 3))
    expected = (y_pred.argmax(axis=-1) == y_true).mean()
    assert metrics.SparseCategoricalAccuracy()(y_true, y_pred) == pytest.approx(expected)
    assert metrics.SparseCategoricalAccuracy()(y_true[..., None], y_pred, [1.0, 1.0]) == pytest.approx(expected)
    assert metrics.CategoricalAccuracy()(np.eye(3)[y_true], y_pred) == pytest.approx(expected)


def test_precision_and_recall_count_right_positives():
    y_true = [[1, 0, 1], [0, 0, 1]]
    y_pred = [[0.9, 0.8, 0.2], [0.1, 0.3, 0.7]]
    assert metrics.Precision()(y_true, y_pred) == pytest.approx(2 / 3)
    assert metrics.Recall()(y_true, y_pred) == pytest.approx(2 / 3)
    assert metrics.Precision(class_id=2)(y_true, y_pred) == 1.0
    assert metrics.Recall(class_id=2)(y_true, y_pred) == 0.5
    assert metrics.Precision(top_k=1)(y_true, y_pred) == 1.0
    assert metrics.Recall(top_k=1)(y_true, y_pred) == pytest.approx(2 / 3)
    np.testing.assert_allclose(metrics.Precision(thresholds=[0.0, 0.75])(y_true, y_pred), [0.5, 0.5])
    assert metrics.Precision()([0, 0], [0.1, np.nan]) == 0.0


@pytest.mark.parametrize(
    ("name", "y_true", "message"),
    [
        ("sparse_categorical_accuracy", [0, 3], r"less than 3.*the label 3"),
        ("sparse_top_k_categorical_accuracy", [-1, 2], r"the label -1"),
        ("sparse_categorical_accuracy", np.eye(3)[:2], r"one-hot"),
        ("categorical_accuracy", [0, 1], r"to_categorical\(y, 3\)"),
        ("binary_accuracy", [0, 1], r"must have the shape of the predictions"),
        ("precision", [0, 1], r"must have the shape of the predictions"),
        ("recall", [[0, 1, 7], [0, 0, 0]], r"between 0 and 1"),
    ],
)
def test_labels_of_another_form_are_refused(name, y_true, message):
    with pytest.raises(ValueError, match=message):
        metrics.get(name)(y_true, np.full((2, 3), 0.3))


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    [
        (metrics.TopKCategoricalAccuracy, {"k": 0}, ValueError, "at least 1"),
        (metrics.Precision, {"thresholds": 1.5}, ValueError, "between 0 and 1"),
        (metrics.Precision, {"thresholds": []}, ValueError, "one or more"),
        (metrics.Recall, {"class_id": -1}, ValueError, "at least 0"),
        (metrics.BinaryAccuracy, {"threshold": "half"}, TypeError, "number"),
        (metrics.Mean, {"dtype": "int8"}, ValueError, "float32"),
    ],
)
def test_bad_arguments_are_refused(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(**arguments)


def test_a_class_that_the_predictions_do_not_have_is_refused():
    with pytest.raises(ValueError, match="class_id=3"):
        metrics.Precision(class_id=3)(np.eye(3), np.eye(3))


def test_a_function_is_averaged_over_the_samples():
    def error(y_true, y_pred):
        return np.abs(y_true - y_pred).max(axis=-1)

    def mean_error(y_true, y_pred):
        return np.abs(y_true - y_pred).max(axis=-1).mean()

    for function in (error, mean_error):
        metric = metrics.get(function)
        metric.update_state(np.zeros((3, 2)), np.ones((3, 2)))
        metric.update_state(np.zeros((1, 2)), np.full((1, 2), 5.0))
        assert metric.result() == 2.0
        assert metric.name == function.__name__


def test_a_loss_can_be_a_metric():
    metric = metrics.get(losses.Huber(delta=2.0))
    assert metric([[0.0]], [[3.0]]) == 4.0
    assert metric.name == "huber_loss"


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match=r"Known: .*accuracy.*Did you mean 'accuracy'"):
        metrics.get("acuracy")
    with pytest.raises(TypeError, match="metric must be a name"):
        metrics.get(3)
    assert metrics.serialize(None) is None


def test_the_mean_of_float32_values_is_summed_in_float64():
    mean = metrics.Mean()
    mean.update_state(np.full(1000, 1e8, np.float32))
    mean.update_state(np.ones(1000, np.float32))
    assert mean.result() == (1e8 + 1) / 2


def test_no_argument_is_written_to():
    for name in NAMED:
        y_true, y_pred = batch(name, 4, RNG(7))
        for array in (y_true, y_pred):
            array.setflags(write=False)
        metrics.get(name)(y_true, y_pred, np.ones(4))


def test_of_equal_predictions_the_first_are_in_the_top_k_of_precision():
    y_pred = np.full((1, 40), 0.5)
    y_true = np.zeros((1, 40))
    y_true[0, :3] = 1
    assert metrics.Precision(top_k=3)(y_true, y_pred) == 1.0
