"""Buffers: symbolic arrays, from which a plan is built before any data exists.

A layer's `forward` gets a `Buffer` where in eager mode it gets an array. A buffer has a shape and a dtype, and can be
reshaped and passed to kernels. The number of samples is only known when the plan runs: the first axis is a `Samples`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite.types import Symbolic

if TYPE_CHECKING:
    from cnnlite.engine.graph import Graph

# Where the data of a buffer lives.
GIVEN = "given"  # in an array that is passed to each run: x, dy, labels, results
WEIGHT = "weight"  # in an array that a layer owns
CONSTANT = "constant"  # in an array that the plan owns
WORK = "work"  # in the workspace of a run
THREAD_LOCAL = "thread-local"  # in per-thread memory, kept until the thread has finished its unit or chunk
VALUE = "value"  # in the workspace too: a few numbers that Python sets before each run, such as a learning rate


class Samples:
    """A multiple of a run's number of samples.

    Args:
        factor: the multiple.
        shown: the number of samples to show in errors; None for "N".
    """

    __slots__ = ("factor", "shown")

    def __init__(self, factor: int = 1, shown: int | None = None) -> None:
        self.factor, self.shown = factor, shown

    def __mul__(self, other: Any) -> Any:
        return Samples(self.factor * other, self.shown) if isinstance(other, int) else NotImplemented

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Samples) and other.factor == self.factor

    def __hash__(self) -> int:
        return hash(("samples", self.factor))

    def __repr__(self) -> str:
        if self.shown is not None:
            return str(self.factor * self.shown)
        return "N" if self.factor == 1 else f"{self.factor} N"


N = Samples()


class Chunks:
    """The number of chunks that a run splits its samples into, for sums over samples."""

    def __repr__(self) -> str:
        return "chunks"


CHUNKS = Chunks()
MOST_CHUNKS = 16


def chunk_count(samples: int) -> int:
    """Return how many chunks the samples are split into: a power of two, at most 16 and at most `samples`."""
    return min(MOST_CHUNKS, 1 << max(1, samples).bit_length() - 1)


class Buffer(Symbolic):
    """An array of a plan.

    Attributes:
        graph: the graph that it belongs to.
        number: its index in the graph's `buffers`, shared by all its views.
        shape, dtype: as for an array.
        of_samples: whether its first axis runs over samples.
        of_chunks: whether its first axis runs over the chunks of a batch.
    """

    __slots__ = ("dtype", "graph", "number", "of_chunks", "of_samples", "shape")
    __array__ = None  # so that NumPy rejects it instead of making an array of objects
    __array_ufunc__ = None

    def __init__(self, graph: Graph, number: int, shape: Any, dtype: Any) -> None:
        self.graph, self.number, self.shape, self.dtype = graph, number, tuple(shape), np.dtype(dtype)
        first = self.shape[0] if self.shape else None
        self.of_samples, self.of_chunks = isinstance(first, Samples), first is CHUNKS

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def sample_size(self) -> int:
        """The number of elements per sample or chunk, or in total if it has neither axis."""
        if self.of_samples:
            return math.prod(self.shape[1:]) * self.shape[0].factor
        return math.prod(self.shape[1:] if self.of_chunks else self.shape)

    def reshape(self, *shape: Any) -> Buffer:
        """Return the same data in another shape; one size may be -1."""
        shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        wanted = self.sample_size
        known = math.prod(size for size in shape if not isinstance(size, Samples) and size != -1)
        factor = next((size.factor for size in shape if isinstance(size, Samples)), 1)
        if -1 in shape:
            rest = wanted // max(known * factor, 1)
            at_head = self.of_samples and shape[0] == -1
            shape = tuple((Samples(rest) if at_head else rest) if size == -1 else size for size in shape)
        view = Buffer(self.graph, self.number, shape, self.dtype)
        if view.sample_size != wanted or view.of_samples != self.of_samples:
            raise ValueError(f"A buffer of shape {self.shape} can't be reshaped to {shape}.")
        return view

    def __repr__(self) -> str:
        return f"<Buffer {self.number} {self.shape} {self.dtype}>"


def is_buffer(thing: Any) -> bool:
    return type(thing) is Buffer
