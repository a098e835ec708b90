"""Ctrl-C at random moments of a fit, and whether the model is then at the end of a whole step."""

import signal
import time

import numpy as np

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import Callback, LambdaCallback
from tests.models import assert_same_weights


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


def train(model, *callbacks):
    x, y = data()
    return model.fit(x, y, batch_size=8, epochs=3, validation_split=0.2, verbose=0, callbacks=[PutBack(), *callbacks])


def digest(model):
    """Return what belongs to one step, in values that compare bit for bit."""
    state = model.optimizer.state()
    return (
        state.pop("iterations"), state.pop("learning_rate"), [vector.tobytes() for vector in state.values()],
        [array.tobytes() for array in model.get_weights()],
        [layer.random.state for layer in model.walk() if hasattr(layer, "random")],
    )


def trajectory():
    """Return what the model is after each step, and how long the training takes in seconds."""
    model = make_model()
    steps = []
    note = LambdaCallback(
        on_train_begin=lambda logs: steps.append(digest(model)),
        on_train_batch_end=lambda batch, logs: steps.append(digest(model)),
    )
    train(model, note)
    steps.append(digest(model))  # with the weights of the first epoch
    assert steps[-1] != steps[-2]
    start = time.perf_counter()
    train(make_model())
    return steps, time.perf_counter() - start


def interrupted(steps, seconds):
    """Interrupt a fit after a time, and check what it leaves; return the step, or None where it came too late."""
    model = make_model()
    ring = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        train(model)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return None
    except KeyboardInterrupt:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, ring)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not any(layer.reuse_buffers for layer in model.walk())
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
