"""What training, evaluation and prediction leave alone, and what an interrupted fit leaves behind."""

import signal
import threading

import numpy as np
import pytest

from cnnlite.callbacks import Callback, LambdaCallback
from cnnlite.eager import is_eager
from cnnlite.losses import SparseCategoricalCrossentropy
from cnnlite.metrics import Metric
from cnnlite.optimizers import SGD
from tests.helpers.models import N, Stop, fit, holds_no_batch, kept_for_training, make_data, make_model, weights_of


@pytest.fixture
def data():
    return make_data()


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
    assert any(kept_for_training(model)) or is_eager()
    assert holds_no_batch(model)
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

    forward = model.layers[1].forward
    if where == "layer":
        model.layers[1].forward = stop
        callbacks = []
    else:
        callbacks = [LambdaCallback(on_train_batch_end=stop)]
    with pytest.raises(error):
        fit(model, x, y, batch_size=25, epochs=9, callbacks=callbacks)
    model.layers[1].forward = forward
    assert len(model.history.history["loss"]) == 2
    assert model.optimizer.iterations == 7
    assert not any(layer._memory for layer in model.walk())
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
