"""The one loop in which cnnlite spends its time: a small matrix product that lives in the processor's registers.

Every convolution and every dense layer, forward and backward, consists of calls to `block`:

    c[i, j] = start[i, j] + sum over k1 < n1, k0 < n0 of  a[i, k1, k0] * b[k1, k0, j]

for any number of rows i, and 1 or 2 vectors of columns j. Each operand is an address and its strides, in elements; the
columns j of b, c and start are contiguous. `block` goes through the rows in tiles of up to ROWS rows.

**Why a tile.** A core can do two vector multiply-adds per cycle but load only two vectors. A loop that loads
both factors of each product would run at half speed at best, and one that also keeps its sums in memory at
a quarter. A tile of 8 rows and 2 vectors keeps its 16 sums in registers for the whole reduction. Each step
loads 2 vectors of b and 8 numbers of a, and does 16 multiply-adds with them:

              b0     b1        registers:  16 sums + 2 of b + 1 or 2 of a, out of 32 (AVX-512, NEON);
        a0    c00    c01       with 16 registers (AVX2) 6 rows: 12 sums + 2 of b + 1 or 2 of a.
        a1    c10    c11
        ..     ..     ..       `a` is a single number, broadcast to all lanes as it is loaded.
        a7    c70    c71

**Why two loops.** A row of an im2col matrix is KH runs of KW * C elements that are already contiguous in the image.
With a loop over the runs (k1) around a loop along the run (k0), the tile reads the rows straight from the image, and
the im2col matrix never has to exist.

**Why LLVM by hand.** numba compiles plain loops well, but it doesn't keep an array of 16 sums in registers. So the tile
is vector code, written as `vectors.py` explains. For 8 rows and 2 vectors of AVX-512, the result is a loop of 36
instructions: 16 multiply-adds, 10 loads, 8 that advance addresses, and 2 for the loop. `python -m benchmarks.assembly`
prints it; `benchmarks/README.md` explains it. Reordered for reading:

    vmovups (b), zmm17               ; 2 vectors of b
    vmovups 64(b), zmm18
    vbroadcastss (a), zmm16          ; a number of a ...
    vfmadd231ps zmm16, zmm17, zmm15  ; ... times both, added to the 2 sums of its row
    vfmadd231ps zmm16, zmm18, zmm14
    ...                              ; ... and so on for 8 rows

**Why pieces.** The larger a float32 sum grows, the more it loses of what is added: 0.1 added a million times is 1 % too
much. So a reduction of more than LONG_SUM products is split into pieces of about PIECE, each of which is a reduction of
its own, and the pieces are added up in float64. That costs a few percent; shorter reductions are done in one go.

**Why an address.** A kernel that inlined the tiles would have to compile all of them, slowly. So `block` is compiled
once per dtype, and kernels call it by its address, about once per row of an image.

Nothing is checked here. `matmul.py` and `conv2d.py` compute the addresses from the shapes of the arrays.
"""

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cnnlite.engine.jit import callback_address
from cnnlite.engine.target import ROWS, VECTOR_BYTES
from cnnlite.kernels.llvm.vectors import Emitter, int64, item_of, vector_function

LONG_SUM = 1152  # products that may be added one by one in float32: as many as 3x3 taps of 128 channels
PIECE = 256  # products that a longer reduction takes at a time
ROWS_TOGETHER = 32  # rows of a long reduction, so that a piece of b stays in the cache while several tiles read it


