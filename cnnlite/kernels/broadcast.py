"""Elementwise products and sums of two arrays, the second of which may be stretched along axes of size 1.

Adjacent axes are merged if both or neither are stretched. At most AXES axes may remain, each with its stride in the
second array: 0 if that is stretched along it.
"""

import math

from cnnlite.engine.stages import IMAGE, PIXEL, array, span, stage
from cnnlite.kernels.checks import require
from cnnlite.kernels.layout import samples_together
from cnnlite.kernels.operation import graph_of, operation, result

AXES = 4


def _of_samples(a, b, out=None):
    return "a b out" if a.ndim == b.ndim > 0 and a.shape[0] == b.shape[0] else "a out"


@operation(samples=_of_samples)
def multiply(a, b, out=None):
    """Return a * b; b has the shape of a, or size 1 along some axes, or fewer axes."""
    return _combine(a, b, out, _multiply, _multiply_stretched, "multiply")


@operation(samples=_of_samples)
def add(a, b, out=None):
    """Return a + b; b has the shape of a, or size 1 along some axes, or fewer axes."""
    return _combine(a, b, out, _add, _add_stretched, "add")


def _combine(x, other, out, alike, stretched, owner):
    require(x, "a", x.ndim, None, owner)
    require(other, "b", other.ndim, x.dtype, owner)
    sizes = (1,) * (x.ndim - other.ndim) + tuple(other.shape)
    if len(sizes) != x.ndim or any(size not in (1, have) for size, have in zip(sizes, x.shape)):
        raise ValueError(
            f"{owner}: the second array must broadcast against the first. Received: {tuple(x.shape)} and "
            f"{tuple(other.shape)}."
        )
    out = result(out, x, x.shape)
    require(out, "out", x.shape, x.dtype, owner)
    numbers = math.prod(x.shape[1:])
    common = {"together": samples_together(numbers), "work": numbers}
    if sizes == tuple(x.shape):
        rows = x.shape[1] if x.ndim > 2 else 1
        graph_of(x).add(alike, x=x, other=other, y=out, rows=rows, numbers=numbers, **common)
        return out
    of_samples = sizes[:1] == tuple(x.shape[:1]) and x.ndim > 0
    axes = _joined(x.shape[1:], sizes[1:])
    if len(axes) > AXES:
        raise ValueError(
            f"{owner}: the second array may be broadcast along only a few axes that are not adjacent. Received: "
            f"{tuple(x.shape)} and {tuple(other.shape)}."
        )
    axes = [(1, 0)] * (AXES - len(axes)) + axes
    fields = {f"{name}{i}": value for i, axis in enumerate(axes) for name, value in zip(("size", "step"), axis)}
    other_numbers = math.prod(sizes[1:])
    graph_of(x).add(stretched, x=x, other=other, y=out, numbers=numbers, other_numbers=other_numbers,
                    of_samples=of_samples, **fields, **common)
    return out


def _joined(shape, sizes):
    """Return [(size, step in the second array), ...] for the axes of a sample."""
    axes = []
    for have, size in zip(shape, sizes):
        is_stretched = size != have
        if have == 1:
            continue
        if axes and axes[-1][1] == is_stretched:
            axes[-1] = axes[-1][0] * have, is_stretched
        else:
            axes.append((have, is_stretched))
    result, distance = [], 1
    for have, is_stretched in reversed(axes):
        result.insert(0, (have, 0 if is_stretched else distance))
        distance *= 1 if is_stretched else have
    return result


@stage(reads="x other", writes="y", sizes="rows numbers", footprint=PIXEL)
def _multiply(r, run, first, last):
    start, stop = span(run, first, last, r.rows, r.numbers)
    x, other, y = array(run, r.x, (stop,)), array(run, r.other, (stop,)), array(run, r.y, (stop,))
    x, other, y = x[start:stop], other[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = x[i] * other[i]


@stage(reads="x other", writes="y", sizes="rows numbers", footprint=PIXEL)
def _add(r, run, first, last):
    start, stop = span(run, first, last, r.rows, r.numbers)
    x, other, y = array(run, r.x, (stop,)), array(run, r.other, (stop,)), array(run, r.y, (stop,))
    x, other, y = x[start:stop], other[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = x[i] + other[i]


_SIZES = "numbers other_numbers of_samples size0 step0 size1 step1 size2 step2 size3 step3"


@stage(reads="x other", writes="y", sizes=_SIZES, footprint=IMAGE)
def _multiply_stretched(r, run, first, last):
    x, y = array(run, r.x, (last * r.numbers,)), array(run, r.y, (last * r.numbers,))
    other = array(run, r.other, (last * r.other_numbers,))
    place, size3, step3 = first * r.numbers, r.size3, r.step3
    for n in range(first, last):
        begin = n * r.other_numbers if r.of_samples else 0
        for i0 in range(r.size0):
            for i1 in range(r.size1):
                for i2 in range(r.size2):
                    source = begin + i0 * r.step0 + i1 * r.step1 + i2 * r.step2
                    if step3:
                        for i in range(size3):
                            y[place + i] = x[place + i] * other[source + i]
                    else:
                        factor = other[source]
                        for i in range(size3):
                            y[place + i] = x[place + i] * factor
                    place += size3


@stage(reads="x other", writes="y", sizes=_SIZES, footprint=IMAGE)
def _add_stretched(r, run, first, last):
    x, y = array(run, r.x, (last * r.numbers,)), array(run, r.y, (last * r.numbers,))
    other = array(run, r.other, (last * r.other_numbers,))
    place, size3, step3 = first * r.numbers, r.size3, r.step3
    for n in range(first, last):
        begin = n * r.other_numbers if r.of_samples else 0
        for i0 in range(r.size0):
            for i1 in range(r.size1):
                for i2 in range(r.size2):
                    source = begin + i0 * r.step0 + i1 * r.step1 + i2 * r.step2
                    if step3:
                        for i in range(size3):
                            y[place + i] = x[place + i] + other[source + i]
                    else:
                        addend = other[source]
                        for i in range(size3):
                            y[place + i] = x[place + i] + addend
                    place += size3
