"""Call vector functions from Python, with arrays in place of addresses."""

import numba
import numpy as np

from tests.kernels.drawn import between_canaries

DTYPES = ["float32", "float64"]
CHANNELS = range(1, 71)  # every length of the last vector, and every size of a group of vectors


def compiled(function):
    """Return `call(dtype, *arguments)`, in which an array stands for the address of its first number."""

    @numba.njit
    def call(of, arguments):
        function(of, *arguments)

    def call_with_arrays(dtype, *arguments):
        call(np.dtype(dtype).type(0), tuple(_address(argument) for argument in arguments))

    return call_with_arrays


def _address(argument):
    return argument.ctypes.data if isinstance(argument, np.ndarray) else argument


class Outputs:
    """Arrays to write to, each between bytes that must not change."""

    def __init__(self, *shapes, dtype, shift=0):
        made = [between_canaries(shape, dtype, shift) for shape in shapes]
        self.arrays, self._intact = zip(*made)

    def __enter__(self):
        return self.arrays

    def __exit__(self, kind, *_):
        if kind is None:
            assert all(intact() for intact in self._intact)
