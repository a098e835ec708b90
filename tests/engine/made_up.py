"""Stages made up for the tests of the engine, which doesn't know what a stage computes."""

import numpy as np

from cnnlite.engine import buffers
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
from cnnlite.engine.program import check
from cnnlite.engine.stages import (
    BATCH,
    BEGIN,
    CHUNKS,
    HALO,
    IMAGE,
    PIXEL,
    UNIT,
    array,
    array_as,
    band_rows,
    span,
    stage,
    word,
)


@stage(reads="x", writes="y", sizes="rows numbers", footprint=PIXEL)
def _double(r, run, first, last):
    start, stop = span(run, first, last, r.rows, r.numbers)
    x, y = array(run, r.x, (stop,)), array(run, r.y, (stop,))
    for i in range(start, stop):
        y[i] = 2 * x[i]


@stage(reads="x", writes="y", sizes="rows", footprint=HALO)
def _mark_rows(r, run, first, last):
    """Add to every row of y (N, rows) in the band 1000 plus the first row of the band."""
    top, bottom = band_rows(run, r.rows)
    y = array(run, r.y, (last, r.rows))
    for i in range(first, last):
        for row in range(top, bottom):
            y[i, row] += 1000 + top


@stage(reads="x", writes="y", footprint=IMAGE)
def _whole(r, run, first, last):
    pass


@stage(reads="x", writes="y", footprint=PIXEL, spreads=True)
def _spread(r, run, first, last):
    pass


@stage(reads="x", writes="y", sizes="size", footprint=BATCH)
def _batch(r, run, first, last):
    """Add 1000 plus the index of the unit to y[unit]."""
    y = array(run, r.y, (r.size,))
    for unit in range(first, last):
        y[unit] += 1000 + unit


@stage(reads="x", writes="y calls", sizes="size", footprint=BATCH)
def _in_order(r, run, first, last):
    """Write to y[unit] how many units ran before it."""
    y, calls = array(run, r.y, (r.size,)), array(run, r.calls, (1,))
    for unit in range(first, last):
        y[unit] = calls[0]
        calls[0] += 1


@stage(reads="x", adds="sums", sizes="size")
def _count(r, run, first, last):
    """Write the number of samples in a chunk, and their sum, to the sums of the chunk."""
    sums, x = array(run, r.sums, (word(run, CHUNKS), 2))[word(run, UNIT)], array(run, r.x, (last, r.size))
    if first == word(run, BEGIN):
        sums[0] = sums[1] = 0
    for i in range(first, last):
        sums[0] += 1
        for j in range(r.size):
            sums[1] += x[i, j]


@stage(reads="w calls", writes="out", sizes="size", footprint=BATCH)
def _copy_weights(r, run, first, last):
    """Copy w, and count the calls in an array that plans treat as a constant."""
    w, out, calls = array(run, r.w, (r.size,)), array(run, r.out, (r.size,)), array_as(run, r.calls, (1,), np.int64)
    calls[0] += 1
    for i in range(r.size):
        out[i] = w[i]


@stage(reads="w", writes="out", sizes="size", footprint=BATCH)
def _copy_positive(r, run, first, last):
    w, out = array(run, r.w, (r.size,)), array(run, r.out, (r.size,))
    for i in range(r.size):
        if w[i] < 0:
            raise ValueError("on purpose")
        out[i] = w[i]


@stage(reads="x w", writes="y", sizes="size", footprint=PIXEL)
def _scale(r, run, first, last):
    x, y, w = array(run, r.x, (last, r.size)), array(run, r.y, (last, r.size)), array(run, r.w, (r.size,))
    for i in range(first, last):
        for j in range(r.size):
            y[i, j] = x[i, j] * w[j]


@stage(reads="x", writes="y", sizes="size", footprint=BATCH)
def _fail_at_three(r, run, first, last):
    y = array(run, r.y, (r.size,))
    for unit in range(first, last):
        if unit == 3:
            raise ValueError("on purpose")
        y[unit] = 1


def new_graph(*shape):
    """Return a float32 graph and an input buffer for N samples of a shape."""
    graph = Graph(np.float32)
    return graph, graph.given((N, *shape))


def _follow(stage, x, **arguments):
    """Add a stage whose output has the shape of x."""
    y = x.graph.work(x.shape)
    x.graph.add(stage, x=x, y=y, **arguments)
    return y


def double(x, y=None, **how):
    y = x.graph.work(x.shape) if y is None else y
    x.graph.add(_double, x=x, y=y, rows=x.shape[1] if x.ndim > 2 else 1, numbers=x.sample_size, **how)
    return y


def mark_rows(x, **how):
    return _follow(_mark_rows, x, rows=x.shape[1], **how)


def whole(x):
    return _follow(_whole, x)


def spread(x, times):
    y = x.graph.work((x.shape[0], times * x.shape[1], *x.shape[2:]))
    x.graph.add(_spread, x=x, y=y)
    return y


def batch(x, size=1, **how):
    y = x.graph.work((size,))
    batch_of(x, y, **how)
    return y


def batch_of(x, y, **how):
    """Add a batch stage that writes to y, such as a weight."""
    x.graph.add(_batch, x=x, y=y, size=y.shape[0], **how)


def count(x, **how):
    sums = x.graph.work((buffers.CHUNKS, 2))
    x.graph.add(_count, x=x, sums=sums, size=x.sample_size, **how)
    return sums


def copy_weights(graph, w, calls):
    out = graph.work(w.shape)
    graph.add(_copy_weights, w=w, calls=calls, out=out, size=w.shape[0])
    return out


def copy_positive(graph, w):
    """Copy weights, failing if one is negative."""
    out = graph.work(w.shape)
    graph.add(_copy_positive, w=w, out=out, size=w.shape[0])
    return out


def scale(x, w):
    y = x.graph.work(x.shape)
    x.graph.add(_scale, x=x, w=w, y=y, size=x.shape[1])
    return y


def fail_at_three(x, size):
    y = x.graph.work((size,))
    x.graph.add(_fail_at_three, x=x, y=y, size=size, units=size)
    return y


def in_order(x, units):
    """Return two buffers: each unit's position in the execution order, and the number of units that ran."""
    y, calls = x.graph.given((units,)), x.graph.given((1,))
    x.graph.add(_in_order, units=units, x=x, y=y, calls=calls, size=units)
    return y, calls


def run(workspace, threads, *arguments, **more):
    """Run the program of a workspace, as plans do."""
    start, *found = workspace.call(threads, *arguments, **more)
    check(start(*found))
