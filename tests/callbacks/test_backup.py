"""BackupAndRestore: a run that crashed and was started again ends with the bits of one that never was."""

import inspect

import numpy as np
import pytest

import cnnlite
from cnnlite import callbacks
from cnnlite.callbacks import BackupAndRestore, Callback, CSVLogger, EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from cnnlite.metrics import Metric, Precision
from tests.helpers.models import fit, make_data, make_model
from tests.helpers.runs import Crash, CrashAt, Iterable, Sequence, dropout_model, endless, everything, run


class Longest(Metric):
    """A metric that remembers a list of arrays, and knows nothing of backups."""

    def __init__(self):
        super().__init__(name="longest")
        self.reset_state()

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.append(y_pred.max(axis=0))

    def result(self):
        return float(np.max(self.seen)) if self.seen else 0.0

    def reset_state(self):
        self.seen = []


MOMENTS = {"on_train_batch_begin": 25, "on_train_batch_end": 25, "on_epoch_begin": 5, "on_epoch_end": 5,
           "on_test_begin": 5, "on_train_begin": 1, "on_train_end": 1}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("save_freq", ["epoch", 1, 3])
def test_a_run_that_crashed_at_any_moment_ends_with_the_same_bits(tmp_path, save_freq, moment):
    expected = run(tmp_path / "none", None)
    for number in range(0, MOMENTS[moment], 2 if MOMENTS[moment] < 10 else 6):
        folder = tmp_path / str(number)
        assert run(folder, save_freq, [CrashAt(moment, number)]) is None
        assert folder.exists() or moment == "on_train_begin"
        assert run(folder, save_freq) == expected
        assert not folder.exists()


@pytest.mark.parametrize(("save_freq", "life"), [("epoch", 6), (2, 5), (1, 2)])
@pytest.mark.parametrize("steps", [None, 4])
def test_a_run_that_crashes_again_and_again_gets_there(tmp_path, save_freq, life, steps):
    arguments = {"steps_per_epoch": steps}
    expected = run(tmp_path / "none", None, **arguments)
    crashes = 0
    while (result := run(tmp_path / "backup", save_freq, [CrashAt("on_train_batch_begin", life)], **arguments)) is None:
        crashes += 1
        assert crashes < 30
    assert crashes >= 4
    assert result == expected


@pytest.mark.parametrize("save_freq", ["epoch", 2])
def test_a_run_without_a_seed_is_the_same_run_from_its_first_backup_on(tmp_path, save_freq):
    assert run(tmp_path / "backup", save_freq, [CrashAt("on_train_batch_begin", 1)], seed=1) is None
    assert run(tmp_path / "backup", save_freq, seed=99) == run(tmp_path / "none", None, seed=1)


@pytest.mark.parametrize(
    ("data", "steps"),
    [("arrays", 3), ("arrays", 7), (Sequence, None), (Sequence, 3), (Iterable, None), (Iterable, 4), (endless, 4)],
)
@pytest.mark.parametrize("save_freq", ["epoch", 2])
@pytest.mark.parametrize("number", [5, 11])
def test_every_kind_of_data_goes_on_where_it_was(tmp_path, data, steps, save_freq, number):
    arguments = {"data": data, "steps_per_epoch": steps, "epochs": 4}
    expected = run(tmp_path / "none", None, **arguments)
    assert run(tmp_path / "backup", save_freq, [CrashAt("on_train_batch_begin", number)], **arguments) is None
    assert run(tmp_path / "backup", save_freq, **arguments) == expected


def test_what_is_validated_on_goes_on_where_it_was_too(tmp_path):
    def go(folder, crash=None):
        x, y = make_data()
        model = dropout_model(1)
        backup = [BackupAndRestore(folder)] if folder else []
        try:
            fit(model, x, y, epochs=4, callbacks=[*backup, *(crash or [])], validation_data=endless(x, y),
                validation_steps=2)
        except Crash:
            return None
        return everything(model)

    assert go(tmp_path / "backup", [CrashAt("on_epoch_begin", 2)]) is None
    assert go(tmp_path / "backup") == go(None)


def test_data_without_shuffling_too(tmp_path):
    expected = run(tmp_path / "none", None, shuffle=False)
    assert run(tmp_path / "backup", 2, [CrashAt("on_train_batch_begin", 8)], shuffle=False) is None
    assert run(tmp_path / "backup", 2, shuffle=False) == expected


@pytest.mark.parametrize("metrics", [
    ("mae", "accuracy", Longest), (lambda: Precision(thresholds=[0.2, 0.6]), "categorical_crossentropy"),
])
def test_the_sums_of_metrics_go_on_in_the_middle_of_an_epoch(tmp_path, metrics):
    arguments = {"metrics": metrics, "loss": "mse"}
    expected = run(tmp_path / "none", None, **arguments)
    assert run(tmp_path / "backup", 1, [CrashAt("on_train_batch_end", 8)], **arguments) is None
    assert run(tmp_path / "backup", 1, **arguments) == expected


@pytest.mark.parametrize("optimizer", [
    lambda: cnnlite.optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=0.1),
    lambda: cnnlite.optimizers.RMSprop(cnnlite.schedules.ExponentialDecay(0.01, 5, 0.7)),
    lambda: cnnlite.optimizers.AdamW(cnnlite.schedules.CosineDecay(0.01, 20)),
    lambda: cnnlite.optimizers.Adagrad(0.1),
])
def test_optimizers_and_schedules_go_on(tmp_path, optimizer):
    expected = run(tmp_path / "none", None, optimizer=optimizer)
    assert run(tmp_path / "backup", 2, [CrashAt("on_train_batch_end", 13)], optimizer=optimizer) is None
    assert run(tmp_path / "backup", 2, optimizer=optimizer) == expected


