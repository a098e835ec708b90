"""Losses: how far predictions y (N, ..., K) are from their targets t, and the derivatives with respect to y.

    losses (N, ...)     one number for each row of K predictions
    dy (N, ..., K)      the derivative of each loss with respect to the predictions in its row

Training uses their mean over the batch, weighted or not, and its gradient: `mean_loss` and `scale_gradient`. Rows are
summed in float64, so that any number of classes will do, and means over the batch are taken as in `sums.py`.
"""

import math

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import (
    BATCH,
    BEGIN,
    CHUNKS,
    IMAGE,
    NONE,
    SAMPLES,
    UNIT,
    array,
    array_as,
    scratch,
    stage,
    word,
)
from cnnlite.kernels.checks import require
from cnnlite.kernels.llvm.elementary import exp, log, log1p
from cnnlite.kernels.operation import graph_of, operation, result
from cnnlite.kernels.sums import chunk_sums, write_sum

# Probabilities are kept this far from 0 and 1, so that their logarithm stays finite; Keras's epsilon.
EPSILON = 1e-7
TOGETHER = 8  # samples, since a row is short


def _rows(owner, y, t, gradient):
    """Check y and t, and return (the losses, dy or None, what the stages' records have in common)."""
    require(t, "t", y.shape, y.dtype, owner)
    return _results(owner, y, gradient)


def _results(owner, y, gradient):
    require(y, "y", max(2, y.ndim), None, owner)
    losses = result(None, y, y.shape[:-1])
    dy = result(None, y, y.shape) if gradient else None
    sizes = {"rows": losses.sample_size, "k": y.shape[-1], "together": TOGETHER}
    return losses, dy, sizes


def _returned(losses, dy):
    return losses if dy is None else (losses, dy)


# Cross-entropy: loss = -sum_j t_j log(p_j)


@operation(samples="y t")
def crossentropy(y, t, from_logits, gradient=True):
    """Return the cross-entropies, and their gradient if `gradient` is True.

        loss = -sum_j t_j log(p_j)      p = softmax(y) if from_logits, else y / sum(y), kept within [1e-7, 1 - 1e-7]

    Args:
        y: logits or probabilities (N, ..., classes).
        t: probabilities of y's shape and dtype; or, for logits, class indices, int64 (N, ...). If an index is out of
            range, the loss is NaN.
    """
    if t.dtype == np.int64 and from_logits:
        require(t, "t", y.shape[:-1], t.dtype, "crossentropy")
        losses, dy, sizes = _results("crossentropy", y, gradient)
        added = _sparse_crossentropy_of_logits
    else:
        losses, dy, sizes = _rows("crossentropy", y, t, gradient)
        added = _crossentropy_of_logits if from_logits else _crossentropy_of_probabilities
    # Without a gradient, there is no row of dy that could hold the exponentials.
    own = 0 if dy is not None else y.shape[-1] * y.itemsize
    graph_of(y).add(added, y=y, t=t, losses=losses, dy=dy, scratch=own, work=16 * y.sample_size, **sizes)
    return _returned(losses, dy)


@jit
def _exponentials(y, e):
    """Write exp(y - m) to e; return m, the largest of y, and the sum of e."""
    largest = y.dtype.type(-np.inf)
    for j in range(y.size):
        largest = y[j] if y[j] > largest else largest
    for j in range(y.size):
        e[j] = exp(y[j] - largest)
    total = 0.0
    for j in range(y.size):
        total += e[j]
    return largest, total


@stage(reads="y t", writes="losses dy", sizes="rows k", footprint=IMAGE)
def _sparse_crossentropy_of_logits(r, run, first, last):
    start, stop, k = first * r.rows, last * r.rows, r.k
    y, losses = array(run, r.y, (stop, k)), array(run, r.losses, (stop,))
    t, dy = array_as(run, r.t, (stop,), np.int64), array(run, r.dy, (stop, k))
    own = scratch(run, 0, (k,))
    for i in range(start, stop):
        e = own if r.dy == NONE else dy[i]
        largest, total = _exponentials(y[i], e)
        is_class = 0 <= t[i] < k
        losses[i] = log(total) - (y[i, t[i]] - largest) if is_class else np.nan
        if r.dy != NONE:
            divisor = y.dtype.type(total) if is_class else y.dtype.type(np.nan)
            for j in range(k):
                e[j] = e[j] / divisor
            if is_class:
                e[t[i]] -= 1


