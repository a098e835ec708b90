"""Buffers: the arrays that a plan is made of before there are any numbers.

A layer's `forward` gets a `Buffer` where in eager mode it gets an array. It has a shape and a dtype, and can be
reshaped and passed to kernels. How many samples there are is known when the plan runs: the first axis is a `Samples`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite.types import Symbolic

if TYPE_CHECKING:
    from cnnlite.engine.graph import Graph

# Where the numbers of a buffer lie.
GIVEN = "given"  # in an array that each run is given: x, dy, labels, what a run returns
WEIGHT = "weight"  # in an array that a layer owns
CONSTANT = "constant"  # in an array that the plan owns
WORK = "work"  # in the workspace of a run
LANE = "lane"  # in memory of each thread, kept until the unit or chunk that it is at is done
VALUE = "value"  # in the workspace too: a few numbers that Python says before each run, such as a learning rate


class Samples:
    """A multiple of the number of samples of a run.

    Args:
        factor: how many times.
        shown: how many samples an error says that there are; None for "N".
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
    """As many as a run cuts its samples into, for what is added up over them."""

    def __repr__(self) -> str:
        return "chunks"


CHUNKS = Chunks()
MOST_CHUNKS = 16


def chunk_count(samples: int) -> int:
    """Return into how many chunks a number of samples is cut: a power of two, at most 16 and no more than there are."""
    return min(MOST_CHUNKS, 1 << max(1, samples).bit_length() - 1)


class Buffer(Symbolic):
    """An array of a plan.

    Attributes:
        graph: the graph that it belongs to.
        number: its place in the graph's `buffers`, which all views of it share.
        shape, dtype: as of an array.
        of_samples: whether its first axis is that of the samples.
        of_chunks: whether its first axis is that of the chunks of a batch.
    """

    __slots__ = ("dtype", "graph", "number", "of_chunks", "of_samples", "shape")
    __array__ = None  # so that NumPy refuses it, and does not make an array of objects
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
        """How many numbers there are of each sample or chunk, or in all where there are neither."""
        if self.of_samples:
            return math.prod(self.shape[1:]) * self.shape[0].factor
        return math.prod(self.shape[1:] if self.of_chunks else self.shape)

    def reshape(self, *shape: Any) -> Buffer:
        """Return the same numbers in another shape; one size may be -1."""
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
