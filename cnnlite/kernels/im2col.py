"""im2col and its transpose, col2im: what turns a convolution into a matrix product.

Every output pixel becomes a row, and holds the window of pixels that the kernel sees from there:

    image  1 2 3       kernel 2x2      rows     1 2 4 5     for the output pixel (0, 0)
           4 5 6                                2 3 5 6                          (0, 1)
           7 8 9                                4 5 7 8                          (1, 0)
                                                5 6 8 9                          (1, 1)

    convolution:      y = im2col(x) @ kernel.reshape(KH * KW * C, F)
    gradient of x:    dx = col2im(dy @ kernel.T)         a pixel that k windows saw adds up k gradients
    of the kernel:    dkernel = im2col(x).T @ dy
"""

import numpy as np

from cnnlite.engine.jit import kernel
from cnnlite.kernels.checks import require
from cnnlite.kernels.geometry import padded_output_size
from cnnlite.kernels.threads import run

NO_PADS = ((0, 0), (0, 0))


def im2col(x, window, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """Return the windows of x (N, H, W, C) as rows: (N * OH * OW, KH * KW * C), with zeros for padding."""
    require(x, "x", 4, None, "im2col")
    n, _, _, c = x.shape
    oh, ow = output_shape(x.shape, window, strides, pads, dilation)
    shape = (n * oh * ow, window[0] * window[1] * c)
    out = np.empty(shape, x.dtype) if out is None else out
    require(out, "out", shape, x.dtype, "im2col")
    arguments = (x, tuple(window), tuple(strides), (pads[0][0], pads[1][0]), tuple(dilation))
    run(_im2col_task, n * oh, (*arguments, out.reshape(n, oh, ow, *window, c)))
    return out


@kernel
def _im2col_task(x, window, strides, before, dilation, cols, unit):
    n, row = unit // cols.shape[1], unit % cols.shape[1]
    _im2col_row(x[n], row, window, strides, before, dilation, cols[n, row])


@kernel
def _im2col_row(image, row, window, strides, before, dilation, cols):
    """Fill (OW, KH, KW, C), the windows of one row of output pixels."""
    height, width, channels = image.shape
    for column in range(cols.shape[0]):
        for ky in range(window[0]):
            y = row * strides[0] + ky * dilation[0] - before[0]
            for kx in range(window[1]):
                x = column * strides[1] + kx * dilation[1] - before[1]
                target = cols[column, ky, kx]
                if 0 <= y < height and 0 <= x < width:
                    source = image[y, x]
                    for c in range(channels):
                        target[c] = source[c]
                else:
                    for c in range(channels):
                        target[c] = 0


def col2im(cols, x_shape, window, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """Add the rows of `cols` back to the pixels that im2col took them from: the transpose of im2col.

    Returns (N, H, W, C). What falls on padding is dropped.
    """
    n, _, _, c = x_shape
    oh, ow = output_shape(x_shape, window, strides, pads, dilation)
    require(cols, "cols", (n * oh * ow, window[0] * window[1] * c), None, "col2im")
    out = np.empty(x_shape, cols.dtype) if out is None else out
    require(out, "out", x_shape, cols.dtype, "col2im")
    arguments = (cols.reshape(n, oh, ow, *window, c), tuple(window), tuple(strides), (pads[0][0], pads[1][0]))
    run(_col2im_task, n, (*arguments, tuple(dilation), out))
    return out


@kernel
def _col2im_task(cols, window, strides, before, dilation, x, unit):
    # One thread an image, because windows overlap: two threads in one image would add to the same pixel.
    x[unit] = 0
    for row in range(cols.shape[1]):
        _col2im_row(cols[unit, row], row, window, strides, before, dilation, x[unit])


@kernel
def _col2im_row(cols, row, window, strides, before, dilation, image):
    """Add (OW, KH, KW, C), the windows of one row of output pixels, to the image."""
    height, width, _ = image.shape
    for column in range(cols.shape[0]):
        for ky in range(window[0]):
            y = row * strides[0] + ky * dilation[0] - before[0]
            if y < 0 or y >= height:
                continue
            for kx in range(window[1]):
                x = column * strides[1] + kx * dilation[1] - before[1]
                if x < 0 or x >= width:
                    continue
                source = cols[column, ky, kx]
                target = image[y, x]
                for c in range(source.shape[0]):
                    target[c] += source[c]


def output_shape(x_shape, window, strides, pads, dilation):
    """Return (OH, OW) for x of shape (N, H, W, C) and explicit pads."""
    return tuple(
        max(0, padded_output_size(x_shape[1 + axis], window[axis], strides[axis], pads[axis], dilation[axis]))
        for axis in (0, 1)
    )
