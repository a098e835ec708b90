"""The kernel gradient by the direct method: sums over all pixels, in the registers of a tile.

    dkernel[ky, kx, c, f] = sum over the images, oh and ow of  x[oh*s + ky*d, ow*s + kx*d, c] * dy[oh, ow, f]

The rows of a tile, (kx, c), are contiguous in the image, unless dilation or groups separate the kx. With too few
filters to fill a vector, the roles are swapped: the f are the rows and the (kx, c) the columns, and even 3 channels
with a kernel of width 7 fill a vector. (1024, 12, 12, 32) and one filter of 5x5 with stride 2: 2.6 ms instead of 10. If
the (kx, c) don't fill a vector either, p neighbouring pixels of dy become one with p * F filters:

    wide[ky, t, c, (q, f)] = sum of  x[oh*s + ky*d, ow*p*s + t, c] * dy[oh, ow*p + q, f]      t < KW + (p - 1) * s

Then dkernel[ky, kx, c, f] is the sum over q of wide[ky, kx + q*s, c, (q, f)]. Its other elements are unused.

The products are added one by one in the order of the images and pixels, however many images are processed at a time.
"""

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import array, scratch, stage, word
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.bounded import is_bounded
from cnnlite.kernels.convolution.direct import copy_window, pixels_together, sticks_out
from cnnlite.kernels.convolution.kernel_sums import (
    ADDS,
    READS,
    SIZES,
    WRITES,
    add_kernel_chunks,
    add_kernel_stage,
    begin_sums,
    chain_end,
    clear,
    end_chain,
    kernel_sums,
    sums_of_chunk,
)
from cnnlite.kernels.geometry import in_one_row, meets_no_other, window_of
from cnnlite.kernels.operation import graph_of
from cnnlite.kernels.product.microkernel import LONG_SUM, block_address, call_block

LONG_CHAIN = 8192  # pixels of a chunk whose products may be added one by one in float32
CHAIN = 2048  # pixels added before their sum joins a float64 sum, if there are more: that takes as long as 30 pixels
TOGETHER = 1 << 14  # elements of dy, rounded up to whole images, that are processed at a time


