"""Loops over windows and channels in the processor's vectors, written in LLVM's language: max pooling and its way back.

A plain loop over the channels of a pixel is too short for numba: before each, the compiled code must make sure that the
arrays don't overlap, and views of pixels must be made. Pooling an image that lay in the cache took 10 us that way, and
takes 2. Here the channels are the outer loop, a vector of them at a time, and the windows of a row the inner one:

    for c in range(0, C, lanes):              the last vector may stick out; a mask keeps its lanes off the memory
        for j in range(windows):
            best, where = ...                 in registers
            for each pixel of the window: best and where are replaced in the lanes in which it wins

For windows of 2x2 the four pixels are written one after the other, without the innermost loops, which takes two thirds
of the time.

All addresses are integers and all distances are in elements. Nothing is checked here.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cnnlite.engine.target import VECTOR_BYTES

_int64 = ir.IntType(64)
_int32 = ir.IntType(32)
_int8 = ir.IntType(8)


class Emitter:
    """Writes vector instructions for one type of numbers."""

    def __init__(self, builder, item):
        self.builder = builder
        self.item = item
        self.itemsize = 4 if isinstance(item, ir.FloatType) else 8
        self.lanes = VECTOR_BYTES // self.itemsize
        self.vector = ir.VectorType(item, self.lanes)

    def number(self, value):
        return ir.Constant(_int64, value)

    def splat(self, value):
        """Return a vector of one value in all lanes."""
        kind = ir.VectorType(value.type, self.lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.Constant(_int32, 0))
        first_lane = ir.Constant(ir.VectorType(_int32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, undefined, first_lane)

    def zeros(self, kind):
        return ir.Constant(kind, None)

    def mask(self, count):
        """Return a mask of the first `count` lanes."""
        steps = ir.Constant(ir.VectorType(_int64, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", steps, self.splat(count))

    def address(self, base, elements, itemsize=None):
        itemsize = self.itemsize if itemsize is None else itemsize
        return self.builder.add(base, self.builder.mul(elements, self.number(itemsize)))

    def load(self, address, mask, kind=None):
        kind = kind or self.vector
        arguments = [self._pointer(address, kind), self._alignment(kind), mask, self.zeros(kind)]
        return self._masked("load", kind, arguments, kind)

    def store(self, value, address, mask):
        kind = value.type
        self._masked("store", kind, [value, self._pointer(address, kind), self._alignment(kind), mask], ir.VoidType())

    def loop(self, count, carried, body):
        """Emit `for k in range(count)`, of which `body(k, carried)` returns the new carried values.

        If the count is a Python integer there is no loop, but the bodies one after the other.
        """
        if isinstance(count, int):
            for k in range(count):
                carried = body(self.number(k), carried)
            return carried
        builder, before = self.builder, self.builder.block
        head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        values = [self.number(0), *carried]
        phis = [builder.phi(value.type) for value in values]
        for phi, value in zip(phis, values):
            phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", phis[0], count), inside, after)
        builder.position_at_end(inside)
        new = [builder.add(phis[0], self.number(1)), *body(phis[0], phis[1:])]
        for phi, value in zip(phis, new):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return phis[1:]

    def either(self, condition, body):
        """Emit two versions, `body(True)` for where the condition holds and `body(False)` for where it does not."""
        with self.builder.if_else(condition) as (holds, fails):
            with holds:
                body(True)
            with fails:
                body(False)

    def channel_vectors(self, channels, body, together=1):
        """Emit the loop over the vectors of channels: `body((first channel, mask), ...)` of one, or of some together.

        Some together, a power of 2 at most, read the numbers of a pixel in the order in which they lie in memory: a
        pass over every second or fourth vector would leave most of the nearest cache unused.
        """
        builder, lanes = self.builder, self.number(self.lanes)
        vectors = builder.sdiv(builder.add(channels, self.number(self.lanes - 1)), lanes)
        done = self.number(0)
        while together:
            count = builder.sdiv(builder.sub(vectors, done), self.number(together))

            def some(k, _, done=done, together=together):
                begin = builder.add(done, builder.mul(k, self.number(together)))
                firsts = [builder.mul(builder.add(begin, self.number(i)), lanes) for i in range(together)]
                body(*((first, self.mask(builder.sub(channels, first))) for first in firsts))
                return []

            self.loop(count, [], some)
            done = builder.add(done, builder.mul(count, self.number(together)))
            together //= 2

    def affine(self, x, mean, scale, beta):
        """Return (x - mean) * scale + beta, with the freedom that the kernels' compiler has."""
        flags = ("contract", "nsz")
        moved = self.builder.fmul(self.builder.fsub(x, mean, flags=flags), scale, flags=flags)
        return self.builder.fadd(moved, beta, flags=flags)

    def zero_where(self, value, tested, applies):
        """Return the value, with 0 in the lanes in which `tested` is not above 0, if it applies; NaN is above."""
        zero = self.zeros(self.vector)
        off = self.builder.and_(self.builder.fcmp_ordered("ole", tested, zero), self.splat(applies))
        return self.builder.select(off, zero, value)

    def _pointer(self, address, kind):
        return self.builder.inttoptr(address, kind.as_pointer())

    def _alignment(self, kind):
        return ir.Constant(_int32, 1 if kind.element == _int8 else self.itemsize)

    def _masked(self, what, kind, arguments, result):
        suffix = {"float": "f32", "double": "f64", "i8": "i8", "i32": "i32"}[str(kind.element)]
        name = f"llvm.masked.{what}.v{self.lanes}{suffix}.p0v{self.lanes}{suffix}"
        module = self.builder.module
        function_type = ir.FunctionType(result, [argument.type for argument in arguments])
        function = module.globals.get(name) or ir.Function(module, function_type, name)
        return self.builder.call(function, arguments)


