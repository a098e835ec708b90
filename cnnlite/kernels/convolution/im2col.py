"""im2col and its transpose, col2im: they turn a convolution into a matrix product.

Every output pixel becomes a row that holds the window of pixels the kernel sees from there:

    image  1 2 3       kernel 2x2      rows     1 2 4 5     for the output pixel (0, 0)
           4 5 6                                2 3 5 6                          (0, 1)
           7 8 9                                4 5 7 8                          (1, 0)
                                                5 6 8 9                          (1, 1)

    convolution:      y = im2col(x) @ kernel.reshape(KH * KW * C, F)
    gradient of x:    dx = col2im(dy @ kernel.T)         a pixel in k windows adds up k gradients
    of the kernel:    dkernel = im2col(x).T @ dy
"""

import math

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import HALO, IMAGE, array, band_rows, stage
from cnnlite.kernels.checks import require
from cnnlite.kernels.geometry import NO_PADS, padded_output_size
from cnnlite.kernels.layout import samples_together
from cnnlite.kernels.operation import graph_of, operation, result

_SIZES = "h w c oh ow kh kw stride_h stride_w top left dilation_h dilation_w"


def im2col(x, window, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """Return the windows of x (N, H, W, C) as rows: (N * OH * OW, KH * KW * C), with zeros for padding."""
    require(x, "x", 4, None, "im2col")
    oh, ow = output_shape(x.shape, window, strides, pads, dilation)
    shape = (x.shape[0] * (oh * ow), window[0] * window[1] * x.shape[3])
    arguments = x, tuple(window), tuple(strides), pads, tuple(dilation)
    if out is None:
        return _im2col(*arguments).reshape(shape)
    require(out, "out", shape, x.dtype, "im2col")
    _im2col(*arguments, out.reshape(x.shape[0], oh, ow, shape[1]))
    return out


@operation(samples="x out")
def _im2col(x, window, strides, pads, dilation, out=None):
    oh, ow = output_shape(x.shape, window, strides, pads, dilation)
    out = result(out, x, (x.shape[0], oh, ow, window[0] * window[1] * x.shape[3]))
    _add(_to_rows, x, x.shape, out, (window, strides, pads, dilation), (oh, ow))
    return out


def _add(added, x, x_shape, cols, geometry, output):
    window, strides, pads, dilation = geometry
    numbers = (*x_shape[1:], *output, *window, *strides, pads[0][0], pads[1][0], *dilation)
    size = math.prod((*output, *window, x_shape[3]))
    graph_of(x).add(added, x=x, cols=cols, together=samples_together(size), work=size,
                    **dict(zip(_SIZES.split(), numbers)))


@stage(reads="x", writes="cols", sizes=_SIZES, footprint=HALO)
def _to_rows(r, run, first, last):
    x, cols = array(run, r.x, (last, r.h, r.w, r.c)), array(run, r.cols, (last, r.oh, r.ow, r.kh, r.kw, r.c))
    begin, end = band_rows(run, r.oh)
    strides, before, dilation = (r.stride_h, r.stride_w), (r.top, r.left), (r.dilation_h, r.dilation_w)
    for n in range(first, last):
        for row in range(begin, end):
            _im2col_row(x[n], row, strides, before, dilation, cols[n, row])


@jit
def _im2col_row(image, row, strides, before, dilation, cols):
    """Fill (OW, KH, KW, C), the windows of one row of output pixels."""
    height, width, channels = image.shape
    for column in range(cols.shape[0]):
        for ky in range(cols.shape[1]):
            y = row * strides[0] + ky * dilation[0] - before[0]
            for kx in range(cols.shape[2]):
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
    oh, ow = output_shape(x_shape, window, strides, pads, dilation)
    size = window[0] * window[1] * x_shape[3]
    require(cols, "cols", (x_shape[0] * (oh * ow), size), None, "col2im")
    cols = cols.reshape(x_shape[0], oh, ow, size)
    return _col2im(cols, tuple(x_shape[1:]), tuple(window), tuple(strides), pads, tuple(dilation), out)


@operation(samples="cols out")
def _col2im(cols, sample, window, strides, pads, dilation, out=None):
    shape = (cols.shape[0], *sample)
    out = result(out, cols, shape)
    require(out, "out", shape, cols.dtype, "col2im")
    _add(_from_rows, out, shape, cols, (window, strides, pads, dilation), cols.shape[1:3])
    return out


@stage(reads="cols", writes="x", sizes=_SIZES, footprint=IMAGE)
def _from_rows(r, run, first, last):
    x, cols = array(run, r.x, (last, r.h, r.w, r.c)), array(run, r.cols, (last, r.oh, r.ow, r.kh, r.kw, r.c))
    strides, before, dilation = (r.stride_h, r.stride_w), (r.top, r.left), (r.dilation_h, r.dilation_w)
    for n in range(first, last):
        flat = x[n].reshape(-1)
        for i in range(flat.size):
            flat[i] = 0
        for row in range(r.oh):
            _col2im_row(cols[n, row], row, strides, before, dilation, x[n])


@jit
def _col2im_row(cols, row, strides, before, dilation, image):
    """Add (OW, KH, KW, C), the windows of one row of output pixels, to the image."""
    height, width, _ = image.shape
    for column in range(cols.shape[0]):
        for ky in range(cols.shape[1]):
            y = row * strides[0] + ky * dilation[0] - before[0]
            if y < 0 or y >= height:
                continue
            for kx in range(cols.shape[2]):
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
