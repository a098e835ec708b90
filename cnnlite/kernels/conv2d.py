"""Convolution without the im2col matrix ("implicit im2col"): the micro-kernel reads its rows from the image.

With channels last, the window of an output pixel is KH runs of KW * C numbers that lie side by side, and
the windows of the next pixel start `stride * C` further on:

    y[n, oh, ow, f] = bias[f] + sum over ky, (kx, c) of  x[n, oh*s + ky, ow*s + kx, c] * kernel[ky, kx, c, f]
             ^                                                       ^          ^
      row i of a tile                                                k1         k0

Pixels are the rows of a tile, and ky and (kx, c) its two sums: for the micro-kernel each is a distance in the image.
With a dilation d the pixel of x is [n, oh*s + ky*d, ow*s + kx*d, c].

Only where the runs are broken does an image go through a scratch copy first, of one image at most: for padding
a copy with zeros round it; for a dilation one with the taps of each window row side by side (im2col along the
width alone); for groups one of the channels of a single group.

The kernel is cut into panels, each of which holds the weights of as many filters as fill two vectors: panel p is
the (KH * KW * C / groups, width) columns from p * width on. One call of the micro-kernel makes a row of output pixels
for one panel of filters. Where the last panel is not full, it is filled up with zeros.

Shapes: x (N, H, W, C), kernel (KH, KW, C / groups, F), y (N, OH, OW, F); pads ((top, bottom), (left, right)).
"""

import numpy as np
from numba import prange

from cnnlite.kernels._jit import kernel as compiled
from cnnlite.kernels.im2col import NO_PADS, col2im_row, output_shape
from cnnlite.kernels.matmul import pack_panels, padded_columns, panel_width, product_block
from cnnlite.kernels.microkernel import VECTOR_BYTES, block_address, call_block, lanes

UNITS = 16  # into how many pieces a batch is cut at least, where it can be; a fixed number keeps the bits fixed


def conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return y = x * kernel + bias, (N, OH, OW, F).

    Rows of the kernel are left out where they lie wholly on padding, so a NaN in them does not show there.
    """
    n = len(x)
    kh, kw, group_channels, filters = kernel.shape
    oh, ow = output_shape(x.shape, (kh, kw), strides, pads, dilation)
    out = np.empty((n, oh, ow, filters), x.dtype) if out is None else out
    k, group_filters = kh * kw * group_channels, filters // groups
    panels = pack_panels(kernel.reshape(-1), groups, k, group_filters, filters, 1)
    biases = [None] * groups if bias is None else np.split(bias, groups)
    start = np.concatenate([padded_columns(group_bias, group_filters, x.dtype) for group_bias in biases])
    parts = max(1, min(oh, UNITS // max(n, 1)))  # one image alone is cut into bands of rows
    _conv2d(block_address(x.dtype), x, panels.reshape(-1), start, out, kh, kw, strides,
            (pads[0][0], pads[1][0]), dilation, groups, pads != NO_PADS or groups > 1 or dilation[1] > 1, parts)
    return out


@compiled(parallel=True)
def _conv2d(block, x, panels, start, y, kh, kw, strides, before, dilation, groups, copies, parts):
    for unit in prange(x.shape[0] * parts):
        _conv2d_rows(block, x, panels, start, y, kh, kw, strides, before, dilation, groups, copies,
                     unit // parts, unit % parts * y.shape[1] // parts, (unit % parts + 1) * y.shape[1] // parts)


@compiled
def _conv2d_rows(block, x, panels, start, y, kh, kw, strides, before, dilation, groups, copies, n, first, last):
    """Compute the rows first <= oh < last of one output image.

    Every row of pixels is a product (OW, K) @ (K, width) for each panel. Its left factor starts at `place` in `source`,
    the image or its copy, in which `pixel` lies between the windows of neighbours and `line` between two rows.
    """
    _, h, w, c = x.shape
    _, oh, ow, filters = y.shape
    channels, group_filters = c // groups, filters // groups
    k = kh * kw * channels
    width = 2 * VECTOR_BYTES // y.itemsize
    panel_count = (group_filters + width - 1) // width
    scratch = np.empty((ow, width), y.dtype)
    flat_y = y.reshape(-1)
    top = first * strides[0] - before[0]
    height = (last - first - 1) * strides[0] + (kh - 1) * dilation[0] + 1
    unrolls = dilation[1] > 1
    columns = ow * kw if unrolls else (ow - 1) * strides[1] + kw
    image = np.empty((height, columns, channels) if copies else (0, 0, 0), y.dtype)
    for group in range(groups):
        if copies:
            if unrolls:
                _unroll_taps(x[n], group * channels, top, before[1], strides[1], dilation[1], kw, image)
            else:
                _copy_window(x[n], group * channels, top, before[1], image)
            source, place, line = image.reshape(-1), 0, columns * channels
            pixel = kw * channels if unrolls else strides[1] * channels
        else:
            source, place, line = x.reshape(-1), (n * h + top) * w * c, w * c
            pixel = strides[1] * c
        for panel in range(panel_count):
            column = panel * width
            for row in range(last - first):
                # Rows of the kernel that lie wholly on padding are left out. On the gradient of the input, which
                # is padded by KH - 1 rows on either side, that saves a sixth of the work for 13 rows and KH = 3.
                above = (first + row) * strides[0] - before[0]
                low = max(0, -(above // dilation[0]))
                high = max(low, min(kh, (h - 1 - above) // dilation[0] + 1))
                product_block(
                    block, ow, min(width, group_filters - column),
                    flat_y, ((n * oh + first + row) * ow) * filters + group * group_filters + column, filters,
                    start, (group * panel_count + panel) * width,
                    source, place + (row * strides[0] + low * dilation[0]) * line, pixel, dilation[0] * line, 1,
                    panels, ((group * panel_count + panel) * k + low * kw * channels) * width,
                    kw * channels * width, width, high - low, kw * channels, scratch)


@compiled
def _copy_window(image, first_channel, top, left, out):
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
def _unroll_taps(image, first_channel, top, left, stride, dilation, taps, out):
    """Copy rows like `_copy_window`, but for each output pixel its taps side by side, which a dilation has parted."""
    h, w, _ = image.shape
    height, columns, channels = out.shape
    for i in range(height):
        y = top + i
        for j in range(columns):
            x = j // taps * stride + j % taps * dilation - left
            target = out[i, j]
            if 0 <= y < h and 0 <= x < w:
                source = image[y, x]
                for c in range(channels):
                    target[c] = source[first_channel + c]
            else:
                for c in range(channels):
                    target[c] = 0


def conv2d_input_gradient(dy, kernel, x_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return dx[n, h, w, c] = sum of dy[n, oh, ow, f] * kernel[ky, kx, c, f] over all that x[n, h, w, c] went into.

    With stride 1 that is itself a convolution, of dy padded all round with the kernel turned by 180 degrees and
    C and F swapped. With other strides it is dy @ kernel.T and col2im, an output row at a time.
    """
    kh, kw, group_channels, filters = kernel.shape
    group_filters = filters // groups
    if strides == (1, 1):
        turned = kernel[::-1, ::-1].reshape(kh, kw, group_channels, groups, group_filters)
        turned = turned.transpose(0, 1, 4, 3, 2).reshape(kh, kw, group_filters, x_shape[3])
        turned_pads = tuple(
            (reach - pads[axis][0], x_shape[1 + axis] - dy.shape[1 + axis] + pads[axis][0])
            for axis, reach in enumerate(((kh - 1) * dilation[0], (kw - 1) * dilation[1]))
        )
        return conv2d(dy, np.ascontiguousarray(turned), None, strides, turned_pads, dilation, groups, out)
    out = np.empty(x_shape, dy.dtype) if out is None else out
    k = kh * kw * group_channels
    by_group = np.ascontiguousarray(kernel.reshape(k, groups, group_filters).transpose(2, 1, 0))
    panels = pack_panels(by_group.reshape(-1), groups, group_filters, k, groups * k, 1)
    _conv2d_input_gradient(block_address(dy.dtype), dy, panels.reshape(-1), out, kh, kw, strides,
                           (pads[0][0], pads[1][0]), dilation, groups)
    return out


@compiled(parallel=True)
def _conv2d_input_gradient(block, dy, panels, dx, kh, kw, strides, before, dilation, groups):
    for n in prange(dx.shape[0]):
        _scatter_image(block, dy, panels, dx, kh, kw, strides, before, dilation, groups, n)


@compiled
def _scatter_image(block, dy, panels, dx, kh, kw, strides, before, dilation, groups, n):
    """Compute dx of one image: for each row of output pixels cols = dy @ kernel.T, which col2im adds to dx."""
    _, oh, ow, filters = dy.shape
    channels, group_filters = dx.shape[3] // groups, filters // groups
    k = kh * kw * channels
    width = 2 * VECTOR_BYTES // dy.itemsize
    panel_count = (k + width - 1) // width
    scratch = np.empty((ow, width), dy.dtype)
    zeros = np.zeros(width, dy.dtype)
    cols = np.empty((ow, kh, kw, channels), dy.dtype)
    dx[n] = 0
    for group in range(groups):
        for row in range(oh):
            for panel in range(panel_count):
                product_block(
                    block, ow, min(width, k - panel * width), cols.reshape(-1), panel * width, k, zeros, 0,
                    dy.reshape(-1), (n * oh + row) * ow * filters + group * group_filters, filters, 0, 1,
                    panels, (group * panel_count + panel) * group_filters * width, 0, width,
                    1, group_filters, scratch)
            col2im_row(cols, row, (kh, kw), strides, before, dilation, dx[n], group * channels)


