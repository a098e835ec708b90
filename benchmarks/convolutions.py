"""The single convolutions to measure: five from real networks, and one for every pair of channels and filters."""

import itertools
import random
from typing import NamedTuple

DIRECTIONS = ["forward", "kernel gradient", "input gradient"]

CHANNELS = [1, 3, 16, 32, 64, 128]
SIZES = [7, 8, 10, 14, 20, 28, 32, 40, 56]
KERNEL_SIZES = [1, 3, 5, 7]
STRIDES = [1, 2]

# Starting from this, a batch is halved until its work and its largest array are within the limits below.
BATCH = 128
MOST_FLOPS = 1e9  # about 10 ms on two cores
MOST_NUMBERS = 8e6  # 32 MB


class Convolution(NamedTuple):
    """Images N x size x size x channels, square kernels, and `pad` pixels of zeros on each side."""

    n: int
    size: int
    channels: int
    filters: int
    kernel_size: int
    stride: int = 1
    pad: int = 0

    @property
    def out(self):
        return (self.size + 2 * self.pad - self.kernel_size) // self.stride + 1

    def __str__(self):
        text = f"{self.n}x{self.size}x{self.size}x{self.channels}, {self.filters} filters"
        text += f" {self.kernel_size}x{self.kernel_size}"
        text += f", stride {self.stride}" if self.stride > 1 else ""
        return text + (f", pad {self.pad}" if self.pad else "")

    def flops(self):
        """Return the multiplications and additions, the same in each direction, including those with padding."""
        return 2 * self.n * self.out**2 * self.filters * self.kernel_size**2 * self.channels

    def bytes(self):
        """Return the bytes of images, kernels and result in float32, each counted once."""
        images = self.n * self.size**2 * self.channels
        kernels = self.kernel_size**2 * self.channels * self.filters
        return 4 * (images + kernels + self.n * self.out**2 * self.filters)

    def intensity(self):
        """Return the arithmetic intensity: operations per byte."""
        return self.flops() / self.bytes()


# Both of W1, the second of W3, and two 3x3 ones on small images.
OF_NETS = [
    Convolution(128, 28, 1, 32, 3),
    Convolution(128, 13, 32, 64, 3),
    Convolution(128, 24, 32, 32, 5),
    Convolution(128, 10, 32, 64, 3),
    Convolution(128, 8, 64, 64, 3),
]


def draw(seed=0):
    """Return the sweep: every pair of channels and filters once, the rest drawn at random, reproducibly for a seed.

    Sizes, kernels, strides and pads are dealt from shuffled decks, so that all values occur about equally often.
    """
    generator = random.Random(seed)

    def pack(values, count):
        cards = [value for _, value in zip(range(count), itertools.cycle(values))]
        generator.shuffle(cards)
        return cards

    pairs = list(itertools.product(CHANNELS, CHANNELS))
    columns = [pack(values, len(pairs)) for values in (SIZES, KERNEL_SIZES, STRIDES, ["valid", "same"])]
    shapes = []
    for (channels, filters), size, kernel_size, stride, padding in zip(pairs, *columns):
        pad = kernel_size // 2 if padding == "same" else 0
        shape = Convolution(BATCH, size, channels, filters, kernel_size, stride, pad)
        while shape.flops() > MOST_FLOPS or largest(shape) > MOST_NUMBERS:
            shape = shape._replace(n=shape.n // 2)
        shapes.append(shape)
    return shapes


def largest(shape):
    return shape.n * max(shape.size**2 * shape.channels, shape.out**2 * shape.filters)


SWEEP = OF_NETS + draw()
