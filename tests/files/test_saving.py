"""A saved model comes back with the same bits, and its training goes on from there."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import cnnlite
from cnnlite import layers
from cnnlite.optimizers import SGD, Adam, RMSprop, schedules
from tests.helpers.models import assert_same_weights, dense_model, image_data, image_model, vectors

ROOT = Path(__file__).parents[2]


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
    with pytest.raises(ValueError, match=r"function 'largest' is not part of cnnlite.*custom_objects"):
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
