"""The one loop in which cnnlite spends its time: a small matrix product that lives in the processor's registers.

Every convolution and every dense layer, forward and backward, is made of calls of `tile`:

    c[i, j] = start[i, j] + sum over k1 < n1, k0 < n0 of  a[i, k1, k0] * b[k1, k0, j]

for up to ROWS rows i, and 1 or 2 vectors of columns j. Each operand is an address and the distance, in
elements, from one index to the next; the columns j of b, c and start lie side by side.

**Why a tile.** A core can do two vector multiply-adds a cycle but load only two vectors. A loop that loads
both factors of each product would run at half speed at best, and one that also keeps its sums in memory at
a quarter. A tile of 8 rows and 2 vectors keeps its 16 sums in registers for the whole reduction. Each step
loads 2 vectors of b and 8 numbers of a, and does 16 multiply-adds with them:

              b0     b1        registers:  16 sums + 2 of b + 1 or 2 of a, out of 32 (AVX-512, NEON);
        a0    c00    c01       with 16 registers (AVX2) 6 rows: 12 sums + 2 of b + 1 or 2 of a.
        a1    c10    c11
        ..     ..     ..       `a` is a single number, copied to all lanes of a vector as it is loaded.
        a7    c70    c71

**Why two loops.** A row of an im2col matrix is KH runs of KW * C numbers which already lie side by side in
the image. With a loop over the runs (k1) round a loop along the run (k0), the tile reads the rows straight
from the image, and the im2col matrix never has to exist.

**Why LLVM by hand.** numba compiles plain loops well, but it doesn't keep an array of 16 sums in registers.
So this file writes the vector instructions itself, in LLVM's own language, which is the same for
all processors; where the vectors are longer than the machine's, LLVM splits them. What comes out, for 8 rows
and 2 vectors of AVX-512, is a loop of 20 instructions (see `benchmarks/README.md`):

    vmovups zmm16, [b]           ; 2 vectors of b
    vmovups zmm17, [b + 64]
    vbroadcastss zmm18, [a]      ; a number of a ...
    vfmadd231ps zmm0, zmm16, zmm18
    vfmadd231ps zmm1, zmm17, zmm18
    ...                          ; ... and so on for 8 rows

The addresses are not checked here. `matmul.py` and `conv2d.py` compute them from shapes that they have checked.
"""

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from cnnlite.kernels._jit import kernel

_features = llvm.get_host_cpu_features()
if _features.get("avx512f"):
    VECTOR_BYTES, ROWS = 64, 8
elif _features.get("avx"):
    VECTOR_BYTES, ROWS = 32, 6
else:  # SSE or NEON: 4 lanes
    VECTOR_BYTES, ROWS = 16, 6

_int64 = ir.IntType(64)


