"""Convolution of whole batches, and its two gradients.

Shapes: x (N, H, W, C), kernel (KH, KW, C / groups, F), y (N, OH, OW, F); pads ((top, bottom), (left, right)).

How one image is convolved stands in `direct.py`, and how a batch is shared by the threads in `conv_block.py`.
"""

import numpy as np

from cnnlite.kernels.conv_block import Geometry, conv_block, conv_block_backward
from cnnlite.kernels.im2col import NO_PADS, output_shape


def conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return y = x * kernel + bias, (N, OH, OW, F).

    Rows of the kernel are left out where they lie wholly on padding, so a NaN in them does not show there.
    """
    oh, ow = output_shape(x.shape, kernel.shape[:2], strides, pads, dilation)
    out = np.empty((len(x), oh, ow, kernel.shape[3]), x.dtype) if out is None else out
    conv_block(x, kernel, bias, Geometry(strides, pads, dilation, groups), z=out)
    return out


def conv2d_input_gradient(dy, kernel, x_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return dx[n, h, w, c] = sum of dy[n, oh, ow, f] * kernel[ky, kx, c, f] over all that x[n, h, w, c] went into."""
    out = np.empty(x_shape, dy.dtype) if out is None else out
    conv_block_backward(out, dy, kernel, Geometry(strides, pads, dilation, groups), dx=out)
    return out


def conv2d_kernel_gradient(x, dy, kernel_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return dkernel[ky, kx, c, f] = sum over n, oh, ow of x[n, oh*s + ky*d, ow*s + kx*d, c] * dy[n, oh, ow, f]."""
    out = np.empty(kernel_shape, x.dtype) if out is None else out
    conv_block_backward(x, dy, out, Geometry(strides, pads, dilation, groups), dkernel=out)
    return out


def conv2d_backward(x, dy, kernel, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, dkernel=None, dbias=None,
                    dx=None):
    """Write those of the three gradients that are not None, in one pass over dy; dbias (F,) is its sum by filter."""
    conv_block_backward(x, dy, kernel, Geometry(strides, pads, dilation, groups), dkernel=dkernel, dbias=dbias, dx=dx)
