"""A convolution and what follows it, image by image: the drivers of `conv2d.py` and of `cnnlite/fusion.py`.

A convolution of few channels is soon done, and what follows (BatchNorm, ReLU, pooling) is hardly any arithmetic, but
each is a pass over megabytes. So all of it is done to a few images at a time, while they are in the cache:

    forward     x ── convolution ── relu ── z ── normalise ── relu ── pool ── y       z of a few images: scratch
    backward    dy ── unpool ── relu ── normalise ── relu ── dz ─┬─ dkernel, dbias    dz of a few images: scratch
                                                                 └─ dx

Only x, y and the places of the maxima are kept for backward. Training a BatchNorm needs its statistics, which are those
of the whole batch, before it can go on: then z is kept as well, the statistics are summed up while z is written, and
`follow` and `gradient_sums` are the passes in between.

Every step is one of the functions that the layers call when they run alone, on an image at a time in the same order:
the results are the same to the last bit. `threads` share the images. A batch is cut by its shape alone: forward into
units of a few images, of which no bit of an image depends; backward into CHUNKS chunks, each of which sums up dkernel
in a buffer of its own, and the buffers are added in order.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from cnnlite.kernels import geometry
from cnnlite.kernels._jit import kernel as compiled
from cnnlite.kernels.batchnorm import (
    PART_ROWS,
    affine_rows,
    gradient_in_place,
    image_gradient_sums,
    image_statistics,
    new_statistics,
    scale_in_place,
)
from cnnlite.kernels.direct import direct_images, direct_panels
from cnnlite.kernels.direct_input_gradient import direct_input_gradient, input_gradient_weights
from cnnlite.kernels.direct_kernel_gradient import direct_kernel_gradient
from cnnlite.kernels.geometry import Window, window_of
from cnnlite.kernels.im2col import NO_PADS, output_shape
from cnnlite.kernels.matmul import padded_columns, panel_width
from cnnlite.kernels.microkernel import block_address
from cnnlite.kernels.pooling import (
    average_pool_row,
    max_pool_backward_image,
    max_pool_row,
)
from cnnlite.kernels.winograd import (
    POINTS,
    moderate,
    suits,
    winograd_images,
    winograd_kernel_gradient,
    winograd_kernel_gradient_end,
    winograd_weights,
)
from cnnlite.kernels.winograd_transforms import TILE, transform_address

UNIT_TILES = 32  # so many tiles of Winograd's, where there are as many, are convolved together
UNIT_NUMBERS = 1 << 14  # so many numbers of the output otherwise
CHUNKS = 16  # into how many chunks a batch is cut for backward; a fixed number keeps the bits fixed
SMALL = 4e6  # additions and multiplications that are done before other threads would have begun
CHUNK_PIXELS = 256  # pixels at least that a chunk sums up

NO_POOL, MAX_POOL, AVERAGE_POOL = 0, 1, 2


class Following(NamedTuple):
    """What follows a convolution: a ReLU or not, before and after the map of a BatchNorm, and which pooling."""

    first_relu: bool = False
    relu: bool = False
    pool: int = NO_POOL
    window: Window = Window(1, 1)


class Geometry(NamedTuple):
    """Where the kernel of a convolution goes, as the layers have it."""

    strides: tuple = (1, 1)
    pads: tuple = NO_PADS
    dilation: tuple = (1, 1)
    groups: int = 1


NOTHING = Following()
as_window = compiled(geometry.as_window)


@compiled
def _as_following(numbers):
    """Return the Following of 11 integers: numba's parallel loops take plain tuples only."""
    return Following(numbers[0] > 0, numbers[1] > 0, numbers[2], as_window(numbers[3:]))


def _numbers(following):
    return (int(following.first_relu), int(following.relu), following.pool, *following.window)


