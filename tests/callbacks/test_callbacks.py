"""Callbacks: the order of the hooks, and what each callback does, with losses that a test dictates."""

import csv
import os

import numpy as np
import pytest

import cnnlite
from cnnlite import callbacks, layers, optimizers
from cnnlite.callbacks import (
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    History,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from cnnlite.metrics import Precision
from tests.helpers.dictated import Model, run


@pytest.fixture
def model():
    cnnlite.utils.set_random_seed(0)
    model = cnnlite.Sequential([layers.Dense(2)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(20, 3)).astype(np.float32), generator.normal(size=(20, 2)).astype(np.float32)


# The hooks.


def test_the_hooks_are_called_in_order(model, data):
    seen = []
    hooks = {
        hook: lambda *args, hook=hook, **kwargs: seen.append(hook.removeprefix("on_"))
        for hook in callbacks.base.HOOKS if hook not in ("on_batch_begin", "on_batch_end")
    }
    recorder = LambdaCallback(**hooks)
    model.fit(*data, batch_size=10, validation_data=data, validation_batch_size=20, callbacks=recorder, verbose=0)
    assert seen == [
        "train_begin", "epoch_begin", "train_batch_begin", "train_batch_end", "train_batch_begin", "train_batch_end",
        "test_begin", "test_batch_begin", "test_batch_end", "test_end", "epoch_end", "train_end",
    ]
    seen.clear()
    model.evaluate(*data, callbacks=[recorder], verbose=0)
    assert seen == ["test_begin", "test_batch_begin", "test_batch_end", "test_end"]
    seen.clear()
    model.predict(data[0], callbacks=[recorder], verbose=0)
    assert seen == ["predict_begin", "predict_batch_begin", "predict_batch_end", "predict_end"]


def test_the_logs_hold_the_loss_and_the_metrics_so_far(model, data):
    batches, epochs = [], []
    model.fit(*data, batch_size=8, epochs=2, verbose=0, validation_split=0.1, callbacks=[
        LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append((batch, dict(logs))),
                       on_epoch_end=lambda epoch, logs: epochs.append((epoch, logs)))
    ])
    assert [batch for batch, _ in batches] == [0, 1, 2] * 2
    assert list(batches[0][1]) == ["loss", "mae"]
    assert list(epochs[0][1]) == ["loss", "mae", "val_loss", "val_mae"]
    assert batches[2][1]["loss"] == epochs[0][1]["loss"]


def test_what_a_callback_adds_to_the_logs_goes_into_the_history(model, data):
    history = model.fit(*data, epochs=2, verbose=0,
                        callbacks=[LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(more=epoch))])
    assert history.history["more"] == [0, 1]


def test_the_older_names_of_the_batch_hooks_work():
    class Old(Callback):
        def on_batch_end(self, batch, logs=None):
            seen.append(batch)

    seen = []
    every = CallbackList([Old()])
    assert every.listens("on_train_batch_end")
    assert not every.listens("on_train_batch_begin")
    every.on_train_batch_end(3, {})
    assert seen == [3]


def test_a_list_within_a_list_passes_on_its_hooks():
    seen = []
    inner = CallbackList(LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch)))
    outer = CallbackList([inner])
    assert outer.listens("on_epoch_end")
    assert not outer.listens("on_train_batch_end")
    outer.on_epoch_end(1, {})
    assert seen == [1]


def test_only_callbacks_are_taken():
    for wrong in ("history", [History], [print]):
        with pytest.raises(TypeError, match="callbacks must be a list of Callback"):
            CallbackList(wrong)
    with pytest.raises(TypeError, match=r"no hook 'on_epoch'.*on_epoch_end"):
        LambdaCallback(on_epoch=print)
    with pytest.raises(TypeError, match="on_epoch_end must be a function"):
        LambdaCallback(on_epoch_end=3)


# EarlyStopping.


