"""What stands in files that nobody vouches for: names that don't run, states and weights that can't be, odd logs.

The checksums of these files fit: they are what a villain would write, and not what a disk damages.
"""

import json
import warnings

import numpy as np
import pytest

import cnnlite
from cnnlite import initializers, layers
from cnnlite.callbacks import CSVLogger
from cnnlite.files import saving
from cnnlite.files.json_arrays import unpack
from tests.helpers.forging import arrays_of, forge, refused
from tests.helpers.models import dense_model, vectors
from tests.stress.fuzz import forged, runs

# What a file may name.


@pytest.mark.parametrize("name", ["Layer", "ActivationLayer", "InputLayer", "Input"])
def test_a_base_class_is_no_layer_of_a_file(path, name):
    forge(path, change=lambda layers: layers[0].update(class_name=name, config={}))
    refused(path, f"the class '{name}' is not part of cnnlite")


def test_a_file_of_a_single_layer_is_refused(path):
    forge(path, model={"class_name": "Dense", "config": {"units": 3}})
    refused(path, "it is a Dense and not a model")


def test_a_function_among_the_custom_objects_is_never_called_by_a_file(path):
    calls = []

    def mine(*arguments, **named):
        calls.append((arguments, named))

    for change in (
        lambda layers: layers[0].update(class_name="mine", config={"x": 1}),
        lambda layers: layers[0]["config"].update(units={"class_name": "mine", "config": {"x": 1}}),
        lambda layers: layers[0]["config"].update(name={"class_name": "mine", "config": {}}),
    ):
        forge(path, change=change)
        refused(path, "can't be made", lambda path: cnnlite.load_model(path, custom_objects={"mine": mine}))
    assert not calls


def test_no_initializer_runs_while_a_model_is_loaded(path, monkeypatch):
    dense_model().save(path)

    def never(*_):
        raise AssertionError("an initializer ran")

    monkeypatch.setattr(initializers.GlorotUniform, "__call__", never)
    cnnlite.load_model(path)
    monkeypatch.undo()
    assert np.any(dense_model().layers[0].kernel)  # and does again afterwards


# What training goes on from.


@pytest.mark.parametrize(
    "state", [[-1, 0], [0, -1], [2**64, 0], [0, 2**64], [1.5, 0], ["1", 0], [True, 0], [0], "12", None]
)
def test_a_random_state_that_no_stream_can_have_is_refused(path, state):
    for training in ({"random": {"dropout": state}}, {"shuffle_random": state}):
        if state is None and "shuffle_random" in training:
            continue
        forge(path, training=json.dumps(training))
        refused(path, "random states")


@pytest.mark.parametrize(
    ("key", "value"),
    [("iterations", -1), ("iterations", 1.5), ("iterations", "7"), ("iterations", 2**63), ("iterations", None),
     ("learning_rate", "0.1"), ("learning_rate", float("nan")), ("learning_rate", -1)],
)
def test_numbers_that_an_optimizer_can_not_have_are_refused(path, key, value):
    model = dense_model()
    model.compile("sgd", "mse")
    training = saving._training_state(model)
    training["optimizer_state"] = {
        "numbers": {"iterations": 3, "learning_rate": 0.1, key: value}, "vectors": [],
        "parameters": list(model.params),
    }
    forge(path, training=json.dumps(training))
    refused(path, key)


# Weights.


def test_numbers_too_large_for_the_model_are_refused_before_any_is_loaded(path):
    tensors = {name: array.astype(np.float64) for name, array in arrays_of(dense_model()).items()}
    tensors["dense_1/bias"][0] = 1e300
    forge(path, tensors=tensors)
    model = dense_model()
    before = model.get_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(path, "dense_1/bias .* too large for float32. Nothing was loaded", model.load_weights)
        refused(path, "too large for float32")
        tensors["dense_1/bias"][0] = np.inf  # this float32 can hold
        forge(path, tensors=tensors)
        model.load_weights(path)
    assert model.layers[2].bias[0] == np.inf
    assert not np.array_equal(before[0], model.get_weights()[0])


def test_a_name_in_a_message_is_short_and_moves_no_cursor(path):
    forge(path, tensors=arrays_of(dense_model()) | {"\x1b[2J" + "x" * 10_000: np.ones(1, np.float32)})
    refused(path, r"has '\\x1b\[2Jxxxx")


