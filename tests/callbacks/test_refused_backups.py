"""A backup that is refused leaves the run as it was; and what it counts keeps nobody waiting."""

import copy
import itertools
import json
import signal

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    History,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from cnnlite.files.model_files import read, write
from cnnlite.metrics import Metric
from tests.helpers.models import fit, make_data
from tests.helpers.runs import Crash, CrashAt, endless


class Total(Metric):
    """Remembers a list, and says no to a state after having taken half of it."""

    def __init__(self):
        super().__init__(name="total")
        self.reset_state()

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.sums.append(float(y_pred.sum()))
        self.batches += 1

    def result(self):
        return float(sum(self.sums))

    def reset_state(self):
        self.sums, self.batches = [], 0

    def set_state(self, state):
        self.batches = state["batches"]
        self.sums.extend(state["sums"])
        if state["batches"] < 0:
            raise RuntimeError("a metric of a user's")


class Average(Callback):
    """Averages weights in place, and says no to a state after having taken half of it."""

    def on_train_begin(self, logs):
        self.average = [np.zeros_like(array) for array in self.model.get_weights()]
        self.seen, self.table, self.epochs = [], {"last": None}, 0

    def on_train_batch_end(self, batch, logs):
        for mine, array in zip(self.average, self.model.weights, strict=True):
            mine += array
        self.seen.append(batch)

    def get_state(self):
        average = [array.copy() for array in self.average]
        return {"average": average, "seen": self.seen, "epochs": self.epochs, "error": None}

    def set_state(self, state):
        self.epochs, self.table["last"] = 99, 99
        self.seen[:] = state["seen"]
        for mine, array in zip(self.average, state["average"], strict=True):
            mine[...] = array
        self.model.optimizer.learning_rate = 0.5
        self.model.layers[0].trainable, self.model.stop_training = False, state["error"] is not None
        if state["error"] == "Ctrl-C":
            signal.raise_signal(signal.SIGINT)
        elif state["error"] is not None:
            raise RuntimeError(state["error"])


class Spy(Callback):
    """Keeps what there is before the backup is looked for, which comes last."""

    def on_train_begin(self, logs):
        self.before = state_of(self.model)


def state_of(model):
    callbacks = model.training_run.callbacks if model.training_run else model.spy.callbacks
    model.spy.callbacks = callbacks
    return copy.deepcopy({
        "weights": [array.tobytes() for array in model.get_weights()],
        "optimizer": {name: np.asarray(value).tobytes() for name, value in model.optimizer.state().items()},
        "random": [layer.random.state for layer in model.walk() if hasattr(layer, "random")],
        "shuffle": model.shuffle_random.state,
        "metrics": [str(vars(metric)) for metric in model.metrics],
        "callbacks": [
            {name: str(value) for name, value in vars(callback).items() if name not in ("model", "params", "before")}
            for callback in callbacks.flat() if callback is not model.spy
        ],
        "settings": [model.stop_training, *(layer.trainable for layer in model.layers)],
        "log": model.log.read_bytes(),
    })


