"""Convolution of whole batches.

Shapes: x (N, H, W, C), kernel (KH, KW, C / groups, F), y (N, OH, OW, F); pads ((top, bottom), (left, right)).

There are four ways, and the shapes alone say which one is taken:

    pointwise.py    kernels of 1 x 1 without strides or padding: a product over all pixels
    winograd.py     3 x 3 and the like, of many channels: fewer multiplications
    wide_pixels.py  few filters: several pixels as one
    direct.py       all others, and what these three can't do for numbers that are not finite

The gradients stand in `conv2d_gradients.py`.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from cnnlite.engine.stages import BATCH, array, stage
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.checks import require
from cnnlite.kernels.conv_block import conv_block_backward
from cnnlite.kernels.direct import add_direct, is_product
from cnnlite.kernels.geometry import Window, window_of
from cnnlite.kernels.im2col import NO_PADS, output_shape
from cnnlite.kernels.operation import graph_of, operation, result
from cnnlite.kernels.panels import panel_width
from cnnlite.kernels.pointwise import add_pointwise
from cnnlite.kernels.wide_pixels import add_wide, wide_pixels
from cnnlite.kernels.winograd import add_winograd, suits


class Geometry(NamedTuple):
    """Where the kernel of a convolution goes, as the layers have it."""

    strides: tuple = (1, 1)
    pads: tuple = NO_PADS
    dilation: tuple = (1, 1)
    groups: int = 1


class Convolution(NamedTuple):
    """What a way of convolving makes its stages of: buffers, and where the kernel goes."""

    x: Any
    kernel: Any
    bias: Any
    window: Window
    groups: int
    y: Any

    @property
    def graph(self):
        return graph_of(self.x)

    @property
    def work(self):
        """The additions and multiplications for a sample."""
        return 2.0 * math.prod(self.y.shape[1:]) * math.prod(self.kernel.shape[:3])

    def start(self):
        """Return what sums start from: the bias, or zeros, filled up to whole panels for each group."""
        filters, width = self.kernel.shape[3] // self.groups, panel_width(self.x.dtype)
        padded = -(-filters // width) * width
        if self.bias is None:
            return _zeros(self.groups * padded, self.x.dtype)
        if filters == padded:
            return self.bias
        out = self.graph.work((self.groups, padded), self.x.dtype)
        self.graph.add(_pad, bias=self.bias, out=out, groups=self.groups, filters=filters, padded=padded,
                       work=self.groups * padded)
        return out


@functools.cache
def _zeros(size, dtype):
    return np.zeros(size, dtype)


@stage(reads="bias", writes="out", sizes="groups filters padded", footprint=BATCH)
def _pad(r, run, first, last):
    bias, out = array(run, r.bias, (r.groups, r.filters)), array(run, r.out, (r.groups, r.padded))
    for group in range(r.groups):
        for j in range(r.padded):
            out[group, j] = bias[group, j] if j < r.filters else 0


@operation(samples="x out")
def conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return y = x * kernel + bias, (N, OH, OW, F).

    Rows of the kernel are left out where they lie wholly on padding, so a NaN in them does not show there.
    """
    geometry = geometry_of(strides, pads, dilation, groups)
    shape = checked_shape(x, x.shape, kernel, geometry, "conv2d")
    if bias is not None:
        require(bias, "bias", shape[3:], x.dtype, "conv2d")
    out = result(out, x, shape)
    require(out, "out", shape, x.dtype, "conv2d")
    _, h, w, channels = x.shape
    kh, kw, _, filters = kernel.shape
    _, oh, ow, _ = shape
    convolution = Convolution(x, kernel, bias, window_of((kh, kw), strides, pads, dilation), groups, out)
    if not math.prod(shape[1:]):
        return out
    if is_product(convolution.window, h, w, oh, ow):
        add_pointwise(convolution)
    elif is_plain(kernel, geometry) and suits(kh, h, pads[0][0], (oh, ow), channels, filters):
        add_winograd(convolution)
    elif (pixels := wide_pixels(x, kernel, convolution.window, groups, ow)) > 1:
        add_wide(convolution, pixels)
    else:
        add_direct(convolution)
    return out


@operation(samples="x out")
def winograd_conv2d(x, kernel, bias=None, pads=NO_PADS, out=None):
    """`conv2d` by Winograd's method, whatever `suits` says; for tests and experiments.

    2 to 5 taps, and at least 16 channels and filters. Negative pads cut rows and columns off.
    """
    return _by(add_winograd, x, kernel, bias, Geometry(pads=pads), out)


@operation(samples="x out")
def direct_conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """`conv2d` pixel by pixel, whatever would be faster; for tests and experiments."""
    return _by(add_direct, x, kernel, bias, Geometry(strides, pads, dilation, groups), out)


