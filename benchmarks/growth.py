"""Networks like W1 that differ in one thing at a time."""

from benchmarks.nets import w1

BATCHES = [1, 8, 32, 128, 512]
FILTERS = [8, 16, 32, 64, 128]  # of the first convolution; the second has twice as many
SIZES = [14, 28, 42, 56]


def series(threads):
    """Return {what grows: [(value, network, threads), ...]}; None threads are those that suit a side best."""
    return {
        "batch": [(batch, w1(batch=batch), None) for batch in BATCHES],
        "filters": [(filters, w1(filters=filters, batch=32), None) for filters in FILTERS],
        "image size": [(size, w1(size=size, batch=32), None) for size in SIZES],
        "threads": [(count, w1(), count) for count in thread_counts(threads)],
    }


def thread_counts(most):
    """Return 1, 2, 4 ... and the most."""
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    return counts if counts[-1] == most else [*counts, most]