@stage(reads="y t", writes="losses dy", sizes="rows k", footprint=IMAGE)
def _crossentropy_of_logits(r, run, first, last):
    start, stop, k = first * r.rows, last * r.rows, r.k
    y, losses = array(run, r.y, (stop, k)), array(run, r.losses, (stop,))
    t, dy = array(run, r.t, (stop, k)), array(run, r.dy, (stop, k))
    own = scratch(run, 0, (k,))
    for i in range(start, stop):
        e = own if r.dy == NONE else dy[i]
        largest, total = _exponentials(y[i], e)
        log_total, loss, weight = log(total), 0.0, 0.0
        for j in range(k):
            cost = log_total - (y[i, j] - largest)
            # A class with t = 0 costs nothing, even if its p is 0 and its logarithm infinite.
            loss += 0.0 if t[i, j] == 0 and cost == np.inf else t[i, j] * cost
            weight += t[i, j]
        losses[i] = loss
        if r.dy != NONE:
            share, divisor = y.dtype.type(weight), y.dtype.type(total)
            for j in range(k):
                e[j] = e[j] / divisor * share - t[i, j]


@jit
def _clipped(p, least, most):
    # Written so that NaN stays.
    p = least if p < least else p
    return most if p > most else p


@stage(reads="y t", writes="losses dy", sizes="rows k", footprint=IMAGE)
def _crossentropy_of_probabilities(r, run, first, last):
    start, stop, k = first * r.rows, last * r.rows, r.k
    y, losses = array(run, r.y, (stop, k)), array(run, r.losses, (stop,))
    t, dy = array(run, r.t, (stop, k)), array(run, r.dy, (stop, k))
    least, most = y.dtype.type(EPSILON), y.dtype.type(1 - EPSILON)
    own = scratch(run, 0, (k,))
    for i in range(start, stop):
        total = 0.0
        for j in range(k):
            total += y[i, j]
        divisor = y.dtype.type(total)  # for a row of zeros p is NaN, as in Keras, and so is the loss
        dp = own if r.dy == NONE else dy[i]
        loss, inner = 0.0, 0.0
        for j in range(k):
            p = y[i, j] / divisor
            q = _clipped(p, least, most)
            loss -= t[i, j] * log(q)
            dp[j] = 0 if p < least or p > most else -t[i, j] / q
            inner += dp[j] * p
        losses[i] = loss
        if r.dy != NONE:
            # p = y / sum(y), so each y also makes all the other p smaller.
            mean = y.dtype.type(inner)
            for j in range(k):
                dp[j] = (dp[j] - mean) / divisor


# Binary cross-entropy: loss = -mean_j (t_j log(p_j) + (1 - t_j) log(1 - p_j))


@operation(samples="y t")
def binary_crossentropy(y, t, from_logits, gradient=True):
    """Return the binary cross-entropies, and their gradient if `gradient` is True.

        loss = -mean_j (t_j log(p_j) + (1 - t_j) log(1 - p_j))
        p = sigmoid(y) if from_logits, else y, kept within [1e-7, 1 - 1e-7]

    Args:
        y: logits or probabilities (N, ..., K).
        t: of y's shape and dtype.
    """
    losses, dy, sizes = _rows("binary_crossentropy", y, t, gradient)
    added = _binary_crossentropy_of_logits if from_logits else _binary_crossentropy_of_probabilities
    graph_of(y).add(added, y=y, t=t, losses=losses, dy=dy, work=32 * y.sample_size, **sizes)
    return _returned(losses, dy)


@stage(reads="y t", writes="losses dy", sizes="rows k", footprint=IMAGE)
def _binary_crossentropy_of_logits(r, run, first, last):
    start, stop, k = first * r.rows, last * r.rows, r.k
    y, losses = array(run, r.y, (stop, k)), array(run, r.losses, (stop,))
    t, dy = array(run, r.t, (stop, k)), array(run, r.dy, (stop, k))
    one, count, wanted = y.dtype.type(1), y.dtype.type(k), r.dy != NONE
    for i in range(start, stop):
        loss = 0.0
        for j in range(k):
            # -log(sigmoid(y)) = max(-y, 0) + log(1 + exp(-|y|)), and -log(1 - sigmoid(y)) is the same with -y. This
            # can't overflow, and a small loss is never the difference of two large numbers.
            z, target = y[i, j], t[i, j]
            e = exp(-abs(z))
            # For a prediction that is right with certainty, 0 times an infinite logit must be 0.
            share = target if z < 0 else one - target
            loss += (share * abs(z) if share != 0 else 0.0) + log1p(e)
            if wanted:
                dy[i, j] = ((one if z >= 0 else e) / (one + e) - target) / count
        losses[i] = loss / k