def add_direct_kernel_gradient(x, dy, dkernel, sizes):
    """Add the stages that write the gradient of the kernel to dkernel; sizes: the FIELDS of the convolution."""
    graph, lanes = graph_of(x, dy), VECTOR_BYTES // x.itemsize
    sizes = in_one_row(sizes)
    kw, filters = sizes["width"], sizes["filters"]
    oh, ow, step = sizes["oh"], sizes["ow"], sizes["stride_w"]
    run = kw * sizes["channels"] // sizes["groups"]
    plain = sizes["groups"] == 1 and sizes["dilation_w"] == 1
    turned = plain and 2 * filters <= lanes <= run
    pixels = pixels_together(filters, kw, step, ow, lanes) if plain and not turned and ow else 1
    rows = filters if turned else run + (pixels - 1) * step * sizes["channels"]
    columns = run if turned else pixels * filters if pixels > 1 else filters // sizes["groups"]
    sums = kernel_sums(graph, sizes, rows, columns, oh * ow, CHAIN, LONG_CHAIN)
    arguments = dict(sizes, **sums._asdict(), x=x, dy=dy, together=max(1, -(-TOGETHER // max(1, oh * ow * filters))),
                     work=2.0 * oh * ow * sizes["height"] * run * filters, **copies(sizes, x.dtype, pixels))
    if turned:
        add_kernel_stage(graph, _add_turned, **arguments)
    elif pixels > 1:
        # Room for the sums of an image that is processed pixel by pixel.
        place = arguments["scratch"]
        arguments["scratch"] += sizes["height"] * run * sums.columns * x.itemsize
        add_kernel_stage(graph, _add_wide, **arguments, pixels=pixels, alone=place)
    else:
        add_kernel_stage(graph, _add_by_pixels, **arguments)
    add_kernel_chunks(graph, sums, dkernel, sizes, pixels, turned)


def copies(sizes, dtype, pixels=1):
    """Return the record fields and the scratch size for the image copies that `add_images` and `_add_turned` make.

    Args:
        sizes: the FIELDS.
        pixels: how many pixels of dy are taken as one.
    """
    lanes = VECTOR_BYTES // dtype.itemsize
    oh, ow, kh, kw, channels = (sizes[name] for name in ("oh", "ow", "height", "width", "channels"))
    window = window_of((kh, kw), (sizes["stride_h"], sizes["stride_w"]), ((sizes["top"], 0), (sizes["left"], 0)),
                       (sizes["dilation_h"], sizes["dilation_w"]))
    pads = pixels > 1 or bool(sticks_out(sizes["h"], sizes["w"], window, oh, ow))
    row_pixels = -(-ow // pixels) * pixels
    width = (ow - 1) * window.stride_w + (kw - 1) * window.dilation_w + 1 + (row_pixels - ow) * window.stride_w
    height = (oh - 1) * window.stride_h + (kh - 1) * window.dilation_h + 1
    gradient = oh * row_pixels * sizes["filters"] + 2 * lanes
    image = (max(0, height * width) if pads else sizes["h"] * sizes["w"]) * channels + 2 * lanes
    # Where an image is one row, several are taken at a time, as many as leave the order of additions unchanged.
    merged = max(1, LONG_SUM // max(1, ow)) if meets_no_other(sizes) and oh == 1 else 1
    return dict(block=block_address(dtype), pads=int(pads), image=gradient * dtype.itemsize, image_width=width,
                merged=merged, scratch=(gradient + image) * dtype.itemsize)


@stage(reads=READS, writes=WRITES, adds=ADDS, sizes=SIZES)
def _add_by_pixels(r, run, first, last):
    begin_sums(r, run, first)
    while first < last:
        stop = chain_end(r, run, first, last)
        add_images(r, run, first, stop, 1, sums_of_chunk(r, run).ctypes.data)
        end_chain(r, run, stop)
        first = stop


@stage(reads=READS, writes=WRITES, adds=ADDS, sizes=SIZES)
def _add_wide(r, run, first, last):
    begin_sums(r, run, first)
    sums, length, rows = sums_of_chunk(r, run), r.width * r.channels, r.numbers // r.height // r.columns
    alone = scratch(run, r.alone, (r.height * length * r.columns,))
    x = array(run, r.x, (last, r.h * r.w * r.channels))
    for i in range(first, last):
        if r.ow % r.pixels and not is_bounded(x[i]):
            # The zeros that pad a row of dy would meet pixels of x that are in no window, and 0 * NaN is NaN.
            clear(alone)
            add_images(r, run, i, i + 1, 1, alone.ctypes.data)
            for ky in range(r.height):
                for k in range(length):
                    for f in range(r.filters):
                        sums[(ky * rows + k) * r.columns + f] += alone[(ky * length + k) * r.columns + f]
        else:
            add_images(r, run, i, i + 1, r.pixels, sums.ctypes.data)
        end_chain(r, run, i + 1)


@stage(reads=READS, writes=WRITES, adds=ADDS, sizes=SIZES)
def _add_turned(r, run, first, last):
    """Add up the gradient with f as the rows and (kx, c) as the columns of a tile.

    Whole vectors of the image are read: what they hold beyond a window goes to unused columns.
    """
    begin_sums(r, run, first)
    x = array(run, r.x, (last, r.h, r.w, r.channels))
    itemsize, sums = x.itemsize, sums_of_chunk(r, run).ctypes.data
    lanes, numbers, length = VECTOR_BYTES // itemsize, r.h * r.w * r.channels, r.width * r.channels
    line = (r.image_width if r.pads else r.w) * r.channels
    height = (r.oh - 1) * r.stride_h + (r.height - 1) * r.dilation_h + 1
    image = scratch(run, r.image, (height, r.image_width, r.channels))
    for i in range(first, last):
        source = x[i].ctypes.data
        if r.pads:
            copy_window(x[i], 0, -r.top, r.left, image)
            source = image.ctypes.data
        elif (last - 1 - i) * numbers < 2 * lanes:
            given, copy = array(run, r.x, (last, numbers))[i], scratch(run, r.image, (numbers,))
            for j in range(numbers):
                copy[j] = given[j]
            source = copy.ctypes.data
        dy = word(run, r.dy) + i * r.oh * r.ow * r.filters * itemsize
        for ky in range(r.height):
            for column in range(0, length, 2 * lanes):
                s = sums + (ky * r.filters * r.columns + column) * itemsize
                call_block(r.block, r.filters, 1 if length - column <= lanes else 2, s, r.columns, s, r.columns,
                           dy, 1, r.ow * r.filters, r.filters,
                           source + (ky * r.dilation_h * line + column) * itemsize, r.stride_h * line,
                           r.stride_w * r.channels, r.oh, r.ow)
        end_chain(r, run, i + 1)


@jit
def add_images(r, run, first, last, pixels, sums):
    """Add the contribution of some images, with `pixels` pixels of dy taken as one, to the sums at an address.

    Only whole vectors of dy are read. Where the last one of an image would extend past the end of dy, a copy is read
    instead: of the last image, or of the last few if they are smaller than a vector.
    """
    x = array(run, r.x, (last, r.h, r.w, r.channels))
    itemsize = x.itemsize
    lanes = VECTOR_BYTES // itemsize
    row_pixels = (r.ow + pixels - 1) // pixels
    line, row = r.ow * r.filters, row_pixels * pixels * r.filters
    dy = array(run, r.dy, (last, r.oh * line))
    columns = r.filters // r.groups if pixels == 1 else pixels * r.filters
    gradient = scratch(run, 0, (r.oh * row,))
    height = (r.oh - 1) * r.stride_h + (r.height - 1) * r.dilation_h + 1
    width = (r.ow - 1) * r.stride_w + (r.width - 1) * r.dilation_w + 1
    image = scratch(run, r.image, (height, r.image_width, r.channels))
    at_the_end = 0 if columns % lanes == 0 else (2 * lanes + r.oh * line - 1) // max(1, r.oh * line)
    i = first
    while i < last:
        together = max(1, min(r.merged, last - at_the_end - i))
        source, b = x[i].ctypes.data, dy[i].ctypes.data
        if r.pads:
            copy_window(x[i], 0, -r.top, r.left, image)
            source = image.ctypes.data
            # Also zeros where a row of dy was padded: 0 * NaN would show.
            for y in range(height if width < r.image_width else 0):
                for j in range(width, r.image_width):
                    for c in range(r.channels):
                        image[y, j, c] = 0
        if row != line or last - i <= at_the_end:
            given = dy[i]
            for y in range(r.oh):
                for j in range(line):
                    gradient[y * row + j] = given[y * line + j]
                for j in range(line, row):
                    gradient[y * row + j] = 0
            b = gradient.ctypes.data
        _add_image(r, source, b, together * row_pixels, pixels, sums, itemsize)
        i += together


@jit
def _add_image(r, source, b, row_pixels, pixels, sums, itemsize):
    """Add the contribution of one image, or of consecutive ones, given the addresses of x, dy and the sums."""
    lanes, groups, padded = VECTOR_BYTES // itemsize, r.groups, r.columns
    channels, columns = r.channels // groups, r.filters // groups if pixels == 1 else pixels * r.filters
    rows = (r.width + (pixels - 1) * r.stride_w) * channels
    line = (r.image_width if r.pads else r.w) * r.channels
    row = (r.ow + pixels - 1) // pixels * pixels * r.filters
    together = r.dilation_w == 1 and groups == 1
    for group in range(groups):
        for ky in range(r.height):
            for kx in range(1 if together else r.width):
                place = ky * r.dilation_h * line + kx * r.dilation_w * r.channels + group * channels
                target = ((ky * groups + group) * rows + kx * channels) * padded
                for column in range(0, columns, 2 * lanes):
                    s = sums + (target + column) * itemsize
                    call_block(r.block, rows if together else channels, 1 if columns - column <= lanes else 2,
                               s, padded, s, padded, source + place * itemsize, 1,
                               r.stride_h * line, pixels * r.stride_w * r.channels,
                               b + (group * columns + column) * itemsize, row, pixels * r.filters, r.oh, row_pixels)
