"""A saved model comes back with the same bits, and a damaged file never comes back as a model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cnnlite
from cnnlite import layers, model_files, saving
from cnnlite.optimizers import SGD, Adam, RMSprop, schedules

ROOT = Path(__file__).parent.parent


class Scale(layers.Layer):
    """y = x * factor * scale: a layer of a user."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape):
        super().build(input_shape)
        self.add_weight("scale", (input_shape[-1],), "ones")

    def forward(self, x, training=False):
        return self.prepare(x) * self.params["scale"] * np.asarray(self.factor, self.dtype)

    def backward(self, dy):
        raise NotImplementedError

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def dense_model(dtype="float32", units=4, last="softmax"):
    return cnnlite.Sequential([
        cnnlite.Input(shape=(5,)),
        layers.Dense(3, dtype=dtype),
        layers.Dropout(0.5, dtype=dtype),
        layers.Dense(units, activation=last, dtype=dtype),
    ])


def image_model():
    """One layer of each kind that has a state of its own."""
    return cnnlite.Sequential([
        cnnlite.Input(shape=(6, 6, 1)),
        layers.Conv2D(2, 3),
        layers.BatchNorm(),
        layers.ReLU(),
        layers.MaxPool(),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(3, activation="softmax"),
    ])


def image_data(seed=0, n=21):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, 6, 6, 1)).astype("float32"), random.integers(0, 3, n)


def vectors(n=7):
    return np.random.default_rng(1).normal(size=(n, 5)).astype("float32")


def assert_same_weights(a, b):
    assert list(a.params) + list(a.state) == list(b.params) + list(b.state)
    for mine, other in zip(a.get_weights(), b.get_weights(), strict=True):
        assert mine.dtype == other.dtype
        assert mine.tobytes() == other.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# Round trips.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loaded_model_has_the_same_weights_and_predictions(path, dtype):
    model = dense_model(dtype)
    model.save(path)
    loaded = cnnlite.load_model(path)
    assert_same_weights(model, loaded)
    assert model.forward(vectors()).dtype == dtype
    assert np.array_equal(model.forward(vectors()), loaded.forward(vectors()))


def test_layers_come_back_with_their_names_configs_and_shapes(path):
    model = image_model()
    model.save(path)
    loaded = cnnlite.models.load_model(path)
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in model.layers]
    assert [layer.get_config() for layer in loaded.layers] == [layer.get_config() for layer in model.layers]
    assert (loaded.name, loaded.input_shape, loaded.output_shape) == (model.name, model.input_shape, model.output_shape)


def test_a_model_without_an_input_keeps_the_shape_that_it_was_built_for(path):
    model = cnnlite.Sequential([layers.Dense(2), layers.Dense(3)])
    model.forward(vectors())
    model.save(path)
    assert_same_weights(model, cnnlite.load_model(path))


def nested_model():
    block = cnnlite.Sequential([layers.Dense(4), layers.Dropout(0.3)], name="block")
    return cnnlite.Sequential([cnnlite.Input(shape=(5,)), layers.Dense(3), block, layers.Dense(2)])


def test_nested_models_are_saved_under_their_paths(path):
    model = nested_model()
    model.save(path)
    assert set(safetensors.numpy.load_file(path)) == {
        "dense/kernel", "dense/bias", "block/dense/kernel", "block/dense/bias", "dense_1/kernel", "dense_1/bias"
    }
    loaded = cnnlite.load_model(path)
    assert_same_weights(model, loaded)
    assert np.array_equal(model.forward(vectors()), loaded.forward(vectors()))


def test_what_is_frozen_stays_frozen_and_nothing_else(path):
    model = nested_model()
    model.layers[1].trainable = False
    model.layers[1].layers[0].trainable = True  # in a block that is frozen as a whole
    model.layers[2].trainable = False
    model.save(path)
    loaded = cnnlite.load_model(path)
    assert [layer.trainable for layer in loaded.walk()] == [layer.trainable for layer in model.walk()]


def test_arrays_that_training_changes_without_a_gradient_are_saved(path):
    model = image_model()
    model.forward(image_data()[0], training=True)
    model.save(path)
    assert "batch_norm/moving_mean" in safetensors.numpy.load_file(path)
    assert_same_weights(model, cnnlite.load_model(path))


def test_weights_alone_can_be_saved_and_loaded(path):
    model, other = dense_model(), dense_model()
    model.save_weights(path)
    other.load_weights(path)
    assert_same_weights(model, other)
    with pytest.raises(ValueError, match="holds weights without a model"):
        cnnlite.load_model(path)


def test_weights_can_be_loaded_from_the_file_of_a_trained_model(path):
    x, y = image_data()
    model, other = image_model(), image_model()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=1, batch_size=8, verbose=0)
    model.save(path)
    other.load_weights(path)
    assert_same_weights(model, other)


def test_weights_of_another_precision_are_converted(path):
    model, other = dense_model("float64"), dense_model("float32")
    model.save_weights(path)
    other.load_weights(path)
    for mine, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        assert theirs.dtype == np.float32
        assert np.array_equal(mine.astype("float32"), theirs)


