"""Which neighbouring layers run as one kernel: an optimisation that never shows in a result.

`Sequential` hands its stack to `steps` and runs what comes back: layers, and a `ConvBlock` for each run of

    Conv2D [ReLU] [BatchNorm] [ReLU] [MaxPool or AveragePool]

of which at least one of the last four is there. A block gives the same bits as its layers do one after the other,
and the same gradients: it is made of the same functions, called for a few images at a time while these are in the
processor's cache; see `cnnlite/kernels/conv_block.py`. The layers stay what they are, with their weights and
gradients, and each can be run, inspected and checked on its own.

`with fusion.disabled():` runs layer by layer, to look at what goes from one to the next or to compare.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from cnnlite.arguments import is_prepared
from cnnlite.eager import is_eager
from cnnlite.floating import arithmetic
from cnnlite.kernels.batchnorm import combine_gradient_sums, combine_statistics
from cnnlite.kernels.conv_block import Geometry, conv_block, conv_block_backward, conv_block_gradient_sums, follow
from cnnlite.kernels.conv_tasks import AVERAGE_POOL, MAX_POOL, Following
from cnnlite.kernels.geometry import window_of, window_output_size
from cnnlite.kernels.pooling import argmax_dtype
from cnnlite.layers.activation import Linear, ReLU
from cnnlite.layers.activation_by_name import Activation
from cnnlite.layers.average_pool import AveragePool
from cnnlite.layers.base import Layer
from cnnlite.layers.batchnorm import BatchNorm
from cnnlite.layers.conv2d import Conv2D
from cnnlite.layers.max_pool import MaxPool
from cnnlite.layers.overrides import is_untouched
from cnnlite.types import Array, Shape

# An image of a block is one thread's. So few and large images run layer by layer, where threads share an image.
FEW, LARGE = 4, 1 << 18

MOST_SHAPES = 64  # of batches that a block keeps what follows from

_is_on = ContextVar("fusion", default=True)


def is_on() -> bool:
    """Return whether layers run as one here: neither in eager mode, nor within `disabled()`."""
    return _is_on.get() and not is_eager()


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Run every layer on its own while the context lasts."""
    token = _is_on.set(False)
    try:
        yield
    finally:
        _is_on.reset(token)


def steps(layers: Sequence[Layer], training: bool) -> list[Any]:
    """Return the layers in their order, with a block in the place of those that run as one."""
    if not is_on():
        return list(layers)
    result: list[Any] = []
    rest = list(layers)
    while rest:
        block = _block_at_the_head(rest, training) if type(rest[0]) is Conv2D else None
        result.append(block or rest[0])
        del rest[: len(block.layers) if block else 1]
    return result


def _block_at_the_head(layers: list[Layer], training: bool) -> ConvBlock | None:
    """Return a block of the first layers, of which the very first is a Conv2D, if there is more to it than that."""
    conv: Any = layers[0]
    rest = layers[1:]
    if conv.data_format != "channels_last" or not is_untouched(conv):
        return None
    members: list[Layer] = [conv]

    def take(fits: Callable[[Layer], bool]) -> Any:
        if not rest or rest[0].dtype != conv.dtype or not is_untouched(rest[0]) or not fits(rest[0]):
            return None
        members.append(rest.pop(0))
        return members[-1]

    if not is_relu(conv.activation) and not (type(conv.activation) is Linear and is_untouched(conv.activation)):
        return None
    first_relu = is_relu(conv.activation) or take(is_relu) is not None

    def norm_fits(layer: Layer) -> bool:
        # Backward through a frozen BatchNorm to a ReLU would need a z that is not kept.
        keeps_z = not training or layer.trainable or not first_relu
        return type(layer) is BatchNorm and layer.axis in (-1, 3) and keeps_z

    def pool_fits(layer: Layer) -> bool:
        # Backward through a mean to a ReLU would need it too.
        fits = type(layer) is MaxPool or (type(layer) is AveragePool and not training)
        return fits and getattr(layer, "data_format", None) == "channels_last"

    norm = take(norm_fits)
    relu = first_relu if norm is None else take(is_relu) is not None
    pool = take(pool_fits)
    if not (relu or norm or pool):
        return None
    return ConvBlock(members, first_relu and norm is not None, norm, relu, pool)


def is_relu(layer: Any) -> bool:
    """Return whether a layer is max(x, 0) and nothing else."""
    if type(layer) is Activation and is_untouched(layer):
        layer = layer.activation
    return type(layer) is ReLU and layer.limits == (None, 0, 0) and is_untouched(layer)


