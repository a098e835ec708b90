"""Where the time of a training step goes: the pieces of W2's two convolutions, each timed alone, on one thread.

    NUMBA_NUM_THREADS=1 python -m benchmarks.pieces

Processor time, the shortest of many repetitions, so that other processes disturb it little. For the two directions of
a convolution it also gives the time of the direct way, where Winograd's method is the one that is taken.
"""

import time

import numpy as np

from cnnlite.kernels import conv_block as blocks
from cnnlite.kernels.conv_tasks import MAX_POOL, Following
from cnnlite.kernels.geometry import window_of

BATCH, REPETITIONS = 128, 20
CONVOLUTIONS = [(28, 1, 32), (13, 32, 64)]  # size, channels, filters; 3 x 3, followed by a 2 x 2 maximum
NO_PADS = ((0, 0), (0, 0))


def shortest(function):
    """Return the shortest processor time, in ms."""
    times = []
    for _ in range(REPETITIONS + 3):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times[3:]) * 1e3


def directly(function):
    """Return the time of a function in which all convolutions are done directly."""
    suits = blocks.suits
    blocks.suits = lambda *shapes: False
    blocks._plan.cache_clear()
    try:
        return shortest(function)
    finally:
        blocks.suits = suits
        blocks._plan.cache_clear()


def pieces(size, channels, filters):
    """Yield (name, ms) of each piece, and of some a third number: the ms of the direct way."""
    random = np.random.default_rng(0)

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    out, pooled = size - 2, (size - 2) // 2
    x, kernel, zeros = normal(BATCH, size, size, channels), normal(3, 3, channels, filters), normal(filters) * 0
    z, dy = normal(BATCH, out, out, filters), normal(BATCH, pooled, pooled, filters)
    y, argmax, dx = np.empty_like(dy), np.empty(dy.shape, np.uint8), np.empty_like(x)
    dkernel, dbias, terms = np.empty_like(kernel), np.empty_like(zeros), np.ones((3, filters), np.float32)
    affine = np.stack([zeros, zeros + 1, zeros])
    geometry = blocks.Geometry()
    following = Following(False, True, MAX_POOL, window_of((2, 2), (2, 2), NO_PADS))

    def forward(**what):
        return lambda: blocks.conv_block(x, kernel, zeros, geometry, **what)

    def backward(gradient, *what, **gradients):
        return lambda: blocks.conv_block_backward(x, gradient, kernel, geometry, *what, **gradients)

    for name, piece in (
        ("convolution", forward(z=z)),
        ("gradient of the kernel", backward(z, dkernel=dkernel)),
        ("gradient of the input", backward(z, dx=dx)),
    ):
        yield name, shortest(piece), directly(piece)
    yield "convolution, and statistics of its BatchNorm", shortest(forward(z=z, statistics=True))
    yield "normalise, ReLU, pool", shortest(lambda: blocks.follow(z, affine, following, (y, argmax)))
    yield "convolution, ReLU, pool, as one", shortest(forward(following=following, out=(y, argmax)))
    yield "back through pool and ReLU, sums for BatchNorm", shortest(
        lambda: blocks.conv_block_gradient_sums(dy, (y, argmax), z, zeros, following))
    for name, normalised in (("back through pool and ReLU", None), ("the same and BatchNorm", (z, zeros, terms))):
        what = (following, (y, argmax), None, normalised)
        yield f"{name}, dkernel and dbias", shortest(backward(dy, *what, dkernel=dkernel, dbias=dbias))
        yield f"{name}, all gradients", shortest(backward(dy, *what, dkernel=dkernel, dbias=dbias, dx=dx))


def main():
    for size, channels, filters in CONVOLUTIONS:
        print(f"{BATCH} images of {size} x {size} x {channels}, {filters} filters")
        for name, milliseconds, *direct in pieces(size, channels, filters):
            also = f"   directly {direct[0]:.2f}" if direct else ""
            print(f"  {name:50} {milliseconds:6.2f} ms{also}")


if __name__ == "__main__":
    main()
