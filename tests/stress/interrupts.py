"""Signals at random moments of a training, and whether the model is then at the end of a whole step."""

import os
import signal
import sys
import threading
import time

import numpy as np

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import Callback, LambdaCallback
from tests.helpers.models import assert_same_weights


def _end(number, frame):
    sys.exit(1)


def _time_out(number, frame):
    raise TimeoutError


# By the name of the signal, since not every system has all of them: its handler, and what that raises.
WAYS = {
    "SIGINT": (signal.default_int_handler, KeyboardInterrupt), "SIGTERM": (_end, SystemExit),
    "SIGALRM": (_time_out, TimeoutError), "SIGUSR1": (_time_out, TimeoutError),
}


def data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(40, 6, 6, 1)).astype(np.float32), generator.integers(0, 3, 40)


def make_model():
    cnnlite.utils.set_random_seed(0)
    model = cnnlite.Sequential([
        layers.Conv2D(4, 3), layers.BatchNorm(), layers.ReLU(), layers.Flatten(), layers.Dropout(0.3),
        layers.Dense(3, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class PutBack(Callback):
    """Puts back the weights of the first epoch at the end of training, as EarlyStopping may."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.weights = self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)


def train(model, note=None):
    """Train by fit; call `note` before the first step and after each."""
    x, y = data()
    notes = [] if note is None else [
        LambdaCallback(on_train_begin=lambda *_: note(), on_train_batch_end=lambda *_: note())
    ]
    return model.fit(x, y, batch_size=8, epochs=3, validation_split=0.2, verbose=0, callbacks=[PutBack(), *notes])


def train_by_batches(model, note=None):
    """Train by train_on_batch; call `note` before the first step and after each."""
    x, y = data()
    model.build(x.shape)
    model.optimizer.build(model.parameters())
    for step in range(13):
        if note is not None:
            note()
        if step < 12:
            rows = slice(8 * (step % 4), 8 * (step % 4) + 8)
            model.train_on_batch(x[rows], y[rows])


def digest(model):
    """Return what belongs to one step, in values that compare bit for bit."""
    state = model.optimizer.state()
    return (
        state.pop("iterations"), state.pop("learning_rate"), [vector.tobytes() for vector in state.values()],
        [array.tobytes() for array in model.get_weights()],
        [layer.random.state for layer in model.walk() if hasattr(layer, "random")],
    )


def trajectory(training=train):
    """Return what the model is after each step, and how long the training takes in seconds."""
    model = make_model()
    steps = []
    training(model, lambda: steps.append(digest(model)))
    if training is train:
        steps.append(digest(model))  # with the weights of the first epoch
        assert steps[-1] != steps[-2]
    start = time.perf_counter()
    training(make_model())
    return steps, time.perf_counter() - start


def interrupted(steps, seconds, way="SIGINT", training=train):
    """Interrupt a training after a time, and check what it leaves; return the step, or None where it came too late."""
    number, (handler, error) = getattr(signal, way), WAYS[way]
    model = make_model()
    before = signal.signal(number, handler)
    # By another thread, which no handler holds up.
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), number))
    try:
        timer.start()
        training(model)
        timer.cancel()
        timer.join()
        return None
    except error:
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert not any(layer._memory for layer in model.walk())
    step = model.optimizer.iterations
    if model.built:
        assert digest(model) in (steps[step], steps[-1])
    # It is still of use: it predicts, and trains on as one that was stopped there.
    x, y = data()
    assert np.isfinite(model.predict(x, verbose=0)).all()
    twin = make_model()
    twin.build(x.shape)
    twin.optimizer.build(twin.parameters())
    twin.set_weights(model.get_weights())
    if model.optimizer.slots:
        twin.optimizer.load_state(model.optimizer.state())
    for mine, other in zip(model.walk(), twin.walk(), strict=True):
        if hasattr(mine, "random"):
            other.random.state = mine.random.state
    assert model.train_on_batch(x, y) == twin.train_on_batch(x, y)
    assert_same_weights(model, twin)
    return step
