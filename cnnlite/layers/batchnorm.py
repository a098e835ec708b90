"""Batch normalisation: each channel gets mean 0 and variance 1, then a learned scale and shift."""

from __future__ import annotations

from functools import partial
from typing import Any

from cnnlite import initializers, kernels, regularizers
from cnnlite.layers.base import Layer
from cnnlite.layers.settings import RegularizerSetting, Setting, made_by
from cnnlite.layers.weights import Weight
from cnnlite.support.arguments import boolean, integer, number, share
from cnnlite.types import Array, ArrayLike, Config, Identifier, Shape


def _one_axis(value: Any, name: str, owner: str) -> int:
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]  # as files of older Keras versions store it
    return integer(value, name, owner, minimum=-10)


class BatchNorm(Layer):
    """Normalise each channel over the batch, and over the pixels if there are any (Ioffe and Szegedy, 2015).

    forward, training (sums over the M values of a channel, M = N·H·W for images):

        mean = 1/M Σ x,   variance = 1/M Σ (x − mean)²
        x̂ = (x − mean) / √(variance + epsilon)
        y = gamma x̂ + beta
        moving_mean     = momentum · moving_mean     + (1 − momentum) · mean
        moving_variance = momentum · moving_variance + (1 − momentum) · variance

    forward, inference: the same x̂ and y, from moving_mean and moving_variance.

    backward, where mean and variance depend on x too:

        dbeta = Σ dy
        dgamma = Σ dy x̂
        dx = gamma / √(variance + epsilon) · (dy − dbeta / M − x̂ dgamma / M)

    The last line, step by step, with r = 1 / √(variance + epsilon) and [i = j] = 1 if i = j, else 0:

        ∂mean/∂x_j = 1/M,   ∂variance/∂x_j = 2/M (x_j − mean),   ∂r/∂x_j = −r³/2 ∂variance/∂x_j = −r² x̂_j / M
        ∂x̂_i/∂x_j = r ([i = j] − 1/M) + (x_i − mean) ∂r/∂x_j = r ([i = j] − 1/M − x̂_i x̂_j / M)
        dx_j = Σ_i gamma dy_i ∂x̂_i/∂x_j = gamma r (dy_j − 1/M Σ_i dy_i − x̂_j/M Σ_i dy_i x̂_i)

    A layer with `trainable=False` is frozen: it runs in inference mode in training too, and its backward is
    dx = gamma / √(moving_variance + epsilon) · dy. The gradients of gamma and beta are then not computed.

    The moving variance uses the biased variance, as in Keras (PyTorch uses M / (M − 1) times that). If all values of
    a channel are equal, the variance is 0 and y is beta; if there is only one value, dx is 0 too. A batch of 0
    samples gives an empty y and gradients of 0, and leaves the moving averages alone.

    Args:
        axis: the axis of the channels (default -1); 1 for images (N, C, H, W).
        momentum: how much of the moving averages a training step keeps, from 0 to 1 (default 0.99).
        epsilon: added to the variance, above 0 (default 0.001).
        center: add beta (default True).
        scale: multiply by gamma (default True).
        beta_initializer, gamma_initializer: "zeros" and "ones" by default.
        moving_mean_initializer, moving_variance_initializer: "zeros" and "ones" by default.
        beta_regularizer, gamma_regularizer: None by default.
        **kwargs: name, dtype, trainable, input_shape.

    Input shape: any with at least 2 axes, such as (N, C) and (N, H, W, C).
    Output shape: the same as the input.

    Raises:
        ValueError: momentum or epsilon is out of range; when the layer is built, `axis` is not an axis of a sample.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> y = cnnlite.layers.BatchNorm()(np.array([[1.0, 10.0], [3.0, 30.0]]), training=True)
    >>> print(y.round(2))
    [[-1. -1.]
     [ 1.  1.]]
    """

    gamma, beta, moving_mean, moving_variance = Weight(), Weight(), Weight(), Weight()
    axis = Setting(_one_axis, fixed=True)
    momentum = Setting(share)
    epsilon = Setting(partial(number, above=0))
    center = Setting(boolean, fixed=True)
    scale = Setting(boolean, fixed=True)
    beta_initializer = Setting(made_by(initializers.get))
    gamma_initializer = Setting(made_by(initializers.get))
    moving_mean_initializer = Setting(made_by(initializers.get))
    moving_variance_initializer = Setting(made_by(initializers.get))
    beta_regularizer = RegularizerSetting("beta")
    gamma_regularizer = RegularizerSetting("gamma")

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Identifier = "zeros",
        gamma_initializer: Identifier = "ones",
        moving_mean_initializer: Identifier = "zeros",
        moving_variance_initializer: Identifier = "ones",
        beta_regularizer: Identifier | None = None,
        gamma_regularizer: Identifier | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.momentum = momentum
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.beta_initializer = beta_initializer
        self.gamma_initializer = gamma_initializer
        self.moving_mean_initializer = moving_mean_initializer
        self.moving_variance_initializer = moving_variance_initializer
        self.beta_regularizer = beta_regularizer
        self.gamma_regularizer = gamma_regularizer

    def build(self, input_shape: Shape) -> None:
        rank = len(input_shape)
        if self.axis % max(rank, 1) == 0 or not -rank < self.axis < rank:
            raise ValueError(
                f"{self.name}: axis must be an axis of the input other than the batch. "
                f"Received: axis={self.axis} and an input of shape {tuple(input_shape)}."
            )
        self.channel_axis = self.axis
        super().build(input_shape)
        channels = (input_shape[self.axis],)
        if self.scale:
            self.add_weight("gamma", channels, self.gamma_initializer, regularizer=self.gamma_regularizer)
        if self.center:
            self.add_weight("beta", channels, self.beta_initializer, regularizer=self.beta_regularizer)
        self.add_weight("moving_mean", channels, self.moving_mean_initializer, trainable=False)
        self.add_weight("moving_variance", channels, self.moving_variance_initializer, trainable=False)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.channels_last(self.prepare(x))
        learning = training and self.trainable
        if learning:
            mean, variance = kernels.batchnorm_statistics(x)
            self.commit(lambda refused: self.learn(mean, variance, x, refused))
        else:
            mean, variance = self._state["moving_mean"], self._state["moving_variance"]
        inv_std = self.inverse_deviation(variance)
        y = self.outside(kernels.batchnorm_normalize(x, mean, inv_std, *self.gamma_and_beta()))
        if training:
            self.remember(x if learning else None, mean, inv_std, y.shape)
        return y

    def backward(self, dy: Array) -> Array:
        x, mean, inv_std, shape = self.recall()
        dy = self.channels_last(self.prepare_gradient(dy, shape))
        gamma, _ = self.gamma_and_beta()
        if x is None:
            dx = kernels.batchnorm_inference_backward(dy, inv_std, gamma)
        else:
            dx, _, _ = kernels.batchnorm_backward(dy, x, mean, inv_std, gamma, dgamma=self._grads.get("gamma"),
                                                  dbeta=self._grads.get("beta"))
        return self.outside(dx)

    def channels_last(self, x: Array) -> Array:
        """Return x as (N, ..., C)."""
        return x if self.axis in (-1, x.ndim - 1) else kernels.moveaxis(x, self.axis, -1)

    def outside(self, y: Array) -> Array:
        """Return an array (N, ..., C) with its channels moved back to `axis`."""
        return y if self.axis in (-1, y.ndim - 1) else kernels.moveaxis(y, -1, self.axis)

    def gamma_and_beta(self) -> tuple[Array | None, Array | None]:
        """Return gamma and beta, None for one that the layer doesn't have."""
        return self._params.get("gamma"), self._params.get("beta")

    def inverse_deviation(self, variance: Array) -> Array:
        """Return 1 / √(variance + epsilon); NaN for an infinite variance, where 0 would make y = beta and hide it."""
        return kernels.inverse_deviation(variance, self.epsilon)

    def learn(self, mean: Array, variance: Array, x: Array, refused: Array | None) -> None:
        """Move the averages towards the statistics of a batch x, unless the step was refused."""
        kernels.move_average(self._state["moving_mean"], mean, self.momentum, x, refused)
        kernels.move_average(self._state["moving_variance"], variance, self.momentum, x, refused)
        self._state.version += 1

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> Config:
        return {
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
            "beta_regularizer": regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": regularizers.serialize(self.gamma_regularizer),
            **super().get_config(),
        }
