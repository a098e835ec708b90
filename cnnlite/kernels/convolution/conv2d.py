"""Convolution of whole batches.

Shapes: x (N, H, W, C), kernel (KH, KW, C / groups, F), y (N, OH, OW, F); pads ((top, bottom), (left, right)).

There are four methods, and the shapes alone decide which one is used:

    pointwise.py    1 x 1 kernels without strides or padding: a product over all pixels
    winograd.py     3 x 3 and similar kernels with many channels: fewer multiplications
    wide_pixels.py  few filters: several pixels computed as one
    direct.py       everything else, and values that the other methods can't handle (`bounded.py`)

The gradients are in `conv2d_gradients.py`.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from cnnlite.engine.stages import BATCH, array, stage
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.checks import require
from cnnlite.kernels.convolution.direct import add_direct
from cnnlite.kernels.convolution.im2col import output_shape
from cnnlite.kernels.convolution.pointwise import add_pointwise
from cnnlite.kernels.convolution.wide_pixels import add_wide, wide_pixels
from cnnlite.kernels.convolution.winograd import add_winograd, uses_winograd
from cnnlite.kernels.geometry import (
    NO_PADS,
    Geometry,
    Window,
    convolved_shape,
    fields,
    geometry_of,
    meets_no_other,
    window_of,
)
from cnnlite.kernels.operation import graph_of, operation, result
from cnnlite.kernels.product.panels import panel_width


class Convolution(NamedTuple):
    """What each method builds its stages from: the buffers, the window and the groups."""

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
        """The additions and multiplications per sample."""
        return 2.0 * math.prod(self.y.shape[1:]) * math.prod(self.kernel.shape[:3])

    def start(self):
        """Return what the sums start from: the bias, or zeros, padded to whole panels for each group."""
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

    Kernel rows are skipped where they lie entirely on padding, so a NaN in them does not show there.
    """
    geometry = geometry_of(strides, pads, dilation, groups)
    shape = convolved_shape(x, x.shape, kernel, geometry, "conv2d")
    if bias is not None:
        require(bias, "bias", shape[3:], x.dtype, "conv2d")
    out = result(out, x, shape)
    require(out, "out", shape, x.dtype, "conv2d")
    _, oh, ow, _ = shape
    sizes = fields(x.shape, kernel.shape, (oh, ow), geometry)
    convolution = Convolution(x, kernel, bias, window_of(kernel.shape[:2], strides, pads, dilation), groups, out)
    if not math.prod(shape[1:]):
        return out
    if meets_no_other(sizes):
        add_pointwise(convolution)
    elif uses_winograd(sizes):
        add_winograd(convolution)
    elif (pixels := wide_pixels(x, kernel, convolution.window, groups, ow)) > 1:
        add_wide(convolution, pixels)
    else:
        add_direct(convolution)
    return out


@operation(samples="x out")
def winograd_conv2d(x, kernel, bias=None, pads=NO_PADS, out=None):
    """`conv2d` by Winograd's method, whatever `winograd_is_faster` says; for tests and experiments.

    Needs 2 to 5 taps on a side and at least 16 channels and filters. Negative pads crop rows and columns.
    """
    return _by(add_winograd, x, kernel, bias, Geometry(pads=pads), out)


@operation(samples="x out")
def direct_conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """`conv2d` by the direct method, even where another is faster; for tests and experiments."""
    return _by(add_direct, x, kernel, bias, Geometry(strides, pads, dilation, groups), out)


@operation(samples="x out")
def wide_conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), pixels=None, out=None):
    """`conv2d` with `pixels` pixels computed as one, by default as many as fill a vector; for tests and experiments.

    A row of their joint window may not exceed `LONG_SUM` products, and the dilation along the width must be 1.
    """
    ow = output_shape(x.shape, kernel.shape[:2], strides, pads, dilation)[1]
    pixels = pixels or min(ow, VECTOR_BYTES // x.itemsize // kernel.shape[3])
    return _by(functools.partial(add_wide, pixels=pixels), x, kernel, bias, Geometry(strides, pads, dilation), out)


def _by(add, x, kernel, bias, geometry, out):
    window = window_of(kernel.shape[:2], *geometry[:3])
    out = result(out, x, (x.shape[0], *output_shape(x.shape, kernel.shape[:2], *geometry[:3]), kernel.shape[3]))
    add(Convolution(x, kernel, bias, window, geometry.groups, out))
    return out
