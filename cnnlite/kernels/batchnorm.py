"""Batch normalisation of each channel of x (N, C) or (N, ..., C), over all other axes: M numbers per channel.

The statistics are in `statistics.py`, which explains how sums over M are split into parts. So are the sums here.
"""

import numpy as np

from cnnlite.engine.buffers import CHUNKS as OF_CHUNKS
from cnnlite.engine.buffers import chunk_count
from cnnlite.engine.jit import jit
from cnnlite.engine.stages import (
    BATCH,
    CHUNKS,
    IMAGE,
    NONE,
    PIXEL,
    SAMPLES,
    array,
    array_as,
    scratch,
    span,
    stage,
    word,
)
from cnnlite.kernels.checks import require
from cnnlite.kernels.layout import samples_together
from cnnlite.kernels.operation import graph_of, operation, result
from cnnlite.kernels.pooled_batchnorm import add_pooled_gradient_sums, add_unpooled_input_gradient
from cnnlite.kernels.rewriting import spreading_of, tiles
from cnnlite.kernels.rows import map_rows, scale_rows, sum_gradient, write_gradient
from cnnlite.kernels.statistics import FEW_ROWS, PART_ROWS, rows_of, samples_of
from cnnlite.kernels.sums import add_tree


@operation(samples="x out")
def batchnorm_normalize(x, mean, inv_std, gamma, beta, out=None):
    """Return y = gamma (x − mean) inv_std + beta, with x's shape; the rest are (C,). None means gamma 1, beta 0."""
    owner = "batchnorm_normalize"
    _require_channels(x, owner, mean=mean, inv_std=inv_std, gamma=gamma, beta=beta)
    y = result(out, x, x.shape)
    require(y, "out", x.shape, x.dtype, owner)
    graph, coefficients = graph_of(x), _coefficients(x, inv_std, gamma, beta)
    graph.add(_normalize, x=x, mean=mean, coefficients=coefficients, y=y, rectifies=False, **_pixels(x))
    return y


@stage(reads="x mean coefficients", writes="y", sizes="lines numbers channels rectifies", footprint=PIXEL)
def _normalize(r, run, first, last):
    """Write y; or relu(y), if `rewriting.relu_of_normalized` has fused the two stages."""
    start, stop = span(run, first, last, r.lines, r.numbers)
    if start < stop:
        x, y = array(run, r.x, (stop,))[start:], array(run, r.y, (stop,))[start:]
        mean, coefficients = array(run, r.mean, (r.channels,)), array(run, r.coefficients, (2, r.channels))
        map_rows(x, x, x.size // r.channels, r.channels, mean, coefficients[0], coefficients[1],
                 r.rectifies != 0, y)


@operation(samples="dy out")
def batchnorm_inference_backward(dy, inv_std, gamma, out=None):
    """Return dx = gamma inv_std dy, where mean and inv_std are constants such as moving averages; gamma may be None."""
    owner = "batchnorm_inference_backward"
    _require_channels(dy, owner, inv_std=inv_std, gamma=gamma)
    dx = result(out, dy, dy.shape)
    require(dx, "out", dy.shape, dy.dtype, owner)
    graph, coefficients = graph_of(dy), _coefficients(dy, inv_std, gamma, None)
    graph.add(_scale, dy=dy, coefficients=coefficients, dx=dx, **_pixels(dy))
    return dx


