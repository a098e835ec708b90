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

import functools
from typing import NamedTuple

import numpy as np

from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.floating import arithmetic
from cnnlite.kernels.checks import require
from cnnlite.kernels.conv_images import new_statistics
from cnnlite.kernels.conv_tasks import (
    MAX_POOL,
    NO_POOL,
    Following,
    add_chunks_task,
    backward_task,
    band_task,
    flat,
    follow_task,
    forward_task,
    gradient_sums_task,
    kernels_for,
    moderate_task,
)
from cnnlite.kernels.direct import panel_columns, pixels_together
from cnnlite.kernels.direct_input_gradient import input_gradient_weights
from cnnlite.kernels.geometry import Window, window_of
from cnnlite.kernels.im2col import NO_PADS, output_shape
from cnnlite.kernels.matmul import pack_panels, padded_columns, panel_width
from cnnlite.kernels.microkernel import LONG_SUM
from cnnlite.kernels.moderate import moderate
from cnnlite.kernels.packing import packed
from cnnlite.kernels.pooling import argmax_dtype
from cnnlite.kernels.threads import run
from cnnlite.kernels.winograd import suits, winograd_weights
from cnnlite.kernels.winograd_transforms import TILE

UNIT_TILES = 32  # so many tiles of Winograd's, where there are as many, are convolved together
UNIT_NUMBERS = 1 << 14  # so many numbers of the output otherwise
CHUNK_PIXELS = 256  # pixels at least that a chunk sums up
CHUNKS = 16  # into how many chunks a batch is cut for backward; a fixed number keeps the bits fixed
SMALL = 6e6  # additions and multiplications that are done before other threads would have begun
SMALL_SUMS = 1 << 17  # and numbers that are added up


class Geometry(NamedTuple):
    """Where the kernel of a convolution goes, as the layers have it."""

    strides: tuple = (1, 1)
    pads: tuple = NO_PADS
    dilation: tuple = (1, 1)
    groups: int = 1