@pytest.mark.parametrize(("arguments", "values", "epochs"), [
    (dict(), [3, 2, 2, 1], 3),
    (dict(patience=2), [3, 2, 2.5, 2.5, 1], 4),
    (dict(patience=2), [3, 2, 2.5, 1, 1, 1, 1], 6),
    (dict(min_delta=0.5), [3, 2, 1.8, 1], 3),
    (dict(mode="max"), [1, 2, 3, 2, 5], 4),
    (dict(start_from_epoch=3), [1, 2, 3, 3, 4, 5], 5),
    (dict(baseline=1.0, patience=2), [3, 2.5, 2, 2, 2, 2], 4),
    (dict(patience=1), [float("nan"), 3, 2, 1, float("nan"), 0], 5),
    (dict(), [3, 2, 1], 3),
])
def test_early_stopping_stops_after_the_epoch(arguments, values, epochs):
    assert run(EarlyStopping(**arguments), values)[1] == epochs


def test_early_stopping_puts_back_the_best_weights():
    for values, best in (([3, 1, 2, 2, 2], 1), ([3, 2, 1], 2)):
        model, _ = run(EarlyStopping(patience=2, restore_best_weights=True), values)
        assert model.weights == best
    model, _ = run(EarlyStopping(patience=2), [3, 1, 2, 2, 2])
    assert model.weights == 3


def test_early_stopping_starts_anew_with_each_fit():
    callback = EarlyStopping()
    run(callback, [0, 1])
    assert run(callback, [9, 8, 7])[1] == 3


def test_early_stopping_restores_weights_of_a_real_model(model, data):
    at_best = []
    model.fit(*data, epochs=4, verbose=0, callbacks=[
        LambdaCallback(on_epoch_end=lambda epoch, logs: (logs.update(fake=abs(epoch - 1)),
                                                         at_best.append(model.get_weights()))),
        EarlyStopping("fake", mode="min", patience=2, restore_best_weights=True),
    ])
    for mine, best in zip(model.get_weights(), at_best[1]):
        np.testing.assert_array_equal(mine, best)
    assert not np.array_equal(at_best[1][0], at_best[3][0])


def test_a_value_that_is_not_there_is_told_with_those_that_are():
    for callback in (EarlyStopping("val_losss", mode="min"), ReduceLROnPlateau("val_losss", mode="min"),
                     ModelCheckpoint("f", "val_losss", save_best_only=True, mode="min")):
        with pytest.warns(UserWarning, match=r"'val_losss' is not among.*Available: .*val_loss"):
            run(callback, [1])


def test_the_direction_goes_by_what_the_value_is():
    up = Model([cnnlite.metrics.get("accuracy"), Precision(name="mine")])
    for name in ("val_accuracy", "val_mine", "mine"):
        assert run(EarlyStopping(name), [1, 2, 3, 2, 9], name, up)[1] == 4
        up.stop_training = False
    down = Model([cnnlite.metrics.get("mae")])
    assert run(EarlyStopping("val_mae"), [3, 2, 1, 2, 0], "val_mae", down)[1] == 4

    def own(y_true, y_pred):
        return y_true

    unknown = Model([cnnlite.metrics.get(own)])
    with pytest.raises(ValueError, match=r"a higher or lower 'val_own' is better. Pass mode="):
        run(EarlyStopping("val_own"), [1], "val_own", unknown)
    run(EarlyStopping("val_own", mode="max"), [1], "val_own", unknown)


# ModelCheckpoint.


def test_checkpoints_are_named_after_the_epoch_and_the_values(tmp_path):
    path = os.path.join(tmp_path, "new", "m-{epoch:02d}-{val_loss:.2f}.safetensors")
    model, _ = run(ModelCheckpoint(path), [0.5, 0.251])
    assert [os.path.basename(file) for file in model.saved] == ["m-01-0.50.safetensors", "m-02-0.25.safetensors"]
    assert os.path.isdir(tmp_path / "new")
    with pytest.raises(ValueError, match=r"filepath may name.*Available: epoch, val_loss"):
        run(ModelCheckpoint(str(tmp_path / "{accuracy}")), [1])


