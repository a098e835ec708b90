"""evaluate, predict and the calls on a batch: what they return, and for which data."""

import threading

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from tests.helpers.models import K, N, fit, make_data, make_model


@pytest.fixture
def data():
    return make_data()


def test_predict_keeps_the_order_and_gives_away_its_arrays(data):
    x, _ = data
    model = make_model()
    whole = model.predict(x, batch_size=N, verbose=0)
    np.testing.assert_allclose(model.predict(x, batch_size=7, verbose=0), whole, rtol=1e-6)
    np.testing.assert_array_equal(model.predict(x[::-1], batch_size=N, verbose=0), whole[::-1])
    np.testing.assert_allclose(model.predict((x[i : i + 20] for i in range(0, N, 20)), verbose=0), whole, rtol=1e-6)
    np.testing.assert_allclose(model.predict(x.tolist(), verbose=0), whole, rtol=1e-6)
    assert whole.dtype == np.float32
    assert whole.flags.owndata
    assert whole.flags.writeable
    copy = whole.copy()
    model.predict(x + 1, batch_size=N, verbose=0)
    np.testing.assert_array_equal(whole, copy)
    np.testing.assert_array_equal(model.predict_on_batch(x), whole)


def test_predict_of_a_model_that_only_reshapes():
    x = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float32)
    y = cnnlite.Sequential([layers.Flatten()]).predict(x, batch_size=3, verbose=0)
    np.testing.assert_array_equal(y, x.reshape(10, 6))
    assert not np.may_share_memory(x, y)


def test_outputs_of_several_shapes_are_told_apart():
    model = cnnlite.Sequential([cnnlite.Input(shape=(None, 2, 1)), layers.MaxPool(1)])
    with pytest.raises(ValueError, match=r"shapes \(3, 2, 1\), \(4, 2, 1\). Call predict_on_batch"):
        model.predict((np.ones((2, height, 2, 1)) for height in (4, 3)), verbose=0)


def test_predict_needs_no_compile_and_lets_nan_pass(data):
    x = data[0].copy()
    model = cnnlite.Sequential([layers.Dense(2)])
    x[3, 1] = np.nan
    y = model.predict(x, verbose=0)
    assert np.isnan(y[3]).all()
    assert np.isfinite(np.delete(y, 3, axis=0)).all()
    with pytest.raises(ValueError, match=r"predict: x must hold at least one sample. Received: shape=\(0, 6\)"):
        model.predict(x[:0])
    with pytest.raises(ValueError, match=r"predict: x must have the shape \(None, 6\).*\(50, 5\)"):
        model.predict(x[:, :5])


def test_the_calls_on_a_batch(data):
    x, y = data
    model = make_model()
    loss, accuracy = model.test_on_batch(x, y)
    assert [loss, accuracy] == pytest.approx(model.evaluate(x, y, batch_size=N, verbose=0))
    # The loss before the step; the next step sees a smaller one. Each loss is that of its batch alone.
    assert model.train_on_batch(x, y) == [loss, accuracy]
    second = model.train_on_batch(x, y, return_dict=True)
    assert second["loss"] < loss
    assert list(second) == ["loss", "accuracy"]
    assert model.optimizer.iterations == 2
    weighted = model.test_on_batch(x, y, sample_weight=np.full(N, 2.0), return_dict=True)
    assert weighted["loss"] == pytest.approx(2 * model.test_on_batch(x, y)[0])


@pytest.mark.parametrize("x", [5, None, np.zeros((0, 8))])
def test_predict_on_batch_needs_an_array_of_samples(x):
    with pytest.raises((ValueError, TypeError), match="predict_on_batch: x must"):
        make_model().predict_on_batch(x)


def test_what_evaluate_returns_depends_on_the_metrics(data):
    model = make_model(metrics=())
    assert isinstance(model.evaluate(*data, verbose=0), float)
    assert list(model.evaluate(*data, verbose=0, return_dict=True)) == ["loss"]
    assert len(make_model(metrics=["accuracy", "sparse_top_k_categorical_accuracy"]).evaluate(*data, verbose=0)) == 3


def test_no_sample_is_evaluated_or_predicted_twice(data):
    x, y = data
    model = make_model()
    with pytest.warns(UserWarning, match="ran out after 2 of the 5 requested steps"):
        assert model.predict(x, batch_size=30, steps=5, verbose=0).shape == (N, K)
    with pytest.warns(UserWarning, match="ran out after 2 of the 5 requested steps"):
        assert model.evaluate(x, y, batch_size=30, steps=5, verbose=0) == model.evaluate(x, y, batch_size=30, verbose=0)
    with pytest.warns(UserWarning, match="ran out after 2 of the 5 requested steps"):
        history = fit(model, x, y, validation_data=(x, y), validation_batch_size=30, validation_steps=5).history
    assert history["val_loss"][0] == pytest.approx(model.evaluate(x, y, verbose=0)[0])


def test_threads_can_predict_with_one_model(data):
    x, _ = data
    model = make_model(batchnorm=True)
    expected = model.predict(x, verbose=0)
    results = [None] * 4

    def work(i):
        results[i] = model.predict(x, verbose=0)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)
