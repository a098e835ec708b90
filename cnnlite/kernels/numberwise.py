"""Elementwise stages, for the activations: a number of the result needs only those at its place in the inputs."""

from cnnlite.engine.jit import kernel
from cnnlite.engine.stages import PIXEL, array, stage
from cnnlite.kernels.checks import require
from cnnlite.kernels.layout import samples_together
from cnnlite.kernels.operation import graph_of, result
from cnnlite.kernels.rewriting import before_unpooling


def numberwise(reads, writes, floats=""):
    """Make a stage that computes number by number; its parts of the buffers are `part(run, r.x, span(...))`."""
    return stage(reads=reads, writes=writes, sizes="rows numbers", floats=floats, footprint=PIXEL)


@kernel
def part(run, place, where):
    """Return the numbers of a buffer from where[0] to before where[1]."""
    return array(run, place, (where[1],))[where[0] : where[1]]


def add_numberwise(stage, inputs, out, cost=1, **floats):
    """Add a stage made by `numberwise`; return `out`, or the new buffer.

    Args:
        stage: the stage, named after the kernel.
        inputs: its inputs, of one shape and dtype.
        out: what it writes to, or None.
        cost: how many operations a number takes.
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
    """Add a stage made by `numberwise` that makes dx of dy and y; return `out`, or the new buffer."""
    return before_unpooling(dy, y, out, lambda dy, y, out: add_numberwise(stage, (dy, y), out, cost, **floats))
