"""The mean and the variance of each channel of a batch x (N, C) or (N, ..., C), and their moving averages.

Sums over M, all axes but the channels, are in float32 over parts of at most 512 rows, and from there in float64: the
parts of a sample in order, then the samples of a chunk of the batch in order, and the chunks as a binary tree (see
`sums.py`). A part is small enough to stay in the processor's cache for the second pass over it.

    x (N, rows, C)  ->  per sample (N, 2, C)  ->  per chunk (chunks, 2, C)  ->  (C,)

Samples with few rows, such as those of a matrix with one row each, are too short for that: then the rows of a whole
chunk are split into parts.
"""

import math

import numpy as np

from cnnlite.engine.buffers import CHUNKS as OF_CHUNKS
from cnnlite.engine.buffers import chunk_count
from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, CHUNKS, IMAGE, NONE, SAMPLES, array, array_as, scratch, stage, word
from cnnlite.kernels.checks import require
from cnnlite.kernels.layout import samples_together
from cnnlite.kernels.operation import graph_of, operation, result
from cnnlite.kernels.rows import row_statistics

PART_ROWS = 512  # over this many rows, a sum in float32 is still accurate
FEW_ROWS = 16  # samples with fewer rows don't get parts of their own


def rows_of(x):
    """Return how many rows of channels a sample has."""
    return math.prod(x.shape[1:-1])


@jit
def samples_of(chunk, number, chunks, samples):
    """Return (begin, end) of the samples in `number` chunks, starting with `chunk`."""
    return chunk * samples // chunks, (chunk + number) * samples // chunks


@operation(samples="x")
def batchnorm_statistics(x):
    """Return (mean, variance) of each channel, both (C,): variance = 1/M Σ (x − mean)², the biased one.

    Each part is read twice, for its mean and then for its squared deviations M2 from it, and two parts are
    combined by M2 = M2_a + M2_b + n_a n_b / (n_a + n_b) (mean_b − mean_a)² (Chan, Golub and LeVeque, 1979), which
    unlike Σx² / M − mean² stays accurate if the mean is large compared with the deviation. Without samples both are
    0; if a channel contains NaN or an infinity, both are NaN.
    """
    require(x, "x", x.ndim, None, "batchnorm_statistics")
    graph, rows, channels = graph_of(x), rows_of(x), x.shape[-1]
    mean, variance = graph.work((channels,), x.dtype), graph.work((channels,), x.dtype)
    of_chunks = graph.work((OF_CHUNKS, 2, channels), np.float64)
    sizes = dict(rows=rows, channels=channels)
    own = 3 * channels * x.itemsize
    if rows < FEW_ROWS:
        graph.add(_statistics_of_rows, units=chunk_count, scratch=own, x=x, sums=of_chunks, **sizes,
                  work=3 * x.sample_size)
    else:
        of_samples = graph.work((x.shape[0], 2, channels), np.float64)
        graph.add(_sample_statistics, x=x, sums=of_samples, **sizes, scratch=own,
                  together=samples_together(x.sample_size), work=3 * x.sample_size)
        graph.add(_chunk_statistics, units=chunk_count, samples=of_samples, sums=of_chunks, **sizes, work=channels)
    graph.add(_statistics, sums=of_chunks, mean=mean, variance=variance, **sizes, work=16 * channels)
    return mean, variance


@stage(reads="x", writes="sums", sizes="rows channels", footprint=IMAGE)
def _sample_statistics(r, run, first, last):
    x = array(run, r.x, (last, r.rows, r.channels))
    sums, own = array_as(run, r.sums, (last, 2, r.channels), np.float64), scratch(run, 0, (3, r.channels))
    for n in range(first, last):
        _row_statistics(x[n], own, sums[n])


@stage(reads="x", writes="sums", sizes="rows channels", footprint=BATCH)
def _statistics_of_rows(r, run, first, last):
    samples, chunks = word(run, SAMPLES), word(run, CHUNKS)
    x = array(run, r.x, (samples * r.rows, r.channels))
    sums, own = array_as(run, r.sums, (chunks, 2, r.channels), np.float64), scratch(run, 0, (3, r.channels))
    for chunk in range(first, last):
        begin, end = samples_of(chunk, 1, chunks, samples)
        _row_statistics(x[begin * r.rows : end * r.rows], own, sums[chunk])


@stage(reads="samples", writes="sums", sizes="rows channels", footprint=BATCH)
def _chunk_statistics(r, run, first, last):
    count, chunks = word(run, SAMPLES), word(run, CHUNKS)
    samples = array_as(run, r.samples, (count, 2, r.channels), np.float64)
    sums = array_as(run, r.sums, (chunks, 2, r.channels), np.float64)
    for chunk in range(first, last):
        begin, end = samples_of(chunk, 1, chunks, count)
        sums[chunk] = 0
        for n in range(begin, end):
            _combine(sums[chunk], (n - begin) * r.rows, samples[n], r.rows)