def test_the_same_model_gives_the_same_file(path):
    model = dense_model()
    contents = set()
    for _ in range(5):  # safetensors alone gives another order of the metadata almost each time
        model.save(path)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_not_a_number_and_infinity_survive(path):
    model = dense_model()
    model.layers[0].params["bias"] = np.array([np.nan, np.inf, -0.0])
    model.save(path)
    assert_same_weights(model, cnnlite.load_model(path))


def test_a_loaded_model_does_not_hang_on_to_the_file(path):
    dense_model().save(path)
    loaded = cnnlite.load_model(path)
    path.write_bytes(b"")
    loaded.forward(vectors())
    loaded.layers[0].params["bias"] = np.ones(3)  # and its arrays can be written to


# Training goes on.

RESUME = """
import sys
import numpy as np
import cnnlite
data = np.load(sys.argv[3])
model = cnnlite.load_model(sys.argv[1])
model.fit(data["x"], data["y"], epochs=4, initial_epoch=2, batch_size=8, verbose=0)
model.save(sys.argv[2])
"""


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: Adam(schedules.CosineDecay(0.05, decay_steps=12), clipnorm=1.0),
        lambda: SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda: RMSprop(0.01, momentum=0.5, centered=True),
    ],
    ids=["adam with a schedule", "sgd with momentum", "rmsprop"],
)
def test_training_goes_on_after_loading_with_the_same_bits(path, optimizer):
    x, y = image_data()
    model = image_model()
    model.compile(optimizer(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=2, batch_size=8, verbose=0)
    model.save(path)
    loaded = cnnlite.load_model(path)
    assert loaded.optimizer.iterations == model.optimizer.iterations == 6
    histories = [m.fit(x, y, epochs=4, initial_epoch=2, batch_size=8, verbose=0).history for m in (model, loaded)]
    assert histories[0] == histories[1]
    assert_same_weights(model, loaded)
    for name, slot in model.optimizer.slots.items():
        assert slot.tobytes() == loaded.optimizer.slots[name].tobytes()


def test_training_goes_on_in_another_process_with_the_same_bits(path, tmp_path):
    model = image_model()
    optimizer = Adam(schedules.OneCycle(0.05, total_steps=12))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*image_data(), epochs=2, batch_size=8, verbose=0)
    model.save(path)
    model.fit(*image_data(), epochs=4, initial_epoch=2, batch_size=8, verbose=0)
    model.save(tmp_path / "without_a_break.safetensors")
    x, y = image_data()
    np.savez(tmp_path / "data.npz", x=x, y=y)
    resumed = tmp_path / "resumed.safetensors"
    command = [sys.executable, "-c", RESUME, path, resumed, tmp_path / "data.npz"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert resumed.read_bytes() == (tmp_path / "without_a_break.safetensors").read_bytes()


def test_a_learning_rate_that_was_assigned_is_kept(path):
    model = dense_model()
    model.compile(Adam(0.1), "sparse_categorical_crossentropy")
    model.optimizer.learning_rate = 0.025
    model.save(path)
    assert cnnlite.load_model(path).optimizer.learning_rate == 0.025


def test_without_the_optimizer_training_starts_afresh(path):
    x, y = image_data()
    model = image_model()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=1, batch_size=8, verbose=0)
    model.save(path, include_optimizer=False)
    assert not any(name.startswith("optimizer/") for name in safetensors.numpy.load_file(path))
    loaded = cnnlite.load_model(path)
    assert loaded.optimizer.iterations == 0
    loaded.fit(x, y, epochs=1, batch_size=8, verbose=0)


def test_a_metric_that_is_a_function_is_saved_by_its_name(path):
    def largest(y_true, y_pred):
        return y_pred.max(axis=-1)

    model = dense_model()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[largest])
    model.save(path)
    loaded = cnnlite.load_model(path, custom_objects={"largest": largest})
    assert loaded.metrics_names == ["loss", "largest"]
    with pytest.raises(ValueError, match=r"function 'largest' is not one of cnnlite.*custom_objects"):
        cnnlite.load_model(path)
    cnnlite.load_model(path, compile=False)


def test_compile_false_gives_a_model_that_must_be_compiled(path):
    model = dense_model()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(path)
    with pytest.raises(ValueError, match="compile"):
        cnnlite.load_model(path, compile=False).fit(vectors(), np.zeros(7, int), verbose=0)


def test_loss_and_metrics_come_back_with_their_arguments(path):
    model = dense_model(last=None)
    loss = cnnlite.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy", cnnlite.metrics.SparseTopKCategoricalAccuracy(k=2)])
    model.save(path)
    loaded = cnnlite.load_model(path)
    y = np.arange(7) % 4
    assert model.evaluate(vectors(), y, verbose=0, return_dict=True) == loaded.evaluate(
        vectors(), y, verbose=0, return_dict=True
    )


# Classes that are not cnnlite's.


def custom_model():
    return cnnlite.Sequential([cnnlite.Input(shape=(5,)), Scale(3.0), layers.Dense(2)])