@stage(reads="dy coefficients", writes="dx", sizes="lines numbers channels", footprint=PIXEL)
def _scale(r, run, first, last):
    start, stop = span(run, first, last, r.lines, r.numbers)
    if start < stop:
        dy, dx = array(run, r.dy, (stop,))[start:], array(run, r.dx, (stop,))[start:]
        coefficients = array(run, r.coefficients, (2, r.channels))
        scale_rows(dy, dy, dy.size // r.channels, r.channels, coefficients[0], dx)


def _coefficients(x, inv_std, gamma, beta):
    """Return a buffer (2, C) of gamma inv_std and beta, which is computed only once if they are weights."""
    out = graph_of(x).work((2, x.shape[-1]), x.dtype)
    graph_of(x).add(_write_coefficients, inv_std=inv_std, gamma=gamma, beta=beta, out=out, channels=x.shape[-1],
                    work=x.shape[-1])
    return out


@stage(reads="inv_std gamma beta", writes="out", sizes="channels", footprint=BATCH)
def _write_coefficients(r, run, first, last):
    inv_std, out = array(run, r.inv_std, (r.channels,)), array(run, r.out, (2, r.channels))
    gamma, beta = array(run, r.gamma, (r.channels,)), array(run, r.beta, (r.channels,))
    for c in range(r.channels):
        out[0, c] = inv_std[c] if r.gamma == NONE else inv_std[c] * gamma[c]
        out[1, c] = 0 if r.beta == NONE else beta[c]


@operation(samples="dy x out")
def batchnorm_backward(dy, x, mean, inv_std, gamma, out=None, dgamma=None, dbeta=None):
    """Return (dx, dgamma, dbeta), given that mean and inv_std were computed from x itself.

    With x̂ = (x − mean) inv_std (Ioffe and Szegedy, 2015, section 3):

        dbeta  = Σ dy
        dgamma = Σ dy x̂
        dx     = gamma inv_std (dy − dbeta / M − x̂ dgamma / M)

    Args:
        dy, x: (N, C) or (N, ..., C).
        mean, inv_std, gamma: (C,); gamma is 1 if it is None.
        out, dgamma, dbeta: arrays to write to.
    """
    owner = "batchnorm_backward"
    _require_channels(x, owner, mean=mean, inv_std=inv_std, gamma=gamma)
    require(dy, "dy", x.shape, x.dtype, owner)
    graph, rows, channels = graph_of(x), rows_of(x), x.shape[-1]
    dx, dgamma, dbeta = result(out, x, x.shape), result(dgamma, x, (channels,)), result(dbeta, x, (channels,))
    require(dx, "out", x.shape, x.dtype, owner)
    _require_channels(x, owner, dgamma=dgamma, dbeta=dbeta)
    of_chunks = graph.work((OF_CHUNKS, 2, channels), np.float64)
    terms = graph.work((3, channels), x.dtype)
    sizes = dict(rows=rows, channels=channels)
    own = 2 * channels * x.itemsize
    spreading = spreading_of(dy, x) if rows >= FEW_ROWS else None
    if rows < FEW_ROWS:
        graph.add(_gradient_sums_of_rows, units=chunk_count, scratch=own, dy=dy, x=x, mean=mean, sums=of_chunks,
                  **sizes, work=3 * x.sample_size)
    else:
        of_samples = graph.work((x.shape[0], 2, channels), np.float64)
        if spreading is None:
            graph.add(_sample_gradient_sums, dy=dy, x=x, mean=mean, sums=of_samples, **sizes, scratch=own,
                      together=samples_together(x.sample_size), work=3 * x.sample_size)
        else:
            add_pooled_gradient_sums(spreading, x, mean, of_samples)
        graph.add(_chunk_gradient_sums, units=chunk_count, samples=of_samples, sums=of_chunks, channels=channels,
                  work=channels)
    graph.add(_gradient_terms, sums=of_chunks, inv_std=inv_std, gamma=gamma, dgamma=dgamma, dbeta=dbeta, terms=terms,
              **sizes, work=16 * channels)
    if spreading is not None and tiles(spreading):
        add_unpooled_input_gradient(spreading, x, mean, terms, dx)
    else:
        graph.add(_input_gradient, dy=dy, x=x, mean=mean, terms=terms, dx=dx, **_pixels(x))
    return dx, dgamma, dbeta


@stage(reads="dy x mean", writes="sums", sizes="rows channels", footprint=IMAGE)
def _sample_gradient_sums(r, run, first, last):
    dy, x = array(run, r.dy, (last, r.rows, r.channels)), array(run, r.x, (last, r.rows, r.channels))
    mean, own = array(run, r.mean, (r.channels,)), scratch(run, 0, (2, r.channels))
    sums = array_as(run, r.sums, (last, 2, r.channels), np.float64)
    for n in range(first, last):
        _sum_gradient(dy[n], x[n], mean, own, sums[n])


@stage(reads="dy x mean", writes="sums", sizes="rows channels", footprint=BATCH)
def _gradient_sums_of_rows(r, run, first, last):
    samples, chunks = word(run, SAMPLES), word(run, CHUNKS)
    dy, x = (array(run, r.dy, (samples * r.rows, r.channels)), array(run, r.x, (samples * r.rows, r.channels)))
    mean, own = array(run, r.mean, (r.channels,)), scratch(run, 0, (2, r.channels))
    sums = array_as(run, r.sums, (chunks, 2, r.channels), np.float64)
    for chunk in range(first, last):
        begin, end = samples_of(chunk, 1, chunks, samples)
        _sum_gradient(dy[begin * r.rows : end * r.rows], x[begin * r.rows : end * r.rows], mean, own, sums[chunk])


@jit
def _sum_gradient(dy, x, mean, own, sums):
    """Write Σ dy and Σ dy (x − mean) of rows (rows, C) to sums (2, C); `own` has the same shape."""
    rows, channels = x.shape
    parts = (rows + PART_ROWS - 1) // PART_ROWS
    sums[:] = 0
    for part in range(parts):
        first, last = part * rows // parts, (part + 1) * rows // parts
        sum_gradient(x, dy[first:last], x[first:last], last - first, channels, mean, own[0], own[1])
        for i in range(2):
            for c in range(channels):
                sums[i, c] += own[i, c]


@stage(reads="samples", writes="sums", sizes="channels", footprint=BATCH)
def _chunk_gradient_sums(r, run, first, last):
    count, chunks, size = word(run, SAMPLES), word(run, CHUNKS), 2 * r.channels
    samples = array_as(run, r.samples, (count, size), np.float64)
    sums = array_as(run, r.sums, (chunks, size), np.float64)
    for chunk in range(first, last):
        begin, end = samples_of(chunk, 1, chunks, count)
        total = sums[chunk]
        total[:] = 0
        for n in range(begin, end):
            for i in range(size):
                total[i] += samples[n, i]


@stage(reads="sums inv_std gamma", writes="dgamma dbeta terms", sizes="rows channels", footprint=BATCH)
def _gradient_terms(r, run, first, last):
    """Write dgamma, dbeta, and the terms (3, C) of dx = terms[0] (dy − terms[1] − (x − mean) terms[2])."""
    chunks, channels = word(run, CHUNKS), r.channels
    sums = array_as(run, r.sums, (chunks, 2 * channels), np.float64)
    inv_std, gamma = array(run, r.inv_std, (channels,)), array(run, r.gamma, (channels,))
    dgamma, dbeta = array(run, r.dgamma, (channels,)), array(run, r.dbeta, (channels,))
    terms = array(run, r.terms, (3, channels))
    add_tree(sums, 0, 2 * channels)
    total = np.float64(max(1, word(run, SAMPLES) * r.rows))
    for c in range(channels):
        of_dy, of_product = sums[0, c], sums[0, channels + c]
        dbeta[c] = of_dy
        dgamma[c] = of_product * inv_std[c]
        terms[0, c] = inv_std[c] if r.gamma == NONE else inv_std[c] * gamma[c]
        terms[1, c] = of_dy / total
        terms[2, c] = np.float64(inv_std[c]) ** 2 * of_product / total


@stage(reads="dy x mean terms", writes="dx", sizes="lines numbers channels", footprint=PIXEL)
def _input_gradient(r, run, first, last):
    start, stop = span(run, first, last, r.lines, r.numbers)
    if start < stop:
        dy, x = array(run, r.dy, (stop,))[start:], array(run, r.x, (stop,))[start:]
        mean, terms = array(run, r.mean, (r.channels,)), array(run, r.terms, (3, r.channels))
        write_gradient(x, dy, x, x.size // r.channels, r.channels, mean, terms, array(run, r.dx, (stop,))[start:])


def _pixels(x):
    """Return the arguments that describe the samples x to a PIXEL stage."""
    return dict(lines=max(1, x.shape[1]) if x.ndim > 2 else 1, numbers=x.sample_size, channels=x.shape[-1],
                together=samples_together(x.sample_size), work=3 * x.sample_size)


def _require_channels(x, owner, **arrays):
    """Check x, and that the arrays have one number per channel."""
    require(x, "x", x.ndim, None, owner)
    for name, given in arrays.items():
        if given is not None:
            require(given, name, x.shape[-1:], x.dtype, owner)