def conv_block(x, kernel, bias, geometry, affine=None, following=NOTHING, z=None, statistics=False, out=None):
    """Compute z = x * kernel + bias, or its ReLU where that comes first, and what follows it.

    Args:
        x: (N, H, W, C).
        kernel: (KH, KW, C / groups, F).
        bias: (F,) or None.
        affine: (3, F), the mean, the scale and the beta of the map (z - mean) * scale + beta; None for none.
        following: the ReLU and the pooling.
        z: (N, OH, OW, F) to keep z in, or None.
        statistics: whether to sum up the parts of the mean and the variance of z.
        out: (y, argmax) to write the result of all that follows to; None if nothing does.

    Returns:
        the sums of `batchnorm.new_statistics`, of no size unless they were asked for.
    """
    n = len(x)
    kh, kw, group_channels, filters = kernel.shape
    strides, pads, dilation, groups = geometry
    oh, ow = output_shape(x.shape, (kh, kw), strides, pads, dilation)
    group_filters, k = filters // groups, kh * kw * group_channels
    panels = direct_panels(kernel, geometry, ow)
    spectra = _spectra(kernel, suits_winograd(kernel, geometry, x.shape[1], pads[0][0], (oh, ow)))
    biases = [None] * groups if bias is None else np.split(bias, groups)
    start = np.concatenate([padded_columns(part, group_filters, x.dtype) for part in biases])
    sums = new_statistics((n, oh * ow, filters) if statistics else (0, 0, 0))
    z = np.empty((0, oh, ow, filters), x.dtype) if z is None else z
    y, argmax = _nothing(x.dtype) if out is None else out
    images = _unit_images(n, len(spectra) > 0, kh, oh, ow, filters)
    arguments = (_addresses(x.dtype), x, panels, spectra, start,
                 tuple(window_of((kh, kw), strides, pads, dilation)), groups, z, *sums,
                 _affine_of(affine, filters, x.dtype), _numbers(following), y, argmax)
    if 2 * n * oh * ow * k * filters < SMALL:
        _forward_alone(*arguments, images)
    elif n < CHUNKS and len(z) and not statistics and out is None:
        # A band begins with a tile, so that its bits are those of the whole image.
        height = TILE + 1 - kh if len(spectra) else 1
        _forward_bands(*arguments[:8], height, min(-(-oh // height), -(-CHUNKS // n)))
    else:
        _forward(*arguments, images)
    return sums


def follow(z, affine, following, out):
    """Do what follows a z that was kept: (z - mean) * scale + beta, ReLU and pooling into out = (y, argmax)."""
    _follow(z, _affine_of(affine, z.shape[3], z.dtype), _numbers(following), *out)


def conv_block_gradient_sums(dy, out, z, mean, following):
    """Return the sums of dz and dz (z - mean) of all parts, for `batchnorm.combine_gradient_sums`.

    dz is dy taken back through pooling and the last ReLU; out is (y, argmax) of the forward pass.
    """
    sums = new_statistics((len(z), z.shape[1] * z.shape[2], z.shape[3]))
    _gradient_sums(dy, *out, z, mean, _numbers(following), *sums)
    return sums


def conv_block_backward(x, dy, kernel, geometry, following=NOTHING, out=None, scale=None, normalised=None,
                        dkernel=None, dbias=None, dx=None):
    """Take dy, the gradient of what `conv_block` returned, back to the kernel, the bias and x.

    Args:
        x, kernel, geometry, following: as for `conv_block`.
        dy: (N, PH, PW, F).
        out: (y, argmax) of the forward pass; None if nothing followed.
        scale: (F,), where an affine map with constant coefficients followed, and no ReLU before it.
        normalised: (z, mean, terms) where z was normalised by its own statistics; see `combine_gradient_sums`.
        dkernel, dbias, dx: where to write the gradients; those that are None are not computed.
    """
    n = len(x)
    kh, kw, group_channels, filters = kernel.shape
    strides, pads, dilation, groups = geometry
    group_filters = filters // groups
    oh, ow = output_shape(x.shape, (kh, kw), strides, pads, dilation)
    # Each chunk has sums of its own, which take as long to clear and to add up as a few pixels to multiply.
    chunks = max(1, min(n, CHUNKS, n * oh * ow // CHUNK_PIXELS if dkernel is not None else CHUNKS))
    padded = -(-group_filters // panel_width(x.dtype)) * panel_width(x.dtype)
    sums = np.empty((chunks if dkernel is not None else 0, kh, groups, kw * group_channels, padded), x.dtype)
    bias_sums = np.empty((chunks if dbias is not None else 0, filters))
    turned, spectra = np.empty(0, x.dtype), np.empty((0, 0, 0, 0), x.dtype)
    if dx is not None:
        before = kh - 1 - pads[0][0]
        spectra = _spectra(kernel, suits_winograd(kernel, geometry, oh, before, x.shape[1:3], turned=True), turned=True)
        turned = input_gradient_weights(kernel, geometry)
    y, argmax = _nothing(x.dtype) if out is None else out
    no_z, no_row = np.empty((0, 0, 0, 0), x.dtype), np.empty(0, x.dtype)
    z, mean, terms = (no_z, no_row, np.empty((0, 0), x.dtype)) if normalised is None else normalised
    window = tuple(window_of((kh, kw), strides, pads, dilation))
    by_points = dkernel is not None and suits_winograd(kernel, geometry, x.shape[1], pads[0][0], (oh, ow))
    images = _unit_images(n, by_points or len(spectra) > 0, kh, oh, ow, filters)
    arguments = (_addresses(x.dtype), x, dy, y, argmax, _numbers(following), no_row if scale is None else scale,
                 z, mean, terms, oh, ow, turned, spectra, window, groups, by_points, sums, bias_sums,
                 no_z if dx is None else dx, chunks, images)
    products = (dkernel is not None) + (dx is not None)
    work = 2 * n * oh * ow * kh * kw * group_channels * filters * products
    (_backward_alone if work < SMALL else _backward)(*arguments)
    if dkernel is not None:
        _add_chunks(sums, dkernel.reshape(kh, kw * group_channels, groups, group_filters))
    if dbias is not None:
        dbias[...] = bias_sums.sum(axis=0)


def suits_winograd(kernel, geometry, height, before, output, turned=False):
    """Return whether to convolve images of a height, with `before` rows of padding above, by Winograd's method.

    turned: ask for the gradient of the input, a convolution of dy.
    """
    kh, kw, channels, filters = kernel.shape
    if turned:
        channels, filters = filters, channels
    plain = geometry.strides == (1, 1) and geometry.dilation == (1, 1) and geometry.groups == 1 and kh == kw
    return plain and suits(kh, height, before, output, channels, filters) and moderate(kernel)


def _spectra(kernel, wanted, turned=False):
    """Return the weights of Winograd's method, of no size where it is not wanted."""
    return winograd_weights(kernel, turned) if wanted else np.empty((0, 0, 0, 0), kernel.dtype)


def _unit_images(n, in_tiles, taps, oh, ow, filters):
    """Return how many images to take at a time: one, or more where an image has few numbers or tiles of Winograd's."""
    wanted = -(-UNIT_NUMBERS // max(1, oh * ow * filters))
    if in_tiles:
        outputs = TILE + 1 - taps
        wanted = -(-UNIT_TILES // (-(-oh // outputs) * -(-ow // outputs)))
    return max(1, min(wanted, n // CHUNKS))


def _addresses(dtype):
    return block_address(dtype), transform_address(dtype)


def _nothing(dtype):
    return np.empty((0, 0, 0, 0), dtype), np.empty((0, 0, 0, 0), np.uint8)


def _affine_of(affine, filters, dtype):
    return np.empty((0, filters), dtype) if affine is None else affine


# Forward.


@compiled
def _convolve(addresses, x, panels, spectra, start, window, groups, y):
    """y = x * kernel + start for some images, by Winograd's method where there are weights for it."""
    block, transform = addresses
    if not len(spectra):
        direct_images(block, x, panels, start, window, groups, y)
        return
    together = moderate(x)
    for i in range(1 if together else len(x)):
        images = len(x) if together else 1
        if together or moderate(x[i]):
            winograd_images(block, transform, x, i, i + images, spectra, start, window.height,
                            (window.top, window.left), y[i:])
        else:
            direct_images(block, x[i : i + 1], panels, start, window, groups, y[i : i + 1])


@compiled
def _forward_unit(addresses, x, panels, spectra, start, window, groups, z, means, m2s, affine, following, y, argmax,
                  first, last):
    """Compute the images first <= n < last."""
    following = _as_following(following)
    _, oh, ow, filters = z.shape
    part = z[first:last] if len(z) else np.empty((last - first, oh, ow, filters), x.dtype)
    _convolve(addresses, x[first:last], panels, spectra, start, as_window(window), groups, part)
    if following.first_relu:
        _relu_in_place(part.reshape(-1))
    if len(means):
        for i in range(first, last):
            image_statistics(part[i - first].reshape(oh * ow, filters), means[i], m2s[i])
    if len(y):
        _follow_images(part, affine, following, y, argmax, first)


@compiled(parallel=True)
def _forward(addresses, x, panels, spectra, start, window, groups, z, means, m2s, affine, following, y, argmax,
             images):
    for unit in prange((len(x) + images - 1) // images):
        _forward_unit(addresses, x, panels, spectra, start, window, groups, z, means, m2s, affine, following, y, argmax,
                      unit * images, min(len(x), (unit + 1) * images))


@compiled
def _forward_alone(addresses, x, panels, spectra, start, window, groups, z, means, m2s, affine, following, y, argmax,
                   images):
    for first in range(0, len(x), images):
        _forward_unit(addresses, x, panels, spectra, start, window, groups, z, means, m2s, affine, following, y, argmax,
                      first, min(len(x), first + images))


@compiled(parallel=True)
def _forward_bands(addresses, x, panels, spectra, start, window, groups, z, height, bands):
    """Cut few, large images into bands of rows, each of which is a smaller image."""
    for unit in prange(len(x) * bands):
        _forward_band(addresses, x, panels, spectra, start, window, groups, z, unit // bands, height, unit % bands,
                      bands)


@compiled
def _forward_band(addresses, x, panels, spectra, start, window, groups, z, n, height, band, bands):
    window, h, oh = as_window(window), x.shape[1], z.shape[1]
    pieces = (oh + height - 1) // height
    first, last = band * pieces // bands * height, min(oh, (band + 1) * pieces // bands * height)
    top = first * window.stride_h - window.top
    bottom = (last - 1) * window.stride_h - window.top + (window.height - 1) * window.dilation_h + 1
    begin, end = min(h, max(0, top)), max(0, min(h, bottom))
    rows = x[n][begin : max(begin, end)]
    moved = Window(window.height, window.width, window.stride_h, window.stride_w, begin - top, window.left,
                   window.dilation_h, window.dilation_w)
    image = rows.reshape(1, rows.shape[0], rows.shape[1], rows.shape[2])
    part = z[n][first:last]
    _convolve(addresses, image, panels, spectra, start, moved, groups,
              part.reshape(1, part.shape[0], part.shape[1], part.shape[2]))


@compiled
def _follow_images(z, affine, following, y, argmax, first):
    """Do what follows z, some images (n, OH, OW, F), for the images of y from the first on."""
    n, h, w, filters = z.shape
    window = following.window
    buffer = np.empty((window.height if following.pool == AVERAGE_POOL else 0, w, filters), z.dtype)
    for i in range(n):
        image, out = z[i], y[first + i]
        for row in range(out.shape[0]):
            if following.pool == NO_POOL:
                _map_rows(image[row], affine, following.relu, out[row])
            elif following.pool == MAX_POOL:
                max_pool_row(image, row, affine, following.relu, window, out[row], argmax[first + i, row])
            else:
                top = row * window.stride_h - window.top
                begin, end = max(top, 0), min(top + window.height, h)
                for k in range(begin, end):
                    _map_rows(image[k], affine, following.relu, buffer[k - begin])
                average_pool_row(buffer[: end - begin], row, begin, window, out[row])


@compiled
def _map_rows(x, affine, relu, y):
    if len(affine):
        affine_rows(x, affine[0], affine[1], affine[2], y)
    else:
        y[:] = x
    if relu:
        _relu_in_place(y.reshape(-1))


# What works in place has one array only: with two the compiled code would look at their addresses, see that they
# overlap, and not use vectors (2.7 million numbers of the gradient of a BatchNorm: 3.4 ms instead of 0.5).


@compiled
def _relu_in_place(y):
    for i in range(y.size):
        y[i] = y[i] if not y[i] <= 0 else 0


@compiled(parallel=True)
def _follow(z, affine, following, y, argmax):
    for n in prange(len(z)):
        _follow_images(z[n : n + 1], affine, _as_following(following), y, argmax, n)


# Backward.


@compiled
def _unpool(dy, y, argmax, following, n, dz):
    """Take dy of image n back through pooling and ReLU; dz (OH, OW, F) is written to."""
    if following.pool == MAX_POOL:
        max_pool_backward_image(dy[n], y[n], argmax[n], following.relu, following.window, dz)
        return
    dz[:] = dy[n]
    if following.relu:
        _mask_in_place(dz.reshape(-1), y[n].reshape(-1))


@compiled
def _mask_in_place(dy, y):
    """Make dy 0 where y, the output of a ReLU, is not above 0."""
    for i in range(dy.size):
        dy[i] = dy[i] if not y[i] <= 0 else 0


@compiled(parallel=True)
def _gradient_sums(dy, y, argmax, z, mean, following, of_dy, of_product):
    for n in prange(len(z)):
        _image_sums(dy, y, argmax, z, mean, following, of_dy, of_product, n)


@compiled
def _image_sums(dy, y, argmax, z, mean, following, of_dy, of_product, n):
    dz = np.empty_like(z[n])
    _unpool(dy, y, argmax, _as_following(following), n, dz)
    pixels, filters = z.shape[1] * z.shape[2], z.shape[3]
    image_gradient_sums(dz.reshape(pixels, filters), z[n].reshape(pixels, filters), mean, of_dy[n], of_product[n])


@compiled
def _backward_chunk(addresses, x, dy, y, argmax, following, scale, z, mean, terms, oh, ow, turned, spectra, window,
                    groups, by_points, sums, bias_sums, dx, images, chunk, chunks):
    """Take one chunk of the images back, so many at a time; sums and bias_sums have a place for each chunk."""
    following, window = _as_following(following), as_window(window)
    filters, channels = dy.shape[3], x.shape[3]
    begin, end = chunk * len(x) // chunks, (chunk + 1) * len(x) // chunks
    if len(sums):
        sums[chunk] = 0
    if len(bias_sums):
        bias_sums[chunk] = 0
    spectrum = np.zeros((POINTS if by_points else 0, channels, sums.shape[4]), x.dtype)
    changes = following.relu or following.pool != NO_POOL or len(scale) > 0 or len(z) > 0
    buffer = np.empty((images if changes else 0, oh, ow, filters), x.dtype)
    for first in range(begin, end, images):
        last = min(end, first + images)
        dz = dy[first:last]
        if changes:
            dz = buffer[: last - first]
            for n in range(first, last):
                _unpool(dy, y, argmax, following, n, dz[n - first])
                rows = dz[n - first].reshape(oh * ow, filters)
                if len(z):
                    gradient_in_place(rows, z[n].reshape(oh * ow, filters), mean, terms)
                    if following.first_relu:
                        _mask_in_place(rows.reshape(-1), z[n].reshape(-1))
                elif len(scale):
                    scale_in_place(rows, scale)
        if len(sums):
            _add_kernel_gradient(addresses, x[first:last], dz, window, groups, by_points, spectrum, sums[chunk])
        if len(bias_sums):
            for i in range(len(dz)):
                _add_rows(dz[i].reshape(oh * ow, filters), bias_sums[chunk])
        if len(dx):
            _input_gradient(addresses, dz, turned, spectra, window, groups, dx[first:last])
    if by_points:
        _add_spectrum(addresses[1], spectrum, window.height, sums[chunk])


@compiled
def _add_kernel_gradient(addresses, x, dz, window, groups, by_points, spectrum, sums):
    """Add what some images give to the gradient of the kernel: to `spectrum` by Winograd's method, else to `sums`."""
    block, transform = addresses
    if not by_points:
        direct_kernel_gradient(block, x, dz, window, groups, sums)
        return
    before = (window.top, window.left)
    if moderate(x) and moderate(dz):
        winograd_kernel_gradient(block, transform, x, 0, dz, 0, len(x), window.height, before, spectrum)
        return
    for i in range(len(x)):
        if moderate(x[i]) and moderate(dz[i]):
            winograd_kernel_gradient(block, transform, x, i, dz, i, 1, window.height, before, spectrum)
        else:
            direct_kernel_gradient(block, x[i : i + 1], dz[i : i + 1], window, groups, sums)


@compiled
def _add_spectrum(transform, spectrum, taps, sums):
    _, channels, _ = spectrum.shape
    filters = sums.shape[3]
    dkernel = np.empty((taps, taps, channels, filters), sums.dtype)
    winograd_kernel_gradient_end(transform, spectrum, taps, dkernel)
    source, target = dkernel.reshape(-1), sums.reshape(-1)
    for i in range(source.size):
        target[i] += source[i]


@compiled
def _input_gradient(addresses, dz, turned, spectra, window, groups, dx):
    """Compute dx of some images, by Winograd's method where there are weights for it."""
    block, transform = addresses
    if not len(spectra):
        direct_input_gradient(block, dz, turned, window, groups, dx)
        return
    start = np.zeros(spectra.shape[1] * spectra.shape[3], dx.dtype)
    before = (window.height - 1 - window.top, window.height - 1 - window.left)
    together = moderate(dz)
    for i in range(1 if together else len(dz)):
        images = len(dz) if together else 1
        if together or moderate(dz[i]):
            winograd_images(block, transform, dz, i, i + images, spectra, start, window.height, before, dx[i:])
        else:
            direct_input_gradient(block, dz[i : i + 1], turned, window, groups, dx[i : i + 1])


@compiled
def _add_rows(x, total):
    """Add the rows of x to `total`, which is float64, in groups over which a sum in float32 is still good."""
    rows, columns = x.shape
    partial = np.empty(columns, x.dtype)
    for first in range(0, rows, PART_ROWS):
        for j in range(columns):
            partial[j] = 0
        for i in range(first, min(rows, first + PART_ROWS)):
            for j in range(columns):
                partial[j] += x[i, j]
        for j in range(columns):
            total[j] += partial[j]


@compiled(parallel=True)
def _backward(addresses, x, dy, y, argmax, following, scale, z, mean, terms, oh, ow, turned, spectra, window, groups,
              by_points, sums, bias_sums, dx, chunks, images):
    for chunk in prange(chunks):
        _backward_chunk(addresses, x, dy, y, argmax, following, scale, z, mean, terms, oh, ow, turned, spectra, window,
                        groups, by_points, sums, bias_sums, dx, images, chunk, chunks)


@compiled
def _backward_alone(addresses, x, dy, y, argmax, following, scale, z, mean, terms, oh, ow, turned, spectra, window,
                    groups, by_points, sums, bias_sums, dx, chunks, images):
    for chunk in range(chunks):
        _backward_chunk(addresses, x, dy, y, argmax, following, scale, z, mean, terms, oh, ow, turned, spectra, window,
                        groups, by_points, sums, bias_sums, dx, images, chunk, chunks)


@compiled
def _add_chunks(sums, out):
    """out[ky, i, group, f] = sum over the chunks, in their order."""
    chunks, kh, groups, run, _ = sums.shape
    filters = out.shape[3]
    for ky in range(kh):
        for group in range(groups):
            for i in range(run):
                target = out[ky, i, group]
                source = sums[0, ky, group, i]
                for f in range(filters):
                    target[f] = source[f]
                for chunk in range(1, chunks):
                    source = sums[chunk, ky, group, i]
                    for f in range(filters):
                        target[f] += source[f]