@operation(samples="x out")
def wide_conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), pixels=None, out=None):
    """`conv2d` by so many pixels as one, or by as many as fit into a vector; for tests and experiments.

    A row of these pixels must be no long sum, and only rows may be dilated.
    """
    ow = output_shape(x.shape, kernel.shape[:2], strides, pads, dilation)[1]
    pixels = pixels or min(ow, VECTOR_BYTES // x.itemsize // kernel.shape[3])
    return _by(functools.partial(add_wide, pixels=pixels), x, kernel, bias, Geometry(strides, pads, dilation), out)


def _by(add, x, kernel, bias, geometry, out):
    window = window_of(kernel.shape[:2], *geometry[:3])
    out = result(out, x, (x.shape[0], *output_shape(x.shape, kernel.shape[:2], *geometry[:3]), kernel.shape[3]))
    add(Convolution(x, kernel, bias, window, geometry.groups, out))
    return out


# What the gradients ask as well.


def geometry_of(strides, pads, dilation, groups):
    return Geometry(tuple(strides), tuple(map(tuple, pads)), tuple(dilation), groups)


def is_plain(kernel, geometry):
    """Return whether it is a square kernel without strides, dilation or groups, which Winograd's method is for."""
    kh, kw, _, _ = kernel.shape
    return kh == kw and geometry.strides == (1, 1) and geometry.dilation == (1, 1) and geometry.groups == 1


def checked_shape(images, x_shape, kernel, geometry, owner):
    """Return (N, OH, OW, F), after a look at whether the kernel fits the images, which are x or dy."""
    require(images, "the images", 4, None, owner)
    require(kernel, "the kernel", 4, images.dtype, owner)
    check_convolution(x_shape, kernel.shape, geometry, owner)
    kh, kw, _, filters = kernel.shape
    return (x_shape[0], *output_shape(x_shape, (kh, kw), *geometry[:3]), filters)


def check_convolution(x_shape, kernel_shape, geometry, owner):
    """Raise a ValueError unless a kernel of that shape goes over images of that shape."""
    kh, kw, channels, filters = kernel_shape
    groups = geometry.groups
    if len(x_shape) != 4 or groups < 1 or channels * groups != x_shape[3] or filters % groups:
        raise ValueError(
            f"{owner}: x must have C channels, the kernel C / groups, and the filters must be divisible by groups. "
            f"Received: an x of shape {tuple(x_shape)}, a kernel of shape {kernel_shape}, groups={groups}."
        )
    sizes = (*geometry.strides, *geometry.dilation, kh, kw)
    if min(sizes) < 1 or min(min(pair) for pair in geometry.pads) < 0:
        raise ValueError(
            f"{owner}: strides, dilation and the kernel's size must be at least 1, and pads not negative. Received: "
            f"strides={geometry.strides}, dilation={geometry.dilation}, a kernel of {(kh, kw)}, pads={geometry.pads}."
        )


# The gradients, until `conv2d_gradients.py` takes over.


def conv2d_input_gradient(dy, kernel, x_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return dx[n, h, w, c] = sum of dy[n, oh, ow, f] * kernel[ky, kx, c, f] over all that x[n, h, w, c] went into."""
    geometry = geometry_of(strides, pads, dilation, groups)
    shape = checked_shape(dy, x_shape, kernel, geometry, "conv2d_input_gradient")
    require(dy, "dy", shape, kernel.dtype, "conv2d_input_gradient")
    out = _result(out, "out", tuple(x_shape), dy.dtype, "conv2d_input_gradient")
    conv_block_backward(out, dy, kernel, geometry, dx=out)
    return out


def conv2d_kernel_gradient(x, dy, kernel_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return dkernel[ky, kx, c, f] = sum over n, oh, ow of x[n, oh*s + ky*d, ow*s + kx*d, c] * dy[n, oh, ow, f]."""
    geometry = geometry_of(strides, pads, dilation, groups)
    out = _result(out, "out", tuple(kernel_shape), x.dtype, "conv2d_kernel_gradient")
    shape = checked_shape(x, x.shape, out, geometry, "conv2d_kernel_gradient")
    require(dy, "dy", shape, x.dtype, "conv2d_kernel_gradient")
    conv_block_backward(x, dy, out, geometry, dkernel=out)
    return out


def conv2d_backward(x, dy, kernel, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, dkernel=None, dbias=None,
                    dx=None):
    """Write those of the three gradients that are not None, in one pass over dy; dbias (F,) is its sum by filter."""
    geometry = geometry_of(strides, pads, dilation, groups)
    shape = checked_shape(x, x.shape, kernel, geometry, "conv2d_backward")
    require(dy, "dy", shape, x.dtype, "conv2d_backward")
    results = ("dkernel", dkernel, kernel.shape), ("dbias", dbias, shape[3:]), ("dx", dx, x.shape)
    for name, gradient, wanted in results:
        if gradient is not None:
            require(gradient, name, wanted, x.dtype, "conv2d_backward")
    conv_block_backward(x, dy, kernel, geometry, dkernel=dkernel, dbias=dbias, dx=dx)


def _result(out, name, shape, dtype, owner):
    if out is None:
        return np.empty(shape, dtype)
    require(out, name, shape, dtype, owner)
    return out