def _emit_tile(emit, rows, vectors, operands):
    """Emit the tile for one fixed number of rows and vectors, so that every sum is a register."""
    c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0 = operands
    builder = emit.builder

    def vectors_at(address):
        return [builder.add(address, emit.number(v * VECTOR_BYTES)) for v in range(vectors)]

    def row(i, address, distance):
        return builder.add(address, builder.mul(distance, emit.number(i)))

    a_row = [builder.mul(a_i, emit.number(i)) for i in range(rows)]
    sums = [emit.load(place) for i in range(rows) for place in vectors_at(row(i, start, start_i))]

    def multiply_add(_, carried):
        a, b, *sums = carried
        b_vectors = [emit.load(place) for place in vectors_at(b)]
        result = []
        for i in range(rows):
            factor = emit.broadcast(builder.add(a, a_row[i]))
            for v in range(vectors):
                # "contract" lets LLVM fuse the two into one multiply-add wherever the machine has it, as
                # `emit.multiply_add` does. But that is a call, which LLVM considers so cheap that it would unroll the
                # loops of small tiles: more code, 0.1 s more to compile it, and no gain in speed.
                product = builder.fmul(factor, b_vectors[v], flags=("contract",))
                result.append(builder.fadd(product, sums[i * vectors + v], flags=("contract",)))
        return [builder.add(a, a_k0), builder.add(b, b_k0), *result]

    def along_the_run(_, carried):
        a, b, *_ = carried
        _, _, *sums = emit.loop(n0, carried, multiply_add)
        return [builder.add(a, a_k1), builder.add(b, b_k1), *sums]

    _, _, *sums = emit.loop(n1, [a, b, *sums], along_the_run)
    places = [place for i in range(rows) for place in vectors_at(row(i, c, c_i))]
    for place, total in zip(places, sums):
        emit.store(total, place)


@vector_function
def _tile(emit, first, rows, vectors, c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0):
    """Compute `rows` rows from row `first` on, at most ROWS."""
    builder = emit.builder

    def in_bytes(distance):
        return builder.mul(distance, emit.number(emit.itemsize))

    def from_first_row(address, distance):
        return builder.add(address, builder.mul(first, distance))

    c_i, start_i, a_i = in_bytes(c_i), in_bytes(start_i), in_bytes(a_i)
    operands = (
        from_first_row(c, c_i), c_i,
        from_first_row(start, start_i), start_i,
        from_first_row(a, a_i), a_i, in_bytes(a_k1), in_bytes(a_k0),
        b, in_bytes(b_k1), in_bytes(b_k0), n1, n0,
    )
    end = builder.append_basic_block("end")
    switch = builder.switch(builder.add(builder.mul(vectors, emit.number(ROWS + 1)), rows), end)
    for v in (1, 2):
        for r in range(1, ROWS + 1):
            place = builder.append_basic_block(f"tile_{r}_rows_{v}_vectors")
            switch.add_case(emit.number(v * (ROWS + 1) + r), place)
            builder.position_at_end(place)
            _emit_tile(emit, r, v, operands)
            builder.branch(end)
    builder.position_at_end(end)


# The pieces of a long reduction. This is vector code too, because numba took two seconds longer to compile it. The
# product of a single row with several panels uses it as well (`single_row.py`).


@intrinsic
def _scratch(typingctx, like):
    """Return the itemsize, and the addresses on the stack of two zero vectors, a piece, and the total."""

    def codegen(context, builder, signature, args):
        emit = Emitter(builder, item_of(like))
        kinds = (emit.vector, 2), (emit.vector, 2 * ROWS_TOGETHER), (emit.wide, 2 * ROWS_TOGETHER)
        with builder.goto_entry_block():  # not alloca_once, which would zero everything on each call of `block`
            zeros, piece, total = (builder.alloca(ir.ArrayType(kind, size)) for kind, size in kinds)
        builder.store(emit.zeros(zeros.type.pointee), zeros)
        addresses = [builder.ptrtoint(place, int64) for place in (zeros, piece, total)]
        return context.make_tuple(builder, signature.return_type, [emit.number(emit.itemsize), *addresses])

    return types.UniTuple(types.int64, 4)(like), codegen


@intrinsic
def _block_again(typingctx, rows, vectors, c, like, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0):
    """Call the enclosing function, `block`, with c as an address."""

    def codegen(context, builder, signature, args):
        rows, vectors, c, like, *rest = args
        arguments = [rows, vectors, builder.inttoptr(c, like.type), *rest]
        kinds = (*signature.args[:2], signature.args[3], *signature.args[4:])
        context.call_conv.call_function(builder, builder.function, types.none, kinds, arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, like, *[types.int64] * 12), codegen


