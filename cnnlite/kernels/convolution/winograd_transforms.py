"""The three transforms of Winograd's convolution: their matrices, exact, and the vector code that applies them.

The top of `winograd.py` explains what they are for, with a small example. This file explains where their entries come
from, and how they are applied to a tile at full speed.

**From polynomials to correlations.** Take two polynomials with n and K coefficients, n + K - 1 = 6. Their product
s(t) = a(t) g(t) has 6 coefficients, so its values at 6 points determine it, and each value is one multiplication:

    s(p) = a(p) g(p)      with a(p) = sum over j < n of  a_j p^j,   or in a matrix:  V_n a,  (6, n) @ (n,)

One of the points is infinity, where the value of a polynomial is its leading coefficient. Lagrange interpolation
recovers the coefficients: s = sum over the points p of  s(p) L_p, where L_p is the polynomial with 6 coefficients that
is 1 at p and 0 at the others. It is the product of (t - q) over the other points q, times a constant D_p. Let the rows
of B be the coefficients of these products, without the constants. Then
s_i = sum over p of  B[p, i] D_p (V_n a)_p (V_K g)_p.

Now pair s with any 6 numbers d. Since s_i is the sum of a_j g_k over j + k = i,

    sum over i of  d_i s_i  =  sum over j of  a_j (sum over k of  d_{j+k} g_k)  =  sum over j of  a_j y_j

where y is what a convolution layer computes: n outputs of a kernel g of K taps that slides over d. With s_i from above,
the same sum is also a . V_n^T D [(V_K g) * (B d)]. This holds for every a, so

    y = A_n [(V_K g) * (B d)],    A_n = V_n^T D         in two dimensions:  A_n [(V_K g V_K^T) * (B d B^T)] A_n^T

The gradient of g is found in the same way with the roles of a and g swapped: it is A_K [(V_n dy) * (B d)]. The gradient
of d is the transpose of what is done to d: B^T [D (V_K g) * (V_n dy)]. So V, A and B suffice for all three, and B
(6 x 6) is the same for all kernel sizes.

**The points** are 0, 3/4, -3/4, 3/2, -3/2 and infinity. They determine how rounding errors grow. The usual
0, 1, -1, 2, -2 lose about twice as much. Like those, they have few bits, so that B and V are exact even in float32 and
only D is rounded. And each comes with its negative, which saves half the multiplications below.

**The code.** A tile is 6 x 6 pixels of many channels, and the channels are contiguous. So each element of a tile is a
vector of channels, and a transform is a few dozen multiply-adds of vectors, first down the columns of the tile, then
along its rows. They are written as `vectors.py` explains: numba can't vectorise a loop that reads 36 places and writes
36 others, because it can't know that they don't overlap.
"""

import functools
from fractions import Fraction

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cnnlite.engine.jit import callback_address
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.llvm.vectors import Emitter, int32, int64, vector_function

TILE = 6  # pixels on a side
TAPS = (2, 3, 4, 5)  # kernel sizes K, each with TILE + 1 - K outputs on a side
POINTS = (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2))  # and infinity
PAIRS = (1, 3)  # indices in POINTS of the points that their negatives follow


def evaluation(n):
    """Return V_n (6, n), which evaluates a polynomial with n coefficients at the points."""
    return [[point**j for j in range(n)] for point in POINTS] + [[Fraction(j == n - 1) for j in range(n)]]


def _others(p):
    """Return the coefficients of the product of (t - q) over all finite points q except the one with index p."""
    product = [Fraction(1)]
    for q, point in enumerate(POINTS):
        if q != p:
            product = [below - point * here for below, here in zip([Fraction(0), *product], [*product, Fraction(0)])]
    return product + [Fraction(0)] * (TILE - len(product))


def tile_matrix():
    """Return B (6, 6), which transforms a tile of the input."""
    return [_others(p) for p in range(TILE)]


def constants():
    """Return the diagonal of D (6,), the constants that B leaves out."""
    return [1 / sum(c * point**i for i, c in enumerate(_others(p))) for p, point in enumerate(POINTS)] + [Fraction(1)]


