"""Dropout: a random fraction of the inputs is set to 0 while the model trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlite import kernels
from cnnlite.layers.base import Layer
from cnnlite.layers.settings import Setting, optional
from cnnlite.random import RandomStream
from cnnlite.support.arguments import integer, share
from cnnlite.types import Array, ArrayLike, Config, Shape


def _noise_shape(value: Any, name: str, owner: str) -> Shape:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise ValueError(
            f"{owner}: {name} must be a tuple of integers and None. Received: {name}={value!r}."
        )
    return tuple(None if size is None else integer(size, name, owner) for size in value)


class Dropout(Layer):
    """y = x * mask in training, y = x otherwise (Srivastava et al., 2014).

    Each element of the mask is 0 with probability `rate`, else 1 / (1 - rate), so that the expected y is x
    ("inverted" dropout). Every training pass draws a new mask. dx = dy * mask.

    Args:
        rate: the fraction of inputs to drop, from 0 to 1.
        noise_shape: the shape of the mask, which is broadcast over x; None in it stands for the size of x
            along that axis. (None, 1, 1, None) drops whole channels. By default the shape of x.
        seed: an integer for the same masks in every run; by default drawn from the library's random stream, which
            `cnnlite.utils.set_random_seed` seeds.
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Shapes: x any, y the same.

    Raises:
        ValueError: rate is not from 0 to 1, or noise_shape doesn't fit the input.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> layer = cnnlite.layers.Dropout(0.5, seed=1)
    >>> np.unique(layer(np.ones((20, 20)), training=True))
    array([0., 2.], dtype=float32)
    >>> np.unique(layer(np.ones((20, 20))))
    array([1.], dtype=float32)
    """

    rate = Setting(share)
    noise_shape = Setting(optional(_noise_shape))

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.noise_shape = noise_shape
        self.seed = seed

    @property
    def seed(self) -> int | None:
        """The seed of the masks, or None; setting it restarts their sequence."""
        return self._seed

    @seed.setter
    def seed(self, seed: int | None) -> None:
        self.random = RandomStream(seed)
        self._seed = seed

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.prepare(x)
        if not training:
            return x
        if self.rate == 0:
            self.remember(x.shape, None)
            return x
        mask = self.draw_mask(x)
        self.remember(x.shape, mask)
        return kernels.multiply(x, mask)

    def backward(self, dy: Array) -> Array:
        shape, mask = self.recall()
        dy = self.prepare_gradient(dy, shape)
        return dy if mask is None else kernels.multiply(dy, mask)

    def draw_mask(self, x: Array) -> Array:
        """Return a new mask, which broadcasts against x."""
        shape = self.mask_shape(x.shape)
        key = self.value(self.random.key, (2,), np.uint64)
        return kernels.dropout_mask(key, self.rate, self.allocate("mask", shape))

    def mask_shape(self, shape: Shape) -> Shape:
        """Return the shape of the mask for an input of that shape."""
        if self.noise_shape is None:
            return shape
        mask = tuple(have if size is None else size for have, size in zip(shape, self.noise_shape))
        if len(self.noise_shape) != len(shape) or any(size not in (1, have) for have, size in zip(shape, mask)):
            raise ValueError(
                f"{self.name}: noise_shape must have 1, None or the size of the input for each axis. "
                f"Received: noise_shape={self.noise_shape}, an input of shape {shape}."
            )
        return mask

    @property
    def is_traceable(self) -> bool:
        """Whether the mask fits any number of samples."""
        return self.noise_shape is None or self.noise_shape[:1] in ((None,), (1,), ())

    def get_config(self) -> Config:
        noise_shape = None if self.noise_shape is None else list(self.noise_shape)
        return {**super().get_config(), "rate": self.rate, "noise_shape": noise_shape, "seed": self.seed}
