"""The same numbers in another layout: moved axes, and images with zero padding added or removed."""

import math

from cnnlite.engine.buffers import is_buffer
from cnnlite.engine.stages import HALO, IMAGE, array, band_rows, stage
from cnnlite.kernels.checks import require
from cnnlite.kernels.operation import graph_of, operation, result

TOGETHER = 1 << 15  # numbers that a thread takes at a time


def samples_together(numbers):
    """Return how many samples a thread takes at a time, if each has that many numbers."""
    return max(1, TOGETHER // max(1, numbers))


@operation(samples="x out")
def moveaxis(x, source, destination, out=None):
    """Return x (N, ...) with the axis `source` moved to `destination`; neither may be the samples' axis."""
    axes = x.ndim
    source, destination = source % axes, destination % axes
    rest = [size for axis, size in enumerate(x.shape) if axis != source]
    shape = (*rest[:destination], x.shape[source], *rest[destination:])
    # Only what lies between the two places moves: from (P, A, B, Q) to (P, B, A, Q).
    low, high = min(source, destination), max(source, destination)
    first, second = x.shape[low:high], x.shape[high : high + 1]
    if source < destination:
        first, second = x.shape[low : low + 1], x.shape[low + 1 : high + 1]
    if source == destination:
        return x
    sizes = dict(outer=math.prod(x.shape[1:low]), a=math.prod(first), b=math.prod(second),
                 inner=math.prod(x.shape[high + 1 :]))
    if out is None:
        back = _moved_from(x, shape, sizes)
        if back is not None:
            return back
    require(x, "x", axes, None, "moveaxis")
    out = result(out, x, shape)
    require(out, "out", shape, x.dtype, "moveaxis")
    graph_of(x).add(_swap, x=x, y=out, **sizes, together=samples_together(x.sample_size), work=x.sample_size)
    return out


def _moved_from(x, shape, sizes):
    """Return the buffer of that shape from which x was made by the opposite move, or None."""
    steps = x.graph.buffers[x.number].made_by if is_buffer(x) else []
    if len(steps) == 1 and steps[0].stage is _swap:
        before = steps[0].arguments
        opposite = {**sizes, "a": sizes["b"], "b": sizes["a"]}
        if before["x"].shape == tuple(shape) and all(before[name] == size for name, size in opposite.items()):
            return before["x"]
    return None


@stage(reads="x", writes="y", sizes="outer a b inner", footprint=IMAGE)
def _swap(r, run, first, last):
    outer, a, b, inner = r.outer, r.a, r.b, r.inner
    x = array(run, r.x, (last * outer, a, b, inner))
    y = array(run, r.y, (last * outer, b, a, inner))
    for n in range(first * outer, last * outer):
        for j in range(b):
            for i in range(a):
                for k in range(inner):
                    y[n, j, i, k] = x[n, i, j, k]


@operation(samples="x out")
def pad(x, pads, out=None):
    """Return images x (N, H, W, C) padded with zeros; pads is ((top, bottom), (left, right))."""
    require(x, "x", 4, None, "pad")
    (top, bottom), (left, right) = pads
    n, h, w, c = x.shape
    shape = (n, top + h + bottom, left + w + right, c)
    out = result(out, x, shape)
    require(out, "out", shape, x.dtype, "pad")
    graph_of(x).add(_pad, x=x, y=out, h=h, w=w, c=c, top=top, left=left, oh=shape[1], ow=shape[2],
                    together=samples_together(math.prod(shape[1:])), work=math.prod(shape[1:]))
    return out


@stage(reads="x", writes="y", sizes="h w c top left oh ow", footprint=HALO)
def _pad(r, run, first, last):
    x, y = array(run, r.x, (last, r.h, r.w * r.c)), array(run, r.y, (last, r.oh, r.ow * r.c))
    begin, end = band_rows(run, r.oh)
    left, numbers = r.left * r.c, r.w * r.c
    for n in range(first, last):
        for i in range(begin, end):
            target = y[n, i]
            for k in range(target.size):
                target[k] = 0
            row = i - r.top
            if 0 <= row < r.h:
                source = x[n, row]
                for k in range(numbers):
                    target[left + k] = source[k]


@operation(samples="x out")
def crop(x, pads, out=None):
    """Return images x (N, H, W, C) without the padding that `pad` adds."""
    require(x, "x", 4, None, "crop")
    (top, bottom), (left, right) = pads
    n, h, w, c = x.shape
    shape = (n, h - top - bottom, w - left - right, c)
    if min(shape[1:3]) < 0:
        raise ValueError(f"crop: the pads must fit into the image. Received: images of {x.shape[1:3]}, pads={pads}.")
    out = result(out, x, shape)
    require(out, "out", shape, x.dtype, "crop")
    graph_of(x).add(_crop, x=x, y=out, h=h, w=w, c=c, top=top, left=left, oh=shape[1], ow=shape[2],
                    together=samples_together(math.prod(shape[1:])), work=math.prod(shape[1:]))
    return out


@stage(reads="x", writes="y", sizes="h w c top left oh ow", footprint=HALO)
def _crop(r, run, first, last):
    x, y = array(run, r.x, (last, r.h, r.w * r.c)), array(run, r.y, (last, r.oh, r.ow * r.c))
    begin, end = band_rows(run, r.oh)
    left = r.left * r.c
    for n in range(first, last):
        for i in range(begin, end):
            source, target = x[n, i + r.top], y[n, i]
            for k in range(target.size):
                target[k] = source[left + k]