def recovery(n):
    """Return A_n = V_n^T D (n, 6), which turns 6 products into n outputs."""
    v, d = evaluation(n), constants()
    return [[v[p][j] * d[p] for p in range(TILE)] for j in range(n)]


def _combine(emit, terms):
    """Emit the sum of factor * vector, with as few instructions as the factors 0 and 1 allow."""
    terms = sorted((term for term in terms if term[0]), key=lambda term: term[0] != 1)
    factor, total = terms[0]
    if factor != 1:
        total = emit.builder.fmul(total, emit.constant(factor))
    for factor, vector in terms[1:]:
        if factor == 1:
            total = emit.builder.fadd(total, vector)
        else:
            total = emit.multiply_add(emit.constant(factor), vector, total)
    return total


def _to_points(emit, matrix, vectors):
    """Emit matrix @ vectors, for B and V: 12 instructions for B.

    Their rows for p and -p differ only in the sign of every second element: the even and the odd half
    of the sum are computed once, then added and subtracted.
    """
    result = [_combine(emit, zip(row, vectors)) for row in (matrix[0], matrix[-1])]
    for i in PAIRS:
        row = matrix[i]
        even = _combine(emit, list(zip(row, vectors))[::2])
        scale = [factor for factor in row[1::2] if factor][-1]
        odd = _combine(emit, [(factor / scale, vector) for factor, vector in zip(row, vectors)][1::2])
        result[-1:-1] = [emit.multiply_add(emit.constant(factor), odd, even) for factor in (scale, -scale)]
    return result


def _from_points(emit, matrix, vectors, start=None):
    """Emit start + matrix @ vectors, for A and B^T.

    Their columns for p and -p differ only in the sign of every second element.
    """
    sums = {i: emit.builder.fadd(vectors[i], vectors[i + 1]) for i in PAIRS}
    differences = {i: emit.builder.fsub(vectors[i], vectors[i + 1]) for i in PAIRS}
    result = []
    for row in matrix:
        terms = [(row[0], vectors[0]), (row[-1], vectors[-1])]
        terms += [(row[i], (sums if row[i] == row[i + 1] else differences)[i]) for i in PAIRS]
        result.append(_combine(emit, terms if start is None else [(Fraction(1), start), *terms]))
    return result


def _emit_transform(module, item, kind, whole):
    """Emit the function that applies one transform to all vectors of channels, with the arguments of `transform`.

    whole: whether the tile lies within the image.
    """
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [int64] * 10), f"transform_{kind}_{whole}")
    function.linkage = "internal"
    # LLVM would merge what two transforms have in common, and pass 36 vectors through memory to get there.
    function.attributes.add("noinline")
    channels, image, height, width, pixel, top, left, points, distance, start = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    emit = Emitter(builder, item)
    number = emit.number

    def inside(first, size, count):
        # Unsigned, so that one comparison finds what lies before the image or after it.
        return [builder.icmp_unsigned("<", builder.add(first, number(k)), size) for k in range(count)]

    side, adds = abs(kind), kind == -TILE
    channels, pixel, distance = (builder.mul(step, number(emit.itemsize)) for step in (channels, pixel, distance))
    line = builder.mul(width, pixel)
    corner = builder.add(image, builder.add(builder.mul(top, line), builder.mul(left, pixel)))
    if not whole:
        real_rows, real_columns = inside(top, height, side), inside(left, width, side)
        spare = builder.ptrtoint(builder.alloca(emit.vector), int64)
        emit.store(emit.zeros(), spare)

    def at_pixel(offset, i, j):
        row = builder.add(builder.add(corner, offset), builder.mul(line, number(i)))
        address = builder.add(row, builder.mul(pixel, number(j)))
        if not whole:
            real = builder.and_(real_rows[i], real_columns[j])
            address = builder.select(real, address, spare)
        return address

    def at_point(offset, i, j):
        row = builder.add(builder.add(points, offset), builder.mul(distance, number(i * TILE)))
        return builder.add(row, builder.mul(distance, number(j)))

    size = number(VECTOR_BYTES)
    last = builder.sub(channels, size)
    count = builder.udiv(builder.add(channels, number(VECTOR_BYTES - 1)), size)

    def transform_vector(k, _):
        first = builder.mul(k, size)
        offset = builder.select(builder.icmp_signed("<", first, last), first, last)
        if kind > 0:
            matrix = tile_matrix() if kind == TILE else evaluation(kind)
            source, target = at_pixel, at_point
            along_columns = along_rows = functools.partial(_to_points, emit, matrix)
        else:
            matrix = list(zip(*tile_matrix())) if adds else recovery(side)
            source, target = at_point, at_pixel
            bias = None if adds else emit.load(builder.add(start, offset))
            along_columns = functools.partial(_from_points, emit, matrix)
            along_rows = functools.partial(_from_points, emit, matrix, start=bias)
        if adds:
            # What the last vector shares with the previous one must not be added twice.
            done = builder.mul(start, number(emit.itemsize))
            done = builder.select(builder.icmp_signed("<", first, done), done, first)
            done = builder.udiv(builder.sub(done, offset), number(emit.itemsize))
            # As wide as the elements, so that the comparison takes exactly one vector.
            kept = emit.mask(done if emit.itemsize == 8 else builder.trunc(done, int32))
        sources = range(len(matrix[0]))
        columns = [along_columns([emit.load(source(offset, i, j)) for i in sources]) for j in sources]
        for i in range(len(matrix)):
            for j, vector in enumerate(along_rows([column[i] for column in columns])):
                place = target(offset, i, j)
                if adds:
                    before = emit.load(place)
                    vector = builder.select(kept, before, builder.fadd(before, vector))
                emit.store(vector, place)

    emit.loop(count, [], transform_vector)
    builder.ret_void()
    return function