NOTHING = Following()


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
    x, plan = _plain(x), _checked_plan(x, kernel, geometry, "conv_block")
    n, filters, groups = len(x), kernel.shape[3], geometry.groups
    z_shape = (n, plan.oh, plan.ow, filters)
    if bias is not None:
        require(bias, "bias", (filters,), x.dtype, "conv_block")
    if affine is not None:
        require(affine, "affine", (3, filters), x.dtype, "conv_block")
    if z is not None:
        require(z, "z", z_shape, x.dtype, "conv_block")
    if out is not None:
        _require_followed(out, z_shape, following, x.dtype, "conv_block")
    weights, spectra = _weights(kernel, geometry, plan)
    start = padded_bias(bias, filters, groups, x.dtype)
    sums = new_statistics((n, plan.oh * plan.ow, filters)) if statistics else _no_sums
    z = np.empty((0, plan.oh, plan.ow, filters), x.dtype) if z is None else z
    y, argmax = _nothing(x.dtype) if out is None else (out[0], _of_images(out[1], n))
    affine = np.empty((0, filters), x.dtype) if affine is None else affine
    table, kernels = kernels_for(x.dtype, argmax.dtype, plan.by_points)
    arguments = (x, kernels, weights, spectra, start, tuple(plan.window), groups, z)
    alone = plan.work < SMALL
    if n < CHUNKS and not alone and len(z) and not statistics and out is None:
        # A band begins with a tile, so that its bits are those of the whole image.
        height = TILE + 1 - kernel.shape[0] if len(spectra) else 1
        bands = min(-(-plan.oh // height), -(-CHUNKS // n))
        are_moderate = np.ones(x.shape[:2], np.bool_)
        if len(spectra):
            run(moderate_task, n * x.shape[1], (x, are_moderate))
        arguments = (*arguments, are_moderate, height, bands)
        table.complete(lambda: run(band_task, n * bands, arguments))
    else:
        arguments = (*arguments, *sums, affine, flat(following), y, argmax, plan.images)
        table.complete(lambda: run(forward_task, -(-n // plan.images), arguments, alone))
    return sums


def follow(z, affine, following, out):
    """Do what follows a z that was kept: (z - mean) * scale + beta, ReLU and pooling into out = (y, argmax).

    An affine of no rows is no map.
    """
    y, argmax = out
    require(z, "z", 4, None, "follow")
    require(affine, "affine", (3 if len(affine) else 0, z.shape[3]), z.dtype, "follow")
    _require_followed(out, z.shape, following, z.dtype, "follow")
    table, kernels = kernels_for(z.dtype, argmax.dtype)
    arguments = (z, kernels, affine, flat(following), y, _of_images(argmax, len(z)))
    table.complete(lambda: run(follow_task, len(z), arguments))


def conv_block_gradient_sums(dy, out, z, mean, following):
    """Return the sums of dz and dz (z - mean) of all parts, for `batchnorm.combine_gradient_sums`.

    dz is dy taken back through pooling and the last ReLU; out is (y, argmax) of the forward pass.
    """
    y, argmax = out
    owner = "conv_block_gradient_sums"
    require(z, "z", 4, None, owner)
    require(mean, "mean", z.shape[3:], z.dtype, owner)
    _require_followed(out, z.shape, following, z.dtype, owner)
    require(dy, "dy", y.shape, z.dtype, owner)
    sums = new_statistics((len(z), z.shape[1] * z.shape[2], z.shape[3]))
    table, kernels = kernels_for(z.dtype, argmax.dtype)
    arguments = (dy, kernels, y, _of_images(argmax, len(z)), z, mean, flat(following), *sums)
    table.complete(lambda: run(gradient_sums_task, len(z), arguments))
    return sums


def conv_block_backward(x, dy, kernel, geometry, following=NOTHING, out=None, scale=None, normalised=None,
                        dkernel=None, dbias=None, dx=None, allocate=np.empty):
    """Take dy, the gradient of what `conv_block` returned, back to the kernel, the bias and x.

    Args:
        x, kernel, geometry, following: as for `conv_block`.
        dy: (N, PH, PW, F).
        out: (y, argmax) of the forward pass; None if nothing followed.
        scale: (F,), where an affine map with constant coefficients followed, and no ReLU before it.
        normalised: (z, mean, terms) where z was normalised by its own statistics; see `combine_gradient_sums`.
        dkernel, dbias, dx: where to write the gradients; those that are None are not computed.
        allocate: called with the shape and the dtype of the sums of all chunks. They are megabytes, of which each
            page that is touched for the first time takes 2 us, so a training hands out the same ones again and again.
    """
    owner = "conv_block_backward"
    x, dy, plan = _plain(x), _plain(dy), _checked_plan(x, kernel, geometry, owner)
    kh, kw, group_channels, filters = kernel.shape
    z_shape = (len(x), plan.oh, plan.ow, filters)
    if out is not None:
        _require_followed(out, z_shape, following, x.dtype, owner)
    require(dy, "dy", z_shape if out is None else out[0].shape, x.dtype, owner)
    z, mean, terms = (None, None, None) if normalised is None else normalised
    for name, array, shape in (
        ("scale", scale, (filters,)), ("dkernel", dkernel, kernel.shape), ("dbias", dbias, (filters,)),
        ("dx", dx, x.shape), ("z", z, z_shape), ("mean", mean, (filters,)), ("terms", terms, (3, filters)),
    ):
        if array is not None:
            require(array, name, shape, x.dtype, owner)
    groups, group_filters = geometry.groups, filters // geometry.groups
    # Each chunk has sums of its own, which take as long to clear and to add up as a few pixels to multiply.
    pixels = len(x) * plan.oh * plan.ow
    chunks = max(1, min(len(x), CHUNKS, pixels // CHUNK_PIXELS))
    padded = -(-group_filters // panel_width(x.dtype)) * panel_width(x.dtype)
    sums = allocate((chunks if dkernel is not None else 0, kh, groups, kw * group_channels, padded), x.dtype)
    bias_sums = np.empty((chunks if dbias is not None else 0, filters))
    nothing, no_row = np.empty((0, 0, 0, 0), x.dtype), np.empty(0, x.dtype)
    weights, spectra = (no_row, nothing) if dx is None else _weights(kernel, geometry, plan, backward=True)
    y, argmax = (_of_images(array, len(x)) for array in (_nothing(x.dtype) if out is None else out))
    z, mean, terms = (nothing, no_row, np.empty((0, 0), x.dtype)) if normalised is None else normalised
    by_points = dkernel is not None and plan.by_points
    table, kernels = kernels_for(x.dtype, argmax.dtype, plan.by_points)
    arguments = (x, kernels, dy, y, argmax, flat(following), no_row if scale is None else scale,
                 z, mean, terms, plan.oh, plan.ow, weights, spectra, tuple(plan.window), groups, by_points, sums,
                 bias_sums, nothing if dx is None else dx, plan.images, chunks)
    work = plan.work * ((dkernel is not None) + (dx is not None))
    table.complete(lambda: run(backward_task, chunks, arguments, alone=work < SMALL))
    if dkernel is not None:
        out = dkernel.reshape(kh, kw * group_channels, groups, group_filters)
        run(add_chunks_task, kh, (sums, out), alone=sums.size < SMALL_SUMS)
    if dbias is not None:
        with arithmetic():
            dbias[...] = bias_sums.sum(axis=0)


def _plain(array):
    """Return the array, or a copy if it is read-only or not aligned: numba has other types for these."""
    return array if array.flags.writeable and array.flags.aligned else array.copy()


def _checked_plan(x, kernel, geometry, owner):
    """Return the `Plan`, after a look at x and the kernel."""
    require(x, "x", 4, None, owner)
    require(kernel, "kernel", 4, x.dtype, owner)
    return _plan(x.shape, kernel.shape, geometry)


def _require_followed(out, z_shape, following, dtype, owner):
    """Look at whether (y, argmax) are what becomes of a z of that shape by what follows it."""
    y, argmax = out
    require(y, "y", 4, dtype, owner)
    _check_followed(y.shape, z_shape, following, owner)
    if following.pool == MAX_POOL:
        require(argmax, "argmax", y.shape, argmax_dtype(following.window[:2]), owner)


@functools.lru_cache(maxsize=1024)
def _check_followed(y_shape, z_shape, following, owner):
    """Raise a ValueError unless each number of a y of that shape has a z, or a window of them."""
    window, (n, height, width, filters) = following.window, z_shape
    if following.pool == NO_POOL:
        if y_shape != z_shape:
            raise ValueError(f"{owner}: y must have the shape {z_shape}. Received: y.shape={y_shape}.")
        return
    last = [(count - 1) * stride - before for count, stride, before
            in zip(y_shape[1:3], (window.stride_h, window.stride_w), (window.top, window.left))]
    if y_shape[::3] != (n, filters) or min(y_shape[1:3]) < 1 or not (
        0 <= window.top < window.height and 0 <= window.left < window.width and last[0] < height and last[1] < width
    ):
        raise ValueError(
            f"{owner}: each window must hold a pixel. Received: y of shape {y_shape}, {window}, and what is pooled of "
            f"shape {z_shape}."
        )


class Plan(NamedTuple):
    """What follows from the shapes alone: the output, the method, and how much work there is."""

    oh: int
    ow: int
    window: Window
    by_points: bool  # whether it goes by Winograd's method, forward and back
    images: int  # how many to take at a time
    work: float  # additions and multiplications
    forms: tuple  # the names of the weights as `direct.py` takes them, forward and back


@functools.lru_cache(maxsize=1024)
def _plan(x_shape, kernel_shape, geometry):
    n, h, _, _ = x_shape
    kh, kw, channels, filters = kernel_shape
    strides, pads, dilation, groups = geometry
    check_convolution(x_shape, kernel_shape, geometry, "conv_block")
    oh, ow = output_shape(x_shape, (kh, kw), strides, pads, dilation)
    plain = strides == (1, 1) and dilation == (1, 1) and groups == 1 and kh == kw
    by_points = plain and suits(kh, h, pads[0][0], (oh, ow), channels, filters)
    images = -(-UNIT_NUMBERS // max(1, oh * ow * filters))
    if by_points:
        outputs = TILE + 1 - kh
        images = -(-UNIT_TILES // max(1, -(-oh // outputs) * -(-ow // outputs)))
    images = max(1, min(images, n // CHUNKS))
    window = window_of((kh, kw), strides, pads, dilation)
    forms = tuple(f"{way} {geometry} {ow}" for way in ("direct", "direct, back"))
    return Plan(oh, ow, window, by_points, images, 2.0 * n * oh * ow * kh * kw * channels * filters, forms)


def _weights(kernel, geometry, plan, backward=False):
    """Return the weights as `direct.py` takes them, and as Winograd's method does, of no size if it is not taken.

    backward: for the gradient of the input.
    """

    def pack_directly(kernel, out):
        if backward:
            return np.array(input_gradient_weights(kernel, geometry))
        return direct_panels(kernel, geometry, plan.ow)

    def pack_spectra(kernel, out):
        # Where weights are not moderate there are no spectra, and all is done directly.
        if not moderate(kernel):
            return np.empty((0, 0, 0, 0), kernel.dtype)
        return winograd_weights(kernel, backward, out if out is not None and len(out) else None)

    # With spectra too, the others are wanted: for images that are not moderate.
    forms = [(plan.forms[backward], pack_directly)]
    if plan.by_points:
        forms.append((("spectra", backward), pack_spectra))
    weights, *spectra = packed(kernel, forms, anew=plan.work >= SMALL)
    return weights, spectra[0] if spectra else _nothing(kernel.dtype)[0]


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
    column, columns = panel_columns(whole // width, group_filters, width)
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


def check_convolution(x_shape, kernel_shape, geometry, owner):
    """Raise a ValueError unless a kernel of that shape goes over images of that shape."""
    kh, kw, channels, filters = kernel_shape
    groups = geometry.groups
    if len(x_shape) != 4 or groups < 1 or channels * groups != x_shape[3] or filters % groups:
        raise ValueError(
            f"{owner}: x must have C channels, the kernel C / groups, and the filters must be divisible by groups. "
            f"Received: an x of shape {tuple(x_shape)}, a kernel of shape {kernel_shape}, groups={groups}."
        )
    sizes = (*geometry.strides, *geometry.dilation, kh, kw)
    if min(sizes) < 1 or min(min(pair) for pair in geometry.pads) < 0:
        raise ValueError(
            f"{owner}: strides, dilation and the kernel's size must be at least 1, and pads not negative. Received: "
            f"strides={geometry.strides}, dilation={geometry.dilation}, a kernel of {(kh, kw)}, pads={geometry.pads}."
        )


def padded_bias(bias, filters, groups, dtype):
    """Return the bias, or zeros, filled up with zeros to whole panels for each group."""
    if groups == 1:
        return padded_columns(bias, filters, dtype)
    parts = [None] * groups if bias is None else np.split(bias, groups)
    return np.concatenate([padded_columns(part, filters // groups, dtype) for part in parts])


def _of_images(array, n):
    """Return the array, if it is of no size with so many images: compiled code takes one before it knows what for."""
    return array if len(array) else array.reshape(n, 0, 0, 0)


@functools.cache
def _nothing(dtype):
    return np.empty((0, 0, 0, 0), dtype), np.empty((0, 0, 0, 0), np.uint8)


_no_sums = new_statistics((0, 0, 0))
