"""Library-wide settings: the default precision and the default layout of images."""

from __future__ import annotations

from cnnlite.support.arguments import one_of

_settings = {"floatx": "float32", "image_data_format": "channels_last"}


def floatx() -> str:
    """Return the default dtype of layers, "float32" unless `set_floatx` changed it."""
    return _settings["floatx"]


def set_floatx(value: str) -> None:
    """Make `value`, "float32" or "float64", the default dtype of every layer made from now on."""
    _settings["floatx"] = one_of(value, ("float32", "float64"), "value", "set_floatx")


def image_data_format() -> str:
    """Return the default `data_format`, "channels_last" unless it was changed."""
    return _settings["image_data_format"]


def set_image_data_format(data_format: str) -> None:
    """Make "channels_last" or "channels_first" the default of every layer made from now on."""
    _settings["image_data_format"] = one_of(
        data_format, ("channels_last", "channels_first"), "data_format", "set_image_data_format"
    )