class ConvBlock:
    """A convolution with what follows it, run as one. It has what `Sequential` calls of a layer.

    Args:
        layers: all of them, the convolution first.
        first_relu: whether a ReLU comes before the BatchNorm.
        norm: the BatchNorm, or None.
        relu: whether a ReLU comes after it, or after the convolution where there is none.
        pool: the pooling layer, or None.
    """

    def __init__(self, layers: list[Any], first_relu: bool, norm: Any, relu: bool, pool: Any) -> None:
        self.layers, self.conv, self.norm, self.pool = layers, layers[0], norm, pool
        self.first_relu, self.relu = first_relu, relu
        self._shapes: dict[Shape, _Shapes] = {}
        self._memory: Any = None

    def for_one_pass(self) -> ConvBlock:
        """Return another block of the same layers, to remember a pass in training."""
        block = object.__new__(ConvBlock)
        vars(block).update(vars(self))
        return block

    def walk(self) -> Iterator[Layer]:
        for layer in self.layers:
            yield from layer.walk()

    def runs_as_one(self, x_shape: Shape) -> bool:
        """Return whether inference for images of that shape is not left to the layers."""
        return not self._work_out(x_shape).few_and_large

    def forward(self, x: Any, training: bool = False) -> Array:
        conv, norm = self.conv, self.norm
        shapes = self._shapes.get(x.shape) if is_prepared(x, conv.dtype) else None
        if shapes is None:
            x = conv.prepare(x)
            shapes = self._shapes_for(x.shape)
        z_shape, following = shapes.z, shapes.following
        if not training and shapes.few_and_large:
            for layer in self.layers:
                x = np.asarray(layer.forward(x))
            return x
        top = self.pool or conv
        y = top.allocate("y", shapes.y, training)
        argmax = top.allocate("argmax", shapes.argmax, training, shapes.argmax_dtype)
        arguments = (x, conv.params["kernel"], conv.params.get("bias"), shapes.geometry)
        learning = norm is not None and training and norm.trainable
        if not learning:
            affine = inv_std = None
            if norm is not None:
                inv_std = norm.inverse_deviation(norm.state["moving_variance"])
                affine = self._affine(norm.state["moving_mean"], inv_std)
            conv_block(*arguments, affine, following, out=(y, argmax))
            normalised = None
        else:
            z = conv.allocate("z", z_shape, training)
            means, m2s = conv_block(*arguments, following=following, z=z, statistics=True)
            rows = (len(x), z_shape[1] * z_shape[2], z_shape[3])
            mean, variance = combine_statistics(means, m2s, rows, x.dtype)
            norm.learn(mean, variance, z_shape)
            inv_std = norm.inverse_deviation(variance)
            follow(z, self._affine(mean, inv_std), following, (y, argmax))
            normalised = (z, mean, rows)
        if training:
            self._memory = (x, shapes.geometry, following, (y, argmax), inv_std, normalised)
            for layer in self.walk():
                if layer._memory is not None:
                    layer._memory = None  # it would be that of another pass
        return y

    def backward(self, dy: Array, fills_dx: bool = True) -> Any:
        conv, norm = self.conv, self.norm
        if self._memory is None:
            raise ValueError(f"{conv.name}: backward needs a forward pass in training mode before it. The last failed.")
        x, geometry, following, out, inv_std, normalised = self._memory
        dy = self.layers[-1].prepare_gradient(dy, out[0].shape)
        dkernel, dbias = (conv.grads["kernel"], conv.grads.get("bias")) if conv.trainable else (None, None)
        scale = terms = None
        if normalised is not None:
            z, mean, rows = normalised
            of_dy, of_product = conv_block_gradient_sums(dy, out, z, mean, following)
            dgamma, dbeta, terms = combine_gradient_sums(of_dy, of_product, rows, inv_std, norm.gamma_and_beta()[0])
            norm.keep_gradients(dgamma, dbeta)
            normalised = (z, mean, terms)
        elif norm is not None:
            with arithmetic():
                scale = inv_std * norm.gamma_and_beta()[0]
        dx = conv.allocate("dx", x.shape) if fills_dx else None
        conv_block_backward(x, dy, conv.params["kernel"], geometry, following, out, scale, normalised,
                            dkernel, dbias, dx, lambda shape, dtype: conv.allocate("sums", shape, dtype=dtype))
        return dx

    def backward_weights(self, dy: Array) -> None:
        self.backward(dy, fills_dx=False)

    def _affine(self, mean: Array, inv_std: Array) -> Array:
        """Return the mean, the scale and the beta of the map of the BatchNorm."""
        gamma, beta = self.norm.gamma_and_beta()
        affine = np.empty((3, len(mean)), mean.dtype)
        with arithmetic():
            affine[0], affine[1], affine[2] = mean, inv_std * gamma, beta
        return affine

    def _shapes_for(self, x_shape: Shape) -> _Shapes:
        if len(self._shapes) >= MOST_SHAPES:
            self._shapes.clear()
        shapes = self._shapes[x_shape] = self._work_out(x_shape)
        return shapes

    def _work_out(self, x_shape: Shape) -> _Shapes:
        conv, norm, pool = self.conv, self.norm, self.pool
        z_shape = conv.output_image_shape(*x_shape)
        if norm is not None:
            norm.build_once(z_shape)
            norm.check_fits(z_shape)
        strides, pads, dilation = conv.geometry(x_shape)
        geometry = Geometry(strides, pads, dilation, conv.groups)
        few_and_large = x_shape[0] < FEW and math.prod(z_shape) > LARGE
        if pool is None:
            following = Following(self.first_relu, self.relu)
            return _Shapes(geometry, z_shape, following, z_shape, (0, 0, 0, 0), np.dtype(np.uint8), few_and_large)
        n, height, width, filters = z_shape
        kind = MAX_POOL if type(pool) is MaxPool else AVERAGE_POOL
        size, strides, pads = pool.window(z_shape)
        y_shape = (n, *window_output_size(height, width, size, strides, pool.padding, (1, 1), pool.name), filters)
        following = Following(self.first_relu, self.relu, kind, window_of(size, strides, pads))
        argmax_shape = y_shape if kind == MAX_POOL else (0, 0, 0, 0)
        return _Shapes(geometry, z_shape, following, y_shape, argmax_shape, argmax_dtype(size), few_and_large)


class _Shapes(NamedTuple):
    """What follows from the shape of the images that a block gets: where the windows go, and the shapes of results."""

    geometry: Geometry
    z: Shape
    following: Following
    y: Shape
    argmax: Shape
    argmax_dtype: Any
    few_and_large: bool
