"""Convolution of whole batches, and its two gradients.

Shapes: x (N, H, W, C), kernel (KH, KW, C / groups, F), y (N, OH, OW, F); pads ((top, bottom), (left, right)).

How one image is convolved stands in `direct.py`, and how a batch is shared by the threads in `conv_block.py`.
"""

import numpy as np

from cnnlite.kernels.checks import require
from cnnlite.kernels.conv_block import Geometry, check_convolution, conv_block, conv_block_backward
from cnnlite.kernels.im2col import NO_PADS, output_shape


def conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return y = x * kernel + bias, (N, OH, OW, F).

    Rows of the kernel are left out where they lie wholly on padding, so a NaN in them does not show there.
    """
    geometry = _geometry(strides, pads, dilation, groups)
    shape = _output_shape(x, x.shape, kernel, geometry, "conv2d")
    if bias is not None:
        require(bias, "bias", shape[3:], x.dtype, "conv2d")
    out = _result(out, "out", shape, x.dtype, "conv2d")
    conv_block(x, kernel, bias, geometry, z=out)
    return out


def conv2d_input_gradient(dy, kernel, x_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return dx[n, h, w, c] = sum of dy[n, oh, ow, f] * kernel[ky, kx, c, f] over all that x[n, h, w, c] went into."""
    geometry = _geometry(strides, pads, dilation, groups)
    shape = _output_shape(dy, x_shape, kernel, geometry, "conv2d_input_gradient")
    require(dy, "dy", shape, kernel.dtype, "conv2d_input_gradient")
    out = _result(out, "out", tuple(x_shape), dy.dtype, "conv2d_input_gradient")
    conv_block_backward(out, dy, kernel, geometry, dx=out)
    return out


def conv2d_kernel_gradient(x, dy, kernel_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return dkernel[ky, kx, c, f] = sum over n, oh, ow of x[n, oh*s + ky*d, ow*s + kx*d, c] * dy[n, oh, ow, f]."""
    geometry = _geometry(strides, pads, dilation, groups)
    out = _result(out, "out", tuple(kernel_shape), x.dtype, "conv2d_kernel_gradient")
    shape = _output_shape(x, x.shape, out, geometry, "conv2d_kernel_gradient")
    require(dy, "dy", shape, x.dtype, "conv2d_kernel_gradient")
    conv_block_backward(x, dy, out, geometry, dkernel=out)
    return out


def conv2d_backward(x, dy, kernel, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, dkernel=None, dbias=None,
                    dx=None):
    """Write those of the three gradients that are not None, in one pass over dy; dbias (F,) is its sum by filter."""
    geometry = _geometry(strides, pads, dilation, groups)
    shape = _output_shape(x, x.shape, kernel, geometry, "conv2d_backward")
    require(dy, "dy", shape, x.dtype, "conv2d_backward")
    results = ("dkernel", dkernel, kernel.shape), ("dbias", dbias, shape[3:]), ("dx", dx, x.shape)
    for name, array, wanted in results:
        if array is not None:
            require(array, name, wanted, x.dtype, "conv2d_backward")
    conv_block_backward(x, dy, kernel, geometry, dkernel=dkernel, dbias=dbias, dx=dx)


def _geometry(strides, pads, dilation, groups):
    return Geometry(tuple(strides), tuple(map(tuple, pads)), tuple(dilation), groups)


def _output_shape(images, x_shape, kernel, geometry, owner):
    """Return (N, OH, OW, F), after a look at whether the kernel fits the images, which are x or dy."""
    require(images, "the images", 4, None, owner)
    require(kernel, "the kernel", 4, images.dtype, owner)
    check_convolution(x_shape, kernel.shape, geometry, owner)
    kh, kw, _, filters = kernel.shape
    return (x_shape[0], *output_shape(x_shape, (kh, kw), *geometry[:3]), filters)


def _result(out, name, shape, dtype, owner):
    if out is None:
        return np.empty(shape, dtype)
    require(out, name, shape, dtype, owner)
    return out