def in_words(numba_type):
    return ir.FloatType() if numba_type == types.float32 else ir.DoubleType()


@intrinsic
def max_pool_windows(typingctx, of, x, x_row, x_step, maps, mean, scale, beta, relu, height, width, windows, channels,
                     y, where):
    """Write the maxima of a row of windows, y (windows, channels), and which pixel each is, where (uint8).

    The windows lie wholly in the image: x is the address of the first pixel of the first window, x_row lies between
    rows and x_step between windows. With `maps` the values are (x - mean) * scale + beta; with `relu` the maxima that
    are not above 0 become 0. `of` is any number of the array's type.
    """

    def codegen(context, builder, signature, args):
        (_, x, x_row, x_step, maps, mean, scale, beta, relu, height, width, windows, channels, y, where) = args
        emit = Emitter(builder, in_words(signature.args[0]))
        places = ir.VectorType(_int32, emit.lanes)

        def with_map(maps):
            two = emit.number(2)
            squares = builder.and_(builder.icmp_signed("==", height, two), builder.icmp_signed("==", width, two))
            emit.either(squares, lambda two_by_two: emit.channel_vectors(
                channels, lambda part: channel_vector(*part, maps, *((2, 2) if two_by_two else (height, width)))))

        def channel_vector(first, mask, maps, height, width):
            coefficients = []
            if maps:
                coefficients = [emit.load(emit.address(array, first), mask) for array in (mean, scale, beta)]

            def value(address):
                number = emit.load(address, mask)
                return emit.affine(number, *coefficients) if maps else number

            def window(j, _):
                corner = emit.address(x, builder.add(builder.mul(j, x_step), first))

                def row(a, carried):
                    line = emit.address(corner, builder.mul(a, x_row))

                    def pixel(b, carried):
                        best, place, tap = carried
                        this = value(emit.address(line, builder.mul(b, channels)))
                        # Larger, or the first NaN.
                        wins = builder.and_(builder.fcmp_unordered("ugt", this, best),
                                            builder.fcmp_ordered("ord", best, best))
                        best = builder.select(wins, this, best)
                        place = builder.select(wins, emit.splat(tap), place)
                        return [best, place, builder.add(tap, ir.Constant(_int32, 1))]

                    return emit.loop(width, carried, pixel)

                start = [value(corner), emit.zeros(places), ir.Constant(_int32, 0)]
                best, place, _ = emit.loop(height, start, row)
                best = emit.zero_where(best, best, relu)
                target = builder.add(builder.mul(j, channels), first)
                emit.store(best, emit.address(y, target), mask)
                small = builder.trunc(place, ir.VectorType(_int8, emit.lanes))
                emit.store(small, emit.address(where, target, 1), mask)
                return []

            emit.loop(windows, [], window)

        emit.either(maps, with_map)
        return context.get_dummy_value()

    integers = [types.int64] * 3
    signature = types.void(of, *integers, types.boolean, *integers, types.boolean, *[types.int64] * 6)
    return signature, codegen


@intrinsic
def max_unpool_windows(typingctx, of, dy, y, where, relu, height, width, windows, channels, dx, dx_row, dx_step):
    """Write the gradients of a row of windows that don't overlap: dy where a pixel won, 0 elsewhere.

    With `relu`, dy counts as 0 where y is not above 0. dx is the address of the first pixel of the first window, dx_row
    lies between rows and dx_step between windows. `of` is any number of the arrays' type.
    """
    def codegen(context, builder, signature, args):
        (_, dy, y, where, relu, height, width, windows, channels, dx, dx_row, dx_step) = args
        emit = Emitter(builder, in_words(signature.args[0]))
        places, small = ir.VectorType(_int32, emit.lanes), ir.VectorType(_int8, emit.lanes)

        def channel_vector(first, mask):
            def window(j, _):
                source = builder.add(builder.mul(j, channels), first)
                gradient = emit.load(emit.address(dy, source), mask)
                gradient = emit.zero_where(gradient, emit.load(emit.address(y, source), mask), relu)
                winner = builder.zext(emit.load(emit.address(where, source, 1), mask, small), places)
                corner = emit.address(dx, builder.add(builder.mul(j, dx_step), first))

                def row(a, carried):
                    line = emit.address(corner, builder.mul(a, dx_row))

                    def pixel(b, carried):
                        [tap] = carried
                        won = builder.icmp_signed("==", winner, emit.splat(tap))
                        here = builder.select(won, gradient, emit.zeros(emit.vector))
                        emit.store(here, emit.address(line, builder.mul(b, channels)), mask)
                        return [builder.add(tap, ir.Constant(_int32, 1))]

                    return emit.loop(width, carried, pixel)

                emit.loop(height, [ir.Constant(_int32, 0)], row)
                return []

            emit.loop(windows, [], window)

        emit.channel_vectors(channels, lambda part: channel_vector(*part))
        return context.get_dummy_value()

    return types.void(of, *[types.int64] * 3, types.boolean, *[types.int64] * 7), codegen


