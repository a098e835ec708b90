"""BackupAndRestore: a run that crashed and was started again ends with the bits of one that never was."""

import csv
import inspect
import os

import numpy as np
import pytest

import cnnlite
from cnnlite import callbacks, layers
from cnnlite.callbacks import BackupAndRestore, Callback, CSVLogger, EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from cnnlite.metrics import Metric, Precision
from cnnlite.packing import pack, unpack
from tests.models import K, fit, make_data, make_model

EPOCHS, BATCH = 5, 10  # 50 samples: 5 steps an epoch


class Crash(Exception):
    pass


class CrashAt(Callback):
    """Ends the process, as it were, when `moment` comes for the time `number`, counted from 0."""

    def __init__(self, moment, number):
        self.moment, self.left = moment, number

    def __getattribute__(self, name):
        if name.startswith("on_") and name == super().__getattribute__("moment"):
            return self.count
        return super().__getattribute__(name)

    def count(self, *args, **kwargs):
        if self.left == 0:
            raise Crash
        self.left -= 1


class Sequence:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return 5

    def __getitem__(self, i):
        if not 0 <= i < 5:
            raise IndexError(i)
        return self.x[i * 10 : i * 10 + 10], self.y[i * 10 : i * 10 + 10]


class Iterable:
    """Can be read anew, and has neither an index nor a length."""

    def __init__(self, x, y):
        self.batches = Sequence(x, y)

    def __iter__(self):
        return iter(self.batches[i] for i in range(5))


def endless(x, y):
    i = 0
    while True:
        i += 7
        order = np.arange(i, i + 10) % len(x)
        yield x[order], y[order]


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


def dropout_model(seed, metrics=("accuracy",), optimizer=None, loss="sparse_categorical_crossentropy"):
    cnnlite.utils.set_random_seed(seed)
    model = cnnlite.Sequential([
        layers.Dense(8, activation="relu"), layers.BatchNorm(), layers.Dropout(0.3),
        layers.Dense(K, activation="softmax"),
    ])
    model.compile(optimizer or cnnlite.optimizers.Adam(0.01), loss, metrics=[
        metric() if callable(metric) else metric for metric in metrics
    ])
    return model


def everything(model):
    """Return all that a run ends with, in values that compare bit for bit."""
    state = pack(model.optimizer.state(), vectors := {}, "optimizer")
    return {
        "weights": [array.tobytes() for array in model.get_weights()],
        "optimizer": (state, [vector.tobytes() for vector in vectors.values()]),
        "random": [layer.random.state for layer in model.walk() if hasattr(layer, "random")],
        "shuffle": None if model.shuffle_random is None else model.shuffle_random.state,
        "history": {name: np.array(values).tobytes() for name, values in model.history.history.items()},
        "epochs": model.history.epoch,
    }


def run(folder, save_freq, crash=None, seed=1, data="arrays", metrics=("accuracy",), others=(), optimizer=None,
        loss="sparse_categorical_crossentropy", **arguments):
    """Train a new model as a script would that is started anew; return all it ends with, or None after a crash."""
    x, y = make_data()
    if loss == "mse":
        y = np.eye(K, dtype=np.float32)[y]
    model = dropout_model(seed, metrics, optimizer and optimizer(), loss)
    others = [other(folder.parent) for other in others]
    backup = [] if save_freq is None else [BackupAndRestore(folder, save_freq)]
    arguments = {"epochs": EPOCHS, "callbacks": [*backup, *others, *(crash or [])], **arguments}
    validation = (x[::2], y[::2])
    try:
        if data == "arrays":
            fit(model, x, y, batch_size=BATCH, validation_data=validation, **arguments)
        else:
            model.fit(data(x, y), validation_data=validation, verbose=0, **arguments)
    except Crash:
        return None
    return everything(model)


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


# Damage.


def crashed(folder, **arguments):
    model = make_model(optimizer="adam", batchnorm=True)
    crash = CrashAt("on_epoch_begin", 2)
    with pytest.raises(Crash):
        fit(model, *make_data(), epochs=4, callbacks=[BackupAndRestore(folder, **arguments), crash])


