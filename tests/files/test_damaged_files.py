"""Files that are not what they should be: a damaged file never comes back as a model."""

import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cnnlite
from cnnlite.files import model_files, saving
from tests.helpers.models import assert_same_weights, dense_model, image_model, vectors


def rewrite(model, path, change=None, tensors=None, **metadata):
    """Write a file whose checksum fits, but whose content another version, or a villain, might have written."""
    table = saving.describe(model)
    if change:
        change(table)
    values = {"format": "cnnlite", "format_version": "1", "cnnlite_version": "0", "model": json.dumps(table),
              **metadata}
    arrays = dict(model.params | model.state) if tensors is None else tensors
    values["checksum"] = model_files._checksum(arrays, values)
    safetensors.numpy.save_file(arrays, path, values)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    for read in (cnnlite.load_model, dense_model().load_weights):
        with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
            read(tmp_path / "nothing.safetensors")


def test_a_newer_format_is_refused_by_name_and_an_older_one_is_read(path):
    model = dense_model()
    rewrite(model, path, format_version="2", cnnlite_version="7.1")
    with pytest.raises(ValueError, match=r"format version 2, written by cnnlite 7\.1.*Install a newer"):
        cnnlite.load_model(path)
    rewrite(model, path, format_version="0")
    assert_same_weights(model, cnnlite.load_model(path))


def test_a_file_of_another_program_is_refused(path):
    safetensors.numpy.save_file({"dense/kernel": np.ones((5, 3), "float32")}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="not written by cnnlite: format='pt'"):
        cnnlite.load_model(path)
    safetensors.numpy.save_file({"dense/kernel": np.ones((5, 3), "float32")}, path)
    with pytest.raises(ValueError, match="not written by cnnlite"):
        dense_model().load_weights(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"PK\3\4 a zip", b"\x89HDF\r\n\x1a\n", b"x" * 1000])
def test_anything_else_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file, or is damaged"):
        cnnlite.load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("dense_1/bias"), "has no dense_1/bias"),
        (lambda arrays: arrays.update(extra=np.ones(1, "float32")), "has extra"),
        (lambda arrays: arrays.update({"dense/bias": np.ones(4, "float32")}), r"dense/bias has shape \(4,\).* \(3,\)"),
        (lambda arrays: arrays.update({"dense/bias": np.ones(3, int)}), "dense/bias.*dtype int64"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_loaded(path, change, message):
    model = dense_model()
    arrays = {name: array + 1 for name, array in (model.params | model.state).items()}
    change(arrays)
    rewrite(model, path, tensors=arrays)
    with pytest.raises(ValueError, match=message):
        cnnlite.load_model(path)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.load_weights(path)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_the_first_difference_to_another_architecture_is_named(path):
    dense_model(units=4).save_weights(path)
    with pytest.raises(ValueError, match=r"dense_1/kernel has shape \(3, 4\) in .* and \(3, 6\) in sequential"):
        dense_model(units=6).load_weights(path)
    with pytest.raises(ValueError, match="has no conv2d/kernel"):
        image_model().load_weights(path)


def test_only_names_of_layers_are_looked_up(path):
    # "os" and "np" are attributes of modules in reach of a naive lookup.
    for name in ("os", "np", "__builtins__", "eval", "base", "Sequential.__init__"):
        rewrite(dense_model(), path, lambda model, name=name: model["config"]["layers"][0].update(class_name=name))
        with pytest.raises(ValueError, match="is not part of cnnlite"):
            cnnlite.load_model(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model["config"].pop("layers"),
        lambda model: model["config"].update(layers=7),
        lambda model: model["config"].update(layers=[[]]),
        lambda model: model["config"].update(input_shape=None, given_input_shape=None),
        lambda model: model["config"].update(input_shape=[None, 9]),
        lambda model: model["config"]["layers"][0].pop("class_name"),
        lambda model: model["config"]["layers"][0].update(class_name=[]),
        lambda model: model["config"]["layers"][0]["config"].update(units=-1),
        lambda model: model["config"]["layers"][0]["config"].update(units=10**15),
        lambda model: model["config"]["layers"][0]["config"].update(unheard_of=1),
        lambda model: model["config"]["layers"][0]["config"].update(kernel_initializer={"class_name": "os"}),
        lambda model: model.pop("config"),
    ],
)
def test_an_architecture_that_makes_no_sense_is_a_value_error_that_names_the_file(path, change):
    rewrite(dense_model(), path, change)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        cnnlite.load_model(path)


@pytest.mark.parametrize(
    "training",
    [
        "", "[]", "7", "{", "[" * 100_000,
        '{"random": 1}', '{"random": {"dropout": 1}}', '{"random": {"no": [1, 2]}}',
        '{"optimizer_state": 3}', '{"optimizer_state": {"vectors": ["m"]}}',
        '{"compile": 1}', '{"compile": {"optimizer": {"class_name": "os"}}}',
    ],
)
def test_a_training_state_that_makes_no_sense_is_a_value_error_that_names_the_file(path, training):
    rewrite(dense_model(), path, training=training)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        cnnlite.load_model(path)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory):
    """The bytes of a compiled model, its weights, and a place to write damaged copies to."""
    path = tmp_path_factory.mktemp("whole") / "model.safetensors"
    model = dense_model()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(vectors(), np.arange(7) % 4, verbose=0)
    model.save(path)
    return path.read_bytes(), model, path


def load_damaged(content, model, path):
    path.write_bytes(content)
    other = dense_model()
    before = other.get_weights()
    for read in (cnnlite.load_model, other.load_weights):
        try:
            loaded = read(path) or other
        except ValueError as error:
            message = str(error)
        else:  # a blank in the padding of the header became another blank
            assert_same_weights(loaded, model)
            return
        assert "model.safetensors" in message
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))


FUZZ = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.data())
def test_a_truncated_file_is_refused(whole_file, data):
    content, _, path = whole_file
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        cnnlite.load_model(path)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        dense_model().load_weights(path)


@FUZZ
@given(data=st.data())
def test_a_changed_byte_is_noticed(whole_file, data):
    content, model, path = whole_file
    damaged = bytearray(content)
    damaged[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    load_damaged(bytes(damaged), model, path)


@FUZZ
@given(junk=st.binary(max_size=200), where=st.floats(0, 1))
def test_junk_inside_the_file_is_noticed(whole_file, junk, where):
    content, model, path = whole_file
    place = int(where * len(content))
    load_damaged(content[:place] + junk + content[place:], model, path)


def test_a_flipped_bit_in_a_weight_is_noticed(path):
    model = dense_model()
    model.save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the lowest bits of the last weight: a well-formed file
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        model.load_weights(path)
