"""Single operations with many channels or units, as in deep networks."""

from typing import NamedTuple

from benchmarks.convolutions import Convolution


class Dense(NamedTuple):
    """A batch of n samples, and a kernel (inputs, units)."""

    n: int
    inputs: int
    units: int

    def __str__(self):
        return f"Dense {self.n}x{self.inputs}, {self.units} units"

    def flops(self):
        """Return the multiplications and additions, the same in each direction."""
        return 2 * self.n * self.inputs * self.units


BATCH = 16
LARGE = [
    *(Convolution(BATCH, size, channels, channels, 3, pad=1)
      for size, channels in [(56, 64), (28, 128), (14, 256), (7, 512)]),
    Convolution(BATCH, 14, 1024, 256, 1), Convolution(BATCH, 28, 256, 512, 1),
    Convolution(BATCH, 112, 3, 64, 7, pad=3),
    *(Convolution(1, size, channels, channels, 3, pad=1) for size, channels in [(56, 64), (14, 256), (7, 512)]),
    Dense(128, 784, 512), Dense(128, 512, 512), Dense(1024, 1024, 1024), Dense(2048, 2048, 2048),
]