def resumed(folder, **arguments):
    model = make_model(optimizer="adam", batchnorm=True)
    fit(model, *make_data(), epochs=4, callbacks=[BackupAndRestore(folder, **arguments)])
    return everything(model)


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x55"),
    lambda path: path.write_bytes(path.read_bytes()[:1000]),
    lambda path: path.write_bytes(b""),
    lambda path: path.unlink(),
])
def test_the_backup_before_the_last_one_helps_out(tmp_path, damage):
    expected = resumed(tmp_path / "none")
    crashed(tmp_path, double_checkpoint=True)
    assert {path.name for path in tmp_path.iterdir()} == {"backup.safetensors", "backup.previous.safetensors"}
    damage(tmp_path / "backup.safetensors")
    assert resumed(tmp_path, double_checkpoint=True) == expected
    assert not tmp_path.exists()


@pytest.mark.parametrize("double_checkpoint", [False, True])
def test_a_disk_that_gets_full_ends_the_run_and_not_its_backup(tmp_path, monkeypatch, double_checkpoint):
    expected = resumed(tmp_path / "none")
    fsync, left = os.fsync, [0]

    def full(descriptor):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for number in range(1, 12, 2):  # of the fsyncs of files and folders in turns, those of files
        left[0] = number
        folder = tmp_path / str(number)
        if number == 11:  # the fifth backup is the last
            assert resumed(folder, double_checkpoint=double_checkpoint) == expected
            break
        with pytest.raises(OSError, match=r"BackupAndRestore: .* can't be written: No space left on device"):
            resumed(folder, double_checkpoint=double_checkpoint)
        left[0] = 0
        assert resumed(folder, double_checkpoint=double_checkpoint) == expected
        assert not folder.exists()


def test_a_damaged_backup_is_said_to_be_one_and_the_model_is_as_it_was(tmp_path):
    crashed(tmp_path)
    path = tmp_path / "backup.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    model = make_model(optimizer="adam", batchnorm=True)
    before = [array.copy() for array in model.get_weights()]
    with pytest.raises(ValueError, match=r"BackupAndRestore: .*is damaged.* To begin anew, remove the folder"):
        fit(model, *make_data(), callbacks=[BackupAndRestore(tmp_path)])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert model.training_run is None


@pytest.mark.parametrize(("change", "message"), [
    (lambda: make_model(optimizer="adam"), "has batch_norm"),
    (lambda: make_model(optimizer="sgd", batchnorm=True), "another model, optimizer or data: SGD: the state must hold"),
    (lambda: make_model(optimizer="adam", batchnorm=True, metrics=["crossentropy"]), "sums of the metrics accuracy"),
])
def test_the_backup_of_another_model_is_refused_and_changes_nothing(tmp_path, change, message):
    model = make_model(optimizer="adam", batchnorm=True)
    with pytest.raises(Crash):
        fit(model, *make_data(), callbacks=[BackupAndRestore(tmp_path, 1), CrashAt("on_train_batch_begin", 1)])
    other = change()
    before = other.get_weights(), other.optimizer.iterations
    with pytest.raises(ValueError, match=message):
        fit(other, *make_data(), callbacks=[BackupAndRestore(tmp_path, 1)])
    assert all(np.array_equal(a, b) for a, b in zip(before[0], other.get_weights(), strict=True))
    assert other.optimizer.iterations == before[1]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"batch_size": 7}, "batch_size=7, samples=50, and had batch_size=10, samples=50"),
    ({"batch_size": 10, "shuffle": False}, "the data are not shuffled, unlike before"),
])
def test_other_data_are_refused_in_the_middle_of_an_epoch_alone(tmp_path, arguments, message):
    def crash(folder, save_freq):
        with pytest.raises(Crash):
            fit(make_model(), *make_data(), batch_size=10, epochs=3, callbacks=[
                BackupAndRestore(folder, save_freq), CrashAt("on_train_batch_begin", 8)
            ])

    crash(tmp_path / "within", 1)
    with pytest.raises(ValueError, match=message):
        fit(make_model(), *make_data(), epochs=3, callbacks=[BackupAndRestore(tmp_path / "within", 1)], **arguments)
    crash(tmp_path / "between", "epoch")
    model = make_model()
    fit(model, *make_data(), epochs=3, callbacks=[BackupAndRestore(tmp_path / "between")], **arguments)
    assert model.history.epoch == [0, 1, 2]


