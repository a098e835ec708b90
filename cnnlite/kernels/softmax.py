"""softmax and log_softmax along any axes, and their derivatives.

Along the last axes, rows are contiguous in memory, and each is computed independently (`softmax_rows.py`). Other axes
are first moved to the end, and moved back in the result.
"""

import math

from cnnlite.engine.stages import PIXEL, array, span, stage
from cnnlite.kernels import softmax_rows
from cnnlite.kernels.checks import require
from cnnlite.kernels.layout import moveaxis, samples_together
from cnnlite.kernels.operation import graph_of, operation, result

COST = 40  # operations per number


def _axes(x, axis, owner):
    """Return the axes of x that `axis` refers to, as non-negative numbers in ascending order."""
    given = tuple(axis) if hasattr(axis, "__iter__") else (axis,)
    axes = sorted({axis % x.ndim for axis in given if -x.ndim <= axis < x.ndim})
    if len(axes) != len(given):
        raise ValueError(
            f"{owner}: axis must be one of the {x.ndim} axes of the array, or several different ones. "
            f"Received: axis={axis}, shape={tuple(x.shape)}."
        )
    return axes


def _samples(owner, names):
    """Return a function that names the arguments with samples: none if the sums run over the first axis too."""

    first, with_out = names.split()[0], f"{names} out"

    def names_of(axis=-1, **values):
        if axis == (-1,) and values[first].ndim > 1:  # the usual case
            return with_out
        return "" if 0 in _axes(values[first], axis, owner) else with_out

    return names_of


# softmax: y_i = exp(x_i) / sum_j exp(x_j)


@operation(samples=_samples("softmax", "x"))
def softmax(x, axis=-1, out=None):
    """Return exp(x) / sum(exp(x)) along `axis` (an integer or several).

    The largest x is subtracted first: that changes no quotient, and the largest exp is 1. NaN anywhere in a
    row, or an infinite maximum, makes the row NaN.
    """
    return _add(_softmax, (x,), axis, out)


@operation(samples=_samples("softmax_backward", "dy y"))
def softmax_backward(dy, y, axis=-1, out=None):
    """Return y * (dy - sum(dy * y))."""
    return _add(_softmax_backward, (dy, y), axis, out)


# log_softmax: y_i = x_i - log(sum_j exp(x_j))


@operation(samples=_samples("log_softmax", "x"))
def log_softmax(x, axis=-1, out=None):
    """Return x - log(sum(exp(x))) along `axis`, with the largest x subtracted first."""
    return _add(_log_softmax, (x,), axis, out)


@operation(samples=_samples("log_softmax_and_softmax", "x"))
def log_softmax_and_softmax(x):
    """Return both along the last axis, each with the same bits as from its own function."""
    return _add(_log_softmax, (x,), -1, None), _add(_softmax, (x,), -1, None)


@operation(samples=_samples("log_softmax_backward", "dy y"))
def log_softmax_backward(dy, y, axis=-1, out=None):
    """Return dy - exp(y) * sum(dy)."""
    return _add(_log_softmax_backward, (dy, y), axis, out)


def _add(stage, inputs, axis, out):
    """Add a stage for rows along the axes; return `out`, or the new buffer."""
    first, owner = inputs[0], stage.name
    require(first, "the first array", first.ndim, None, owner)
    for other in inputs[1:]:
        require(other, "the second array", first.shape, first.dtype, owner)
    shape = first.shape
    axes = _axes(first, axis, owner)
    if axes[:1] == [0]:
        if first.of_samples:
            raise ValueError(
                f"{owner}: axis must not be the axis of the samples, which a model computes independently. "
                f"Received: axis={axis}, shape={tuple(shape)}."
            )
        # Everything is one sample.
        axes = [axis + 1 for axis in axes]
        inputs = [array.reshape(1, *array.shape) for array in inputs]
    out = result(out, first, shape)
    require(out, "out", shape, first.dtype, owner)
    target = out.reshape(inputs[0].shape)
    ndim = target.ndim
    if axes == list(range(ndim - len(axes), ndim)):
        _add_rows(stage, inputs, target, len(axes))
    else:
        places = [axis - i for i, axis in enumerate(axes)]  # each moves to the end, and those after it move forward
        for place in places:
            inputs = [moveaxis(array, place, -1) for array in inputs]
        moved = _add_rows(stage, inputs, inputs[0].graph.work(inputs[0].shape, first.dtype), len(axes))
        for place in places[:0:-1]:
            moved = moveaxis(moved, -1, place)
        moveaxis(moved, -1, places[0], target)
    return out


def _add_rows(stage, inputs, out, count):
    """Add a stage for rows of the last `count` axes."""
    split = out.ndim - count
    numbers = math.prod(out.shape[1:])
    if split == 1:
        inputs, out = ([array.reshape(array.shape[0], numbers) for array in inputs], out.reshape(out.shape[0], numbers))
    graph_of(out).add(stage, **dict(zip(stage.buffers, (*inputs, out))), numbers=numbers,
                      rows=out.shape[1] if out.ndim > 2 else 1, length=max(1, math.prod(out.shape[split:])),
                      together=samples_together(numbers), work=COST * numbers)
    return out


def _by_rows(reads, writes):
    return stage(reads=reads, writes=writes, sizes="rows numbers length", footprint=PIXEL)


@_by_rows("x", "y")
def _softmax(r, run, first, last):
    start, stop = span(run, first, last, r.rows, r.numbers)
    x, y, length = array(run, r.x, (stop,)), array(run, r.y, (stop,)), r.length
    for begin in range(start, stop, length):
        softmax_rows.softmax_row(x[begin : begin + length], y[begin : begin + length])


@_by_rows("x", "y")
def _log_softmax(r, run, first, last):
    start, stop = span(run, first, last, r.rows, r.numbers)
    x, y, length = array(run, r.x, (stop,)), array(run, r.y, (stop,)), r.length
    for begin in range(start, stop, length):
        softmax_rows.log_softmax_row(x[begin : begin + length], y[begin : begin + length])


@_by_rows("dy y", "dx")
def _softmax_backward(r, run, first, last):
    start, stop = span(run, first, last, r.rows, r.numbers)
    dy, y, dx = array(run, r.dy, (stop,)), array(run, r.y, (stop,)), array(run, r.dx, (stop,))
    for begin in range(start, stop, r.length):
        end = begin + r.length
        softmax_rows.softmax_backward_row(dy[begin:end], y[begin:end], dx[begin:end])


@_by_rows("dy y", "dx")
def _log_softmax_backward(r, run, first, last):
    start, stop = span(run, first, last, r.rows, r.numbers)
    dy, y, dx = array(run, r.dy, (stop,)), array(run, r.y, (stop,)), array(run, r.dx, (stop,))
    for begin in range(start, stop, r.length):
        end = begin + r.length
        softmax_rows.log_softmax_backward_row(dy[begin:end], y[begin:end], dx[begin:end])
