"""Convolution without the im2col matrix ("implicit im2col"): the micro-kernel reads its rows from the image.

With channels last, the window of an output pixel is KH runs of KW * C numbers that lie side by side in the
image, and the windows of the next pixel start `stride * C` further on:

    y[oh, ow, f] = bias[f] + sum over ky, (kx, c) of  x[oh*s + ky, ow*s + kx, c] * kernel[ky, kx, c, f]
          ^                                               ^          ^
    row i of a tile                                       k1         k0

Pixels are the rows of a tile, and ky and (kx, c) its two sums: for the micro-kernel each is a distance in the image.
The two gradients are the same product with the roles exchanged:

| | rows i of a tile | columns j | k1 | k0 |
|---|---|---|---|---|
| forward | pixels ow of an output row | f | ky | (kx, c) |
| gradient of the kernel | (kx, c) | f | rows oh | pixels ow of a row |
| gradient of the input | pixels ow of a row of dy | c | ky | f |

They stand in `direct_kernel_gradient.py` and `direct_input_gradient.py`.

Only where the runs are broken does an image go through a scratch copy first: for padding a copy with zeros round it;
for a dilation one with the taps of each window row side by side (im2col along the width alone); for groups one of
the channels of a single group.

The kernel is cut into panels, each of which holds the weights of as many filters as fill two vectors: panel p is
the (KH * KW * C / groups, width) columns from p * width on. One call of the micro-kernel makes a row of output pixels
for one panel of filters. Where the last panel is not full, it is filled up with zeros.

A tile whose columns are 1, 3 or 6 filters fills a vector of 16 badly. There, p neighbouring pixels are computed
as one pixel with p * F filters, whose kernel is p copies of the kernel side by side, each moved on by one pixel:

    p = 3, KW = 3:   x   .  .  .  .  .      5 vector operations for 3 pixels instead of 9
                     y0  a  b  c
                     y1     a  b  c
                     y2        a  b  c

y is the same numbers in the same order. (128, 28, 28, 1), 6 filters of 5x5 and padding: 0.8 ms instead of 1.6.

All functions here are serial and take some images x (n, H, W, C), y or dy (n, OH, OW, F) and a `Window`;
`conv_block.py` hands them to the threads. `kernels` are the addresses of `conv_tasks.kernels_for`.
"""

import numpy as np

from cnnlite.engine.jit import kernel as compiled
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.matmul import pack_panels_of_array as pack_panels
from cnnlite.kernels.matmul import product_block
from cnnlite.kernels.microkernel import LONG_SUM, call_block
from cnnlite.kernels.table import BY_PIXELS, BY_WIDE_PIXELS, COPY_WINDOW, UNROLL_TAPS, call
from cnnlite.kernels.winograd import moderate


@compiled
def sticks_out(h, w, window, oh, ow):
    """Return whether a window of an image (h, w) reaches into padding, given the size of the output."""
    height = (oh - 1) * window.stride_h - window.top + (window.height - 1) * window.dilation_h + 1
    width = (ow - 1) * window.stride_w - window.left + (window.width - 1) * window.dilation_w + 1
    return window.top > 0 or window.left > 0 or height > h or width > w