def make_run(folder, data="arrays", crash=None, epochs=3):
    """Train a new model as a script does that is started anew; return the model, whatever ends the training."""
    folder.mkdir(exist_ok=True)
    cnnlite.utils.set_random_seed(1)
    model = cnnlite.Sequential([
        cnnlite.Input((6,)), layers.Dense(4, "relu"), layers.BatchNorm(), layers.Dropout(0.3),
        layers.Dense(3, "softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy", Total()])
    model.spy, model.log = Spy(), folder / "log.csv"
    callbacks = [
        BackupAndRestore(folder / "backup", 1), CSVLogger(model.log, append=True), EarlyStopping("loss", patience=9,
        restore_best_weights=True), ReduceLROnPlateau("loss", patience=1), Average(), History(),
        ModelCheckpoint(folder / "best", "loss", save_best_only=True), model.spy, *([crash] if crash else []),
    ]
    x, y = make_data()
    model.error = None
    try:
        if data == "arrays":
            fit(model, x, y, batch_size=10, epochs=epochs, callbacks=callbacks)
        else:
            model.fit(data(x, y), steps_per_epoch=5, epochs=epochs, verbose=0, callbacks=callbacks,
                      validation_data=data(x, y), validation_steps=2)
    except (Crash, ValueError, OSError, KeyboardInterrupt) as error:
        model.error = error
    return model


def forge(folder, change):
    path = folder / "backup" / "backup.safetensors"
    tensors, metadata = read(path, "forge")
    run = json.loads(metadata["run"])
    change(run)
    write(path, tensors, {"run": json.dumps(run)}, "forge")


def nothing(run):
    pass


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """Return folders of runs that crashed in their second epoch, one for each kind of data."""
    folders = {}
    for data in ("arrays", endless):
        folder = tmp_path_factory.mktemp("run")
        model = make_run(folder, data, CrashAt("on_train_batch_end", 7))
        assert isinstance(model.error, Crash)
        folders[data] = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return folders


@pytest.fixture
def folder_of(crashed, tmp_path):
    def copied(data):
        for path, content in crashed[data].items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes(content)
        return tmp_path

    return copied


@pytest.mark.parametrize(("change", "message"), [
    (lambda run: run["callbacks"]["EarlyStopping 1"].update(wait=-1), "the state of EarlyStopping must be"),
    (lambda run: run["callbacks"]["ReduceLROnPlateau 1"].update(wait=None), "the state of ReduceLROnPlateau must be"),
    (lambda run: run["callbacks"]["ModelCheckpoint 1"].update(batches="1"), "the state of ModelCheckpoint must be"),
    (lambda run: run["callbacks"]["CSVLogger 1"].update(size=-1), "the state of CSVLogger must be"),
    (lambda run: run["callbacks"]["History 2"].update(epoch=-1), "the history must be"),
    (lambda run: run["callbacks"]["History 1"].update(history=3), "the history must be"),
    (lambda run: run["callbacks"]["Average 1"].update(error="no"), "no"),
    (lambda run: run["callbacks"]["Average 1"].pop("seen"), "'seen' is missing"),
    (lambda run: run["sums"]["metrics"]["total"].update(batches=-1), "a metric of a user's"),
    (lambda run: run["sums"].update(total="x"), "the run must be"),
    (lambda run: run["random"].update(dropout=[]), "not enough values"),
    (lambda run: run["random"].update(dropout=[1]), "not enough values"),
    (lambda run: run["random"].pop("dropout"), "random states of no layer"),
    (lambda run: run["data"].update(random=[1, 2, 3]), "too many values"),
    (lambda run: run["data"]["pass"].update(random=[]), "not enough values"),
    (lambda run: run["data"]["pass"].update(random=None), "the data are shuffled, unlike before"),
    (lambda run: run["data"].update({"pass": None}), "2 steps into an epoch, but has no position in the data"),
    (lambda run: run["data"]["pass"]["source"].update(samples=9), "the data have .* but had"),
    (lambda run: run["optimizer_state"]["numbers"].update(iterations=-1), "iterations must be at least 0"),
    (lambda run: run["optimizer_state"]["numbers"].update(learning_rate=-1), "learning_rate must be at least 0"),
    (lambda run: run["optimizer_state"].pop("numbers"), "numbers"),
    (lambda run: run.update(step=6), "it has run 6 steps of an epoch of 5"),
    (lambda run: run.update(epoch=2**62), "it has run 4611686018427387904 epochs, but its history has 1"),
])
def test_a_refused_backup_changes_nothing(folder_of, change, message):
    folder = folder_of("arrays")
    forge(folder, change)
    model = make_run(folder)
    assert isinstance(model.error, ValueError), model.error
    with pytest.raises(ValueError, match=message):
        raise model.error
    assert state_of(model) == model.spy.before


def test_a_ctrl_c_while_the_backup_is_taken_up_changes_nothing_either(folder_of):
    folder = folder_of("arrays")
    forge(folder, lambda run: run["callbacks"]["Average 1"].update(error="Ctrl-C"))
    model = make_run(folder)
    assert isinstance(model.error, KeyboardInterrupt)
    assert state_of(model) == model.spy.before


def test_the_backup_that_was_not_changed_is_taken_up(folder_of):
    # Or the test above would hold of backups that nobody looks at.
    folder = folder_of("arrays")
    forge(folder, nothing)
    model = make_run(folder)
    assert model.error is None
    assert model.optimizer.iterations == 15
    assert model.history.epoch == [0, 1, 2]


@pytest.mark.parametrize("change", [
    lambda run: run["data"]["pass"]["source"].update(read=2**62),
    lambda run: run["data"]["pass"].update(taken=2**62),
    lambda run: (run["data"]["pass"].update(taken=2**62), run["data"]["pass"]["source"].update(read=2**62),
                 run.update(epoch=2**62)),
    lambda run: run["validation"].update(read=2**62),
    lambda run: run.update(step=2**62),
    lambda run: run["data"]["pass"]["source"].update(read=8),
    lambda run: run["data"]["pass"]["source"].update(read=-1),
    lambda run: run["data"]["pass"]["source"].update(read="7"),
    lambda run: run["data"]["pass"].update(taken=None),
    lambda run: run["validation"].update(read=[]),
])
def test_a_count_of_what_was_read_is_held_against_the_history(folder_of, change):
    folder = folder_of(endless)
    forge(folder, change)
    numbers = itertools.count()
    drawn = []

    def counted(x, y):
        for batch in endless(x, y):
            drawn.append(next(numbers))
            assert len(drawn) < 40, "it reads for ever"
            yield batch

    model = make_run(folder, counted)
    assert isinstance(model.error, ValueError), model.error
    assert len(drawn) == 2  # one of each generator, to look at
    assert state_of(model) == model.spy.before


def test_a_generator_that_ends_too_early_leaves_the_model_as_it_was(folder_of):
    folder = folder_of(endless)
    model = make_run(folder, lambda x, y: itertools.islice(endless(x, y), 4))
    with pytest.raises(ValueError, match="x ends before the 7 batches"):
        raise model.error
    assert state_of(model) == model.spy.before


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


def time_out():  # as the handler of SIGALRM may
    raise TimeoutError("too late")


@pytest.mark.parametrize(("interrupt", "error"), [(press_ctrl_c, KeyboardInterrupt), (time_out, TimeoutError)])
def test_what_interrupts_the_data_that_are_read_leaves_the_model_as_it_was(folder_of, interrupt, error):
    folder = folder_of(endless)

    def interrupted(x, y):
        yield from itertools.islice(endless(x, y), 4)
        interrupt()
        yield from endless(x, y)

    model = make_run(folder, interrupted)
    assert type(model.error) is error  # and not one that blames the backup and says to remove it
    assert state_of(model) == model.spy.before


def test_the_whole_history_of_a_generator_may_be_read(folder_of):
    folder = folder_of(endless)
    forge(folder, nothing)
    model = make_run(folder, endless)
    assert model.error is None
    assert model.history.epoch == [0, 1, 2]


def test_nothing_is_read_where_nothing_is_left_to_do(folder_of):
    folder = folder_of(endless)

    def short(x, y):
        return itertools.islice(endless(x, y), 2)

    model = make_run(folder, short, epochs=1)
    assert model.error is None
    assert model.history.epoch == [0]
