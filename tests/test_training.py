"""Training: what fit, evaluate and predict compute, what they leave alone, and what they refuse."""

import signal
import threading
import warnings

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import Callback, LambdaCallback
from cnnlite.losses import CategoricalCrossentropy, SparseCategoricalCrossentropy
from cnnlite.metrics import Metric
from cnnlite.optimizers import SGD
from cnnlite.random import RandomStream

N, D, K = 50, 6, 3


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, D)).astype(np.float32)
    return x, (x @ generator.normal(size=(D, K))).argmax(axis=1)


def make_model(*, optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=("accuracy",),
               activation="softmax", regularizer=None, batchnorm=False, seed=1):
    cnnlite.utils.set_random_seed(seed)
    stack = [layers.Dense(8, activation="relu", kernel_regularizer=regularizer)]
    stack += [layers.BatchNorm()] if batchnorm else []
    model = cnnlite.Sequential([*stack, layers.Dense(K, activation=activation)])
    model.compile(optimizer, loss, metrics=list(metrics))
    model.build((None, D))
    model.shuffle_random = RandomStream(seed)
    return model


def weights_of(model):
    return np.concatenate([array.ravel() for array in model.get_weights()])


def fit(model, x, y, **arguments):
    return model.fit(x, y, **{"verbose": 0, **arguments})


# What is computed.


def test_training_learns(data):
    model = make_model(optimizer=SGD(0.3))
    history = fit(model, *data, epochs=30, batch_size=10)
    assert history.history["loss"][-1] < 0.4 * history.history["loss"][0]
    assert history.history["accuracy"][-1] > 0.85
    assert history.epoch == list(range(30))
    assert model.history is history
    assert history.params == {"verbose": 0, "epochs": 30, "steps": 5}


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "mse"])
def test_a_step_is_gradient_descent_on_the_mean_loss_with_its_penalties(data, loss):
    # The definition once more, by finite differences of what evaluate returns.
    x, y = data
    y = y if loss.startswith("sparse") else np.eye(K)[y]
    model = make_model(loss=loss, regularizer="l2", optimizer=SGD(1e-2), metrics=())
    kernel = model.layers[0].params["kernel"]
    before = kernel.copy()
    losses = []
    for sign in (1, -1):
        kernel[1, 2] = before[1, 2] + sign * 1e-2
        losses.append(model.evaluate(x, y, batch_size=N, verbose=0))
    kernel[...] = before
    model.train_on_batch(x, y)
    step = model.layers[0].params["kernel"][1, 2] - before[1, 2]
    assert step == pytest.approx(-1e-2 * (losses[0] - losses[1]) / 2e-2, rel=2e-2)


@pytest.mark.parametrize("batch_size", [7, 32, N])
def test_fit_and_evaluate_agree_on_the_same_data(data, batch_size):
    # At a learning rate of 0 every step sees the same weights; the last batch is short.
    model = make_model(optimizer=SGD(0.0), regularizer="l2")
    history = fit(model, *data, batch_size=batch_size).history
    loss, accuracy = model.evaluate(*data, batch_size=13, verbose=0)
    assert history["loss"][0] == pytest.approx(loss, rel=1e-6)
    assert history["accuracy"][0] == accuracy == np.mean(model.predict(data[0], verbose=0).argmax(1) == data[1])


def test_a_short_first_batch_and_the_whole_agree():
    # Batches of 80 and of 100 of 100 samples see the same first loss when the data is the same twice over.
    x = np.tile(np.random.default_rng(0).normal(size=(20, D)), (5, 1))
    y = np.tile(np.arange(20) % K, 5)
    first = []
    for batch_size in (80, 100):
        seen = []
        model = make_model()
        callback = LambdaCallback(on_train_batch_end=lambda batch, logs, seen=seen: seen.append(logs["loss"]))
        fit(model, x, y, batch_size=batch_size, shuffle=False, callbacks=[callback])
        first.append(seen[0])
    assert first[0] == pytest.approx(first[1], rel=1e-6)


def test_regularization_is_part_of_the_loss_in_fit_and_in_evaluate(data):
    plain, penalised = make_model(metrics=()), make_model(metrics=(), regularizer="l2")
    penalty = penalised.regularization_loss()
    assert penalty > 0
    assert penalised.evaluate(*data, verbose=0) == pytest.approx(plain.evaluate(*data, verbose=0) + penalty)
    first = [fit(model, *data, batch_size=N).history["loss"][0] for model in (plain, penalised)]
    assert first[1] == pytest.approx(first[0] + penalty)