@vector_function
def _transform(emit, kind, whole, channels, image, height, width, pixel, top, left, points, distance, start):
    """Call the transform of the given kind."""
    builder, arguments = emit.builder, (channels, image, height, width, pixel, top, left, points, distance, start)
    end = builder.append_basic_block("end")
    switch = builder.switch(builder.add(builder.add(kind, kind), whole), end)
    for k in (kind for size in (TILE, *TAPS) for kind in (size, -size)):
        for w in (0, 1):
            place = builder.append_basic_block()
            switch.add_case(emit.number(2 * k + w), place)
            builder.position_at_end(place)
            builder.call(_emit_transform(builder.module, emit.item, k, w), arguments)
            builder.branch(end)
    builder.position_at_end(end)


def transform(kind, channels, image, height, width, pixel, top, left, points, distance, start):
    """Transform a tile of pixels to 36 points, or 36 points back to a tile of pixels.

    `kind` selects the matrix: 6 is B, n from 2 to 5 is V_n, and -n is A_n, which transforms back and adds `start`,
    one value per channel, to the pixels. -6 is B^T, which transforms back and adds the result to the pixels, except in
    the first `start` channels.

    The tile begins at the pixel (top, left) of an image of height x width pixels that are `pixel` elements apart.
    Pixels outside the image are read as zeros, and are not written. The 36 points are `distance` elements apart. There
    must be at least one vector of channels. The last one ends with the last channel and overlaps the previous one, so
    that nothing beyond the channels is touched.
    """
    side = abs(kind)
    whole = 1 if top >= 0 and left >= 0 and top + side <= height and left + side <= width else 0
    _transform(points, kind, whole, channels, image, height, width, pixel, top, left, points, distance, start)


def _signature(dtype):
    item = types.float32 if np.dtype(dtype) == np.float32 else types.float64
    return types.void(*[types.int64] * 8, types.CPointer(item), *[types.int64] * 2)


# The address of `transform`, compiled for each dtype on first use.
transform_address = callback_address(transform, _signature)


@intrinsic
def call_transform(typingctx, address, kind, channels, image, height, width, pixel, top, left, points, distance, start):
    """Call the `transform` at an address, from compiled code; image, points and start are addresses."""

    def codegen(context, builder, signature, args):
        pointer = ir.IntType(8).as_pointer()
        function_type = ir.FunctionType(ir.VoidType(), [*[int64] * 8, pointer, *[int64] * 2])
        address, *rest = args
        rest[8] = builder.inttoptr(rest[8], pointer)
        builder.call(builder.inttoptr(address, function_type.as_pointer()), rest)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 12), codegen
