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

from cnnlite.kernels.batchnorm import new_statistics
from cnnlite.kernels.checks import require
from cnnlite.kernels.conv_tasks import (
    MAX_POOL,
    NO_POOL,
    Following,
    band_task,
    flat,
    follow_task,
    forward_task,
    gradient_sums_task,
    kernels_for,
    moderate_task,
)
from cnnlite.kernels.direct import direct_panels
from cnnlite.kernels.geometry import Geometry, Window, check_convolution, window_of  # noqa: F401
from cnnlite.kernels.im2col import output_shape
from cnnlite.kernels.matmul import padded_columns
from cnnlite.kernels.packing import packed
from cnnlite.kernels.pooling import argmax_dtype
from cnnlite.kernels.threads import run
from cnnlite.kernels.winograd import moderate, suits, winograd_weights
from cnnlite.kernels.winograd_transforms import TILE

UNIT_TILES = 32  # so many tiles of Winograd's, where there are as many, are convolved together
UNIT_NUMBERS = 1 << 14  # so many numbers of the output otherwise
CHUNKS = 16  # into how many chunks a batch is cut for backward; a fixed number keeps the bits fixed
SMALL = 6e6  # additions and multiplications that are done before other threads would have begun


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
    by_points: bool  # whether it goes by Winograd's method
    images: int  # how many to take at a time
    work: float  # additions and multiplications
    form: str  # the name of the weights as `direct.py` takes them


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
    return Plan(oh, ow, window, by_points, images, 2.0 * n * oh * ow * kh * kw * channels * filters,
                f"direct {geometry} {ow}")


def _weights(kernel, geometry, plan):
    """Return the weights as `direct.py` takes them, and as Winograd's method does, of no size if it is not taken."""

    def pack_directly(kernel, out):
        return direct_panels(kernel, geometry, plan.ow)

    def pack_spectra(kernel, out):
        # Where weights are not moderate there are no spectra, and all is done directly.
        if not moderate(kernel):
            return np.empty((0, 0, 0, 0), kernel.dtype)
        return winograd_weights(kernel, out if out is not None and len(out) else None)

    # With spectra too, the others are wanted: for images that are not moderate.
    forms = [(plan.form, pack_directly)]
    if plan.by_points:
        forms.append(("spectra", pack_spectra))
    weights, *spectra = packed(kernel, forms, anew=plan.work >= SMALL)
    return weights, spectra[0] if spectra else _nothing(kernel.dtype)[0]


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