@pytest.mark.parametrize(("arguments", "saved"), [
    (dict(), "0 1 2 3"),
    (dict(save_best_only=True), "0 2"),
    (dict(save_best_only=True, mode="max"), "0 1"),
    (dict(save_best_only=True, initial_value_threshold=1.5), "2"),
    (dict(save_weights_only=True, save_best_only=True), "weights 0 weights 2"),
])
def test_only_the_best_is_saved_if_so_asked(arguments, saved, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model, _ = run(ModelCheckpoint("{epoch}", **arguments), [2.0, 3.0, 1.0, 2.0])
    assert " ".join(model.saved) == " ".join(
        part if part == "weights" else str(int(part) + 1) for part in saved.split()
    )


@pytest.mark.parametrize("name", ["best.keras", "weights-{epoch:02d}.weights.h5"])
def test_a_checkpoint_of_another_format_is_refused_before_training(name, tmp_path):
    with pytest.raises(ValueError, match=r"ModelCheckpoint: .*\.safetensors"):
        ModelCheckpoint(tmp_path / name)


def test_checkpoints_after_so_many_batches(tmp_path):
    model = Model()
    callback = ModelCheckpoint(tmp_path / "{epoch}-{loss}", save_freq=3)
    every = CallbackList([callback], model)
    for epoch in range(2):
        every.on_epoch_begin(epoch)
        for batch in range(4):
            every.on_train_batch_end(batch, {"loss": batch})
        every.on_epoch_end(epoch, {"loss": 9})
    assert [os.path.basename(path) for path in model.saved] == ["1-2", "2-1"]
    with pytest.raises(TypeError, match="save_freq"):
        ModelCheckpoint("f", save_freq="batch")


def test_a_checkpoint_that_takes_up_a_count_of_another_frequency_saves_at_once(tmp_path):
    model = Model()
    callback = ModelCheckpoint(tmp_path / "{epoch}-{loss}", save_freq=3)
    callback.set_state({"best": None, "batches": 7})
    every = CallbackList([callback], model)
    every.on_epoch_begin(0)
    for batch in range(5):
        every.on_train_batch_end(batch, {"loss": batch})
    assert [os.path.basename(path) for path in model.saved] == ["1-0", "1-3"]


def test_a_checkpoint_says_what_it_does(capsys, tmp_path):
    run(ModelCheckpoint(tmp_path / "m", verbose=1, save_best_only=True), [2.0, 1.0, 3.0])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1].split(",")[0].strip() for line in lines] == [
        "val_loss improved to 2", "val_loss improved from 2 to 1", "val_loss did not improve from 1"
    ]


# The learning rate.


def test_the_learning_rate_follows_a_function_of_the_epoch(model, data):
    history = model.fit(*data, epochs=3, verbose=0, callbacks=[LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))])
    assert history.history["learning_rate"] == pytest.approx([0.1, 0.05, 0.1 / 3])
    history = model.fit(*data, epochs=3, verbose=0, callbacks=[LearningRateScheduler(lambda epoch, rate: rate / 2)])
    assert history.history["learning_rate"] == pytest.approx([0.1 / 6, 0.1 / 12, 0.1 / 24])


def test_an_error_within_a_schedule_is_not_taken_for_one_of_its_arguments():
    def broken(epoch, rate):
        raise TypeError("inside")

    with pytest.raises(TypeError, match="inside"):
        run(LearningRateScheduler(broken), [1])
    with pytest.raises(TypeError, match="what schedule returns must be a number"):
        run(LearningRateScheduler(lambda epoch: None), [1])
    with pytest.raises(TypeError, match="schedule must be a function"):
        LearningRateScheduler(0.1)
    for wrong in (lambda: 0.1, lambda epoch, rate, more: 0.1, lambda epoch, *, rate: 0.1):
        with pytest.raises(TypeError, match=r"schedule must take the epoch, or .*Received: schedule="):
            LearningRateScheduler(wrong)
    for right in (lambda epoch, rate, more=1: 0.1, lambda *args: 0.1, max, np.float64):
        LearningRateScheduler(right)


