"""The settings of the library."""

import pytest

import cnnlite
from cnnlite import config
from cnnlite.layers import Layer


@pytest.fixture(autouse=True)
def _as_before():
    floatx, data_format = config.floatx(), config.image_data_format()
    yield
    config.set_floatx(floatx)
    config.set_image_data_format(data_format)


def test_the_defaults_are_those_of_keras():
    assert config.floatx() == "float32"
    assert config.image_data_format() == "channels_last"


def test_the_precision_is_that_of_layers_made_from_then_on():
    before = Layer()
    config.set_floatx("float64")
    assert Layer().dtype == "float64"
    assert before.dtype == "float32"
    assert Layer(dtype="float32").dtype == "float32"


def test_the_data_format_can_be_set():
    config.set_image_data_format("channels_first")
    assert config.image_data_format() == "channels_first"


@pytest.mark.parametrize("dtype", ["float16", "int32", None, 32])
def test_other_precisions_are_refused_and_nothing_changes(dtype):
    with pytest.raises(ValueError, match=r"set_floatx: value must be one of 'float32', 'float64'. Received: value="):
        config.set_floatx(dtype)
    assert config.floatx() == "float32"


def test_other_data_formats_are_refused_and_nothing_changes():
    with pytest.raises(ValueError, match=r"Did you mean 'channels_last'"):
        config.set_image_data_format("channel_last")
    assert config.image_data_format() == "channels_last"


def test_the_backend_of_older_scripts_has_the_same_settings():
    cnnlite.backend.set_image_data_format("channels_first")
    assert config.image_data_format() == "channels_first"
    cnnlite.backend.clear_session()
