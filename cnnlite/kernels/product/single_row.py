"""The product of a single row with panels: a Dense layer applied to one sample.

    c[j] = start[j] + sum over k < n of  a[k] * b[k, j]

Each weight is used once, and fetching it takes most of the time. A tile of one row (`microkernel.py`) has 2 sums for 2
vectors of b, and each product must wait 4 cycles for the previous one. In that time a core can fetch more than 2
vectors. So this kernel takes 4 panels at a time, with 8 sums. Each sum adds the same products in the same order as in a
tile, even for a long reduction: the bits of a sample do not depend on how many others come with it.
"""

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import scratch
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.llvm.vectors import vector_function
from cnnlite.kernels.product.microkernel import LONG_SUM, PIECE, add_piece, write_sums

PANELS = 4  # at a time


@vector_function
def _multiply(emit, out, start, a, b, panel_size, n):
    """Write start + a (n,) @ the panels at b, which are `panel_size` elements apart, to out."""
    builder, vectors = emit.builder, range(2 * PANELS)
    panels = [emit.address(b, builder.mul(panel_size, emit.number(panel))) for panel in range(PANELS)]
    sums = [emit.load(builder.add(start, emit.number(v * VECTOR_BYTES))) for v in vectors]

    def multiply_add(k, sums):
        factor, row = emit.broadcast(emit.address(a, k)), builder.mul(k, emit.number(2 * VECTOR_BYTES))
        result = []
        for v, total in enumerate(sums):
            weights = emit.load(builder.add(builder.add(panels[v // 2], row), emit.number(v % 2 * VECTOR_BYTES)))
            product = builder.fmul(factor, weights, flags=("contract",))
            result.append(builder.fadd(product, total, flags=("contract",)))
        return result

    for v, total in zip(vectors, emit.loop(n, sums, multiply_add)):
        emit.store(total, builder.add(out, emit.number(v * VECTOR_BYTES)))


@jit
def single_row(c, c_place, start, a, b, panel_size, n, run, place):
    """Write start + a (n,) @ b to c from `c_place` on, for the columns of PANELS panels.

    Args:
        start: an array with an element per column.
        a, b: addresses; the panels at b are `panel_size` elements apart.
        place: the offset of `single_row_bytes` of scratch memory.
    """
    itemsize, vectors = c.itemsize, 2 * PANELS
    target = c.ctypes.data + c_place * itemsize
    if n <= LONG_SUM:
        _multiply(c, target, start.ctypes.data, a, b, panel_size, n)
        return
    numbers = vectors * VECTOR_BYTES // itemsize
    zeros, piece = scratch(run, place, (numbers,)), scratch(run, place + vectors * VECTOR_BYTES, (numbers,))
    total = piece.ctypes.data + vectors * VECTOR_BYTES
    for j in range(numbers):
        zeros[j] = 0
    runs = (n + PIECE - 1) // PIECE
    most = (n + runs - 1) // runs
    for k in range(0, n, most):
        _multiply(c, piece.ctypes.data, zeros.ctypes.data, a + k * itemsize, b + k * 2 * VECTOR_BYTES, panel_size,
                  min(most, n - k))
        add_piece(c, piece.ctypes.data, total, k == 0, vectors)
    write_sums(c, target, 0, start.ctypes.data, 0, total, 0, 1, vectors)


def single_row_bytes(itemsize):
    """Return the bytes of scratch memory that `single_row` needs: zeros, a piece, and the total in float64."""
    return 2 * PANELS * VECTOR_BYTES * (2 + 8 // itemsize)