def test_a_generator_that_is_too_short_is_said_to_be(tmp_path):
    x, y = make_data()
    with pytest.raises(Crash):
        make_model().fit(endless(x, y), steps_per_epoch=5, verbose=0, callbacks=[
            BackupAndRestore(tmp_path, 1), CrashAt("on_train_batch_begin", 4)
        ])
    with pytest.raises(ValueError, match="x ends before the 4 batches"):
        make_model().fit(iter([(x, y)] * 2), steps_per_epoch=5, callbacks=[BackupAndRestore(tmp_path, 1)], verbose=0)


def test_the_file_of_a_model_is_no_backup(tmp_path):
    make_model().save(tmp_path / "backup.safetensors")
    with pytest.raises(ValueError, match="is not the backup of a run"):
        fit(make_model(), *make_data(), callbacks=[BackupAndRestore(tmp_path)])


def test_what_can_not_be_written_is_named(tmp_path):
    class Odd(Callback):
        def get_state(self):
            return {"lock": object()}

    with pytest.raises(ValueError, match=r"run/callbacks/Odd 1/lock is of type object.*get_state"):
        fit(make_model(), *make_data(), callbacks=[BackupAndRestore(tmp_path), Odd()])


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"backup_dir": ""}, ValueError, "backup_dir must be the name of a folder"),
    ({"backup_dir": "a", "save_freq": 0}, ValueError, "save_freq must be at least 1"),
    ({"backup_dir": "a", "save_freq": "batch"}, TypeError, "save_freq must be an integer"),
    ({"backup_dir": "a", "double_checkpoint": 2}, TypeError, "double_checkpoint"),
])
def test_arguments_that_are_wrong_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        BackupAndRestore(**arguments)


# Parts.


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


@pytest.mark.parametrize("value", [
    None, True, 3, -0.0, float("inf"), 1e-320, 0.1 + 0.2, "text", [], [1, [2.5]], {"a": {"b": [1]}}, (1, (2,)),
    {1: 2}, {"$": 1}, np.float32(0.1), np.int64(3), np.bool_(True), np.arange(6.0)[::2], np.zeros((0, 3), "float16"),
    np.asfortranarray(np.arange(6).reshape(2, 3)), {"a": [np.ones(2), (np.float64(2),)]}, 2**80,
])
def test_values_come_back_as_they_were(value):
    import json

    def same(a, b):
        assert type(a) is type(b)
        if isinstance(a, (list, tuple)):
            assert len(a) == len(b)
            assert all(map(same, a, b))
        elif isinstance(a, dict):
            assert list(a) == list(b)
            assert all(same(a[key], b[key]) for key in a)
        elif isinstance(a, (np.ndarray, np.generic)):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert a.tobytes() == b.tobytes()
        else:
            assert repr(a) == repr(b)
        return True

    tensors = {}
    packed = json.loads(json.dumps(pack(value, tensors, "x")))
    assert same(unpack(packed, dict(tensors)), value)
    assert same(unpack(packed, dict(tensors)), value)


@pytest.mark.parametrize("value", [object(), {"a": [1j]}, np.array(["a"]), {1, 2}, np.ones(2, complex)])
def test_what_has_no_form_in_a_file_is_a_type_error_with_its_place(value):
    with pytest.raises(TypeError, match=r"^x.* is of type"):
        pack(value, {}, "x")


def test_the_log_of_a_run_that_is_gone_is_begun_anew(tmp_path):
    logger = CSVLogger(tmp_path / "log.csv")
    logger.on_train_begin()
    logger.set_state({"columns": ["epoch", "loss"], "size": 1000})
    logger.on_epoch_end(3, {"loss": 0.5})
    with open(tmp_path / "log.csv", newline="") as file:
        assert list(csv.reader(file)) == [["epoch", "loss", "val_loss"], ["3", "0.5", "NA"]]