@pytest.mark.parametrize(("arguments", "values", "rates"), [
    (dict(patience=1), [3, 2, 2, 2, 1], [1, 1, 0.1, 0.01, 0.01]),
    (dict(patience=2, factor=0.5), [3, 3, 3, 3, 3], [1, 1, 0.5, 0.5, 0.25]),
    (dict(patience=1, cooldown=2), [3, 3, 3, 3, 3], [1, 0.1, 0.1, 0.01, 0.01]),
    (dict(patience=1, min_lr=0.05), [3, 3, 3, 3], [1, 0.1, 0.05, 0.05]),
    (dict(patience=1, mode="max"), [1, 2, 2, 3], [1, 1, 0.1, 0.1]),
    (dict(patience=1, min_delta=1), [3, 2.5, 1], [1, 0.1, 0.1]),
])
def test_the_learning_rate_is_reduced_on_a_plateau(arguments, values, rates):
    model = Model(learning_rate=1.0)
    seen = []
    after = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(model.optimizer.learning_rate))
    run(CallbackList([ReduceLROnPlateau(**arguments), after]), values, model=model)
    assert seen == pytest.approx(rates)


def test_a_schedule_and_a_callback_do_not_both_rule_the_learning_rate():
    model = Model(learning_rate=optimizers.schedules.ExponentialDecay(0.1, 10, 0.9))
    for callback in (ReduceLROnPlateau(), LearningRateScheduler(lambda epoch: 0.1)):
        with pytest.raises(ValueError, match=r"fixed learning rate.*Use either"):
            run(callback, [1], model=model)
    with pytest.raises(ValueError, match="factor"):
        ReduceLROnPlateau(factor=1.0)


# Records.


def test_the_csv_file_has_a_row_for_each_epoch(tmp_path):
    path = tmp_path / "log.csv"
    run(CSVLogger(path), [0.5, None, 0.25])
    assert list(csv.reader(open(path))) == [["epoch", "val_loss"], ["0", "0.5"], ["1", "NA"], ["2", "0.25"]]
    run(CSVLogger(path, append=True), [1.5])
    assert list(csv.reader(open(path)))[3:] == [["2", "0.25"], ["0", "1.5"]]
    run(CSVLogger(path, separator=";"), [2.5], name="loss")
    assert open(path).read().split() == ["epoch;loss;val_loss", "0;2.5;NA"]


def test_the_csv_file_of_a_fit(model, data, tmp_path):
    path = tmp_path / "log.csv"
    history = model.fit(*data, epochs=2, verbose=0, callbacks=[CSVLogger(path)], validation_split=0.5)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_mae"]) for row in rows] == history.history["val_mae"]
    with pytest.raises(OSError, match="nowhere"):
        model.fit(*data, verbose=0, callbacks=[CSVLogger(tmp_path / "nowhere" / "log.csv")])


def test_the_log_of_a_run_that_is_gone_is_begun_anew(tmp_path):
    logger = CSVLogger(tmp_path / "log.csv")
    logger.on_train_begin()
    logger.set_state({"columns": ["epoch", "loss"], "size": 1000})
    logger.on_epoch_end(3, {"loss": 0.5})
    with open(tmp_path / "log.csv", newline="") as file:
        assert list(csv.reader(file)) == [["epoch", "loss", "val_loss"], ["3", "0.5", "NA"]]


def test_training_ends_when_the_loss_is_no_longer_a_number(data, capsys, recwarn):
    x, y = data
    def diverging():
        model = cnnlite.Sequential([layers.Dense(2)])
        model.compile(optimizers.SGD(1e30), "mse")
        return model

    history = diverging().fit(x, y, epochs=9, batch_size=5, verbose=0, callbacks=[TerminateOnNaN()])
    assert len(history.epoch) == 1
    assert "training stops" in capsys.readouterr().out
    assert not recwarn.list
    with pytest.raises(RuntimeError, match=r"the loss is (inf|nan) after batch"):
        diverging().fit(x, y, batch_size=5, verbose=0, callbacks=[TerminateOnNaN(raise_error=True)])
