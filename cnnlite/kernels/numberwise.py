"""Elementwise stages, for the activations: each number of the result depends on one number of each input."""

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import PIXEL, array, stage
from cnnlite.kernels.checks import require
from cnnlite.kernels.layout import samples_together
from cnnlite.kernels.operation import graph_of, result
from cnnlite.kernels.rewriting import before_unpooling


def numberwise(reads, writes, floats=""):
    """Make an elementwise stage; `part(run, r.x, span(...))` is the part of a buffer that it works on."""
    return stage(reads=reads, writes=writes, sizes="rows numbers", floats=floats, footprint=PIXEL)


@jit
def part(run, place, where):
    """Return the numbers where[0], ..., where[1] - 1 of a buffer."""
    return array(run, place, (where[1],))[where[0] : where[1]]


def add_numberwise(stage, inputs, out, cost=1, **floats):
    """Add a stage made by `numberwise`; return `out`, or the new buffer.

    Args:
        stage: the stage, named after the kernel.
        inputs: its inputs, all of the same shape and dtype.
        out: the buffer to write to, or None.
        cost: operations per number.
        floats: the floats in its record.
    """
    first, owner = inputs[0], stage.name
    require(first, "the first array", first.ndim, None, owner)
    for other in inputs[1:]:
        require(other, "the second array", first.shape, first.dtype, owner)
    out = result(out, first, first.shape)
    require(out, "out", first.shape, first.dtype, owner)
    numbers = first.sample_size
    graph_of(first).add(stage, **dict(zip(stage.buffers, (*inputs, out))), **floats, numbers=numbers,
                        rows=first.shape[1] if first.ndim > 2 else 1, together=samples_together(numbers),
                        work=cost * numbers)
    return out


def add_gradient_from_y(stage, dy, y, out, cost=1, **floats):
    """Add a stage made by `numberwise` that computes dx from dy and y; return `out`, or the new buffer."""
    return before_unpooling(dy, y, out, lambda dy, y, out: add_numberwise(stage, (dy, y), out, cost, **floats))