@pytest.mark.parametrize("loss", ["sparse", "categorical", "from_logits"])
def test_fused_and_plain_cross_entropy_take_the_same_steps(data, loss):
    x, y = data
    reference = make_model()
    fit(reference, x, y, epochs=2)
    if loss == "from_logits":
        model = make_model(loss=SparseCategoricalCrossentropy(from_logits=True), activation=None)
    else:
        model = make_model(loss="sparse_categorical_crossentropy" if loss == "sparse" else CategoricalCrossentropy())
        y = y if loss == "sparse" else np.eye(K, dtype=np.float32)[y]
    fit(model, x, y, epochs=2)
    np.testing.assert_allclose(weights_of(model), weights_of(reference), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.history.history["accuracy"], reference.history.history["accuracy"])


def test_logits_of_a_thousand_stay_finite(data):
    x, y = data
    model = make_model(optimizer=SGD(1e-6))
    model.layers[-1].params["bias"] = np.array([1000.0, -1000.0, 0.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, x, y)
        loss, _ = model.evaluate(x, y, verbose=0)
    assert 100 < loss < 3000
    assert np.isfinite(weights_of(model)).all()


def test_weights_of_samples_and_of_classes_multiply(data):
    x, y = data
    weights = np.random.default_rng(1).uniform(size=N)
    by_class = {0: 0.5, 1: 2.0, 2: 0.0}
    both, product, one_hot = make_model(), make_model(), make_model(loss="categorical_crossentropy")
    fit(both, x, y, sample_weight=weights, class_weight=by_class)
    fit(product, x, y, sample_weight=weights * np.array([0.5, 2.0, 0.0])[y])
    fit(one_hot, x, np.eye(K)[y], sample_weight=weights[:, None], class_weight=by_class)
    assert both.history.history["loss"] == pytest.approx(product.history.history["loss"], rel=1e-6)
    np.testing.assert_allclose(weights_of(both), weights_of(product), rtol=1e-6)
    np.testing.assert_allclose(weights_of(one_hot), weights_of(product), rtol=1e-5, atol=1e-6)


def test_a_weight_of_zero_is_a_sample_that_is_not_there(data):
    x, y = data
    model = make_model()
    weights = np.r_[np.ones(20), np.zeros(N - 20)]
    some, _ = model.evaluate(x[:20], y[:20], verbose=0)
    # Keras divides by the number of samples, weighted or not.
    assert model.evaluate(x, y, sample_weight=weights, verbose=0)[0] == pytest.approx(some * 20 / N, rel=1e-6)


def test_only_weighted_metrics_take_the_weights(data):
    x, y = data
    model = make_model()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
    right = model.predict(x, verbose=0).argmax(axis=1) == y
    weights = np.where(right, 1.0, 3.0)
    logs = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    assert list(logs) == model.metrics_names == ["loss", "accuracy", "weighted_accuracy"]
    assert logs["accuracy"] == pytest.approx(right.mean())
    assert logs["weighted_accuracy"] == pytest.approx((weights * right).sum() / weights.sum())


# Forms of data.


def test_arrays_lists_generators_and_sequences_train_alike(data):
    x, y = data
    batches = [(x[i : i + 10], y[i : i + 10]) for i in range(0, N, 10)]

    class Batches:
        def __len__(self):
            return len(batches)

        def __getitem__(self, index):
            return batches[index]

    def forever():
        while True:
            yield from batches

    expected = make_model()
    fit(expected, x, y, batch_size=10, epochs=2, shuffle=False)
    forms = {
        "lists": dict(x=x.tolist(), y=y.tolist(), batch_size=10),
        "sequence": dict(x=Batches()),
        "generator": dict(x=forever(), steps_per_epoch=5),
        "iterable": dict(x=type("Iterable", (), {"__iter__": lambda self: iter(batches)})()),
    }
    for form, arguments in forms.items():
        model = make_model()
        history = model.fit(**arguments, epochs=2, shuffle=False, verbose=0)
        np.testing.assert_array_equal(weights_of(model), weights_of(expected), err_msg=form)
        assert history.history["loss"] == pytest.approx(expected.history.history["loss"]), form
        steps = dict(steps=5) if form == "generator" else {}
        source = arguments["x"]
        evaluated = (
            model.evaluate(source, arguments["y"], verbose=0) if "y" in arguments
            else model.evaluate(source, verbose=0, **steps)
        )
        assert evaluated == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-6), form