@pytest.mark.parametrize("name", ["\x1b[2J", "two\nlines", "\ud800", "\u202e"])
def test_a_name_that_moves_the_cursor_is_no_name(path, name):
    # It would stand in summaries and progress bars; and half a character can't be written to a file.
    with pytest.raises(ValueError, match="name must be a printable string"):
        layers.Dense(2, name=name)
    for make in (cnnlite.optimizers.SGD, cnnlite.losses.Huber, cnnlite.metrics.Precision):
        with pytest.raises(ValueError, match="name must be a printable string"):
            make(name=name)
        with pytest.raises(TypeError, match="name must be a string"):
            make(name=[name])
    forge(path, change=lambda layers: layers[0]["config"].update(name=name))
    refused(path, "name must be a printable string")


def test_a_long_name_is_cut_in_messages(path):
    forge(path, change=lambda layers: layers[0]["config"].update(name="x" * 10_000))
    refused(path, r"has no xxx.*\.\.\., which sequential has")
    forge(path, change=lambda layers: layers[0]["config"].update(units="x" * 10_000))
    refused(path, r"units must be an integer. Received: units='xxx.*\.\.\.\.")


def test_trainable_that_was_set_to_a_number_is_saved_as_what_it_means(path):
    model = dense_model()
    model.layers[0].trainable = 0
    model.save(path)
    assert cnnlite.load_model(path).layers[0].trainable is False


# Backups of runs.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run.update(epoch=-(10**9)), "the run must be"),
        (lambda run: run.update(step=4), "it has run 4 steps of an epoch of 3"),
        (lambda run: run["data"]["pass"].update(taken=-1), "the position in the data"),
        (lambda run: run["sums"]["metrics"]["precision"].update(update_state=1), "another update_state"),
        (lambda run: run["sums"]["metrics"]["precision"].update(update_state=None), "another update_state"),
        (lambda run: run["sums"]["metrics"]["precision"].update(__class__="x"), "another __class__"),
        (lambda run: run["sums"]["metrics"]["precision"].update(total=[1.0]), "another total"),
        (lambda run: run["sums"]["metrics"]["accuracy"].update(form="eval"), "another form: eval"),
        (lambda run: run["callbacks"]["EarlyStopping 1"].update(wait="1"), "the state of EarlyStopping must be"),
        (lambda run: run["callbacks"]["EarlyStopping 1"].update(best_weights=[]), "the shapes of the model's"),
        (lambda run: run["callbacks"]["ReduceLROnPlateau 1"].update(best="x"), "the state of ReduceLROnPlateau"),
        (lambda run: run["callbacks"]["CSVLogger 1"].update(size=-1), "the state of CSVLogger"),
        (lambda run: run["callbacks"]["History 1"].update(epoch=["0"]), "the history"),
        (lambda run: run["optimizer_state"]["numbers"].update(iterations=-1), "iterations must be at least 0"),
        (lambda run: run["random"].update(dropout=[0, 2**64]), "the run must be|count must be"),
    ],
)
def test_a_backup_that_no_run_has_made_is_refused_with_what_is_wrong(tmp_path, change, message):
    text, tensors = runs.good_backups()[0]
    run = json.loads(text)
    change(run)
    (tmp_path / "backup").mkdir()
    path = tmp_path / "backup" / "backup.safetensors"
    path.write_bytes(forged.model_file(tensors, run=json.dumps(run)))
    (tmp_path / "log.csv").write_text("epoch,accuracy,loss\n0,0.5,0.5\n")
    refused(path, message, lambda path: runs.train(tmp_path))


def test_an_array_can_stand_in_a_backup_only_once(tmp_path):
    # A thousand references to one large array would otherwise be a thousand of it.
    tensors = {"big": np.ones(10)}
    entry = {"$": "array", "name": "big"}
    with pytest.raises(KeyError, match="big"):
        unpack([entry, entry], tensors)


# Logs.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\xff", "is not a CSV file to append to"),
        (b"epoch,loss\0\xff\n", "is not a CSV file"),
        (b"hello, this is a letter\n", "does not begin with a header that names the epoch"),
        (b'epoch,"loss\n', "is not a CSV file"),
        (b"epoch," * 20_000, "does not begin with a header"),
    ],
)
def test_a_log_is_appended_only_to_a_log(tmp_path, content, message):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"log.csv {message}"):
        dense_model_that_fits().fit(
            vectors(), np.zeros(7, int), verbose=0, callbacks=[CSVLogger(path, append=True)]
        )
    assert path.read_bytes() == content


def dense_model_that_fits():
    model = dense_model()
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model