@vector_function
def add_piece(emit, piece, total, begins, vectors):
    """Add the vectors of a piece to the total, or begin the total with them if `begins`."""
    builder = emit.builder

    def add(k, _):
        numbers = builder.mul(k, emit.number(emit.lanes))
        target = emit.address(total, numbers, itemsize=8)
        value = emit.widen(emit.load(emit.address(piece, numbers)))
        before = builder.select(begins, emit.zeros(emit.wide), emit.load(target, kind=emit.wide))
        emit.store(builder.fadd(before, value), target)

    emit.loop(vectors, [], add)


@vector_function
def write_sums(emit, c, c_i, start, start_i, total, first, rows, vectors):
    """Write start + the total to `rows` rows of c from row `first` on."""
    builder, lanes = emit.builder, emit.number(emit.lanes)

    def write_row(row, _):
        i = builder.add(first, row)

        def write(v, _):
            column = builder.mul(v, lanes)
            begin = emit.load(emit.address(start, builder.add(builder.mul(i, start_i), column)))
            numbers = builder.mul(builder.add(builder.mul(row, vectors), v), lanes)
            summed = emit.load(emit.address(total, numbers, itemsize=8), kind=emit.wide)
            value = emit.narrow(builder.fadd(emit.widen(begin), summed))
            emit.store(value, emit.address(c, builder.add(builder.mul(i, c_i), column)))

        emit.loop(vectors, [], write)

    emit.loop(rows, [], write_row)


def block(rows, vectors, c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0):
    """Compute any number of rows, in tiles; see the top of this file."""
    if n1 * n0 <= LONG_SUM:
        # As even as possible: 26 rows are 6 + 7 + 6 + 7, not 8 + 8 + 8 + 2, whose last tile would run at half speed.
        tiles = (rows + ROWS - 1) // ROWS
        for tile in range(tiles):
            first = tile * rows // tiles
            _tile(c, first, (tile + 1) * rows // tiles - first, vectors,
                  c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0)
        return
    itemsize, zeros, piece, total = _scratch(c)
    runs = (n0 + PIECE - 1) // PIECE
    most1, most0 = max(1, PIECE // n0), (n0 + runs - 1) // runs
    for first in range(0, rows, ROWS_TOGETHER):
        count = min(ROWS_TOGETHER, rows - first)
        for k1 in range(0, n1, most1):
            for k0 in range(0, n0, most0):
                _block_again(count, vectors, piece, c, vectors * VECTOR_BYTES // itemsize, zeros, 0,
                             a + (first * a_i + k1 * a_k1 + k0 * a_k0) * itemsize, a_i, a_k1, a_k0,
                             b + (k1 * b_k1 + k0 * b_k0) * itemsize, b_k1, b_k0,
                             min(most1, n1 - k1), min(most0, n0 - k0))
                add_piece(c, piece, total, k1 + k0 == 0, count * vectors)
        write_sums(c, c, c_i, start, start_i, total, first, count, vectors)


def _signature(dtype):
    item = types.float32 if np.dtype(dtype) == np.float32 else types.float64
    return types.void(*[types.int64] * 2, types.CPointer(item), *[types.int64] * 12)


# The address of `block`, compiled for each dtype on first use.
block_address = callback_address(block, _signature)


def assembly(dtype=np.float32):
    """Return the machine code of `block` as text, for study: all its tiles, one after the other."""
    # Compiled afresh, because the copy on disk has no listing.
    return numba.cfunc(_signature(dtype))(block)._library.get_asm_str()


@intrinsic
def call_block(typingctx, address, rows, vectors, c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0):
    """Call the `block` at an address, from compiled code; c, start, a and b are addresses."""

    def codegen(context, builder, signature, args):
        pointer = ir.IntType(8).as_pointer()
        function_type = ir.FunctionType(ir.VoidType(), [int64, int64, pointer, *[int64] * 12])
        address, rows, vectors, c, *rest = args
        function = builder.inttoptr(address, function_type.as_pointer())
        builder.call(function, [rows, vectors, builder.inttoptr(c, pointer), *rest])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 16), codegen
