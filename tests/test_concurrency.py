"""Many threads at once; the long form is tests/stress/test_threads.py."""

import contextlib
import copy
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import LambdaCallback
from cnnlite.support import locks
from tests.helpers.models import assert_same_weights
from tests.helpers.programs import LAYERS, run_program
from tests.kernels.drawn import compiled_kernels_needed
from tests.stress import work

# What numba aborts, if nobody minds: two calls at once, and one within another, with the layer "workqueue".


@compiled_kernels_needed
@pytest.mark.parametrize("layer", LAYERS)
def test_eight_threads_that_train_and_predict_get_what_one_would(layer):
    ways = ["threads", "first call", "within a prange"]
    result, _ = run_program("tests.stress.threads", ",".join(ways), 2, layer=layer)
    assert result["layer"] == layer
    assert result["tasks"] == dict.fromkeys(ways, 16)
    assert result["shared"] > 100  # or it would be of no use


# One model, one thread that trains it.


class Halfway:
    """A fit that stands still in another thread, until the block is left."""

    def __init__(self, model, x, y):
        self.reached, self.go_on, self.error = threading.Event(), threading.Event(), None
        callback = LambdaCallback(on_train_batch_end=lambda batch, logs: (self.reached.set(), self.go_on.wait(60)))
        self.thread = threading.Thread(target=self.run, args=(model, x, y, callback))

    def run(self, model, x, y, callback):
        try:
            model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0, callbacks=[callback])
        except Exception as error:
            self.error = error

    def __enter__(self):
        self.thread.start()
        assert self.reached.wait(60)

    def __exit__(self, *_):
        self.go_on.set()
        self.thread.join(60)
        assert not self.thread.is_alive()
        assert self.error is None


def small_model(stack=None, **arguments):
    cnnlite.utils.set_random_seed(1)
    model = cnnlite.Sequential([*(stack or [layers.Dense(4), layers.BatchNorm()]), layers.Dense(3)])
    model.compile(**{"optimizer": "adam", "loss": "mse", "metrics": ["mae"], **arguments})
    model.build((None, 5))
    return model


def small_data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(20, 5)).astype(np.float32), generator.normal(size=(20, 3)).astype(np.float32)