@stage(reads="sums", writes="mean variance", sizes="rows channels", footprint=BATCH)
def _statistics(r, run, first, last):
    samples, chunks = word(run, SAMPLES), word(run, CHUNKS)
    sums = array_as(run, r.sums, (chunks, 2, r.channels), np.float64)
    distance = 1
    while distance < chunks:
        for chunk in range(0, chunks, 2 * distance):
            begin, middle = samples_of(chunk, distance, chunks, samples)
            _, end = samples_of(chunk, 2 * distance, chunks, samples)
            _combine(sums[chunk], (middle - begin) * r.rows, sums[chunk + distance], (end - middle) * r.rows)
        distance *= 2
    mean, variance = array(run, r.mean, (r.channels,)), array(run, r.variance, (r.channels,))
    total = max(1, samples * r.rows)
    for c in range(r.channels):
        mean[c] = sums[0, 0, c]
        # Rounding can make a variance of 0 slightly negative. A NaN is not less than 0 and stays.
        variance[c] = 0.0 if sums[0, 1, c] < 0 else sums[0, 1, c] / total


@jit
def _row_statistics(x, own, sums):
    """Write the mean and Σ (x − mean)² of the rows x (rows, C) to sums (2, C); `own` is (3, C)."""
    rows, channels = x.shape
    center, error, square = own[0], own[1], own[2]
    parts = (rows + PART_ROWS - 1) // PART_ROWS
    sums[:] = 0
    for part in range(parts):
        first, last = part * rows // parts, (part + 1) * rows // parts
        row_statistics(x, x[first:last], last - first, channels, center, error, square)
        count = np.float64(last - first)
        share, weight = count / last, first * count / last
        for c in range(channels):
            # The sum of the deviations reveals the rounding error of the center, which is corrected here.
            rest = np.float64(error[c])
            mean = np.float64(center[c]) + rest / count
            m2 = np.float64(square[c]) - rest * rest / count
            distance = mean - sums[0, c]
            sums[0, c] += share * distance
            sums[1, c] += m2 + weight * distance * distance


@jit
def _combine(here, rows, other, other_rows):
    """Merge the mean and Σ (x − mean)² of other rows into those of the rows `here`, both (2, C)."""
    if other_rows == 0:
        return
    total = np.float64(rows + other_rows)
    share, weight = other_rows / total, rows * other_rows / total
    for c in range(here.shape[1]):
        distance = other[0, c] - here[0, c]
        here[0, c] += share * distance
        here[1, c] += other[1, c] + weight * distance * distance


@operation(samples="")
def inverse_deviation(variance, epsilon):
    """Return 1 / √(variance + epsilon), and NaN where the variance is infinite."""
    require(variance, "variance", 1, None, "inverse_deviation")
    (size,) = variance.shape
    out = result(None, variance, (size,))
    graph_of(variance).add(_inverse_deviation, variance=variance, out=out, size=size, epsilon=epsilon, work=size)
    return out


@stage(reads="variance", writes="out", sizes="size", floats="epsilon", footprint=BATCH)
def _inverse_deviation(r, run, first, last):
    variance, out = array(run, r.variance, (r.size,)), array(run, r.out, (r.size,))
    epsilon = variance.dtype.type(r.epsilon)
    for c in range(r.size):
        out[c] = variance.dtype.type(1) / math.sqrt(variance[c] + epsilon)
        if out[c] == 0:
            out[c] = np.nan


@operation(samples="like")
def move_average(average, value, momentum, like, refused=None):
    """Update a moving average in place: average = momentum average + (1 − momentum) value.

    Args:
        average, value: of the same shape.
        momentum: from 0 to 1.
        like: the batch that the value was computed from. If it has no samples, the average is left as it is.
        refused: int64 (1,), or None: if it is not 0, the average is left as it is.
    """
    require(average, "average", average.ndim, None, "move_average")
    require(value, "value", average.shape, average.dtype, "move_average")
    if refused is not None:
        require(refused, "refused", (1,), np.dtype(np.int64), "move_average")
    size = math.prod(average.shape)
    graph_of(like).add(_move_average, average=average, value=value, refused=refused, size=size, momentum=momentum,
                       scratch=size * average.itemsize, work=3 * size)


@stage(reads="average value refused", writes="average", sizes="size", floats="momentum", footprint=BATCH)
def _move_average(r, run, first, last):
    average, value = array(run, r.average, (r.size,)), array(run, r.value, (r.size,))
    if word(run, SAMPLES) == 0 or (r.refused != NONE and array_as(run, r.refused, (1,), np.int64)[0] != 0):
        return
    kept, share, moved = average.dtype.type(r.momentum), average.dtype.type(1 - r.momentum), scratch(run, 0, (r.size,))
    # Two loops, so that the products are rounded before they are added, as in NumPy.
    for i in range(r.size):
        average[i] *= kept
        moved[i] = share * value[i]
    for i in range(r.size):
        average[i] += moved[i]
