"""Convolution without the im2col matrix ("implicit im2col"): the micro-kernel reads its rows from the image.

With channels last, the window of an output pixel is KH runs of KW * C contiguous elements of the image, and the window
of the next pixel starts `stride * C` further on:

    y[oh, ow, f] = bias[f] + sum over ky, (kx, c) of  x[oh*s + ky, ow*s + kx, c] * kernel[ky, kx, c, f]
          ^                                               ^          ^
    row i of a tile                                       k1         k0

Pixels are the rows of a tile, and ky and (kx, c) are its two reductions: to the micro-kernel, each is a stride in the
image. Both gradients are the same product with the roles swapped:

| | rows i of a tile | columns j | k1 | k0 |
|---|---|---|---|---|
| forward | pixels ow of an output row | f | ky | (kx, c) |
| gradient of the kernel | (kx, c) | f | rows oh | pixels ow of a row |
| gradient of the input | pixels ow of a row of dy | c | ky | f |

They are in `direct_kernel_gradient.py` and `direct_input_gradient.py`.

An image is copied to scratch memory only where its runs are broken: with padding, the copy has zeros around it; with
dilation, it has the taps of each window row side by side (im2col along the width alone); with groups, it holds the
channels of a single group.

The kernel is cut into panels, each with the weights of as many filters as fill two vectors: panel p is the
(KH * KW * C / groups, width) columns from p * width on. One call of the micro-kernel computes a row of output pixels
for one panel of filters. If the last panel is not full, it is padded with zeros.

Few filters are handled by `wide_pixels.py`, and 1 x 1 kernels by `pointwise.py`.

Shapes as in `conv2d.py`.
"""

import math
from typing import Any

from numba.extending import register_jitable

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, HALO, array, band_rows, call_stage, scratch, stage
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.geometry import Window, window_in
from cnnlite.kernels.product.matmul import product_block
from cnnlite.kernels.product.microkernel import block_address, call_block
from cnnlite.kernels.product.panels import panel_width
from cnnlite.kernels.rows import copy_rows

UNIT_NUMBERS = 1 << 14  # output elements, at least, that are computed together
LINE_BYTES = 64

# Stages that fall back to the direct method share its record layout.
RECORD: dict[str, Any] = {
    "reads": "x panels start special flags",
    "writes": "y",
    "sizes": "h w c oh ow filters groups height width stride_h stride_w top left dilation_h dilation_w block "
             "by_pixels copies columns copy_at pixels flag_count transform tiles_a_block",
}


# Functions of shapes, for Python and for compiled code.


@register_jitable
def sticks_out(h, w, window, oh, ow):
    """Return whether any window of an image (h, w) reaches into padding, given the size of the output."""
    height = (oh - 1) * window.stride_h - window.top + (window.height - 1) * window.dilation_h + 1
    width = (ow - 1) * window.stride_w - window.left + (window.width - 1) * window.dilation_w + 1
    return window.top > 0 or window.left > 0 or height > h or width > w