@intrinsic
def transpose_panels(typingctx, of, x, x_row, rows, columns, y):
    """Write x (rows, columns) turned into panels of two vectors' width: row j of a panel is column j of x.

    x and y are addresses, x_row lies between the rows of x. What follows the last row in its vector is of no use, and
    neither are a vector's number of rows behind the last panel, which are written too. `of` is any number of the
    arrays' type.

    A square of as many rows as columns as a vector has lanes is turned in registers. Each of log2(lanes) steps merges
    vector i with vector i + lanes / 2 like the two halves of a pack of cards, and after the last of them lane j of
    vector i has become lane i of vector j.
    """

    def codegen(context, builder, signature, args):
        (_, x, x_row, rows, columns, y) = args
        emit = Emitter(builder, in_words(signature.args[0]))
        lanes, number = emit.lanes, emit.number
        indices = ir.VectorType(_int32, lanes)
        merged = [place for i in range(lanes) for place in (i, lanes + i)]
        everywhere, last = emit.mask(number(lanes)), builder.sub(rows, number(1))
        halves = [ir.Constant(indices, merged[:lanes]), ir.Constant(indices, merged[lanes:])]

        def square(k, _):
            first = builder.mul(k, number(lanes))
            panel = builder.mul(builder.lshr(k, number(1)), builder.mul(columns, number(2 * lanes)))
            panel = builder.add(panel, builder.mul(builder.and_(k, number(1)), number(lanes)))

            def part(column, mask):
                vectors = []
                for i in range(lanes):
                    row = builder.add(first, number(i))
                    row = builder.select(builder.icmp_signed("<", row, rows), row, last)
                    vectors.append(emit.load(emit.address(x, builder.add(builder.mul(row, x_row), column)), mask))
                for _ in range(lanes.bit_length() - 1):
                    pairs = list(zip(vectors[: lanes // 2], vectors[lanes // 2 :]))
                    vectors = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in halves]
                for i, vector in enumerate(vectors):
                    place = builder.add(panel, builder.mul(builder.add(column, number(i)), number(2 * lanes)))
                    emit.store(vector, emit.address(y, place), everywhere)

            emit.channel_vectors(columns, lambda vector: part(*vector))
            return []

        emit.loop(builder.sdiv(builder.add(rows, number(lanes - 1)), number(lanes)), [], square)
        return context.get_dummy_value()

    return types.void(of, *[types.int64] * 5), codegen


@intrinsic
def add_taps(typingctx, of, x, x_k1, x_k0, first, step, width, n1, n0, y, columns):
    """Add n1 * n0 rows of a width to the row y, each moved to its place: y[first + k0*step + j] += x[k1, k0, j].

    x and y are addresses, x_k1 and x_k0 lie between the rows; what sticks out of y (columns) is left out. A vector of y
    stays in a register while all rows are added. `of` is any number of the arrays' type.
    """

    def codegen(context, builder, signature, args):
        (_, x, x_k1, x_k0, first, step, width, n1, n0, y, columns) = args
        emit = Emitter(builder, in_words(signature.args[0]))
        steps = ir.Constant(ir.VectorType(_int32, emit.lanes), list(range(emit.lanes)))
        end = emit.splat(builder.trunc(width, _int32))

        def part(column, mask):
            target = emit.address(y, column)

            def line(k1, total):
                line_of_x = emit.address(x, builder.mul(k1, x_k1))

                def row(k0, total):
                    begin = builder.sub(column, builder.add(first, builder.mul(k0, step)))
                    lanes = builder.add(steps, emit.splat(builder.trunc(begin, _int32)))
                    # Unsigned, so that what lies before the row counts as far behind it.
                    inside = builder.icmp_unsigned("<", lanes, end)
                    source = emit.address(line_of_x, builder.add(builder.mul(k0, x_k0), begin))
                    return [builder.fadd(total[0], emit.load(source, inside))]

                return emit.loop(n0, total, row)

            [total] = emit.loop(n1, [emit.load(target, mask)], line)
            emit.store(total, target, mask)

        emit.channel_vectors(columns, lambda vector: part(*vector))
        return context.get_dummy_value()

    return types.void(of, *[types.int64] * 10), codegen
