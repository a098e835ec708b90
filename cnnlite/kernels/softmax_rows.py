"""softmax and log_softmax of one row, and their derivatives, in vectors of 16 numbers on any processor.

    largest = max x_i                 subtracted first: that changes no quotient, and the largest exp is 1
    total   = sum_i exp(x_i - largest)
    softmax_i = exp(x_i - largest) / total,      log_softmax_i = (x_i - largest) - log(total)

Number i of the row is added to sum i mod 16. The 16 sums are added as a tree: 0 and 8, 1 and 9, ..., and the 8 results
in the same way. LLVM turns each vector of 16 into one, two or four instructions, depending on the width of the
registers, which changes no bit. The sums are in float64 even for float32: a long row keeps its digits, and if one class
is nearly certain, log(total) of 1 + 1e-9 is not 0.

NaN anywhere in the row reaches the total, and so the whole row. An infinite maximum does too: it leaves inf - inf.
"""

import math

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cnnlite.engine.jit import jit
from cnnlite.kernels.llvm.elementary import exp, log
from cnnlite.kernels.llvm.formula_ir import Number, where
from cnnlite.kernels.llvm.vectors import Emitter, item_of

LANES = 16


@jit
def softmax_row(x, y):
    """Write exp(x) / sum(exp(x)) to y; both are contiguous rows of equal length and dtype, and may be the same."""
    _softmax(x.ctypes.data, x.size, y.ctypes.data, x.dtype.type(0), False)


@jit
def log_softmax_row(x, y):
    """Write x - log(sum(exp(x))) to y; both are contiguous rows of equal length and dtype, and may be the same."""
    _softmax(x.ctypes.data, x.size, y.ctypes.data, x.dtype.type(0), True)


@jit
def softmax_backward_row(dy, y, dx):
    """Write y * (dy - sum(dy * y)) to dx; all are contiguous rows of equal length and dtype."""
    _softmax_backward(dy.ctypes.data, y.ctypes.data, y.size, dx.ctypes.data, y.dtype.type(0), False)


@jit
def log_softmax_backward_row(dy, y, dx):
    """Write dy - exp(y) * sum(dy) to dx; all are contiguous rows of equal length and dtype."""
    _softmax_backward(dy.ctypes.data, y.ctypes.data, y.size, dx.ctypes.data, y.dtype.type(0), True)


class _Row(Emitter):
    """A row of numbers, in vectors of 16."""

    def __init__(self, builder, item, size):
        super().__init__(builder, item)
        self.lanes, self.vector = LANES, ir.VectorType(item, LANES)
        self.size = size

    def vectors(self, carried, body):
        """Emit the loop over the row: `body(first, mask, carried)` for each vector; the last one may be partial."""
        builder, lanes = self.builder, self.number(LANES)
        count = builder.udiv(builder.add(self.size, self.number(LANES - 1)), lanes)

        def vector(k, carried):
            first = builder.mul(k, lanes)
            return body(first, self.mask(builder.sub(self.size, first)), carried)

        return self.loop(count, carried, vector)

    def read(self, array, first, mask):
        return Number(self.builder, self.load(self.address(array, first), mask))

    def everywhere(self, scalar):
        """Return a vector with a Number in all 16 lanes."""
        return Number(self.builder, self.splat(scalar.value))

    def sum(self, term):
        """Emit the float64 sum of `term(first, mask)` over the row; the term must be 0 in the lanes masked out."""

        def add(first, mask, carried):
            return [(Number(self.builder, carried[0]) + _widened(term(first, mask))).value]

        [sums] = self.vectors([self.zeros(ir.VectorType(ir.DoubleType(), LANES))], add)
        return self.fold(Number(self.builder, sums), lambda a, b: a + b)

    def fold(self, vector, combine):
        """Reduce a vector to one Number, by combining its halves until one lane is left."""
        width = LANES
        while width > 1:
            width //= 2
            halves = [self._part(vector, first, width) for first in (0, width)]
            vector = combine(*halves)
        return Number(self.builder, self.builder.extract_element(vector.value, ir.Constant(ir.IntType(32), 0)))

    def _part(self, vector, first, width):
        places = ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(first, first + width)))
        undefined = ir.Constant(vector.type, ir.Undefined)
        return Number(self.builder, self.builder.shuffle_vector(vector.value, undefined, places))


def _larger(a, b):
    return where(a > b, a, b)


@intrinsic
def _softmax(typingctx, x, size, y, of, logarithm):
    """Write softmax, or its logarithm, of the row at the address x to y; `of` is any number of the arrays' dtype."""

    def codegen(context, builder, signature, args):
        x, size, y, _, logarithm = args
        row = _Row(builder, item_of(signature.args[3]), size)

        def find_largest(first, mask, carried):
            numbers = row.read(x, first, mask)
            best = Number(builder, carried[0])
            return [_larger(where(mask, numbers, -math.inf), best).value]

        lowest = Number(builder, row.zeros(row.vector)).like(-math.inf)
        [best] = row.vectors([lowest.value], find_largest)
        largest = row.everywhere(row.fold(Number(builder, best), _larger))

        def moved(first, mask):
            return row.read(x, first, mask) - largest

        def total_of_exp(is_kept):
            def power(first, mask):
                power = where(mask, exp.formula(moved(first, mask)), 0.0)
                if is_kept:
                    row.store(power.value, row.address(y, first), mask)
                return power

            return row.sum(power)

        def write_softmax():
            total = row.everywhere(_narrowed(total_of_exp(is_kept=True), row.item))

            def divide(first, mask, carried):
                row.store((row.read(y, first, mask) / total).value, row.address(y, first), mask)
                return carried

            row.vectors([], divide)

        def write_log_softmax():
            log_total = row.everywhere(_narrowed(log.formula(total_of_exp(is_kept=False)), row.item))

            def subtract(first, mask, carried):
                row.store((moved(first, mask) - log_total).value, row.address(y, first), mask)
                return carried

            row.vectors([], subtract)

        row.either(logarithm, lambda holds: write_log_softmax() if holds else write_softmax())
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, of, types.boolean), codegen


@intrinsic
def _softmax_backward(typingctx, dy, y, size, dx, of, logarithm):
    """Write the gradient through softmax, or its logarithm, to dx; `of` is any number of the rows' dtype."""

    def codegen(context, builder, signature, args):
        dy, y, size, dx, _, logarithm = args
        row = _Row(builder, item_of(signature.args[4]), size)

        def write(term, gradient):
            total = row.everywhere(_narrowed(row.sum(term), row.item))

            def write_vector(first, mask, carried):
                result = gradient(row.read(dy, first, mask), row.read(y, first, mask), total)
                row.store(result.value, row.address(dx, first), mask)
                return carried

            row.vectors([], write_vector)

        def write_either(is_logarithm):
            if is_logarithm:
                write(lambda first, mask: row.read(dy, first, mask),
                      lambda dy, y, total: dy - exp.formula(y) * total)
            else:
                # The products of two float32 are exact in float64.
                write(lambda first, mask: _widened(row.read(dy, first, mask)) * _widened(row.read(y, first, mask)),
                      lambda dy, y, total: y * (dy - total))

        row.either(logarithm, write_either)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, of, types.boolean), codegen


def _widened(vector):
    """Return a vector in float64."""
    double = ir.VectorType(ir.DoubleType(), LANES)
    return Number(vector.builder, vector.builder.fpext(vector.value, double)) if vector.is_single else vector


def _narrowed(number, item):
    """Return a float64 in the row's type."""
    is_single = isinstance(item, ir.FloatType)
    return Number(number.builder, number.builder.fptrunc(number.value, item)) if is_single else number
