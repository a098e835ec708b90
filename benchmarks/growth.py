"""Variants of W1 that differ in one thing at a time, and convolutions of equal work with ever more channels."""

from benchmarks.convolutions import Convolution
from benchmarks.nets import w1

BATCHES = [1, 8, 32, 128, 512]
FILTERS = [8, 16, 32, 64, 128]  # of the first convolution; the second has twice as many
SIZES = [14, 28, 42, 56]
# 3x3, as many filters as channels: half the size with twice the channels is the same amount of work.
CONVOLUTIONS = [Convolution(16, 224 * 16 // channels, channels, channels, 3, pad=1)
                for channels in (16, 32, 64, 128, 256, 512)]


def series(threads):
    """Return {what grows: [(value, network, threads), ...]}; with threads None each side picks what suits it best."""
    return {
        "batch": [(batch, w1(batch=batch), None) for batch in BATCHES],
        "filters": [(filters, w1(filters=filters, batch=32), None) for filters in FILTERS],
        "image size": [(size, w1(size=size, batch=32), None) for size in SIZES],
        "threads": [(count, w1(), count) for count in thread_counts(threads)],
    }


def thread_counts(most):
    """Return 1, 2, 4, ... and `most`."""
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    return counts if counts[-1] == most else [*counts, most]