def test_a_layer_of_a_user_is_loaded_from_custom_objects(path):
    model = custom_model()
    model.layers[0].params["scale"] = np.arange(5)
    model.save(path)
    loaded = cnnlite.load_model(path, custom_objects={"Scale": Scale})
    assert loaded.layers[0].factor == 3.0
    assert_same_weights(model, loaded)


def test_an_unknown_layer_is_named_with_the_remedy(path):
    custom_model().save(path)
    with pytest.raises(ValueError, match=r"model\.safetensors.*'Scale'.*custom_objects"):
        cnnlite.load_model(path)


def test_a_layer_of_a_user_is_not_taken_for_the_one_of_the_same_name(path):
    class Dense(layers.Dense):
        pass

    cnnlite.Sequential([cnnlite.Input(shape=(5,)), Dense(2)]).save(path)
    with pytest.raises(ValueError, match="'Dense' is not one of cnnlite"):
        cnnlite.load_model(path)
    assert type(cnnlite.load_model(path, custom_objects={"Dense": Dense}).layers[0]) is Dense


def test_an_initializer_of_a_user_is_loaded_from_custom_objects(path):
    class Twos(cnnlite.initializers.Initializer):
        def __call__(self, shape, dtype="float32"):
            return np.full(shape, 2, dtype)

    cnnlite.Sequential([cnnlite.Input(shape=(5,)), layers.Dense(2, kernel_initializer=Twos())]).save(path)
    loaded = cnnlite.load_model(path, custom_objects={"Twos": Twos})
    assert isinstance(loaded.layers[0].kernel_initializer, Twos)
    with pytest.raises(ValueError, match="Twos"):
        cnnlite.load_model(path)


def test_only_names_of_layers_are_looked_up(path):
    # "os" and "np" are attributes of modules in reach of a naive lookup.
    for name in ("os", "np", "__builtins__", "eval", "base", "Sequential.__init__"):
        rewrite(dense_model(), path, lambda model, name=name: model["config"]["layers"][0].update(class_name=name))
        with pytest.raises(ValueError, match="is not one of cnnlite"):
            cnnlite.load_model(path)


def test_custom_objects_must_be_a_dict(path):
    with pytest.raises(TypeError, match="custom_objects must be a dict"):
        cnnlite.load_model(path, custom_objects=[Scale])


def test_a_config_that_json_cannot_hold_is_an_error_before_anything_is_written(path):
    model = cnnlite.Sequential([cnnlite.Input(shape=(5,)), Scale(np.ones(5))])
    with pytest.raises(ValueError, match="plain values"):
        model.save(path)
    assert not path.exists()


# Files that are not what they should be.


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


# Writing.


@pytest.mark.parametrize("ending", [".keras", ".h5", ".hdf5", ".pkl", ".H5", ".weights.h5"])
def test_the_endings_of_other_formats_are_refused_with_what_cnnlite_writes(tmp_path, ending):
    path = tmp_path / f"model{ending}"
    model = dense_model()
    for write in (model.save, model.save_weights):
        with pytest.raises(ValueError, match=r"safetensors files only.*model\.safetensors"):
            write(path)
    assert not path.exists()
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match="safetensors files only"):
        cnnlite.load_model(path)


def test_overwrite_false_keeps_a_file_that_is_there(path):
    path.write_text("mine")
    for write in (dense_model().save, dense_model().save_weights):
        with pytest.raises(FileExistsError, match="overwrite=True"):
            write(path, overwrite=False)
    assert path.read_text() == "mine"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere .*does not exist"):
        dense_model().save(tmp_path / "nowhere" / "model.safetensors")


def test_a_folder_or_a_number_in_the_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        dense_model().save(tmp_path)
    with pytest.raises(IsADirectoryError, match=r"load_model: .* is a folder"):
        cnnlite.load_model(tmp_path)
    with pytest.raises(TypeError, match="path must be a text or a path"):
        dense_model().save(3)
    with pytest.raises(TypeError, match="path must be a text or a path"):
        cnnlite.load_model(None)


def test_a_model_without_weights_cannot_be_saved(path):
    model = cnnlite.Sequential([layers.Dense(2)])
    for write in (model.save, model.save_weights):
        with pytest.raises(ValueError, match=r"has no weights yet. Call build"):
            write(path)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path, monkeypatch, step):
    model = dense_model()
    model.save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    model.layers[0].params["bias"] = np.ones(3)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_interrupt_leaves_the_old_file(path, monkeypatch):
    model = dense_model()
    model.save(path)
    before = path.read_bytes()

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.save_weights(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_cannot_be_written_to_is_a_permission_error(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            dense_model().save(tmp_path / "model.safetensors")
    finally:
        tmp_path.chmod(0o700)


def test_a_link_stays_a_link(path, tmp_path):
    target = tmp_path / "target.safetensors"
    target.write_bytes(b"")
    path.symlink_to(target)
    dense_model().save(path)
    assert path.is_symlink()
    cnnlite.load_model(target)
