"""The gradient of a bias: the sum of dy over all samples and pixels."""

import numpy as np

from cnnlite.engine.stages import BEGIN, CHUNKS, UNIT, array_as, scratch, stage, word
from cnnlite.kernels.operation import graph_of
from cnnlite.kernels.rows import sum_rows
from cnnlite.kernels.sums import add_chunks, chunk_sums

ROWS_A_PART = 512  # at most this many are summed in dy's dtype before their sum is added to the others in float64


def add_channel_sums(dy, out):
    """Add the stages that write the sum of dy (N, ..., F) over all axes but the last to `out` (F,)."""
    graph, channels = graph_of(dy), dy.shape[-1]
    sums = chunk_sums(graph, (channels,), np.float64)
    rows = dy.sample_size // max(1, channels)
    graph.add(_add_samples, dy=dy, sums=sums, rows=rows, channels=channels, parts=-(-rows // ROWS_A_PART),
              scratch=channels * dy.itemsize, work=dy.sample_size)
    add_chunks(sums, out)


@stage(reads="dy", adds="sums", sizes="rows channels parts")
def _add_samples(r, run, first, last):
    channels = r.channels
    total = array_as(run, r.sums, (word(run, CHUNKS), channels), np.float64)[word(run, UNIT)]
    if first == word(run, BEGIN):
        for c in range(channels):
            total[c] = 0
    part = scratch(run, 0, (channels,))
    for i in range(first, last):
        for k in range(r.parts):
            begin, end = k * r.rows // r.parts, (k + 1) * r.rows // r.parts
            dy = word(run, r.dy) + (i * r.rows + begin) * channels * part.itemsize
            sum_rows(part[0], dy, end - begin, channels, part.ctypes.data)
            for c in range(channels):
                total[c] += part[c]