CALLS = {
    "fit": lambda model, x, y: model.fit(x, y, verbose=0),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
    "evaluate": lambda model, x, y: model.evaluate(x, y, verbose=0),
    "test_on_batch": lambda model, x, y: model.test_on_batch(x, y),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_second_thread_is_refused_a_model_that_is_trained_and_changes_nothing(call):
    x, y = small_data()
    model, twin = small_model(), small_model()
    twin.fit(x, y, batch_size=len(x), shuffle=False, verbose=0)
    rule = rf"{call}: .*one thread at a time.*in fit.*clone_model"
    with Halfway(model, x, y), pytest.raises(RuntimeError, match=rule):
        CALLS[call](model, x, y)
    assert model.history.history == twin.history.history
    assert_same_weights(model, twin)
    CALLS[call](model, x, y)  # now that it is free


@pytest.mark.parametrize("shared", ["layer", "optimizer", "metric"])
def test_models_that_share_what_a_step_changes_are_not_trained_at_once(shared):
    x, y = small_data()
    layer, optimizer, metric = layers.Dense(4), cnnlite.optimizers.Adam(), cnnlite.metrics.MeanAbsoluteError()
    models = [small_model(
        [layer if shared == "layer" else layers.Dense(4)], optimizer=optimizer if shared == "optimizer" else "adam",
        metrics=[metric if shared == "metric" else "mae"],
    ) for _ in range(2)]
    with Halfway(models[0], x, y), pytest.raises(RuntimeError, match="one thread at a time"):
        models[1].train_on_batch(x, y)


def test_a_model_that_is_trained_may_be_asked_and_a_callback_may_train_and_evaluate_it():
    x, y = small_data()
    model = small_model()
    with Halfway(model, x, y):
        assert np.isfinite(model.predict(x, verbose=0)).all()
        assert np.isfinite(model(x)).all()
    model.fit(x, y, verbose=0, callbacks=[LambdaCallback(on_epoch_end=lambda epoch, logs: (
        model.evaluate(x, y, verbose=0), model.train_on_batch(x, y)))])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_model_whose_training_failed_is_free(error):
    x, y = small_data()
    model = small_model()

    def fail(batch, logs):
        raise error

    with pytest.raises(error):
        model.fit(x, y, verbose=0, callbacks=[LambdaCallback(on_train_batch_end=fail)])
    assert locks._users == {}
    thread = threading.Thread(target=lambda: results.append(model.train_on_batch(x, y)))
    results = []
    thread.start()
    thread.join(60)
    assert len(results) == 1


# What threads share besides.


def test_no_two_threads_get_the_same_random_key():
    class Slow(cnnlite.random.RandomStream):
        @property
        def count(self):
            present = self.__dict__["count"]
            time.sleep(1e-5)  # so that another thread comes in between
            return present

        @count.setter
        def count(self, value):
            self.__dict__["count"] = value

    stream, keys = Slow(0), []
    threads = [threading.Thread(target=lambda: keys.extend([stream.key() for _ in range(50)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(keys)) == len(keys) == 400


def test_a_thread_waits_while_another_one_builds_the_layer():
    inside, go_on = threading.Event(), threading.Event()

    class Slow(layers.Layer):
        def build(self, input_shape):
            self.add_weight("first", (input_shape[-1],))
            inside.set()
            go_on.wait(60)
            self.add_weight("second", (input_shape[-1],))

        def forward(self, x, training=False):
            x = self.prepare(x)
            return x * self.params["first"] + self.params["second"]

    layer, x, results = Slow(), np.ones((2, 3), np.float32), []
    threads = [threading.Thread(target=lambda: results.append(layer(x))) for _ in range(2)]
    threads[0].start()
    assert inside.wait(60)
    threads[1].start()
    threads[1].join(0.05)
    assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert len(results) == 2
    np.testing.assert_array_equal(*results)


def test_the_work_of_the_programs_is_the_same_each_time():
    assert work.train(work.make_model(3), 3) == work.train(work.make_model(3), 3)
    assert work.train(work.make_model(3), 3) != work.train(work.make_model(4), 3)


# One model, many threads.


def in_threads(number, function):
    """Call function(i) in so many threads at once; return what they returned."""
    begin, found, errors = threading.Barrier(number), [None] * number, []

    def run(i):
        try:
            begin.wait(60)
            found[i] = function(i)
        except Exception as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(i,)) for i in range(number)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not errors
    return found


def test_eight_threads_that_run_a_model_in_training_mode_get_what_one_would():
    model = cnnlite.Sequential([
        cnnlite.Input((16, 16, 3)), layers.Conv2D(16, 3, activation="relu"), layers.MaxPool(), layers.Conv2D(16, 3),
        layers.Flatten(), layers.Dense(10),
    ])
    rng = np.random.default_rng(0)
    xs = [rng.normal(size=(samples, 16, 16, 3)).astype("f4") for samples in (1, 3, 17, 64, 40, 130)]
    expected = [model(x, training=True) for x in xs]

    def passes(i):
        order = np.random.default_rng(i).integers(len(xs), size=60)
        return all(np.array_equal(model(xs[k], training=True), expected[k]) for k in order)

    assert in_threads(8, passes) == [True] * 8


def test_backward_is_of_the_last_forward_whichever_threads_they_run_in():
    model = cnnlite.Sequential([cnnlite.Input((12, 12, 3)), layers.Conv2D(8, 3, activation="tanh"), layers.MaxPool(),
                                layers.Flatten(), layers.Dense(5)])
    xs = np.random.default_rng(0).normal(size=(4, 9, 12, 12, 3)).astype("f4")
    dy = np.ones((9, 5), "f4")
    expected = []
    for x in xs:
        model(x, training=True)
        expected.append(model.backward(dy))
    pools = [ThreadPoolExecutor(1) for _ in xs]
    for order in ([0, 1, 2, 3], [3, 1], [2], [0, 0, 1]):
        for i in order:
            pools[i].submit(model, xs[i], training=True).result()
        for pool in pools:
            np.testing.assert_array_equal(pool.submit(model.backward, dy).result(), expected[order[-1]])
        np.testing.assert_array_equal(model.backward(dy), expected[order[-1]])
    for pool in pools:
        pool.shutdown()


class Scale(layers.Layer):
    """A layer of the user's, between two plans."""

    def forward(self, x, training=False):
        if training:
            self.remember(x.shape)
        return 2 * x

    def backward(self, dy):
        assert self.recall() == (dy.shape,)
        return 2 * dy


@pytest.mark.parametrize("eager", [False, True])
def test_a_fit_is_not_disturbed_by_who_runs_the_model_in_training_mode_meanwhile(eager):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 6)).astype("f4"), rng.normal(size=(64, 2)).astype("f4")
    pool, passes, weights = ThreadPoolExecutor(1), [], []

    class Disturbed(cnnlite.losses.MeanSquaredError):
        """A loss for which another thread runs the model, when a step has gone up it and not yet down."""

        def gradient(self, y_true, y_pred):
            passes.append(pool.submit(model, 3 * x[:8], training=True).result())
            return super().gradient(y_true, y_pred)

    for loss in (cnnlite.losses.MeanSquaredError(), Disturbed()):
        cnnlite.utils.set_random_seed(0)
        model = cnnlite.Sequential([cnnlite.Input((6,)), layers.Dense(8, "tanh"), Scale(), layers.Dense(2)])
        model.compile("adam", loss, run_eagerly=eager)
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    pool.shutdown()
    assert len(passes) == 16
    for mine, theirs in zip(*weights):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_threads_that_run_make_and_copy_a_model_at_once_make_no_wrong_plan():
    x, y = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("f4"), np.ones((2, 4))
    for _ in range(8):
        model = cnnlite.Sequential([
            cnnlite.Input((8, 8, 3)),
            *[layer for _ in range(4) for layer in (
                layers.Conv2D(4, 3, padding="same"), layers.BatchNorm(), layers.Activation("relu"))],
            layers.GlobalAveragePool(), layers.Dense(4),
        ])
        model.compile(cnnlite.optimizers.SGD(0.0), "mse")
        ways = [
            lambda model=model: model.train_on_batch(x, y), lambda model=model: model.forward(x, training=True),
            lambda model=model: model.forward(x, training=True), lambda model=model: model.predict(x, verbose=0),
            lambda model=model: pickle.dumps(model), lambda model=model: copy.deepcopy(model),
        ]
        in_threads(len(ways), lambda i, ways=ways: ways[i]())
        y_of, dx_of = [], []
        for context in (contextlib.nullcontext, cnnlite.reference_mode):
            with context():
                y_of.append(model(x))
        for context in (contextlib.nullcontext, cnnlite.reference_mode):
            with context():
                model.forward(x, training=True)  # which moves the averages
                dx_of.append(model.backward(np.ones((2, 4), "f4")))
        for mine, theirs in y_of, dx_of:
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


def test_a_plan_that_is_made_while_a_step_moves_the_weights_reads_the_weights_of_every_later_run():
    x, y = np.ones((3, 6), "f4"), np.zeros((3, 6), "f4")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(30):
            model = cnnlite.Sequential([cnnlite.Input((6,)), *[layers.Dense(6, "tanh") for _ in range(8)]])
            model.compile(cnnlite.optimizers.SGD(0.1), "mse")
            in_threads(2, lambda i, model=model: model.predict_on_batch(x) if i else model.train_on_batch(x, y))
            for _ in range(5):
                model.train_on_batch(x, y)
            found = model.predict_on_batch(x)
            with cnnlite.reference_mode():
                np.testing.assert_allclose(found, model.predict_on_batch(x), rtol=1e-3, atol=1e-5)
    finally:
        sys.setswitchinterval(interval)


def test_who_asks_a_model_while_its_first_step_moves_the_weights_reads_no_memory_that_is_gone():
    x = np.ones((1, 24, 24, 8), "f4")
    for _ in range(10):
        model = cnnlite.Sequential([
            cnnlite.Input((24, 24, 8)), layers.Conv2D(32, 3, activation="relu"), layers.Conv2D(32, 3),
            layers.GlobalAveragePool(), layers.Dense(256), layers.Dense(3),
        ])
        model.compile(cnnlite.optimizers.SGD(0.0), "mse")
        expected = model(x)
        is_done = threading.Event()

        def ask(i, model=model, expected=expected, is_done=is_done):
            if i == 0:
                model.train_on_batch(x, np.zeros((1, 3)))
                junk = [np.full(shape, np.nan, "f4") for shape in ((3, 3, 8, 32), (3, 3, 32, 32), 256, 32) * 20]
                time.sleep(0.01)
                is_done.set()
                return len(junk) > 0
            while not is_done.is_set():
                if not np.array_equal(model(x), expected):
                    return False
            return True

        assert in_threads(4, ask) == [True] * 4
