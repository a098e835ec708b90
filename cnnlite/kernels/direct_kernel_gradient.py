"""The gradient of the kernel by the direct way."""

import numpy as np

from cnnlite.kernels._jit import kernel as compiled
from cnnlite.kernels.direct import copy_window, sticks_out
from cnnlite.kernels.microkernel import VECTOR_BYTES, call_block


@compiled
def direct_kernel_gradient(block, x, dy, window, groups, sums):
    """Add to sums (KH, groups, KW * C / groups, padded F / groups) the gradient that these images give.

    dkernel[ky, kx, c, f] = sum over the images, oh and ow of x[oh*s + ky*d, ow*s + kx*d, c] * dy[oh, ow, f]. The rows
    of a tile, (kx, c), lie side by side in the image, unless a dilation or groups part the kx.
    """
    n, h, w, c = x.shape
    _, oh, ow, filters = dy.shape
    kh, _, run, padded = sums.shape
    kw = window.width
    channels, group_filters = c // groups, filters // groups
    itemsize = dy.itemsize
    width = 2 * VECTOR_BYTES // itemsize
    panel_count = padded // width
    height = (oh - 1) * window.stride_h + (kh - 1) * window.dilation_h + 1
    columns = (ow - 1) * window.stride_w + (kw - 1) * window.dilation_w + 1
    pads = sticks_out(x, window, dy)
    # Whole vectors of dy are read: where the filters don't fill them, a copy of dy does.
    packs = group_filters % (width // 2) != 0
    image = np.empty((height, columns, c) if pads else (0, 0, 0), x.dtype)
    gradient = np.zeros((panel_count, oh * ow, width) if packs else (0, 0, 0), dy.dtype)
    together = window.dilation_w == 1 and groups == 1
    for i in range(n):
        if pads:
            copy_window(x[i], 0, -window.top, window.left, image)
            source, image_place, line = image.reshape(-1), 0, columns * c
        else:
            source, image_place, line = x.reshape(-1), i * h * w * c, w * c
        for group in range(groups):
            if packs:
                _pack_gradient(dy[i], group * group_filters, group_filters, gradient)
            for ky in range(kh):
                for kx in range(1 if together else kw):
                    place = image_place + (
                        ky * window.dilation_h * line + kx * window.dilation_w * c + group * channels
                    )
                    target = ((ky * groups + group) * run + kx * channels) * padded
                    for panel in range(panel_count):
                        column = panel * width
                        if packs:
                            b, b_place, b_k0 = gradient.reshape(-1), panel * oh * ow * width, width
                        else:
                            b, b_k0 = dy.reshape(-1), filters
                            b_place = i * oh * ow * filters + group * group_filters + column
                        # Where the last panel is not full, the columns behind it are zeros, or not looked at.
                        vectors = 1 if group_filters - column <= width // 2 else 2
                        sums_address = sums.ctypes.data + (target + column) * itemsize
                        call_block(block, run if together else channels, vectors,
                                   sums_address, padded, sums_address, padded,
                                   source.ctypes.data + place * itemsize, 1,
                                   window.stride_h * line, window.stride_w * c,
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
