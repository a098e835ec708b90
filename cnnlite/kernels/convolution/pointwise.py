"""Convolution with a 1 x 1 kernel, without strides or padding: a matrix product over the pixels.

    y[n, h, w, :] = x[n, h, w, :] @ kernel[0, 0] + bias

A pixel of y needs only the same pixel of x. So all pixels of several samples form one long row, which fills the tiles.
A kernel that is too large for the cache is not applied to a few samples at a time but in a matrix product like Dense's.
"""

import math

from cnnlite.engine.stages import PIXEL, array, scratch, span, stage
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.convolution.direct import direct_panels, panel_columns, samples_together
from cnnlite.kernels.product.matmul import SMALL_MATRIX, matmul, product_block
from cnnlite.kernels.product.microkernel import block_address

PIXELS = 96  # at a time, so that they stay in the first-level cache for all filters; a multiple of the rows of any tile


def add_pointwise(convolution):
    """Add the stage for a `conv2d.Convolution`."""
    x, y, kernel = convolution.x, convolution.y, convolution.kernel
    _, h, w, c = x.shape
    if is_large(math.prod(kernel.shape), convolution.groups, x.itemsize):
        matmul(x.reshape(-1, c), kernel.reshape(kernel.shape[2:]), convolution.bias, out=y.reshape(-1, y.shape[3]))
        return
    convolution.graph.add(
        _by_products, x=x, panels=direct_panels(convolution.graph, kernel, convolution.groups),
        start=convolution.start(), y=y, rows=h, pixels=h * w, c=c, filters=y.shape[3], groups=convolution.groups,
        block=block_address(x.dtype), together=samples_together(convolution), work=convolution.work,
        scratch=PIXELS * 2 * VECTOR_BYTES)


def add_pointwise_gradients(x, dy, kernel, dkernel, dx):
    """Add the stages for the gradients of a large kernel, dkernel and dx, that are not None."""
    dz = dy.reshape(-1, dy.shape[3])
    if dkernel is not None:
        matmul(x.reshape(-1, x.shape[3]), dz, transpose_a=True, out=dkernel.reshape(dkernel.shape[2:]))
    if dx is not None:
        matmul(dz, kernel.reshape(kernel.shape[2:]), transpose_b=True, out=dx.reshape(-1, dx.shape[3]))


def is_large(numbers, groups, itemsize):
    """Return whether a 1 x 1 kernel with this many elements is too large to stay in the cache."""
    return groups == 1 and numbers * itemsize > SMALL_MATRIX


@stage(reads="x panels start", writes="y", sizes="rows pixels c filters groups block", footprint=PIXEL)
def _by_products(r, run, first, last):
    begin, end = span(run, first, last, r.rows, r.pixels)
    x, y = array(run, r.x, (end * r.c,)), array(run, r.y, (end * r.filters,))
    channels, filters = r.c // r.groups, r.filters // r.groups
    width = 2 * VECTOR_BYTES // y.itemsize
    panel_count = (filters + width - 1) // width
    panels = array(run, r.panels, (r.groups * panel_count * channels * width,))
    start, rows = array(run, r.start, (r.groups * panel_count * width,)), scratch(run, 0, (PIXELS, width))
    for pixel in range(begin, end, PIXELS):
        count = min(PIXELS, end - pixel)
        for unit in range(r.groups * panel_count):
            group, panel = unit // panel_count, unit % panel_count
            column, columns = panel_columns(panel, filters, width)
            # See `direct_rows`: a vector may spill into the next pixel if that pixel is ours and still to be written.
            spill = (width // 2 if columns <= width // 2 else width) - columns
            fits = r.groups * panel_count == 1 and (pixel + count) * r.filters + spill <= y.size
            product_block(r.block, count, columns + (spill if fits else 0),
                          y, pixel * r.filters + group * filters + column, r.filters,
                          start, group * panel_count * width + column, 0, x, pixel * r.c + group * channels, r.c, 0, 1,
                          panels, unit * channels * width, 0, width, 1, channels, rows)
