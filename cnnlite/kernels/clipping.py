"""Gradient clipping, by value or by norm, of segments of a flat vector.

`segments` are pairs (start, stop). Numbers in `out` outside all segments are not written to. A segment is split into
pieces; the squares are summed in float64, first within each piece and then over the pieces, in order.
"""

import numpy as np

from cnnlite.engine.stages import BATCH, array, array_as, stage
from cnnlite.kernels.checks import require
from cnnlite.kernels.operation import graph_of, operation
from cnnlite.kernels.sums import LANES_BYTES, NUMBERS_A_UNIT, sums_of_sizes_and_squares


def _begin(owner, g, out, segments):
    """Check the arrays; return the graph, and a table of pieces (segment, start, stop)."""
    require(g, "g", 1, None, owner)
    require(out, "out", g.shape, g.dtype, owner)
    for start, stop in segments:
        if not 0 <= start <= stop <= g.shape[0]:
            raise ValueError(
                f"{owner}: each segment must be (start, stop) within the {g.shape[0]} numbers of g. "
                f"Received: {(start, stop)}."
            )
    pieces = [(i, begin, min(stop, begin + NUMBERS_A_UNIT)) for i, (start, stop) in enumerate(segments)
              for begin in range(start, stop, NUMBERS_A_UNIT)]
    return graph_of(g, out), np.array(pieces, np.int64).reshape(-1, 3)


def _numbers(pieces):
    return int((pieces[:, 2] - pieces[:, 1]).sum())


@operation(samples="")
def clip_by_value(g, out, limit, segments):
    """Write g to `out`, each number limited to [-limit, limit]; NaN stays."""
    graph, pieces = _begin("clip_by_value", g, out, segments)
    graph.add(_clip_pieces, units=len(pieces), g=g, pieces=pieces, out=out, size=g.shape[0], limit=limit,
              work=2 * _numbers(pieces))


@stage(reads="g pieces", writes="out", sizes="size", floats="limit", footprint=BATCH)
def _clip_pieces(r, run, first, last):
    g, out = array(run, r.g, (r.size,)), array(run, r.out, (r.size,))
    pieces, limit = array_as(run, r.pieces, (last, 3), np.int64), g.dtype.type(r.limit)
    for unit in range(first, last):
        start, stop = pieces[unit, 1], pieces[unit, 2]
        x, y = g[start:stop], out[start:stop]
        for i in range(x.size):
            # Written so that NaN stays.
            y[i] = limit if x[i] > limit else -limit if x[i] < -limit else x[i]


@operation(samples="")
def clip_by_norm(g, out, limit, segments):
    """Write g limit / max(‖g‖, limit) to `out`, with a norm for each segment; if that is NaN, so is the segment."""
    _clip_by_norm("clip_by_norm", g, out, limit, segments, False)


@operation(samples="")
def clip_by_global_norm(g, out, limit, segments):
    """Write g limit / max(‖g‖, limit) to `out`, with the norm of all segments; if that is not finite, write NaN."""
    _clip_by_norm("clip_by_global_norm", g, out, limit, segments, True)


def _clip_by_norm(owner, g, out, limit, segments, is_global):
    graph, pieces = _begin(owner, g, out, segments)
    if is_global:
        pieces[:, 0] = 0
    count, numbers, groups = len(pieces), _numbers(pieces), 1 if is_global else len(segments)
    # The index of the first piece of each segment.
    begins = np.searchsorted(pieces[:, 0], np.arange(groups + 1)).astype(np.int64)
    norms, factors = graph.work((count, 2), np.float64), graph.work((groups,), np.float64)
    graph.add(_norms_of_pieces, units=count, g=g, pieces=pieces, norms=norms, size=g.shape[0],
              scratch=LANES_BYTES, work=2 * numbers)
    graph.add(_factors, units=groups, norms=norms, begins=begins, factors=factors, count=count,
              is_global=int(is_global), limit=limit, work=2 * count)
    graph.add(_scale_pieces, units=count, g=g, pieces=pieces, factors=factors, out=out, size=g.shape[0],
              groups=groups, work=numbers)


@stage(reads="g pieces", writes="norms", sizes="size", footprint=BATCH)
def _norms_of_pieces(r, run, first, last):
    """Write the sum of the squares of each piece, and its norm."""
    g, pieces = array(run, r.g, (r.size,)), array_as(run, r.pieces, (last, 3), np.int64)
    norms = array_as(run, r.norms, (last, 2), np.float64)
    for unit in range(first, last):
        x = g[pieces[unit, 1] : pieces[unit, 2]]
        squares = sums_of_sizes_and_squares(run, x)[1]
        norm = np.sqrt(squares)
        if squares == np.inf:
            largest = 0.0
            for i in range(x.size):
                largest = max(largest, np.float64(abs(x[i])))
            if largest < np.inf:  # only the squares overflowed
                total = 0.0
                for i in range(x.size):
                    total += (x[i] / largest) * (x[i] / largest)
                norm = largest * np.sqrt(total)
        norms[unit, 0], norms[unit, 1] = squares, norm


@stage(reads="norms begins", writes="factors", sizes="count is_global", floats="limit", footprint=BATCH)
def _factors(r, run, first, last):
    norms = array_as(run, r.norms, (r.count, 2), np.float64)
    begins = array_as(run, r.begins, (last + 1,), np.int64)
    factors = array_as(run, r.factors, (last,), np.float64)
    for segment in range(first, last):
        squares, largest = 0.0, 0.0
        for piece in range(begins[segment], begins[segment + 1]):
            squares += norms[piece, 0]
            largest = max(largest, norms[piece, 1])
        norm = np.sqrt(squares)
        if squares == np.inf and largest < np.inf:
            total = 0.0
            for piece in range(begins[segment], begins[segment + 1]):
                share = norms[piece, 1] / largest
                total += share * share
            norm = largest * np.sqrt(total)
        # If the norm is infinite, the factor is 0, and infinity times 0 is NaN: the step must not look healthy.
        factor = 1.0 if norm <= r.limit else r.limit / norm
        factors[segment] = np.nan if r.is_global and norm == np.inf else factor


@stage(reads="g pieces factors", writes="out", sizes="size groups", footprint=BATCH)
def _scale_pieces(r, run, first, last):
    g, out = array(run, r.g, (r.size,)), array(run, r.out, (r.size,))
    pieces, factors = array_as(run, r.pieces, (last, 3), np.int64), array_as(run, r.factors, (r.groups,), np.float64)
    for unit in range(first, last):
        start, stop = pieces[unit, 1], pieces[unit, 2]
        x, y, factor = g[start:stop], out[start:stop], g.dtype.type(factors[pieces[unit, 0]])
        for i in range(x.size):
            y[i] = x[i] * factor