@stage(reads="y t", writes="losses dy", sizes="rows k", footprint=IMAGE)
def _binary_crossentropy_of_probabilities(r, run, first, last):
    start, stop, k = first * r.rows, last * r.rows, r.k
    y, losses = array(run, r.y, (stop, k)), array(run, r.losses, (stop,))
    t, dy = array(run, r.t, (stop, k)), array(run, r.dy, (stop, k))
    least, most = y.dtype.type(EPSILON), y.dtype.type(1 - EPSILON)
    one, count, wanted = y.dtype.type(1), y.dtype.type(k), r.dy != NONE
    for i in range(start, stop):
        loss = 0.0
        for j in range(k):
            p, target = _clipped(y[i, j], least, most), t[i, j]
            # Two subtractions, since in a sum of two products a compiler may fuse either one, and not always the same.
            loss -= target * log(p)
            loss -= (one - target) * log(one - p)
            if wanted:
                inside = not (y[i, j] < least or y[i, j] > most)
                dy[i, j] = ((one - target) / (one - p) - target / p) / count if inside else 0
        losses[i] = loss / k


# Errors e = y - t


@operation(samples="y t")
def squared_error(y, t, gradient=True):
    """Return mean_j (y_j - t_j)², and its gradient if `gradient` is True; y and t are (N, ..., K)."""
    losses, dy, sizes = _rows("squared_error", y, t, gradient)
    graph_of(y).add(_squared_error, y=y, t=t, losses=losses, dy=dy, work=4 * y.sample_size, **sizes)
    return _returned(losses, dy)


@stage(reads="y t", writes="losses dy", sizes="rows k", footprint=IMAGE)
def _squared_error(r, run, first, last):
    start, stop, k = first * r.rows, last * r.rows, r.k
    y, losses = array(run, r.y, (stop, k)), array(run, r.losses, (stop,))
    t, dy = array(run, r.t, (stop, k)), array(run, r.dy, (stop, k))
    scale, wanted = y.dtype.type(2 / k), r.dy != NONE
    for i in range(start, stop):
        loss = 0.0
        for j in range(k):
            e = y[i, j] - t[i, j]
            loss += np.float64(e) * e
            if wanted:
                dy[i, j] = e * scale
        losses[i] = loss / k


@operation(samples="y t")
def absolute_error(y, t, gradient=True):
    """Return mean_j |y_j - t_j|, and its gradient if `gradient` is True; y and t are (N, ..., K)."""
    losses, dy, sizes = _rows("absolute_error", y, t, gradient)
    graph_of(y).add(_absolute_error, y=y, t=t, losses=losses, dy=dy, work=4 * y.sample_size, **sizes)
    return _returned(losses, dy)


@stage(reads="y t", writes="losses dy", sizes="rows k", footprint=IMAGE)
def _absolute_error(r, run, first, last):
    start, stop, k = first * r.rows, last * r.rows, r.k
    y, losses = array(run, r.y, (stop, k)), array(run, r.losses, (stop,))
    t, dy = array(run, r.t, (stop, k)), array(run, r.dy, (stop, k))
    one, count, wanted = y.dtype.type(1), y.dtype.type(k), r.dy != NONE
    for i in range(start, stop):
        loss = 0.0
        for j in range(k):
            e = y[i, j] - t[i, j]
            loss += abs(e)
            if wanted:
                dy[i, j] = (one if e > 0 else -one if e < 0 else e) / count  # e where it is 0 or NaN
        losses[i] = loss / k


@operation(samples="y t")
def huber(y, t, delta, gradient=True):
    """Return the mean Huber losses, and their gradient if `gradient` is True; y and t are (N, ..., K).

    The loss of an error e = y - t is e² / 2 where |e| <= delta, else delta |e| - delta² / 2.
    """
    losses, dy, sizes = _rows("huber", y, t, gradient)
    graph_of(y).add(_huber, y=y, t=t, losses=losses, dy=dy, delta=delta, work=6 * y.sample_size, **sizes)
    return _returned(losses, dy)


