"""What callbacks may do to a model in training, without disturbing it: predict, copy, even train."""

import copy
import io
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import cnnlite
from cnnlite.callbacks import Callback, LambdaCallback
from cnnlite.metrics import Metric, Precision
from tests.helpers.models import K, N, fit, make_data, make_model, weights_of
from tests.helpers.runs import dropout_model

X, Y = make_data()
HOOKS = [f"on_{what}_{when}" for what in ("train", "epoch", "train_batch", "test", "test_batch")
         for when in ("begin", "end")]


def at(hook, function):
    """Return a callback that calls function(model) in every call of a hook."""

    class At(Callback):
        pass

    setattr(At, hook, lambda self, *args, **kwargs: function(self.model))
    return At()


class Seen(Metric):
    """Keeps state in every way that a custom metric may."""

    def __init__(self):
        super().__init__(name="seen")
        self.rows, self.sums, self.table, self.batches = [], np.zeros(2), {"classes": set()}, 0

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.rows.append(y_pred[0].copy())
        self.sums += y_pred.sum(), len(y_pred)
        self.table["classes"].update(np.asarray(y_true).ravel().tolist())
        self.batches += 1

    def result(self):
        return float(self.sums[0] + self.sums[1] + self.batches + len(self.rows) + 10 * len(self.table["classes"]))

    def reset_state(self):
        self.rows.clear()
        self.table["classes"].clear()
        self.sums[:] = 0
        self.batches = 0


class Sums:
    def __init__(self):
        self.total, self.batches = 0.0, []


class WithHelpers(Metric):
    """Counts using objects that are neither arrays nor containers."""

    def __init__(self):
        super().__init__(name="with helpers")
        self.sums, self.space, self.bytes = Sums(), SimpleNamespace(count=0), bytearray()

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.sums.total += float(y_pred.sum())
        self.sums.batches.append(len(y_pred))
        self.space.count += 1
        self.bytes.append(1)

    def result(self):
        return self.sums.total + sum(self.sums.batches) + self.space.count + len(self.bytes)

    def reset_state(self):
        self.sums.__init__()
        self.space.count = 0
        self.bytes.clear()


def counting_model():
    return make_model(metrics=["accuracy", Seen(), WithHelpers()], batchnorm=True, optimizer="adam")


