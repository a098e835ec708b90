"""The inner loop of depthwise convolutions: the counterpart of `microkernel.py`, with products of vectors.

The forward pass and both gradients consist of calls to `depthwise_block`:

    c[i, j] = start[i, j] + sum over k1 < n1, k0 < n0 of  a[i, k1, k0, j] * b[k1, k0, j]

for any number of rows i; the channels j are contiguous in all operands. Each operand is an address and its strides, in
elements. So it is the micro-kernel with a vector in place of each element of a:

    forward               rows are pixels of y         k1, k0 are the taps              a is x,  b the kernel
    gradient of x         rows are pixels of x         k1, k0 are taps, backwards       a is dy, b the kernel
    gradient of kernel    rows are taps of a line      k1, k0 are the pixels of dy      a is x,  b is dy

Here, too, the sums of a tile stay in registers for the whole reduction: one vector of channels for up to PIXELS rows,
enough that no multiply-add waits for the previous one. A loop along the channels with the sums in memory takes 4 times
as long for 3x3 taps of 32 channels, and 16 times as long for the kernel gradient.

Nothing is checked here. `depthwise.py` computes the addresses.
"""

from functools import partial

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cnnlite.engine.jit import callback_address
from cnnlite.kernels.llvm.vectors import Emitter

PIXELS = 8  # maximum rows of a tile
LINE_TAPS = 3  # taps per kernel row in most nets


def _emit_tile(emit, rows, is_sliding, operands, channel, mask):
    """Emit a tile with a fixed number of rows, for the vector of channels that starts at `channel`.

    It is sliding if k0 runs over LINE_TAPS taps and row i + 1 begins at the second tap of row i.
    """
    c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0 = operands
    builder = emit.builder
    c, start, a, b = (emit.address(base, channel) for base in (c, start, a, b))
    places = [builder.mul(a_i, emit.number(i)) for i in range(rows)]

    def row(base, distance, i):
        return builder.add(base, builder.mul(distance, emit.number(i)))

    def multiply_add(_, carried):
        a, b, *sums = carried
        factor = emit.load(b, mask)
        result = []
        for place, total in zip(places, sums):
            # "contract" lets LLVM fuse the two into one multiply-add wherever the machine has it.
            product = builder.fmul(emit.load(builder.add(a, place), mask), factor, flags=("contract",))
            result.append(builder.fadd(product, total, flags=("contract",)))
        return [builder.add(a, a_k0), builder.add(b, b_k0), *result]

    def along_the_line(_, carried):
        a, b, *_ = carried
        _, _, *sums = emit.loop(n0, carried, multiply_add)
        return [builder.add(a, a_k1), builder.add(b, b_k1), *sums]

    def across_neighbours(_, carried):
        a, b, *sums = carried
        factors = [emit.load(builder.add(b, builder.mul(b_k0, emit.number(k))), mask) for k in range(LINE_TAPS)]
        for p in range(rows + LINE_TAPS - 1):
            number = emit.load(builder.add(a, builder.mul(a_i, emit.number(p))), mask)
            for k in range(max(0, p - rows + 1), min(LINE_TAPS, p + 1)):
                product = builder.fmul(number, factors[k], flags=("contract",))
                sums[p - k] = builder.fadd(product, sums[p - k], flags=("contract",))
        return [builder.add(a, a_k1), builder.add(b, b_k1), *sums]

    sums = [emit.load(row(start, start_i, i), mask) for i in range(rows)]
    _, _, *sums = emit.loop(n1, [a, b, *sums], across_neighbours if is_sliding else along_the_line)
    for i, total in enumerate(sums):
        emit.store(total, row(c, c_i, i), mask)
    return []


@intrinsic
def _tile(typingctx, first, rows, channels, c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0):
    """Compute `rows` rows, at most PIXELS, from row `first` on; the type of c gives the dtype."""
    item = ir.FloatType() if c.dtype == types.float32 else ir.DoubleType()

    def codegen(context, builder, signature, args):
        first, rows, channels, c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0 = args
        emit = Emitter(builder, item)
        lanes = emit.number(emit.lanes)

        def in_bytes(distance):
            return builder.mul(distance, emit.number(emit.itemsize))

        def from_first_row(address, distance):
            return builder.add(address, builder.mul(first, distance))

        c_i, start_i, a_i = in_bytes(c_i), in_bytes(start_i), in_bytes(a_i)
        operands = (
            from_first_row(builder.ptrtoint(c, ir.IntType(64)), c_i), c_i,
            from_first_row(start, start_i), start_i,
            from_first_row(a, a_i), a_i, in_bytes(a_k1), in_bytes(a_k0),
            b, in_bytes(b_k1), in_bytes(b_k0), n1, n0,
        )
        vectors, rest = builder.sdiv(channels, lanes), builder.srem(channels, lanes)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(1), emit.lanes), [1] * emit.lanes)
        behind = builder.mul(vectors, lanes)
        has_rest = builder.zext(builder.icmp_signed(">", rest, emit.number(0)), ir.IntType(64))
        end = builder.append_basic_block("end")
        is_sliding = builder.and_(builder.icmp_signed("==", n0, emit.number(LINE_TAPS)),
                                  builder.icmp_signed("==", a_i, in_bytes(a_k0)))
        switch = builder.switch(builder.select(is_sliding, builder.add(rows, emit.number(PIXELS)), rows), end)
        for case in range(1, 2 * PIXELS + 1):
            place = builder.append_basic_block(f"tile_{case}")
            switch.add_case(emit.number(case), place)
            builder.position_at_end(place)
            tile = partial(_emit_tile, emit, (case - 1) % PIXELS + 1, case > PIXELS, operands)
            emit.loop(vectors, [], lambda k, _, tile=tile: tile(builder.mul(k, lanes), everywhere))
            emit.loop(has_rest, [], lambda k, _, tile=tile: tile(behind, emit.mask(rest)))
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, c, *[types.int64] * 12), codegen


def depthwise_block(rows, channels, c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0):
    """Compute any number of rows, in tiles; see the top of this file."""
    tiles = (rows + PIXELS - 1) // PIXELS  # as even as possible
    for tile in range(tiles):
        first = tile * rows // tiles
        _tile(first, (tile + 1) * rows // tiles - first, channels,
              c, c_i, start, start_i, a, a_i, a_k1, a_k0, b, b_k1, b_k0, n1, n0)


def _signature(dtype):
    item = types.float32 if np.dtype(dtype) == np.float32 else types.float64
    return types.void(*[types.int64] * 2, types.CPointer(item), *[types.int64] * 12)


# The address of `depthwise_block`, compiled for each dtype on first use. See `call_block`.
depthwise_block_address = callback_address(depthwise_block, _signature)