@stage(reads="y t", writes="losses dy", sizes="rows k", floats="delta", footprint=IMAGE)
def _huber(r, run, first, last):
    start, stop, k = first * r.rows, last * r.rows, r.k
    y, losses = array(run, r.y, (stop, k)), array(run, r.losses, (stop,))
    t, dy = array(run, r.t, (stop, k)), array(run, r.dy, (stop, k))
    delta, count, wanted = y.dtype.type(r.delta), y.dtype.type(k), r.dy != NONE
    for i in range(start, stop):
        loss = 0.0
        for j in range(k):
            e = y[i, j] - t[i, j]
            size = np.float64(abs(e))
            loss += 0.5 * size * size if size <= delta else delta * (size - 0.5 * delta)
            if wanted:
                dy[i, j] = _clipped(e, -delta, delta) / count
        losses[i] = loss / k


# The mean over the batch


def _weights_a_sample(owner, losses_shape, weights, dtype):
    """Check the weights, and return how many there are per sample, or 0 without weights."""
    if weights is None:
        return 0
    require(weights, "weights", losses_shape[: max(1, weights.ndim)], dtype, owner)
    return math.prod(weights.shape[1:])


@operation(samples="losses weights")
def mean_loss(losses, weights=None, mean=True):
    """Return the mean of losses (N, ...), or with `mean=False` their sum, as one float64, in an array (1,).

    Without losses it is 0. The weights, (N,) or with more axes of the losses, multiply them; the divisor is still the
    number of losses.
    """
    require(losses, "losses", losses.shape, None, "mean_loss")
    count = _weights_a_sample("mean_loss", losses.shape, weights, losses.dtype)
    graph, size = losses.graph, losses.sample_size
    sums, value = chunk_sums(graph, (1,), np.float64), graph.work((1,), np.float64)
    graph.add(_add_losses, losses=losses, weights=weights, sums=sums, size=size, weights_a_sample=count,
              together=TOGETHER, work=2 * size)
    graph.add(_divide_sum, sums=sums, value=value, size=size if mean else 0)
    return value


@stage(reads="losses weights", adds="sums", sizes="size weights_a_sample", footprint=IMAGE)
def _add_losses(r, run, first, last):
    sums = array_as(run, r.sums, (word(run, CHUNKS),), np.float64)
    losses, count = array(run, r.losses, (last * r.size,)), r.weights_a_sample
    weights = array(run, r.weights, (last * count,))
    chunk = word(run, UNIT)
    total = 0.0 if first == word(run, BEGIN) else sums[chunk]
    for i in range(first * r.size, last * r.size):
        loss = losses[i]
        if r.weights != NONE:
            loss *= weights[i * count // r.size]
        total += loss
    sums[chunk] = total


@stage(reads="sums", writes="value", sizes="size", footprint=BATCH)
def _divide_sum(r, run, first, last):
    value = array_as(run, r.value, (1,), np.float64)
    write_sum(array_as(run, r.sums, (word(run, CHUNKS), 1), np.float64), value, 0, 1)
    value[0] /= max(1, r.size * word(run, SAMPLES))


@operation(samples="dy weights out")
def scale_gradient(dy, weights=None, mean=True, out=None):
    """Return the gradient (N, ..., K) of `mean_loss` with the same arguments, given the gradient dy of each loss.

    `out` may be dy itself.
    """
    require(dy, "dy", dy.shape, None, "scale_gradient")
    count = _weights_a_sample("scale_gradient", dy.shape[:-1], weights, dy.dtype)
    out = result(out, dy, dy.shape)
    require(out, "out", dy.shape, dy.dtype, "scale_gradient")
    rows = math.prod(dy.shape[1:-1])
    graph_of(dy).add(_scale_gradient, dy=dy, weights=weights, out=out, rows=rows, k=dy.shape[-1],
                     weights_a_sample=count, divides=int(mean), together=TOGETHER, work=dy.sample_size)
    return out


@stage(reads="dy weights", writes="out", sizes="rows k weights_a_sample divides", footprint=IMAGE)
def _scale_gradient(r, run, first, last):
    rows, k, count = r.rows, r.k, r.weights_a_sample
    stop = last * rows
    dy, out = array(run, r.dy, (stop, k)), array(run, r.out, (stop, k))
    weights = array(run, r.weights, (last * count,))
    share = 1 / max(1, rows * word(run, SAMPLES)) if r.divides else 1.0
    for i in range(first * rows, stop):
        scale = dy.dtype.type(share * weights[i * count // rows] if r.weights != NONE else share)
        for j in range(k):
            out[i, j] = dy[i, j] * scale
