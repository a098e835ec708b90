"""Files that earlier versions wrote, kept in tests/data: each loads, whatever has changed since.

A version that changes the format adds a file of its own, and leaves those that are there as they are.
"""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import cnnlite
from cnnlite.files.model_files import FORMAT_VERSION
from tests.helpers.models import image_data

DATA = Path(__file__).parents[1] / "data"
LOSS = 0.9919879986700559  # what the version that wrote the models evaluates them to


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_there_is_a_file_of_each_format_version(version):
    path = DATA / f"model_format_{version}.safetensors"
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata()["format_version"] == str(version)


@pytest.mark.parametrize("path", sorted(DATA.glob("model_format_*")), ids=lambda path: path.stem)
def test_a_model_of_an_older_version_comes_back_whole_and_goes_on_training(path):
    model = cnnlite.load_model(path)
    arrays = safetensors.numpy.load_file(path)
    for name, weight in (model.params | model.state).items():
        assert np.array_equal(weight, arrays[name])
    for name, slot in model.optimizer.slots.items():
        assert np.array_equal(slot, arrays[f"optimizer/{name}"])
    assert [type(layer).__name__ for layer in model.layers] == [
        "Conv2D", "BatchNorm", "MaxPool", "Flatten", "Sequential", "Dense"
    ]
    assert model.metrics_names == ["loss", "accuracy"]
    assert model.optimizer.iterations == 6
    assert model.optimizer.learning_rate.get_config()["decay_steps"] == 12
    assert model.layers[4].layers[1].random.state[1] == 6  # masks drawn
    x, y = image_data()
    loss = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(LOSS, rel=1e-5)
    model.fit(x, y, epochs=3, initial_epoch=2, batch_size=8, verbose=0)
    assert model.optimizer.iterations == 9


@pytest.mark.parametrize("path", sorted(DATA.glob("weights_format_*")), ids=lambda path: path.stem)
def test_weights_of_an_older_version_can_be_loaded(path):
    model = cnnlite.models.clone_model(cnnlite.load_model(DATA / "model_format_1.safetensors"))
    model.load_weights(path)
    arrays = safetensors.numpy.load_file(path)
    assert all(np.array_equal(weight, arrays[name]) for name, weight in (model.params | model.state).items())