class Slower(callbacks.LearningRateScheduler):
    """Depends on the rate before, so that an epoch that is begun twice shows."""

    def __init__(self):
        super().__init__(lambda epoch, rate: 0.7 * rate)


WATCHED = {
    "stopping": lambda folder: EarlyStopping("val_loss", min_delta=0.1, patience=2, restore_best_weights=True),
    "plateau": lambda folder: ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=0.2, cooldown=1),
    "scheduler": lambda folder: Slower(),
    "best": lambda folder: ModelCheckpoint(folder / "best.safetensors", "val_accuracy", save_best_only=True),
    "every": lambda folder: ModelCheckpoint(folder / "w-{epoch}.safetensors", save_weights_only=True, save_freq=3),
    "csv": lambda folder: CSVLogger(folder / "log.csv"),
    "csv, appended": lambda folder: CSVLogger(folder / "log.csv", append=True),
}


@pytest.mark.parametrize("save_freq", ["epoch", 3])
@pytest.mark.parametrize("name", WATCHED)
def test_callbacks_remember_what_they_have_seen(tmp_path, name, save_freq):
    def go(folder, number=None):
        crash = [] if number is None else [CrashAt("on_train_batch_begin", number)]
        result = run(folder / "backup", save_freq, crash, others=[WATCHED[name]], epochs=8)
        return result, {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    plain = tmp_path / "plain"
    plain.mkdir()
    expected = go(plain)
    for number in (2, 17):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert go(folder, number)[0] is None
        assert go(folder) == expected


def test_the_cases_above_are_cases(tmp_path):
    # The callbacks must have done something for the test above to mean anything.
    ended = run(tmp_path / "a", None, others=[WATCHED["stopping"]], epochs=8)["epochs"]
    assert 3 <= len(ended) < 8
    reduced = run(tmp_path / "b", None, others=[WATCHED["plateau"]], epochs=8)["history"]["learning_rate"]
    assert len(set(np.frombuffer(reduced))) >= 3


def test_a_run_that_was_stopped_early_is_over(tmp_path):
    others = [WATCHED["stopping"]]
    expected = run(tmp_path / "none", None, others=others, epochs=20)
    # All epochs are done, and the best weights are not back yet.
    assert run(tmp_path / "backup", "epoch", [CrashAt("on_train_end", 0)], others=others, epochs=20) is None
    assert run(tmp_path / "backup", "epoch", others=others, epochs=20) == expected
    assert len(expected["epochs"]) < 20


def test_a_run_that_a_callback_stops_within_an_epoch_stays_stopped(tmp_path):
    class StopAt(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 7:
                self.model.stop_training = True

    others = [lambda folder: StopAt()]
    expected = run(tmp_path / "none", None, others=others)
    for moment, number in (("on_test_begin", 1), ("on_epoch_end", 1), ("on_train_end", 0)):
        folder = tmp_path / moment
        assert run(folder, 1, [CrashAt(moment, number)], others=others) is None
        assert run(folder, 1, others=others) == expected


def test_a_callback_of_ones_own_says_what_it_remembers(tmp_path):
    class Sum(Callback):
        def on_train_begin(self, logs=None):
            self.losses = ()

        def on_train_batch_end(self, batch, logs=None):
            self.losses += (logs["loss"],)

        def on_epoch_end(self, epoch, logs=None):
            logs["losses"] = sum(self.losses)

        def get_state(self):
            return {"losses": self.losses}

        def set_state(self, state):
            self.losses = state["losses"]

    others = [lambda folder: Sum()]
    expected = run(tmp_path / "none", None, others=others)
    assert run(tmp_path / "backup", 2, [CrashAt("on_train_batch_begin", 8)], others=others) is None
    assert run(tmp_path / "backup", 2, others=others) == expected


def test_epochs_may_be_added_to_a_backup_that_is_kept(tmp_path):
    def go(epochs, keep=True):
        model = dropout_model(1)
        backup = BackupAndRestore(tmp_path / "backup", delete_checkpoint=not keep)
        fit(model, *make_data(), epochs=epochs, callbacks=backup)
        return everything(model)

    first = go(2)
    assert go(2) == first
    model = dropout_model(1)
    fit(model, *make_data(), epochs=4)
    expected = everything(model)
    assert go(4) == expected
    assert go(4, keep=False) == expected
    assert not (tmp_path / "backup").exists()


def test_the_folder_keeps_what_is_not_the_backups(tmp_path):
    (tmp_path / "mine").touch()
    run(tmp_path, "epoch")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# Its place among the others.


def test_it_sees_what_the_others_have_come_to_wherever_it_stands():
    order = []
    class Note(Callback):
        def __init__(self, name):
            self.name = name

        def on_epoch_end(self, epoch, logs=None):
            order.append(self.name)

    class Last(Note):
        comes_last = True

    inner = callbacks.CallbackList([Last("c"), Note("b")])
    outer = callbacks.CallbackList([inner, Note("a")])
    outer.append(callbacks.History())
    outer.model = type("Model", (), {})
    outer.on_epoch_end(0, {})
    assert order == ["a", "b", "c"]


def test_a_fit_within_a_fit_is_a_run_of_its_own():
    class Fit(Callback):
        def on_epoch_end(self, epoch, logs=None):
            model.fit(*make_data(), verbose=0)

    model = make_model()
    assert fit(model, *make_data(), epochs=2, callbacks=[Fit()])
    assert model.optimizer.iterations == 8


def test_arguments_are_keras_s():
    names = list(inspect.signature(BackupAndRestore).parameters)
    assert names == ["backup_dir", "save_freq", "double_checkpoint", "delete_checkpoint"]