def conv2d_kernel_gradient(x, dy, kernel_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return dkernel[ky, kx, c, f] = sum over n, oh, ow of x[n, oh*s + ky*d, ow*s + kx*d, c] * dy[n, oh, ow, f].

    The images are cut into chunks whose number depends on the batch alone; each adds into a buffer of its own,
    and the buffers are added in order. So the bits do not depend on the number of threads.
    """
    kh, kw, group_channels, filters = kernel_shape
    out = np.empty(kernel_shape, x.dtype) if out is None else out
    group_filters = filters // groups
    width = panel_width(x.dtype)
    padded = -(-group_filters // width) * width
    chunks = max(1, min(x.shape[0], UNITS))
    sums = np.empty((chunks, kh, groups, kw * group_channels, padded), x.dtype)
    packs = bool(group_filters % lanes(x.dtype))
    _conv2d_kernel_gradient(block_address(x.dtype), x, dy, sums, kw, strides,
                            (pads[0][0], pads[1][0]), dilation, groups, pads != NO_PADS, packs)
    _add_chunks(sums, out.reshape(kh, kw * group_channels, groups, group_filters))
    return out


@compiled(parallel=True)
def _conv2d_kernel_gradient(block, x, dy, sums, kw, strides, before, dilation, groups, pads, packs):
    for chunk in prange(sums.shape[0]):
        _kernel_gradient_chunk(block, x, dy, sums, kw, strides, before, dilation, groups, pads, packs, chunk)


@compiled
def _kernel_gradient_chunk(block, x, dy, sums, kw, strides, before, dilation, groups, pads, packs, chunk):
    """Sum over the images of a chunk.

    The reduction of a tile runs over the pixels of an output row (k0) and over the rows (k1); its rows i are
    (kx, c), which lie side by side in the image, unless a dilation or groups part the kx.
    """
    images, h, w, c = x.shape
    _, oh, ow, filters = dy.shape
    chunks, kh, _, run, padded = sums.shape
    channels, group_filters = c // groups, filters // groups
    width = 2 * VECTOR_BYTES // dy.itemsize
    panel_count = padded // width
    sums[chunk] = 0
    itemsize = dy.itemsize
    height = (oh - 1) * strides[0] + (kh - 1) * dilation[0] + 1
    columns = (ow - 1) * strides[1] + (kw - 1) * dilation[1] + 1
    image = np.empty((height, columns, c) if pads else (0, 0, 0), x.dtype)
    gradient = np.zeros((panel_count, oh * ow, width) if packs else (0, 0, 0), dy.dtype)
    together = dilation[1] == 1 and groups == 1
    for n in range(chunk * images // chunks, (chunk + 1) * images // chunks):
        if pads:
            _copy_window(x[n], 0, -before[0], before[1], image)
            source, image_place, line = image.reshape(-1), 0, columns * c
        else:
            source, image_place, line = x.reshape(-1), n * h * w * c, w * c
        for group in range(groups):
            if packs:
                _pack_gradient(dy[n], group * group_filters, group_filters, gradient)
            for ky in range(kh):
                for kx in range(1 if together else kw):
                    place = image_place + ky * dilation[0] * line + kx * dilation[1] * c + group * channels
                    target = (((chunk * kh + ky) * groups + group) * run + kx * channels) * padded
                    for panel in range(panel_count):
                        column = panel * width
                        if packs:
                            b, b_place, b_k0 = gradient.reshape(-1), panel * oh * ow * width, width
                        else:
                            b, b_k0 = dy.reshape(-1), filters
                            b_place = n * oh * ow * filters + group * group_filters + column
                        # Where the last panel is not full, the columns behind it are zeros, or not looked at.
                        vectors = 1 if group_filters - column <= width // 2 else 2
                        sums_address = sums.ctypes.data + (target + column) * itemsize
                        call_block(block, run if together else channels, vectors,
                                   sums_address, padded, sums_address, padded,
                                   source.ctypes.data + place * itemsize, 1, strides[0] * line, strides[1] * c,
                                   b.ctypes.data + b_place * itemsize, ow * b_k0, b_k0, oh, ow)


@compiled
def _pack_gradient(dy, first, filters, out):
    """Copy some filters of dy (OH, OW, F) into panels (panel, OH * OW, width), which hold zeros behind the last."""
    panels, pixels, width = out.shape
    source, stride = dy.reshape(-1), dy.shape[2]
    for panel in range(panels):
        column = panel * width
        for pixel in range(pixels):
            target, place = out[panel, pixel], pixel * stride + first + column
            for f in range(min(width, filters - column)):
                target[f] = source[place + f]


@compiled(parallel=True)
def _add_chunks(sums, out):
    """out[ky, i, group, f] = sum over the chunks, in their order."""
    chunks, kh, groups, run, _ = sums.shape
    filters = out.shape[3]
    for unit in prange(kh * run):
        ky, i = unit // run, unit % run
        for group in range(groups):
            target = out[ky, i, group]
            target[:] = sums[0, ky, group, i, :filters]
            for chunk in range(1, chunks):
                source = sums[chunk, ky, group, i]
                for f in range(filters):
                    target[f] += source[f]
