"""Convolution of whole batches. Its gradients stand in `conv2d_gradients.py`.

Shapes: x (N, H, W, C), kernel (KH, KW, C / groups, F), y (N, OH, OW, F); pads ((top, bottom), (left, right)).

How one image is convolved stands in `direct.py`, and how a batch is shared by the threads in `conv_block.py`.
"""

import numpy as np

from cnnlite.kernels.checks import require
from cnnlite.kernels.conv_block import conv_block
from cnnlite.kernels.geometry import NO_PADS, convolved_shape, geometry_of


def conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return y = x * kernel + bias, (N, OH, OW, F).

    Rows of the kernel are left out where they lie wholly on padding, so a NaN in them does not show there.
    """
    geometry = geometry_of(strides, pads, dilation, groups)
    shape = convolved_shape(x, x.shape, kernel, geometry, "conv2d")
    if bias is not None:
        require(bias, "bias", shape[3:], x.dtype, "conv2d")
    out = _result(out, "out", shape, x.dtype, "conv2d")
    conv_block(x, kernel, bias, geometry, z=out)
    return out


def _result(out, name, shape, dtype, owner):
    if out is None:
        return np.empty(shape, dtype)
    require(out, name, shape, dtype, owner)
    return out