ASK = {
    "evaluate": lambda m: m.evaluate(X[:7] + 3, Y[:7], verbose=0),
    "evaluate batches": lambda m: m.evaluate(iter([(X[:7] + 3, Y[:7])] * 3), verbose=0),
    "test_on_batch": lambda m: m.test_on_batch(X[:7] + 3, Y[:7]),
    "predict": lambda m: m.predict(X[:7], verbose=0),
    "predict_on_batch": lambda m: m.predict_on_batch(X[:7]),
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("ask", ASK)
def test_what_a_hook_asks_changes_neither_the_counts_nor_the_training(ask, hook):
    plain, asked, answers = counting_model(), counting_model(), []
    arguments = {"epochs": 2, "batch_size": 20, "validation_data": (X[::2], Y[::2]), "validation_batch_size": 10}
    expected = fit(plain, X, Y, **arguments).history
    history = fit(asked, X, Y, callbacks=[at(hook, lambda m: answers.append(ASK[ask](m)))], **arguments).history
    assert history == expected
    np.testing.assert_array_equal(weights_of(asked), weights_of(plain))
    if hook == "on_train_end":  # the answer is the same as at any other time
        np.testing.assert_array_equal(answers[0], ASK[ask](plain))


@pytest.mark.parametrize("hook", ["on_test_batch_begin", "on_test_batch_end"])
def test_an_evaluation_within_an_evaluation_counts_apart(hook):
    model = counting_model()
    expected = model.evaluate(X, Y, batch_size=10, verbose=0)
    asked = at(hook, ASK["evaluate"])
    assert model.evaluate(X, Y, batch_size=10, verbose=0, callbacks=[asked]) == expected
    assert model.metrics[1].result() == expected[2]


def test_a_metric_that_two_models_share_counts_apart_too():
    metric = Precision()
    one, other = (make_model(loss="mse", metrics=[metric]) for _ in range(2))
    y = np.eye(K)[Y]
    expected = one.evaluate(X, y, batch_size=10, verbose=0)
    asked = at("on_test_batch_end", lambda _: other.evaluate(X + 3, y, verbose=0))
    assert one.evaluate(X, y, batch_size=10, verbose=0, callbacks=[asked]) == expected


def test_an_evaluation_that_fails_leaves_the_counts_too():
    model = counting_model()
    expected = model.evaluate(X, Y, batch_size=10, verbose=0)

    def fails(model):
        def batches():
            yield X, Y
            raise OSError("the disk is gone")

        with pytest.raises(OSError, match="the disk is gone"):
            model.evaluate(batches(), verbose=0)

    asked = at("on_test_batch_end", fails)
    assert model.evaluate(X, Y, batch_size=10, verbose=0, callbacks=[asked]) == expected


# Training within training.


def test_a_step_within_a_fit_is_not_counted_in_its_metrics():
    plain, model = make_model(optimizer=cnnlite.optimizers.SGD(0.0)), make_model(optimizer=cnnlite.optimizers.SGD(0.0))
    expected = fit(plain, X, Y, batch_size=10).history
    step = at("on_train_batch_end", lambda m: m.train_on_batch(X[:3] + 3, Y[:3]))
    assert fit(model, X, Y, batch_size=10, callbacks=[step]).history == expected
    assert model.optimizer.iterations == 10


@pytest.mark.parametrize("hook", HOOKS)
def test_a_fit_within_a_fit_leaves_it_its_history_and_its_counts(hook):
    rate = cnnlite.optimizers.SGD(0.0)
    expected = fit(make_model(optimizer=rate), X, Y, epochs=3, validation_data=(X, Y)).history
    inner = []

    def train(model):
        outer, run = model.history, model.training_run
        # The inner training ends by stop_training, which must not affect the outer one.
        stop = LambdaCallback(on_train_batch_end=lambda *_: setattr(model, "stop_training", True))
        inner.append(fit(model, X[:9], Y[:9], epochs=2, shuffle=False, callbacks=[stop]))
        assert inner[-1].epoch == [0]
        assert not model.stop_training
        assert model.history is outer
        assert model.training_run is run

    model = make_model(optimizer=cnnlite.optimizers.SGD(0.0))
    history = fit(model, X, Y, epochs=3, validation_data=(X, Y), callbacks=[at(hook, train)])
    assert inner
    assert history is model.history
    assert history not in inner
    assert {name: pytest.approx(values) for name, values in history.history.items()} == expected
    assert model.training_run is None
    assert not any(layer._memory for layer in model.walk())


def test_a_fit_of_a_model_that_is_a_layer_of_the_one_in_training_has_a_history_of_its_own():
    inner = make_model()
    model = cnnlite.Sequential([inner])
    model.compile("sgd", "sparse_categorical_crossentropy")
    histories = []
    history = fit(model, X, Y, callbacks=[at("on_epoch_end", lambda _: histories.append(fit(inner, X, Y)))])
    assert (inner.history, model.history) == (histories[0], history)


def test_a_fit_within_a_fit_that_is_to_stop_lets_it_stop():
    model = make_model()

    def stop(model):
        model.stop_training = True
        fit(model, X, Y)

    assert fit(model, X, Y, epochs=5, batch_size=10, callbacks=[at("on_train_batch_end", stop)]).epoch == [0]
    assert model.optimizer.iterations == 1 + 2


def test_a_fit_within_a_fit_that_fails_leaves_it_its_history():
    def fails(model):
        with pytest.raises(RuntimeError):
            fit(model, X, Y, callbacks=[at("on_epoch_end", _raise)])

    model = make_model()
    history = fit(model, X, Y, epochs=2, callbacks=[at("on_epoch_end", fails)])
    assert model.history is history
    assert history.epoch == [0, 1]


def _raise(model):
    raise RuntimeError


def test_a_step_within_a_fit_is_not_taken_for_the_refused_one():
    model, steps = make_model(), []

    def train(model):
        if not steps:
            model.layers[0].params["bias"] = np.full(8, np.nan)
            model.train_on_batch(X, Y)
            model.layers[0].params["bias"] = np.zeros(8)
        steps.append(model.training_run.refused)

    fit(model, X, Y, batch_size=10, callbacks=[at("on_train_batch_end", train), cnnlite.callbacks.TerminateOnNaN()])
    assert steps == [False] * 5


# Copies.

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model))}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_that_a_hook_makes_is_a_model_of_its_own(how, hook):
    twins, at_that_time = [], []

    def take(model):
        if not twins:
            at_that_time.append((weights_of(model), model.optimizer.iterations))
            twins.append(COPIES[how](model))

    trained = []
    for hooks in ([], [at(hook, take)]):
        model = dropout_model(1)
        model.build(X.shape)
        fit(model, X, Y, epochs=2, batch_size=20, validation_data=(X, Y), callbacks=hooks)
        trained.append(weights_of(model))
    np.testing.assert_array_equal(*trained)
    (twin,), ((weights, iterations),) = twins, at_that_time
    np.testing.assert_array_equal(weights_of(twin), weights)
    assert twin.training_run is None
    assert not any(layer._memory for layer in twin.walk())
    fit(twin, X, Y)
    assert twin.optimizer.iterations == iterations + 2
    assert not np.array_equal(weights_of(twin), weights)


def test_a_copy_that_is_made_within_a_step_has_no_part_in_its_buffers():
    twins = []

    class Copying(cnnlite.losses.SparseCategoricalCrossentropy):
        def value_and_gradient(self, y, z, sample_weight=None):
            loss, model.loss = model.loss, None
            twins.append(copy.deepcopy(model))
            model.loss = loss
            return super().value_and_gradient(y, z, sample_weight)

    model = make_model(loss=Copying(from_logits=True), activation=None)
    fit(model, X, Y, batch_size=10)
    first, second = (twins[0].forward(sign * X, training=True) for sign in (1, -1))
    assert not np.may_share_memory(first, second)


def test_a_hook_may_clone_save_and_check_the_model(tmp_path):
    done = []

    def use(model):
        cnnlite.models.clone_model(model)
        model.save(tmp_path / "model.safetensors")
        assert cnnlite.check_gradients(model, X[:3], training=False).ok
        pickle.dump(model.history, io.BytesIO())
        done.append(cnnlite.load_model(tmp_path / "model.safetensors"))

    plain, model = make_model(), make_model()
    fit(plain, X, Y)
    fit(model, X, Y, callbacks=[at("on_train_batch_end", use)])
    np.testing.assert_array_equal(weights_of(model), weights_of(plain))
    np.testing.assert_array_equal(weights_of(done[-1]), weights_of(plain))


def test_a_pickle_holds_neither_a_batch_nor_buffers():
    sizes = []
    model = make_model()
    before = len(pickle.dumps(model))
    x, y = np.tile(X, (100, 1)), np.tile(Y, 100)
    fit(model, x, y, batch_size=len(x), callbacks=[at("on_train_batch_end", lambda m: sizes.append(pickle.dumps(m)))])
    assert len(sizes[0]) < before + 2 * N * 8 * 4