def lanes(dtype):
    """Return how many numbers of that dtype a vector holds."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def _constant(value):
    return ir.Constant(_int64, value)


def _emit_tile(builder, item, rows, vectors, operands):
    """Emit the tile for one fixed number of rows and vectors, so that every sum is a register."""
    c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0 = operands
    width = VECTOR_BYTES // (4 if isinstance(item, ir.FloatType) else 8)
    vector = ir.VectorType(item, width)
    itemsize = VECTOR_BYTES // width

    def load_vector(address, v):
        address = builder.add(address, _constant(v * VECTOR_BYTES))
        return builder.load(builder.inttoptr(address, vector.as_pointer()), align=itemsize)

    def broadcast(address):
        number = builder.load(builder.inttoptr(address, item.as_pointer()), align=itemsize)
        undefined = ir.Constant(vector, ir.Undefined)
        one_lane = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one_lane, undefined, ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width))

    a_row = [builder.mul(a_i, _constant(i)) for i in range(rows)]
    sums = []
    for i in range(rows):
        address = builder.add(start, builder.mul(start_i, _constant(i)))
        sums += [load_vector(address, v) for v in range(vectors)]

    def loop(count, steps, carried, body):
        """Emit `for k in range(count)`: advance the addresses by `steps`, carry the sums from turn to turn."""
        before = builder.block
        head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        values = [_constant(0), *[address for address, _ in steps], *carried]
        phis = []
        for value in values:
            phis.append(builder.phi(value.type))
            phis[-1].add_incoming(value, before)
        k, addresses, sums = phis[0], phis[1 : 1 + len(steps)], phis[1 + len(steps) :]
        builder.cbranch(builder.icmp_signed("<", k, count), inside, after)
        builder.position_at_end(inside)
        sums_after = body(addresses, sums)
        advanced = [builder.add(k, _constant(1))]
        advanced += [builder.add(address, step) for address, (_, step) in zip(addresses, steps)]
        for phi, value in zip(phis, advanced + sums_after):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return sums

    def multiply_add(addresses, sums):
        a_address, b_address = addresses
        b_vectors = [load_vector(b_address, v) for v in range(vectors)]
        result = []
        for i in range(rows):
            factor = broadcast(builder.add(a_address, a_row[i]))
            for v in range(vectors):
                # "contract" makes the two one fused multiply-add wherever the machine has it.
                product = builder.fmul(factor, b_vectors[v], flags=("contract",))
                result.append(builder.fadd(product, sums[i * vectors + v], flags=("contract",)))
        return result

    def along_the_run(addresses, sums):
        return loop(n0, list(zip(addresses, (a_k0, b_k0))), sums, multiply_add)

    sums = loop(n1, [(a, a_k1), (b, b_k1)], sums, along_the_run)

    for i in range(rows):
        row = builder.add(c, builder.mul(c_i, _constant(i)))
        for v in range(vectors):
            address = builder.add(row, _constant(v * VECTOR_BYTES))
            builder.store(sums[i * vectors + v], builder.inttoptr(address, vector.as_pointer()), align=itemsize)


def _make_tile(item, itemsize):
    @intrinsic
    def tile(typingctx, rows, vectors, c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0):
        def codegen(context, builder, signature, args):
            rows, vectors, *operands = args
            # From elements to bytes: everything but the three addresses and the two counts at the end.
            operands = [
                operand if place in (0, 2, 4, 8, 11, 12) else builder.mul(operand, _constant(itemsize))
                for place, operand in enumerate(operands)
            ]
            end = builder.append_basic_block("end")
            case = builder.add(builder.mul(vectors, _constant(ROWS + 1)), rows)
            switch = builder.switch(case, end)
            for v in (1, 2):
                for r in range(1, ROWS + 1):
                    block = builder.append_basic_block(f"tile_{r}_rows_{v}_vectors")
                    switch.add_case(_constant(v * (ROWS + 1) + r), block)
                    builder.position_at_end(block)
                    _emit_tile(builder, item, r, v, operands)
                    builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 15), codegen

    return tile


tile_float32 = _make_tile(ir.FloatType(), 4)
tile_float64 = _make_tile(ir.DoubleType(), 8)


def tile(array, rows, vectors, c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0):
    """Call the tile for the dtype of `array`; see the head of this file. Only for compiled code."""
    raise RuntimeError("tile works on addresses and has no meaning outside compiled code; see cnnlite/reference.py.")


@overload(tile, inline="always")
def _tile(array, rows, vectors, c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0):
    chosen = tile_float32 if array.dtype == types.float32 else tile_float64

    def call(array, rows, vectors, c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0):
        return chosen(rows, vectors, c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0)

    return call


@kernel(inline=True)
def block(rows, columns, c, c_place, c_i, start, start_place, start_i, a, a_place, a_i, a_k1, a_k0,
          b, b_place, b_k1, b_k0, n1, n0, scratch):
    """Run tiles over a block of any number of rows, and of up to two vectors of columns.

    The operands are one-dimensional arrays, each with the place of its first element; `start`, like `b`,
    must hold whole vectors. c need not: the last columns go through `scratch`, of ROWS * 2 vectors.
    """
    itemsize = c.itemsize
    width = VECTOR_BYTES // itemsize
    vectors = 1 if columns <= width else 2
    whole = columns == vectors * width
    # As even as possible: 26 rows are 7 + 7 + 6 + 6, not 8 + 8 + 8 + 2, whose last tile would run at half speed.
    tiles = (rows + ROWS - 1) // ROWS
    for t in range(tiles):
        low, high = t * rows // tiles, (t + 1) * rows // tiles
        count = high - low
        a_address = a.ctypes.data + (a_place + low * a_i) * itemsize
        b_address = b.ctypes.data + b_place * itemsize
        start_address = start.ctypes.data + (start_place + low * start_i) * itemsize
        if whole:
            target, target_i = c.ctypes.data + (c_place + low * c_i) * itemsize, c_i
        else:
            target, target_i = scratch.ctypes.data, 2 * width
        # One call for both: each holds a loop for every number of rows, and they are what takes long to compile.
        tile(c, count, vectors, target, target_i, start_address, start_i, a_address, a_i, a_k1, a_k0,
             b_address, b_k1, b_k0, n1, n0)
        if not whole:
            for i in range(count):
                for j in range(columns):
                    c[c_place + (low + i) * c_i + j] = scratch[i * 2 * width + j]
