"""Callbacks that watch a value: odd first values, odd limits, and values that there are not."""

import math

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from cnnlite.metrics import Metric, Precision
from tests.helpers.dictated import Model, run

NAN, INF = math.nan, math.inf
WATCHING = (EarlyStopping, ReduceLROnPlateau, lambda *args, **kwargs: ModelCheckpoint(
    "{epoch}", *args, save_best_only=True, **kwargs))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# First values that are not finite.


@pytest.mark.parametrize(("mode", "values", "saved"), [
    ("min", [NAN, 2.0, 3.0, 1.0], "2 4"),
    ("min", [INF, 2.0, INF, 1.0], "2 4"),
    ("min", [INF, NAN, INF], ""),
    ("max", [-INF, -2.0, NAN, 1.0], "2 4"),
    ("min", [-INF, 2.0, -INF], "1"),
    ("max", [INF, 2.0], "1"),
    ("min", [np.float32("nan"), np.float32(2.0), np.array(1.0), 0], "2 3 4"),
])
@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_a_nan_and_the_worst_infinity_are_no_improvement_not_even_at_first(mode, values, saved, save_freq, capsys):
    callback = ModelCheckpoint("{epoch}", save_best_only=True, mode=mode, verbose=1, save_freq=save_freq)
    if save_freq == "epoch":
        model, _ = run(callback, values)
    else:
        model = Model()
        callback.set_model(model)
        for epoch, value in enumerate(values):
            callback.on_epoch_begin(epoch, {})
            callback.on_train_batch_end(0, {"val_loss": value})
    assert " ".join(model.saved) == saved
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(values)
    for number, line in enumerate(lines, 1):
        assert line.startswith(f"Epoch {number}: val_loss ")
        assert ("improved" in line and "saving to" in line) == (str(number) in saved.split())
    assert lines[0].endswith("did not improve") or saved.startswith("1")


@pytest.mark.parametrize("limit", [NAN, "a", True, [1.0]])
def test_a_limit_that_is_no_number_is_refused_when_given(limit):
    for name, make in (("baseline", EarlyStopping),
                       ("initial_value_threshold", lambda **arguments: ModelCheckpoint("f", **arguments))):
        with pytest.raises((TypeError, ValueError), match=rf"{name} must be .*Received: {name}="):
            make(**{name: limit})


def test_a_limit_may_be_infinite():
    assert run(EarlyStopping(baseline=-INF, patience=2), [3, 3, 3])[1] == 2
    assert run(EarlyStopping(baseline=np.float32(INF)), [3, 2, 1])[1] == 3
    model, _ = run(ModelCheckpoint("{epoch}", save_best_only=True, verbose=1, initial_value_threshold=INF), [INF, 1.0])
    assert model.saved == ["2"]


def test_early_stopping_puts_back_the_first_epoch_if_none_was_better(capsys):
    model, epochs = run(EarlyStopping(patience=3, restore_best_weights=True, verbose=1), [NAN] * 9)
    assert (model.weights, epochs) == (0, 3)
    assert "the weights of the first epoch, as none was better: 1" in capsys.readouterr().out
    arguments = {"patience": 3, "restore_best_weights": True, "mode": "max", "verbose": 1}
    model, _ = run(EarlyStopping(**arguments, start_from_epoch=2), [1, 1, -INF, -INF, -INF])
    assert model.weights == 2
    model, _ = run(EarlyStopping(**arguments), [NAN, 3.0, 2.0, NAN, NAN])
    assert model.weights == 1
    assert "the weights of the best epoch: 2" in capsys.readouterr().out


def test_the_learning_rate_is_reduced_when_nothing_but_nan_comes(capsys):
    model, _ = run(ReduceLROnPlateau(patience=2, verbose=1), [NAN, INF, 1.0, 0.5], model=Model(learning_rate=1.0))
    assert model.optimizer.learning_rate == pytest.approx(0.1)
    assert capsys.readouterr().out == "Epoch 2: the learning rate is reduced to 0.1\n"


# Values that there are not, or that can't be watched.


def test_a_value_without_a_direction_is_refused_before_training_with_those_that_have_one():
    model = cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    before = model.get_weights()
    for make in WATCHING:
        with pytest.raises(ValueError, match=r"higher or lower 'unknown'.*mode=.*monitor one of loss, mae, with or"):
            model.fit(np.ones((4, 3)), np.ones(4), verbose=0, callbacks=[make("unknown")])
        with pytest.warns(UserWarning, match=r"'unknown' is not among the values of this epoch.*Available: .*loss"):
            model.fit(np.ones((4, 3)), np.ones(4), verbose=0, callbacks=[make("unknown", mode="min")])
    assert not np.array_equal(before[0], model.get_weights()[0])


def test_the_direction_does_not_matter_where_every_epoch_is_saved():
    model, _ = run(ModelCheckpoint("{epoch}", "unknown"), [1, 2])
    assert model.saved == ["1", "2"]


def test_a_value_of_none_is_not_there():
    stopping = EarlyStopping()
    stopping.set_model(Model())
    with pytest.warns(UserWarning, match="'val_loss' is not among"):
        stopping.on_epoch_end(0, {"val_loss": None})


class PerClass(Metric):
    def __init__(self):
        super().__init__(name="own")
        self.reset_state()

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total = self.total + y_pred.sum(axis=0)
        self.count += len(y_pred)

    def result(self):
        return self.total / self.count

    def reset_state(self):
        self.total, self.count = np.zeros(2), 0


class LatePerClass(PerClass):
    def reset_state(self):
        self.total, self.count = 0, 0  # of which nobody knows yet that an array will come


@pytest.mark.parametrize("make", WATCHING)
@pytest.mark.parametrize(("metric", "trains"), [
    (lambda: Precision([0.2, 0.6], name="own"), False), (PerClass, False), (LatePerClass, True),
])
def test_an_array_can_not_be_watched_and_that_is_said_before_training_if_it_is_known(make, metric, trains):
    model = cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(2, "sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=[metric()])
    with pytest.raises(ValueError, match=r"the monitored value must be a number in every epoch. Received: "):
        model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0, callbacks=[make("own", mode="max")])
    assert model.optimizer.iterations == trains


@pytest.mark.parametrize("value", ["0.5", np.array([1.0]), [1.0], 1j, object()])
def test_what_is_no_number_is_named(value):
    for make in WATCHING:
        with pytest.raises(ValueError, match=r"must be a number in every epoch. Received: val_loss="):
            run(make(), [value])


@pytest.mark.parametrize(("arguments", "error"), [
    ({"monitor": 3}, TypeError), ({"monitor": ["loss"]}, TypeError), ({"mode": "up"}, ValueError),
    ({"min_delta": "a"}, TypeError), ({"min_delta": NAN}, ValueError), ({"patience": 1.5}, TypeError),
    ({"patience": -1}, ValueError), ({"start_from_epoch": "1"}, TypeError), ({"start_from_epoch": -1}, ValueError),
])
def test_arguments_are_checked_when_given(arguments, error):
    (name,) = arguments
    with pytest.raises(error, match=f"EarlyStopping: {name} must be .*Received: {name}="):
        EarlyStopping(**arguments)
    for make in WATCHING[1:]:
        if name in ("monitor", "mode") or (name in ("min_delta", "patience") and make is ReduceLROnPlateau):
            with pytest.raises(error, match=f"{name} must be"):
                make(**arguments)


def test_min_delta_counts_by_its_size_as_in_keras():
    assert run(EarlyStopping(min_delta=-0.5), [3, 2, 1.8, 1])[1] == 3
