"""Plans together with what users do: copies, schedules, callbacks, custom steps, and printing the plan."""

import copy
import pickle
import signal

import numpy as np
import pytest

import cnnlite
from cnnlite import Input, Sequential, layers
from cnnlite.engine import plan as engine_plan
from cnnlite.engine import program
from cnnlite.engine.graph import Graph
from tests.model.test_plan_regressions import X, planned, pooled


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize("get", [
    lambda model: model.layers[0].kernel, lambda model: model.weights[0],
    lambda model: model.layers[0].params["kernel"],
])
def test_a_weight_that_is_copied_with_its_model_is_the_weight_of_the_copy(get, copied):
    model = pooled(layers.Flatten(), layers.Dense(3))
    weight, twin = copied((get(model), model))
    y = twin.predict(X, verbose=0)
    weight *= 2
    assert not np.allclose(twin.predict(X, verbose=0), y)
    with cnnlite.reference_mode():
        expected = twin.predict(X, verbose=0)
    np.testing.assert_allclose(twin.predict(X, verbose=0), expected, rtol=1e-4, atol=1e-5)


def test_a_schedule_may_ask_a_model_and_is_asked_once_a_step():
    teacher = Sequential([Input((8, 8, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1, "sigmoid")])

    class Taught(cnnlite.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            asked.append(step)
            return float(teacher(X)[0, 0]) / 100

        def get_config(self):
            return {}

    losses_of = []
    for eager in (False, True):
        asked = []
        model = pooled()
        model.compile(cnnlite.optimizers.SGD(Taught()), "mse", run_eagerly=eager)
        y = np.ones((6, 4, 4, 8))
        losses_of.append([model.train_on_batch(X, y) for _ in range(3)])
        assert asked == [0, 1, 2]
    np.testing.assert_allclose(*losses_of, rtol=1e-5)


@pytest.mark.parametrize("where", ["the first call", "later"])
def test_what_a_schedule_keeps_of_the_model_is_the_weight_itself(where):
    class Keeping(cnnlite.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            if step == (0 if where == "the first call" else 1):
                kept.append(model.layers[0].kernel)
            return 0.01

        def get_config(self):
            return {}

    kept = []
    model = pooled()
    model.compile(cnnlite.optimizers.SGD(Keeping()), "mse")
    for _ in range(3):
        model.train_on_batch(X, np.ones((6, 4, 4, 8)))
    y = model(X)
    kept[0][...] = 0
    assert not np.allclose(model(X), y)


@pytest.mark.parametrize("copied", [lambda layer: layer, copy.deepcopy])
def test_the_constants_of_a_rescaling_can_only_be_assigned(copied):
    layer = copied(layers.Rescaling([1.0, 2.0, 4.0], offset=[0.0, 0.0, 1.0]))
    model = Sequential([Input((8, 8, 3)), layer])
    np.testing.assert_allclose(model(X), X * [1, 2, 4] + [0, 0, 1], rtol=1e-6)
    for constant in (layer.scale, layer.offset):
        with pytest.raises(ValueError, match="read-only"):
            constant[...] = 0
    layer.scale = layer.scale * 2
    np.testing.assert_allclose(model(X), X * [2, 4, 8] + [0, 0, 1], rtol=1e-6)


def test_a_model_within_another_one_may_prepare_what_a_cross_entropy_is_taken_of():
    class Shifted(Sequential):
        def prepare(self, x):
            return super().prepare(x) + 1

    losses_of = []
    for eager in (False, True):
        cnnlite.utils.set_random_seed(0)
        model = Sequential([Input((8, 8, 3)), layers.Flatten(), Shifted([layers.Dense(3, "softmax")])])
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=eager)
        losses_of.append([model.train_on_batch(X, np.arange(6) % 3) for _ in range(3)])
    np.testing.assert_allclose(*losses_of, rtol=1e-5)


def test_a_step_that_is_put_on_the_base_of_all_optimizers_is_called(monkeypatch):
    step, calls = cnnlite.optimizers.Optimizer.step, []
    model, y = pooled(), np.ones((6, 4, 4, 8))
    model.train_on_batch(X, y)
    monkeypatch.setattr(cnnlite.optimizers.Optimizer, "step",
                        lambda optimizer, parameters: (calls.append(1), step(optimizer, parameters)))
    model.train_on_batch(X, y)
    assert calls == [1]


@planned
def test_a_pass_that_gets_more_threads_on_its_way_down_keeps_what_it_left_on_its_way_up(monkeypatch):
    model = pooled(layers.Conv2D(4, 3, activation="tanh"))
    dy = np.ones(model(X).shape, "f4")
    model(X, training=True)
    expected = model.backward(dy)
    monkeypatch.setattr(engine_plan, "give_back", lambda threads: None)
    for threads in (1, 4, 1, 8):
        monkeypatch.setattr(engine_plan, "threads_for", lambda work, threads=threads: threads)
        if threads == 1:
            model(X, training=True)
        else:
            np.testing.assert_array_equal(model.backward(dy), expected)


@pytest.mark.parametrize("way", ["compile", "assign"])
@pytest.mark.parametrize("when", ["on_train_begin", "on_epoch_end", "on_train_batch_end"])
def test_a_callback_may_bring_another_optimizer(way, when):
    def change(model):
        if way == "compile":
            model.compile(cnnlite.optimizers.Adam(0.01), "mse")
        else:
            model.optimizer = cnnlite.optimizers.Adam(0.01)

    weights = []
    for eager in (False, True):
        changes = [change]
        bring = lambda callback, *_, changes=changes: changes.pop()(callback.model) if changes else None  # noqa: E731
        callback = type("Bring", (cnnlite.callbacks.Callback,), {when: bring})()
        model = pooled()
        model.run_eagerly = eager
        model.fit(X, np.ones((6, 4, 4, 8)), batch_size=3, epochs=2, verbose=0, shuffle=False, callbacks=[callback])
        assert isinstance(model.optimizer, cnnlite.optimizers.Adam)
        weights.append(model.get_weights())
    if way == "assign":  # `compile` resets run_eagerly
        for mine, theirs in zip(*weights):
            np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-4)


def test_layers_that_a_callback_puts_in_the_place_of_others_are_refused_their_optimizer():
    def replace(epoch, logs):
        layer = layers.Conv2D(8, 3, padding="same")
        layer.build((None, 8, 8, 3))
        model.inner_layers = [layer, *model.inner_layers[1:]]

    model = pooled()
    with pytest.raises(ValueError, match="an optimizer belongs to the weights it was first used with"):
        model.fit(X, np.ones((6, 4, 4, 8)), epochs=2, verbose=0,
                  callbacks=[cnnlite.callbacks.LambdaCallback(on_epoch_end=replace)])


def test_no_average_moves_before_the_end_of_a_step_that_goes_up_twice():
    class Twice(Sequential):
        def train_step(self, x, y, sample_weight=None):
            self.forward(x[::2], training=True)
            asked.append(self.predict_on_batch(x))
            self.forward(x[1::2], training=True)
            asked.append(self.predict_on_batch(x))
            if len(asked) > 2:
                raise OSError("no more data")
            return super().train_step(x, y, sample_weight)

    for eager in (False, True):
        asked = []
        cnnlite.utils.set_random_seed(1)
        model = Twice([Input((8, 8, 3)), layers.Conv2D(8, 3), layers.BatchNorm(), layers.ReLU()])
        model.compile(cnnlite.optimizers.SGD(0.0), "mse", run_eagerly=eager)
        y = np.ones((6, 6, 6, 8))
        model.train_on_batch(X, y)
        before = [array.copy() for array in model.layers[1].state.values()]
        with pytest.raises(OSError, match="no more data"):
            model.train_on_batch(X, y)
        for array, values in zip(model.layers[1].state.values(), before):
            np.testing.assert_array_equal(array, values)
        np.testing.assert_array_equal(asked[0], asked[1])
        np.testing.assert_array_equal(asked[2], asked[3])
        assert not np.allclose(asked[1], asked[2])


@planned
def test_to_look_at_the_plan_of_a_step_binds_the_optimizer_to_no_weights():
    model = pooled()
    print(model.plan(training=True))
    model.add(layers.Conv2D(2, 1))
    model.train_on_batch(X, np.ones((6, 4, 4, 2)))


def test_blocks_within_blocks_take_no_longer_at_each_storey(monkeypatch):
    calls, compute = [], layers.Residual.compute_output_shape
    block = layers.Dense(3)
    for _ in range(12):
        block = layers.Residual([block])
    model = Sequential([Input((3,)), block])
    monkeypatch.setattr(layers.Residual, "compute_output_shape",
                        lambda layer, shape: (calls.append(1), compute(layer, shape))[1])
    model.compute_output_shape((None, 3))
    assert 12 <= len(calls) <= 24


@planned
@pytest.mark.parametrize(("samples", "remedy"), [(1, "1 sample needs .* Use smaller samples"),
                                                 (6, "6 samples needs .* Use a smaller batch_size")])
def test_a_plan_that_the_machine_has_no_memory_for_says_what_to_do(samples, remedy, monkeypatch):
    model = pooled()
    with monkeypatch.context() as poor:
        poor.setattr(program, "_machine_bytes", lambda: 1000)
        for call in (lambda: model(X[:samples], training=True),
                     lambda: model.train_on_batch(X[:samples], np.ones((samples, 4, 4, 8)))):
            with pytest.raises(MemoryError, match=remedy):
                call()
    assert np.isfinite(model(X[:samples])).all()
    model.train_on_batch(X[:samples], np.ones((samples, 4, 4, 8)))


@planned
@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no SIGUSR1 on this platform")
def test_a_handler_that_runs_a_model_waits_while_the_plan_of_another_one_is_made(monkeypatch):
    other, add, found = pooled(), Graph.add, []
    expected = other(X)

    def interrupted(graph, *arguments, **more):
        if not found:
            signal.raise_signal(signal.SIGUSR1)
        add(graph, *arguments, **more)

    monkeypatch.setattr(Graph, "add", interrupted)
    before = signal.signal(signal.SIGUSR1, lambda *_: found.append(other(X)))
    try:
        pooled()(X)
    finally:
        signal.signal(signal.SIGUSR1, before)
    np.testing.assert_array_equal(found[0], expected)
