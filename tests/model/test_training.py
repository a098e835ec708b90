"""Training: what fit computes, from data in all forms, and that it is reproducible."""

import warnings

import numpy as np
import pytest

import cnnlite
from cnnlite.callbacks import LambdaCallback
from cnnlite.losses import CategoricalCrossentropy, SparseCategoricalCrossentropy
from cnnlite.optimizers import SGD
from cnnlite.random import RandomStream
from tests.helpers.models import D, K, N, fit, make_data, make_model, weights_of


@pytest.fixture
def data():
    return make_data()


# Results.


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
    # Independent of backward: finite differences of the loss that evaluate returns.
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
    # With batches of 80 and of 100 out of 100 samples, the first loss is the same if the data repeats itself.
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


# Reproducibility.


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


# Output.


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


def test_a_loss_that_is_no_longer_a_number_is_told_once(data):
    x, y = data
    model = make_model(optimizer=SGD(1e30), loss="mse", activation=None, metrics=())
    with pytest.warns(UserWarning, match=r"is (inf|nan) in epoch \d at step \d.*smaller learning rate") as seen:
        fit(model, x * 1e4, np.eye(K)[y], epochs=3, batch_size=10)
    assert len([w for w in seen if "the loss is" in str(w.message)]) == 1


class Darkens(cnnlite.layers.Layer):
    """A custom layer that writes to its input, and has an attribute whose name the library uses too."""

    def __init__(self):
        super().__init__()
        self._memo = [1]

    def forward(self, x, training=False):
        x -= 1
        return x

    def backward(self, dy):
        return dy


def test_a_layer_that_writes_to_its_input_does_not_write_to_the_arrays_of_the_caller():
    model = cnnlite.Sequential([cnnlite.Input((3,)), Darkens(), cnnlite.layers.Dense(2)])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    for _ in range(2):
        model.train_on_batch(x, y)
    assert (x == 1).all()
    assert model.layers[0]._memo == [1]