def test_a_generator_is_one_epoch_and_may_weight_its_samples(data):
    x, y = data
    weights = np.linspace(0, 2, N)
    expected, model = make_model(), make_model()
    fit(expected, x, y, sample_weight=weights, batch_size=25, shuffle=False)
    generator = ((x[i : i + 25], y[i : i + 25], weights[i : i + 25]) for i in (0, 25))
    history = model.fit(generator, verbose=0, validation_data=((x, y) for _ in range(1)))
    np.testing.assert_array_equal(weights_of(model), weights_of(expected))
    assert history.history["val_accuracy"][0] == pytest.approx(model.evaluate(x, y, verbose=0)[1])


def test_images_in_uint8_are_converted_as_keras_does(data):
    _, y = data
    x = np.random.default_rng(0).integers(0, 255, (N, D), np.uint8)
    as_bytes, as_floats = make_model(), make_model()
    fit(as_bytes, x, y)
    fit(as_floats, x.astype(np.float32), y)
    np.testing.assert_array_equal(weights_of(as_bytes), weights_of(as_floats))


def test_validation_takes_the_tail_before_shuffling(data):
    x, y = data
    split, apart = make_model(), make_model()
    fit(split, x, y, validation_split=0.2, epochs=2)
    fit(apart, x[:40], y[:40], validation_data=(x[40:], y[40:]), epochs=2)
    assert split.history.history == apart.history.history
    assert list(split.history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert split.history.history["val_loss"][-1] == pytest.approx(split.evaluate(x[40:], y[40:], verbose=0)[0])


def test_validation_weights_steps_and_frequency(data):
    x, y = data
    model = make_model()
    weights = np.linspace(0, 1, N)
    history = fit(model, x, y, epochs=5, validation_data=(x, y, weights), validation_freq=2).history
    assert len(history["val_loss"]) == 2
    assert len(history["loss"]) == 5
    history = fit(model, x, y, epochs=5, validation_data=(x, y), validation_freq=[1, 5], validation_steps=1,
                  validation_batch_size=10).history
    assert len(history["val_loss"]) == 2
    assert history["val_loss"][-1] == pytest.approx(model.evaluate(x[:10], y[:10], verbose=0)[0])


# What is left alone.


def test_validation_changes_neither_training_nor_the_optimizer(data):
    x, y = data
    plain = make_model(batchnorm=True, optimizer="adam")
    watched = make_model(batchnorm=True, optimizer="adam")
    fit(plain, x, y, epochs=3)
    fit(watched, x, y, epochs=3, validation_data=(x[::-1], y[::-1]))
    np.testing.assert_array_equal(weights_of(plain), weights_of(watched))
    assert plain.optimizer.iterations == watched.optimizer.iterations == 6


def test_evaluate_and_predict_change_nothing(data):
    x, y = data
    model = make_model(batchnorm=True, optimizer="adam")
    fit(model, x, y)
    before, iterations = weights_of(model), model.optimizer.iterations
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    model.test_on_batch(x, y)
    np.testing.assert_array_equal(weights_of(model), before)
    assert model.optimizer.iterations == iterations


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_users_arrays_are_neither_written_nor_kept(data, dtype, shuffle):
    x, y = (data[0] * 10).astype(dtype), data[1].copy()
    weights = np.ones(N)
    for array in (x, y, weights):
        array.flags.writeable = False
    model = make_model()
    fit(model, x, y, sample_weight=weights, shuffle=shuffle, validation_split=0.2)
    model.train_on_batch(x, y)
    held = [value for layer in model.walk() for value in vars(layer).values() if isinstance(value, np.ndarray)]
    held += [part for layer in model.walk() for part in layer._memory or () if isinstance(part, np.ndarray)]
    assert not any(np.may_share_memory(array, other) for array in held for other in (x, y, weights))


def test_a_fit_leaves_neither_its_last_batch_nor_its_buffers(data):
    model = make_model()
    fit(model, *data)
    assert all(layer._memory is None and not layer._buffers for layer in model.walk())
    with pytest.raises(ValueError, match="backward needs a forward pass"):
        model.layers[0].backward(np.zeros((N, 8)))


def test_later_passes_get_arrays_of_their_own(data):
    x, y = data
    model = make_model()
    fit(model, x, y)
    dense = model.layers[0]
    first = dense.forward(x, training=True)
    kept = first.copy()
    dense.forward(-x, training=True)
    np.testing.assert_array_equal(first, kept)


def test_within_a_fit_a_callback_gets_arrays_of_its_own_too(data):
    x, y = data
    outputs = []

    class Keep(Metric):
        def __init__(self):
            super().__init__(name="keep")
            self.kept = []

        def update_state(self, y_true, y_pred, sample_weight=None):
            outputs.append((y_pred, y_pred.copy()))

        def result(self):
            return 0.0

        def reset_state(self):
            pass

    class Forward(Callback):
        def on_train_batch_end(self, batch, logs=None):
            y = self.model.forward(x, training=True)
            outputs.append((y, y.copy()))

    model = make_model(loss=SparseCategoricalCrossentropy(from_logits=True), activation=None, metrics=[Keep()])
    fit(model, x, y, batch_size=10, callbacks=[Forward()])
    assert len(outputs) == 10
    for output, copy in outputs:
        np.testing.assert_array_equal(output, copy)


@pytest.mark.parametrize("where", ["layer", "callback"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_fit_leaves_the_model_in_order(data, where, error):
    x, y = data
    model = make_model(optimizer="adam")
    fit(model, x, y)

    def stop(*args, **kwargs):
        if model.optimizer.iterations == 7:
            raise error
        return forward(*args, **kwargs) if where == "layer" else None

    forward = model.layers[1].preactivation
    if where == "layer":
        model.layers[1].preactivation = stop
        callbacks = []
    else:
        callbacks = [LambdaCallback(on_train_batch_end=stop)]
    with pytest.raises(error):
        fit(model, x, y, batch_size=25, epochs=9, callbacks=callbacks)
    model.layers[1].preactivation = forward
    assert len(model.history.history["loss"]) == 2
    assert model.optimizer.iterations == 7
    assert not any(layer.reuse_buffers for layer in model.walk())
    fit(model, x, y)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals need the main thread")
def test_ctrl_c_within_an_optimizer_step_waits_for_its_end(data):
    class Interrupted(SGD):
        def update(self, *args):
            signal.raise_signal(signal.SIGINT)
            super().update(*args)

    x, y = data
    interrupted, expected = make_model(optimizer=Interrupted(0.1)), make_model(optimizer=SGD(0.1))
    with pytest.raises(KeyboardInterrupt):
        fit(interrupted, x, y, batch_size=10)
    assert interrupted.optimizer.iterations == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    fit(expected, x, y, batch_size=10, callbacks=[Stop()])
    np.testing.assert_array_equal(weights_of(interrupted), weights_of(expected))


class Stop(Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = True


def test_a_broken_progress_bar_does_not_stay_on_the_screen(data, capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    from tqdm.std import tqdm

    with pytest.raises(RuntimeError) as raised:  # which keeps the bar alive: nobody but fit can close it
        make_model().fit(*data, callbacks=[LambdaCallback(on_train_batch_end=_fail)])
    assert raised.traceback
    assert "Epoch 1/1" in capsys.readouterr().out
    assert not tqdm._instances


def _fail(*args):
    raise RuntimeError


# The same again.


def test_the_same_seed_gives_the_same_bits(data):
    histories, weights = [], []
    for _ in range(2):
        model = make_model(optimizer="adam")
        histories.append(fit(model, *data, epochs=3, batch_size=8).history)
        weights.append(weights_of(model))
    assert histories[0] == histories[1]
    np.testing.assert_array_equal(*weights)


def test_a_resumed_run_goes_on_with_the_same_bits(data):
    whole, broken = make_model(optimizer="adam"), make_model(optimizer="adam")
    fit(whole, *data, epochs=4, batch_size=8)
    fit(broken, *data, epochs=2, batch_size=8)
    assert broken.shuffle_random.state[1] == 2
    resumed = make_model(optimizer="adam", seed=5)
    resumed.set_weights(broken.get_weights())
    resumed.optimizer.build(resumed.parameters())
    resumed.optimizer.load_state(broken.optimizer.state())
    resumed.shuffle_random = RandomStream()
    resumed.shuffle_random.state = broken.shuffle_random.state
    history = fit(resumed, *data, initial_epoch=2, epochs=4, batch_size=8)
    assert history.epoch == [2, 3]
    np.testing.assert_array_equal(weights_of(resumed), weights_of(whole))


def test_initial_epoch_at_the_end_trains_nothing(data):
    model = make_model()
    history = fit(model, *data, initial_epoch=3, epochs=3)
    assert history.history == {}
    assert model.optimizer.iterations == 0


# The other calls.


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
    # The loss before the step, which the next one then sees smaller; each is that of its batch alone.
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


def test_compiling_from_a_config_gives_the_same_training(data):
    model = make_model(optimizer=SGD(0.05, momentum=0.9))
    copy = make_model()
    copy.compile_from_config(model.get_compile_config())
    fit(model, *data)
    fit(copy, *data)
    np.testing.assert_array_equal(weights_of(copy), weights_of(model))
    assert copy.metrics_names == model.metrics_names
    assert copy.optimizer.momentum == 0.9
    assert cnnlite.Sequential().get_compile_config() is None


def test_compiling_anew_starts_a_new_optimizer(data):
    model = make_model(optimizer="adam")
    fit(model, *data)
    model.compile("adam", "sparse_categorical_crossentropy")
    assert model.optimizer.iterations == 0
    assert model.metrics_names == ["loss"]
    fit(model, *data)


def test_a_failed_compile_changes_nothing(data):
    model = make_model()
    before = (model.optimizer, model.loss, model.metrics)
    for arguments, error, text in [
        (dict(optimizer="adan", loss="mse"), ValueError, "Known: .*adam"),
        (dict(optimizer="adam", loss="msee"), ValueError, "Known: .*mse"),
        (dict(optimizer="adam", loss="mse", metrics=["acuracy"]), ValueError, "Known: .*accuracy"),
        (dict(optimizer="adam", loss="mse", metrics=["mae", "mae"]), ValueError, "must differ.*'mae'"),
        (dict(optimizer="adam", loss=3), TypeError, "loss"),
        (dict(optimizer="adam", loss="mse", loss_weights=["accuracy"]), ValueError, "loss_weights must be None"),
    ]:
        with pytest.raises(error, match=text):
            model.compile(**arguments)
    assert (model.optimizer, model.loss, model.metrics) == before


# Bad input: one sentence, before anything is changed.


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
    "rank": (lambda x, y: dict(x=x[0], y=y[:6]), ValueError, r"x must have the shape .*Add the axis of samples"),
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
    "generator twice": (lambda x, y: dict(x=iter([(x, y)]), epochs=2), ValueError, "read once.*steps_per_epoch"),
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
    with pytest.raises(ValueError, match=r"of the size that float32 can hold.*1e\+300 at x\[3, 1\]"):
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
    with pytest.raises(ValueError, match=r"Add the axis of channels: x\[..., np.newaxis\]"):
        fit(model, np.zeros((3, 4, 4)), np.zeros((3, 2)))


def test_fit_and_evaluate_need_compile_and_a_loss(data):
    model = cnnlite.Sequential([layers.Dense(2)])
    for call in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match=rf"{call.__name__}: the model must be compiled.*Call compile"):
            call(*data)
    model.compile("sgd")
    with pytest.raises(ValueError, match="must have a loss"):
        model.fit(*data)
    empty = cnnlite.Sequential()
    empty.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must have layers"):
        empty.fit(*data)


def test_a_loss_that_is_no_longer_a_number_is_told_once(data):
    x, y = data
    model = make_model(optimizer=SGD(1e30), loss="mse", activation=None, metrics=())
    with pytest.warns(UserWarning, match=r"is (inf|nan) in epoch \d at step \d.*smaller learning rate") as seen:
        fit(model, x * 1e4, np.eye(K)[y], epochs=3, batch_size=10)
    assert len([w for w in seen if "the loss is" in str(w.message)]) == 1


def test_running_out_of_data_ends_training_with_a_warning(data):
    x, y = data
    model = make_model()
    with pytest.warns(UserWarning, match="ran out"):
        history = model.fit(iter([(x, y)] * 3), steps_per_epoch=2, epochs=5, verbose=0)
    assert len(history.history["loss"]) == 2
    assert model.optimizer.iterations == 3


def test_no_sample_is_evaluated_or_predicted_twice(data):
    x, y = data
    model = make_model()
    with pytest.warns(UserWarning, match="ran out after 2 of the 5 steps"):
        assert model.predict(x, batch_size=30, steps=5, verbose=0).shape == (N, K)
    with pytest.warns(UserWarning, match="ran out after 2 of the 5 steps"):
        assert model.evaluate(x, y, batch_size=30, steps=5, verbose=0) == model.evaluate(x, y, batch_size=30, verbose=0)
    with pytest.warns(UserWarning, match="ran out after 2 of the 5 steps"):
        history = fit(model, x, y, validation_data=(x, y), validation_batch_size=30, validation_steps=5).history
    assert history["val_loss"][0] == pytest.approx(model.evaluate(x, y, verbose=0)[0])


@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_a_log_gets_a_line_for_each_epoch(data, verbose, capsys):
    model = make_model()
    model.fit(*data, epochs=2, validation_split=0.2, verbose=verbose)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Epoch 1/2  ")
    assert "img/s  loss " in first
    assert "val_accuracy" in first
    assert second.startswith("Epoch 2/2  ")
    model.evaluate(*data, verbose=verbose)
    model.predict(data[0], verbose=verbose)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Evaluate  ")
    assert "accuracy" in line
    assert capsys.readouterr().err == ""


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
