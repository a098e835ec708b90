"""SpatialDropout2D: dropout of whole channels."""

from __future__ import annotations

from typing import Any

from cnnlite.layers.dropout import Dropout
from cnnlite.layers.settings import Setting, image_layout
from cnnlite.types import Config, Shape


class SpatialDropout2D(Dropout):
    """Drop whole channels of images while the model trains (Tompson et al., 2015).

    Neighbouring pixels are alike, so dropping single ones hides little from a convolution. The mask is
    (N, 1, 1, C), or (N, C, 1, 1) with channels first; the rest is as in `Dropout`.

    Args:
        rate: the fraction of channels to drop, from 0 to 1.
        data_format: "channels_last" or "channels_first"; by default `cnnlite.config.image_data_format()`.
        seed: an integer for the same masks in every run.
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Shapes: x and y (N, H, W, C), or (N, C, H, W) with "channels_first".

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> y = cnnlite.layers.SpatialDropout2D(0.5, seed=1)(np.ones((1, 2, 2, 8)), training=True)
    >>> bool((y == y[:, :1, :1]).all())  # the pixels of a channel share one fate
    True
    """

    rank = 4
    data_format = Setting(image_layout)

    def __init__(self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, seed=seed, **kwargs)
        self.data_format = data_format

    def mask_shape(self, shape: Shape) -> Shape:
        if self.data_format == "channels_first":
            return (*shape[:2], 1, 1)
        return (shape[0], 1, 1, shape[3])

    def get_config(self) -> Config:
        arguments = super().get_config()
        del arguments["noise_shape"]
        return {**arguments, "data_format": self.data_format}
