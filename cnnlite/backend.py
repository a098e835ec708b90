"""Keras's namespace for settings, which older scripts import as K: `K.image_data_format()`. See `config.py`."""

from cnnlite.config import floatx, image_data_format, set_floatx, set_image_data_format
from cnnlite.utils import clear_session

__all__ = ["clear_session", "floatx", "image_data_format", "set_floatx", "set_image_data_format"]