@compiled
def pixels_together(filters, size, stride, ow, lanes):
    """Return how many neighbouring pixels of a row to compute as one, for a kernel of a width `size`; often 1.

    p pixels of F filters are one pixel with p * F filters and a kernel of size + (p - 1) * stride taps, of which each
    filter has `size` that are not 0: they take that many vectors instead of p * size.
    """
    best, least = 1, 0.75 * ow * size
    for p in range(2, min(ow, lanes // filters) + 1):
        cost = (ow + p - 1) // p * ((p - 1) * stride + size)
        if cost < least:
            best, least = p, cost
    return best


def direct_panels(kernel, geometry, ow):
    """Return the panels of weights for `direct_images`, flat: of each group, and then those for pixels together.

    The last panel begins earlier where it would have less than a vector of filters (see `_panel`): what it shares with
    the one before is computed twice, and every vector that is written is whole.
    """
    kh, kw, channels, filters = kernel.shape
    groups = geometry.groups
    group_filters, k, lanes = filters // groups, kh * kw * channels, VECTOR_BYTES // kernel.itemsize
    flat, width = kernel.reshape(-1), 2 * lanes
    whole = group_filters // width * width
    column, columns = _panel(whole // width, group_filters, width)
    if group_filters > whole > column:
        first = pack_panels(flat, k, whole, filters, 1, groups, group_filters)
        last = pack_panels(flat[column:], k, columns, filters, 1, groups, group_filters)
        panels = np.concatenate([first, last], axis=1)
    else:
        panels = pack_panels(flat, k, group_filters, filters, 1, groups, group_filters)
    pixels = _together(geometry, kernel, ow)
    if pixels == 1:
        return panels.reshape(-1)
    stride = geometry.strides[1]
    wide = np.zeros((kh, kw + (pixels - 1) * stride, channels, lanes), kernel.dtype)
    for p in range(pixels):
        wide[:, p * stride : p * stride + kw, :, p * filters : (p + 1) * filters] = kernel
    return np.concatenate([panels.reshape(-1), wide.reshape(-1)])


def _together(geometry, kernel, ow):
    # A weight that is not finite would make a NaN of a zero of padding, of which a single pixel's rows are left out.
    if geometry.groups > 1 or geometry.dilation[1] > 1 or not moderate(kernel):
        return 1
    kh, kw, channels, filters = kernel.shape
    stride = geometry.strides[1]
    pixels = pixels_together(filters, kw, stride, ow, VECTOR_BYTES // kernel.itemsize)
    # A long sum would be cut at other places than that of a single pixel.
    longest = max(kh * kw, kw + (pixels - 1) * stride) * channels
    return pixels if longest <= LONG_SUM else 1


@compiled
def _panel(panel, filters, width):
    """Return the first filter of a panel and their number."""
    column = panel * width
    if filters - column < width // 2 <= column:
        column = filters - width // 2
    return column, min(width, filters - column)


@compiled
def direct_images(kernels, x, panels, start, window, groups, y):
    """y = x * kernel + start. panels: as of `direct_panels`; start is the bias, filled up with zeros to whole panels.

    The bits of a pixel are the same whether it was computed with others or alone, as products with 0 change nothing.
    But 0 * NaN would: an image with a number that is not finite goes pixel by pixel.
    """
    n, h, w, c = x.shape
    _, oh, ow, filters = y.shape
    width = 2 * VECTOR_BYTES // y.itemsize
    if is_product(window, h, w, oh, ow):
        x, y = x.reshape(n, 1, h * w, c), y.reshape(n, 1, h * w, filters)
    alone = window.height * window.width * c * ((filters // groups + width - 1) // width * width)
    if panels.size == alone:
        call(kernels, BY_PIXELS, (kernels, x, panels, start, window, groups, y))
        return
    for i in range(n):
        if moderate(x[i : i + 1]):
            call(kernels, BY_WIDE_PIXELS, (kernels, x[i], panels[alone:], start, window, y[i]))
        else:
            call(kernels, BY_PIXELS, (kernels, x[i : i + 1], panels, start, window, groups, y[i : i + 1]))


@compiled
def is_product(window, h, w, oh, ow):
    """Return whether each pixel of y comes from the same pixel of x alone: then an image is one row with full tiles."""
    plain = window.stride_h == 1 and window.stride_w == 1 and window.top == 0 and window.left == 0
    return plain and window.height == 1 and window.width == 1 and h == oh and w == ow


@compiled
def by_pixels(kernels, x, panels, start, window, groups, y):
    """Convolve some images.

    For each image, group and panel, each row of pixels is one product (OW, K) @ (K, width). Its left factor starts
    at `place` in `source`, the image or its copy, in which `pixel` lies between the windows of neighbours and
    `line` between two rows.
    """
    n, h, w, c = x.shape
    _, oh, ow, filters = y.shape
    kh, kw = window.height, window.width
    channels, group_filters = c // groups, filters // groups
    k = kh * kw * channels
    width = 2 * VECTOR_BYTES // y.itemsize
    panel_count = (group_filters + width - 1) // width
    scratch = np.empty((ow, width), y.dtype)
    flat_y, image_numbers = y.reshape(-1), oh * ow * filters
    unrolls = window.dilation_w > 1
    copies = unrolls or groups > 1 or sticks_out(h, w, window, oh, ow)
    columns = ow * kw if unrolls else (ow - 1) * window.stride_w + kw
    height = (oh - 1) * window.stride_h + (kh - 1) * window.dilation_h + 1
    image = np.empty((height, columns, channels) if copies else (0, 0, 0), y.dtype)
    pixel = kw * channels if unrolls else window.stride_w * channels
    for i in range(n):
        for group in range(groups):
            source, place, line = x.reshape(-1), i * h * w * c, w * c
            if copies:
                source, place, line = image.reshape(-1), 0, columns * channels
                if unrolls:
                    call(kernels, UNROLL_TAPS, (x[i], group * channels, window, image))
                else:
                    call(kernels, COPY_WINDOW, (x[i], group * channels, -window.top, window.left, image))
            for panel in range(panel_count):
                column, filters_here = _panel(panel, group_filters, width)
                # A vector that sticks out of its pixel may spill into the next one of the image, which is written after
                # it, if there is only one panel.
                spill = (width // 2 if filters_here <= width // 2 else width) - filters_here
                spills = groups == 1 and panel_count == 1
                for row in range(oh):
                    # Rows of the kernel that lie wholly on padding are left out.
                    above = row * window.stride_h - window.top
                    low = max(0, -(above // window.dilation_h))
                    high = max(low, min(kh, (h - 1 - above) // window.dilation_h + 1))
                    fits = spills and (row + 1) * ow * filters + spill <= image_numbers
                    product_block(
                        kernels[1], ow, filters_here + (spill if fits else 0),
                        flat_y, i * image_numbers + row * ow * filters + group * group_filters + column, filters,
                        start, group * panel_count * width + column, 0,
                        source, place + (row * window.stride_h + low * window.dilation_h) * line, pixel,
                        window.dilation_h * line, 1,
                        panels, ((group * panel_count + panel) * k + low * kw * channels) * width,
                        kw * channels * width, width, high - low, kw * channels, scratch)


@compiled
def by_wide_pixels(kernels, x, panel, start, window, y):
    """Convolve an image of few filters, p pixels of a row together; the rows of a tile are the rows of the image.

    What a vector holds beyond the p * F numbers spills into the next pixels, in `rows`, where it is written over. The
    zeros for other pixels must not make the sum a long one, so it goes by as many rows of the kernel as are none.
    """
    _, w, c = x.shape
    oh, ow, filters = y.shape
    itemsize = y.itemsize
    lanes = VECTOR_BYTES // itemsize
    pixels = pixels_together(filters, window.width, window.stride_w, ow, lanes)
    taps = window.width + (pixels - 1) * window.stride_w
    pads = sticks_out(len(x), w, window, oh, ow)
    width = (ow - 1) * window.stride_w + window.width if pads else w
    height = (oh - 1) * window.stride_h + (window.height - 1) * window.dilation_h + 1
    image = np.empty((height if pads else 0, width, c), y.dtype)
    if pads:
        call(kernels, COPY_WINDOW, (x, 0, -window.top, window.left, image))
    line = width * c
    rows, bias = np.empty((oh, ow * filters + lanes), y.dtype), np.zeros(lanes, y.dtype)
    for j in range(pixels * filters):
        bias[j] = start[j % filters]
    together = max(1, LONG_SUM // (taps * c))
    for first in range(0, ow, pixels):
        pixel = min(first, ow - pixels)  # the last ones begin earlier
        for ky in range(0, window.height, together):
            # Asked for in the loop, since an array is freed after its last use, whoever has its address.
            source = (image.ctypes.data if pads else x.ctypes.data) + ky * window.dilation_h * line * itemsize
            target = rows.ctypes.data + pixel * filters * itemsize
            call_block(kernels[1], oh, 1, target, ow * filters + lanes,
                       target if ky else bias.ctypes.data, ow * filters + lanes if ky else 0,
                       source + pixel * window.stride_w * c * itemsize, window.stride_h * line,
                       window.dilation_h * line, 1, panel.ctypes.data + ky * taps * c * lanes * itemsize,
                       taps * c * lanes, lanes, min(together, window.height - ky), taps * c)
    for row in range(oh):
        target, written = y[row].reshape(-1), rows[row]
        for j in range(ow * filters):
            target[j] = written[j]


@compiled
def copy_window(image, first_channel, top, left, out):
    """Copy some channels of the rows from `top` on, with zeros where the window sticks out of the image."""
    h, w, image_channels = image.shape
    height, columns, channels = out.shape
    begin = min(columns, max(0, left))
    end = max(begin, min(columns, w + left))
    for i in range(height):
        y, target = top + i, out[i].reshape(-1)
        if y < 0 or y >= h:
            target[:] = 0
            continue
        target[: begin * channels] = 0
        target[end * channels :] = 0
        source = image[y].reshape(-1)
        if channels == image_channels:
            # One loop over the whole line and not one a pixel, which matters for images with 1 or 3 channels.
            place = (begin - left) * channels
            for k in range((end - begin) * channels):
                target[begin * channels + k] = source[place + k]
        else:
            for j in range(begin, end):
                place = (j - left) * image_channels + first_channel
                for c in range(channels):
                    target[j * channels + c] = source[place + c]


@compiled
def unroll_taps(image, first_channel, window, out):
    """Copy rows like `copy_window`, but for each output pixel its taps side by side, which a dilation has parted."""
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