@register_jitable
def pixels_together(filters, size, stride, ow, lanes):
    """Return how many neighbouring pixels of a row to compute as one, for a kernel of width `size`; often 1.

    p pixels of F filters become one pixel with p * F filters. Its kernel has size + (p - 1) * stride taps, of which
    `size` are not 0 for each filter, and takes one vector operation per tap instead of p * size in all.
    """
    best, least = 1, 0.75 * ow * size
    for p in range(2, min(ow, lanes // filters) + 1):
        cost = (ow + p - 1) // p * ((p - 1) * stride + size)
        if cost < least:
            best, least = p, cost
    return best


# Weights.


def direct_panels(graph, kernel, groups=1):
    """Add a stage that packs weights; return their panels (groups, panels, KH * KW * C / groups, width).

    The last panel starts earlier if it would have less than a vector of filters (see `panel_columns`): the filters that
    it shares with the previous panel are computed twice, so that every vector written is whole.
    """
    k, filters, width = math.prod(kernel.shape[:3]), kernel.shape[3], panel_width(kernel.dtype)
    out = graph.work((groups, -(-(filters // groups) // width), k, width), kernel.dtype)
    graph.add(_pack, units=groups * out.shape[1], kernel=kernel, out=out, k=k, filters=filters, groups=groups,
              work=math.prod(out.shape))
    return out


@jit
def panel_columns(panel, filters, width):
    """Return the first filter of a panel and the number of its filters."""
    column = panel * width
    if filters - column < width // 2 <= column:
        column = filters - width // 2
    return column, min(width, filters - column)


@stage(reads="kernel", writes="out", sizes="k filters groups", footprint=BATCH)
def _pack(r, run, first, last):
    width = 2 * VECTOR_BYTES // array(run, r.out, (0,)).itemsize
    group_filters = r.filters // r.groups
    panels = (group_filters + width - 1) // width
    kernel, out = array(run, r.kernel, (r.k, r.filters)), array(run, r.out, (r.groups * panels, r.k, width))
    for unit in range(first, last):
        column, columns = panel_columns(unit % panels, group_filters, width)
        column += unit // panels * group_filters
        if columns < width:
            out[unit] = 0
        source = kernel.ctypes.data + column * kernel.itemsize
        copy_rows(kernel, source, r.filters, r.k, columns, out[unit].ctypes.data, width)


# The convolution.


def add_direct(convolution):
    """Add the stage for a `conv2d.Convolution`."""
    arguments = direct_arguments(convolution)
    convolution.graph.add(_by_pixels, together=samples_together(convolution), work=convolution.work,
                          scratch=direct_bytes(arguments, convolution.y), **arguments)


def samples_together(convolution):
    """Return how many samples to convolve at a time, by any method but Winograd's."""
    return -(-UNIT_NUMBERS // max(1, convolution.y.sample_size))


def direct_arguments(convolution):
    """Return, by name, the fields of a RECORD for the direct method."""
    x, y, window, groups = convolution.x, convolution.y, convolution.window, convolution.groups
    _, h, w, c = x.shape
    _, oh, ow, filters = y.shape
    copies = groups > 1 or window.dilation_w > 1 or sticks_out(h, w, window, oh, ow)
    columns = ow * window.width if window.dilation_w > 1 else (ow - 1) * window.stride_w + window.width
    return dict(
        x=x, y=y, panels=direct_panels(convolution.graph, convolution.kernel, groups), start=convolution.start(),
        h=h, w=w, c=c, oh=oh, ow=ow, filters=filters, groups=groups, height=window.height, width=window.width,
        stride_h=window.stride_h, stride_w=window.stride_w, top=window.top, left=window.left,
        dilation_h=window.dilation_h, dilation_w=window.dilation_w, block=block_address(x.dtype),
        by_pixels=direct_rows.address(x.dtype), copies=copies, columns=columns, copy_at=0,
        # Only the other methods use these.
        special=None, flags=None, flag_count=0, pixels=1, transform=0, tiles_a_block=0,
    )


def direct_bytes(arguments, y, rows=None):
    """Return how many bytes of scratch memory the direct method needs for `rows` rows of the output, or for all."""
    rows = y.shape[1] if rows is None else rows
    height = (rows - 1) * arguments["stride_h"] + (arguments["height"] - 1) * arguments["dilation_h"] + 1
    channels = arguments["c"] // arguments["groups"]
    copy = aligned(height * arguments["columns"] * channels * y.itemsize) if arguments["copies"] else 0
    return copy + y.shape[2] * 2 * VECTOR_BYTES


@register_jitable
def aligned(size):
    """Return a size in bytes, rounded up to whole cache lines."""
    return (size + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES


@stage(**RECORD, footprint=HALO)
def _by_pixels(r, run, first, last):
    top, bottom = band_rows(run, r.oh)
    for i in range(first, last):
        call_stage(r.by_pixels, r, run, i * r.oh + top, i * r.oh + bottom)


@stage(**RECORD)
def direct_rows(r, run, first, last):
    """Compute some output rows of one sample; rows are numbered across all samples.

    For each group and panel, each row of pixels is one product (OW, K) @ (K, width). Its left factor starts at `place`
    in `source`, the image or its copy, where the windows of neighbours are `pixel` elements apart and rows `line`
    elements. Stages call this by its address.
    """
    if first >= last:
        return
    i, window, ow, filters = first // r.oh, window_in(r), r.ow, r.filters
    x, y = array(run, r.x, (i + 1, r.h, r.w, r.c))[i], array(run, r.y, (last * ow * filters,))
    kh, kw, stride, dilation = r.height, r.width, r.stride_h, r.dilation_h
    channels, group_filters = r.c // r.groups, filters // r.groups
    itemsize = y.itemsize
    k, width = kh * kw * channels, 2 * VECTOR_BYTES // itemsize
    panel_count = (group_filters + width - 1) // width
    panels = array(run, r.panels, (r.groups * panel_count * k * width,))
    start = array(run, r.start, (r.groups * panel_count * width,))
    # The input rows that are needed, from `origin` on, are copied.
    origin = first % r.oh * stride - window.top
    height = (last - first - 1) * stride + (kh - 1) * dilation + 1 if r.copies else 0
    image = scratch(run, r.copy_at, (height, r.columns, channels))
    rows = scratch(run, r.copy_at + aligned(image.size * y.itemsize), (ow, width))
    source, place, line = x.reshape(-1), (origin * r.w - window.left) * r.c, r.w * r.c
    pixel = window.stride_w * channels
    moved = Window(kh, kw, stride, window.stride_w, -origin, window.left, dilation, window.dilation_w)
    for group in range(r.groups):
        if r.copies:
            source, place, line = image.reshape(-1), 0, r.columns * channels
            if window.dilation_w > 1:
                unroll_taps(x, group * channels, moved, image)
                pixel = kw * channels
            else:
                copy_window(x, group * channels, origin, window.left, image)
        for panel in range(panel_count):
            column, filters_here = panel_columns(panel, group_filters, width)
            # With only one panel, a vector that is wider than its pixel may spill into the next pixel, which is written
            # later, but not into rows that another thread may be writing.
            spill = (width // 2 if filters_here <= width // 2 else width) - filters_here
            spills = r.groups == 1 and panel_count == 1
            for row in range(last - first):
                # Kernel rows that lie entirely on padding are skipped.
                above = origin + row * stride
                low = max(0, -(above // dilation))
                high = max(low, min(kh, (r.h - 1 - above) // dilation + 1))
                target = (first + row) * ow * filters
                fits = spills and target + ow * filters + spill <= y.size
                columns, target = filters_here + (spill if fits else 0), target + group * group_filters + column
                begin, left = group * panel_count * width + column, place + (row * stride + low * dilation) * line
                right = ((group * panel_count + panel) * k + low * kw * channels) * width
                if columns % (width // 2):  # a partial vector goes through `rows`
                    product_block(r.block, ow, columns, y, target, filters, start, begin, 0,
                                  source, left, pixel, dilation * line, 1,
                                  panels, right, kw * channels * width, width, high - low, kw * channels, rows)
                else:
                    call_block(r.block, ow, columns // (width // 2), y.ctypes.data + target * itemsize, filters,
                               start.ctypes.data + begin * itemsize, 0,
                               source.ctypes.data + left * itemsize, pixel, dilation * line, 1,
                               panels.ctypes.data + right * itemsize, kw * channels * width, width,
                               high - low, kw * channels)


@jit
def copy_window(image, first_channel, top, left, out):
    """Copy some channels of the rows from `top` on, with zeros where they lie outside the image."""
    h, w, image_channels = image.shape
    height, columns, channels = out.shape
    begin = min(columns, max(0, left))
    end = max(begin, min(columns, w + left))
    for i in range(height):
        y, target = top + i, out[i].reshape(-1)
        for k in range(target.size):
            target[k] = 0
        if y < 0 or y >= h:
            continue
        source = image[y].reshape(-1)
        # One loop over the whole line, not one per pixel, which matters for images with 1 or 3 channels.
        pixels, count = (end - begin, channels) if channels < image_channels else (1, (end - begin) * channels)
        for j in range(pixels):
            place = (begin + j - left) * image_channels + first_channel
            for c in range(count):
                target[(begin + j) * channels + c] = source[place + c]


@jit
def unroll_taps(image, first_channel, window, out):
    """Copy rows like `copy_window`, but put the taps of each output pixel, which dilation separates, side by side."""
    h, w, _ = image.shape
    height, columns, channels = out.shape
    taps = window.width
    for i in range(height):
        y = i - window.top
        for j in range(columns):
            x = j // taps * window.stride_w + j % taps * window.dilation_w - window.left
            target = out[i, j]
            if 0 <= y < h and 0 <= x < w:
                source = image[y, x]
                for c in range(channels):
                    target[c] = source[first_channel + c]
            else:
                for c in range(channels):
                    target[c] = 0
