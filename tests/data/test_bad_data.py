"""Bad input to fit: one sentence, before anything is changed."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from tests.helpers.models import D, K, N, Stop, fit, make_data, make_model, weights_of


@pytest.fixture
def data():
    return make_data()


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BAD_FITS = {
    "no data": (lambda x, y: dict(x=x[:0], y=y[:0]), ValueError, r"x must hold at least one sample.*\(0, 6\)"),
    "no y": (lambda x, y: dict(x=x), ValueError, "y must be given"),
    "lengths": (lambda x, y: dict(x=x, y=y[:-1]), ValueError, "50 in x, 49 in y"),
    "lengths of weights": (lambda x, y: dict(x=x, y=y, sample_weight=np.ones(3)), ValueError, "3 in sample_weight"),
    "shape": (lambda x, y: dict(x=x[:, :4], y=y), ValueError, r"x must have the shape \(None, 6\).*\(50, 4\)"),
    "rank": (lambda x, y: dict(x=x[0], y=y[:6]), ValueError, r"x must have the shape .*Add a batch axis"),
    "labels out of range": (lambda x, y: dict(x=x, y=changed(y, 4, K)), ValueError, "3"),
    "one-hot labels": (lambda x, y: dict(x=x, y=np.eye(K)[y]), ValueError, "categorical_crossentropy"),
    "nan in x": (lambda x, y: dict(x=changed(x, (7, 2), np.nan), y=y), ValueError, r"nan at x\[7, 2\]"),
    "infinity in x": (lambda x, y: dict(x=changed(x, (7, 2), -np.inf), y=y), ValueError, r"-inf at x\[7, 2\]"),
    "nan in y": (lambda x, y: dict(x=x, y=changed(y.astype(float), 9, np.nan)), ValueError, r"nan at y\[9\]"),
    "text": (lambda x, y: dict(x=np.full((N, D), "1"), y=y), TypeError, "x must be an array of real numbers.*<U1"),
    "objects": (lambda x, y: dict(x=x, y=y.astype(object)), TypeError, "y must be .*object"),
    "ragged": (lambda x, y: dict(x=[[1.0], [1.0, 2.0]], y=y[:2]), ValueError, "x must be an array of numbers"),
    "batch_size": (lambda x, y: dict(x=x, y=y, batch_size=0), ValueError, "batch_size must be at least 1"),
    "epochs": (lambda x, y: dict(x=x, y=y, epochs=0), ValueError, "epochs must be at least 1"),
    "split": (lambda x, y: dict(x=x, y=y, validation_split=1.0), ValueError, "validation_split must be .*less than 1"),
    "tiny split": (lambda x, y: dict(x=x[:1], y=y[:1], validation_split=0.5), ValueError, "samples on both sides"),
    "verbose": (lambda x, y: dict(x=x, y=y, verbose=7), ValueError, "verbose must be"),
    "callbacks": (lambda x, y: dict(x=x, y=y, callbacks=[Stop]), TypeError, "callbacks must be a list of Callback"),
    "weights below 0": (lambda x, y: dict(x=x, y=y, sample_weight=changed(np.ones(N), 5, -1)), ValueError,
                        r"-1.0 at sample_weight\[5\]"),
    "class without weight": (lambda x, y: dict(x=x, y=y, class_weight={0: 1, 1: 1}), ValueError, r"keys \[0, 1\]"),
    "weight without class": (lambda x, y: dict(x=x, y=y, class_weight={0: 1, 1: 1, 2: 1, 3: 1}), ValueError,
                             "from 0 to 2. Received: 3"),
    "class_weight": (lambda x, y: dict(x=x, y=y, class_weight=[1, 1, 1]), TypeError, "dict"),
    "validation form": (lambda x, y: dict(x=x, y=y, validation_data=(x,)), ValueError, "validation_data must be"),
    "validation labels": (lambda x, y: dict(x=x, y=y, validation_data=(x, y + K)), ValueError, "3|4|5"),
    "validation nan": (lambda x, y: dict(x=x, y=y, validation_data=(x * np.nan, y)), ValueError, r"\(validation\)"),
    "generator and y": (lambda x, y: dict(x=iter([(x, y)]), y=y), ValueError, "y must not be given"),
    "generator twice": (lambda x, y: dict(x=iter([(x, y)]), epochs=2), ValueError, "read only once.*steps_per_epoch"),
    "generator of x": (lambda x, y: dict(x=iter([x])), ValueError, "y must be given"),
    "generator of four": (lambda x, y: dict(x=iter([(x, y, y, y)])), ValueError, "a batch must be"),
    "generator of nothing": (lambda x, y: dict(x=iter([])), ValueError, "at least one batch"),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_data_is_refused_before_anything_is_changed(data, case):
    make, error, text = BAD_FITS[case]
    model = make_model(batchnorm=True)
    model.shuffle_random = None
    before = weights_of(model)
    library = cnnlite.random._library.state
    with pytest.raises(error, match=text) as raised:
        model.fit(**{"verbose": 0, **make(*data)})
    assert "\n" not in str(raised.value)
    np.testing.assert_array_equal(weights_of(model), before)
    assert model.optimizer.iterations == 0
    assert model.history is None
    assert cnnlite.random._library.state == library


@pytest.mark.parametrize(("y", "loss", "message"), [
    ([[1, 1, 0], [0, 1, 0]], "bce", r"each row of y must be one-hot.*\[1, 1, 0\] at y\[0\]. .*sample_weight="),
    ([[1, 0, 0], [0, 0, 0]], "bce", r"one-hot. Received: \[0, 0, 0\] at y\[1\]"),
    ([[0.5, -0.5, 1.0], [1, 0, 0]], "mse", r"one-hot. Received: \[0.5, -0.5, 1.0\] at y\[0\]"),
    ([1.0, 0.25], "mse", r"y must be whole numbers. Received: 0.25 at y\[1\]. .*sample_weight="),
    ([[1.0], [0.75]], "bce", r"y must be whole numbers. Received: \[0.75\] at y\[1\]"),
    ([[[1], [0]], [[0], [1]]], "bce", r"one label for each sample. Received: y of shape \(2, 2, 1\)"),
])
def test_weights_of_classes_are_refused_where_samples_have_no_one_class(y, loss, message):
    y = np.array(y)
    model = cnnlite.Sequential([cnnlite.Input((2,)), layers.Dense(3 if y.shape[1:] == (3,) else 1, "sigmoid")])
    if y.ndim == 3:
        model = cnnlite.Sequential([cnnlite.Input((2,)), layers.Reshape((2, 1)), layers.Dense(1, "sigmoid")])
    model.compile("sgd", loss)
    before, x, by_class = weights_of(model), np.ones((2, 2)), {0: 1.0, 1: 2.0, 2: 1.0}
    if y.shape[1:] != (3,):
        del by_class[2]
    for call in (
        lambda: model.fit(x, y, class_weight=by_class, verbose=0),
        lambda: model.fit(iter([(x, y)]), class_weight=by_class, verbose=0),
        lambda: model.train_on_batch(x, y, class_weight=by_class),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    np.testing.assert_array_equal(weights_of(model), before)


def test_weights_of_classes_go_with_whole_numbers_and_rows_that_are_smoothed():
    def loss_of(units, loss, y, **arguments):
        model = cnnlite.Sequential([cnnlite.Input((2,)), layers.Dense(units, "sigmoid")])
        model.set_weights([np.ones((2, units)), np.zeros(units)])
        model.compile("sgd", loss)
        return model.train_on_batch(np.ones((2, 2)), y, **arguments)

    for units, loss, y in [(1, "bce", [0.0, 1.0]), (1, "bce", [[False], [True]]), (1, "mse", [0, 1]),
                           (2, "bce", [[0.9, 0.1], [0.05, 0.95]])]:
        y = np.array(y)
        assert loss_of(units, loss, y, class_weight={0: 3.0, 1: 2.0}) == loss_of(units, loss, y, sample_weight=[3, 2])


@pytest.mark.parametrize("metric", [
    "categorical_accuracy", "top_k_categorical_accuracy", "categorical_crossentropy", "binary_accuracy", "precision",
    "mse", "recall",
])
def test_a_metric_that_cannot_take_the_labels_is_refused_before_anything_is_changed(data, metric):
    x, y = data
    model = make_model(metrics=[metric])
    before = model.get_weights()
    with pytest.raises(ValueError, match="y_true must"):
        fit(model, x, y)
    with pytest.raises(ValueError, match="y_true must"):
        model.train_on_batch(x, y)
    assert model.optimizer.iterations == 0
    for mine, array in zip(model.get_weights(), before):
        np.testing.assert_array_equal(mine, array)


def test_a_number_that_is_infinite_in_the_precision_of_the_model_is_refused(data):
    x, y = data
    x = x.astype(np.float64)
    x[3, 1] = 1e300
    with pytest.raises(ValueError, match=r"within the range of float32.*1e\+300 at x\[3, 1\]"):
        fit(make_model(), x, y)


def test_nothing_is_built_for_data_that_is_refused(data):
    model = cnnlite.Sequential([layers.Dense(K, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="label"):
        fit(model, data[0], data[1] + K)
    assert not model.built


def test_an_image_without_channels_is_told_how_to_get_them():
    model = cnnlite.Sequential([cnnlite.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"Add a channel axis: x\[..., np.newaxis\]"):
        fit(model, np.zeros((3, 4, 4)), np.zeros((3, 2)))


def test_running_out_of_data_ends_training_with_a_warning(data):
    x, y = data
    model = make_model()
    with pytest.warns(UserWarning, match="ran out"):
        history = model.fit(iter([(x, y)] * 3), steps_per_epoch=2, epochs=5, verbose=0)
    assert len(history.history["loss"]) == 2
    assert model.optimizer.iterations == 3


def test_arrays_without_numbers_are_judged_by_the_loss():
    model = cnnlite.Sequential([cnnlite.Input((None, 3)), cnnlite.layers.ReLU()])
    model.compile("sgd", "mse")
    empty = np.zeros((4, 0, 3))
    assert model.train_on_batch(empty, empty) == model.train_on_batch(empty.astype(int), empty.astype(int)) == 0
    model = cnnlite.Sequential([cnnlite.Input((3,)), cnnlite.layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="y_true must have the shape of the predictions"):
        model.train_on_batch(np.zeros((4, 3)), np.zeros((4, 0)))
