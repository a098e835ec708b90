"""Passes over the pixels of an image in the processor's vectors, for BatchNorm and what stands before it going back.

As in `vector_ir.py` the channels are the outer loop, one or two vectors of them at a time, so that all sums stay in
registers until the last pixel has been added. Two vectors where each addition has to wait for the one before.

Going back, a gradient dz comes from dy through a pooling and a ReLU. It is not written down for what only sums it up:
a pass makes each vector of dz as it needs it, in one of two ways. Where nothing was pooled, or the windows overlap or
reach into padding (then something else has unpooled them before), dy has the pixels of z. Otherwise the windows lie
side by side from the first pixel on:

    line h of z is row a = h mod height of the windows of row i = h / height
    its pixel (j, b) is dy[i, j] where the place of the maximum is a * width + b, else 0
    what is right of the last window or under it is 0

Either way the pixels come line by line from left to right, and are added up in that order: to the bits it makes no
difference which way it was. All addresses are integers, all distances are in elements, and nothing is checked here.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cnnlite.kernels.vector_ir import Emitter, in_words

_int64 = ir.IntType(64)
_int8 = ir.IntType(8)
_flags = ("contract", "nsz")  # the freedom that the kernels' compiler has
ROWS_TOGETHER = 4  # sums of statistics, so that an addition need not wait for the one before


@intrinsic
def row_statistics(typingctx, of, x, rows, channels, center, error, square):
    """Write of the rows x (rows, channels) a center near the mean, and Σ (x - center) and Σ (x - center)²."""

    def codegen(context, builder, signature, args):
        (_, x, rows, channels, center, error, square) = args
        emit = Emitter(builder, in_words(signature.args[0]))
        together = emit.number(ROWS_TOGETHER)
        groups = builder.sdiv(rows, together)
        one = ir.Constant(emit.item, 1.0)
        count = emit.splat(builder.fdiv(one, builder.sitofp(rows, emit.item)))

        def channel_vector(first, mask):
            def row(k):
                return emit.load(emit.address(x, builder.add(builder.mul(k, channels), first)), mask)

            def sums(add, number):
                """Return `number` sums over all rows, of which `add(sums, row)` returns the next."""
                def group(k, carried):
                    new = []
                    for r in range(ROWS_TOGETHER):
                        place = builder.add(builder.mul(k, together), emit.number(r))
                        new += add(carried[r * number : (r + 1) * number], row(place))
                    return new

                zero = [emit.zeros(emit.vector)] * number
                carried = emit.loop(groups, zero * ROWS_TOGETHER, group)
                parts = [carried[i : i + number] for i in range(0, len(carried), number)]
                done = builder.mul(groups, together)
                parts[0] = emit.loop(builder.sub(rows, done), parts[0], lambda k, carried: add(
                    carried, row(builder.add(done, k))))
                while len(parts) > 1:
                    parts = [[builder.fadd(a, b, flags=_flags) for a, b in zip(*pair)]
                             for pair in zip(parts[::2], parts[1::2])]
                return parts[0]

            start = row(emit.number(0))
            [total] = sums(lambda sums, row: [builder.fadd(
                sums[0], builder.fsub(row, start, flags=_flags), flags=_flags)], 1)
            middle = builder.fadd(start, builder.fmul(total, count, flags=_flags), flags=_flags)

            def add(sums, row):
                deviation = builder.fsub(row, middle, flags=_flags)
                return [builder.fadd(sums[0], deviation, flags=_flags),
                        builder.fadd(sums[1], builder.fmul(deviation, deviation, flags=_flags), flags=_flags)]

            of_deviations, of_squares = sums(add, 2)
            for vector, array in ((middle, center), (of_deviations, error), (of_squares, square)):
                emit.store(vector, emit.address(array, first), mask)

        emit.channel_vectors(channels, channel_vector)
        return context.get_dummy_value()

    return types.void(of, *[types.int64] * 6), codegen


class _Gradient:
    """Emits the loops over the pixels of dz, the gradient that comes back through pooling and ReLU."""

    def __init__(self, emit, dy, y, where, relu, pooled, height, width, windows, window_rows, first, last, columns,
                 channels):
        self.emit, self.pooled = emit, pooled
        self.dy, self.y, self.where, self.relu = dy, y, where, relu
        self.height, self.width, self.windows, self.window_rows = height, width, windows, window_rows
        self.first, self.last, self.columns, self.channels = first, last, columns, channels

    def both_ways(self, pass_over):
        """Emit `pass_over(loop over the pixels)` for either way."""
        with self.emit.builder.if_else(self.pooled) as (pooled, plain):
            with pooled:
                pass_over(self.through_windows)
            with plain:
                pass_over(self.as_it_is)

    def as_it_is(self, parts, carried, use):
        """Emit the loop over all pixels; `use(place of the pixel, dz for each part, carried)`."""
        builder, emit = self.emit.builder, self.emit
        begin = builder.mul(self.first, self.columns)
        count = builder.sub(builder.mul(self.last, self.columns), begin)

        def pixel(k, carried):
            place = builder.mul(builder.add(begin, k), self.channels)
            return use(place, [self.at(place, *part) for part in parts], carried)

        return emit.loop(count, carried, pixel)

    def at(self, place, first, mask):
        """Return a vector of dy, with 0 where the ReLU was."""
        source = self.emit.builder.add(place, first)
        gradient = self.emit.load(self.emit.address(self.dy, source), mask)
        return self.emit.zero_where(gradient, self.emit.load(self.emit.address(self.y, source), mask), self.relu)

    def through_windows(self, parts, carried, use):
        builder, emit = self.emit.builder, self.emit
        small = ir.VectorType(_int8, emit.lanes)

        def line(k, carried):
            h = builder.add(self.first, k)
            i = builder.sdiv(h, self.height)
            tap = builder.mul(builder.sub(h, builder.mul(i, self.height)), self.width)
            has_windows = builder.icmp_signed("<", i, self.window_rows)
            windows = builder.select(has_windows, self.windows, emit.number(0))
            begin = builder.mul(h, self.columns)

            def window(j, carried):
                source = builder.mul(builder.add(builder.mul(i, self.windows), j), self.channels)
                gradients = [self.at(source, *part) for part in parts]
                winners = [emit.load(emit.address(self.where, builder.add(source, first), 1), mask, small)
                           for first, mask in parts]
                corner = builder.add(begin, builder.mul(j, self.width))

                def pixel(b, carried):
                    this = emit.splat(builder.trunc(builder.add(tap, b), _int8))
                    dz = [builder.select(builder.icmp_unsigned("==", winner, this), gradient, emit.zeros(emit.vector))
                          for winner, gradient in zip(winners, gradients)]
                    return use(builder.mul(builder.add(corner, b), self.channels), dz, carried)

                return emit.loop(self.width, carried, pixel)

            carried = emit.loop(windows, carried, window)
            done = builder.mul(windows, self.width)

            def rest(k, carried):
                place = builder.mul(builder.add(builder.add(begin, done), k), self.channels)
                return use(place, [emit.zeros(emit.vector)] * len(parts), carried)

            return emit.loop(builder.sub(self.columns, done), carried, rest)

        return emit.loop(builder.sub(self.last, self.first), carried, line)


_gradient_types = [types.int64] * 3 + [types.boolean] * 2 + [types.int64] * 8


@intrinsic
def sum_gradient(typingctx, of, dy, y, where, relu, pooled, height, width, windows, window_rows, first, last, columns,
                 channels, z, mean, total, product):
    """Write Σ dz and Σ dz (z - mean) over the lines from the first to before the last."""

    def codegen(context, builder, signature, args):
        z, mean, total, product = args[-4:]
        emit = Emitter(builder, in_words(signature.args[0]))
        gradient = _Gradient(emit, *args[1:-4])

        def pass_over(pixels):
            def channel_vectors(*parts):
                means = [emit.load(emit.address(mean, first), mask) for first, mask in parts]

                def use(place, dz, carried):
                    new = []
                    for i, (first, mask) in enumerate(parts):
                        number = emit.load(emit.address(z, builder.add(place, first)), mask)
                        deviation = builder.fsub(number, means[i], flags=_flags)
                        new += [builder.fadd(carried[2 * i], dz[i], flags=("nsz",)),
                                builder.fadd(carried[2 * i + 1], builder.fmul(dz[i], deviation, flags=_flags),
                                             flags=_flags)]
                    return new

                sums = pixels(parts, [emit.zeros(emit.vector)] * (2 * len(parts)), use)
                for i, (first, mask) in enumerate(parts):
                    emit.store(sums[2 * i], emit.address(total, first), mask)
                    emit.store(sums[2 * i + 1], emit.address(product, first), mask)

            emit.channel_vectors(gradient.channels, channel_vectors, together=2)

        gradient.both_ways(pass_over)
        return context.get_dummy_value()

    return types.void(of, *_gradient_types, *[types.int64] * 4), codegen


@intrinsic
def write_gradient(typingctx, of, dy, y, where, relu, pooled, height, width, windows, window_rows, first, last, columns,
                   channels, normalised, z, mean, scale, shift, slope, first_relu, out, total):
    """Write to `out` the lines from the first to before the last of what dz was before a map, and their sum to total.

    That is dz * scale, or if `normalised` (dz - shift - (z - mean) * slope) * scale, which with `first_relu` is made 0
    where z is not above 0. out may be dy.
    """

    def codegen(context, builder, signature, args):
        normalised, z, mean, scale, shift, slope, first_relu, out, total = args[-9:]
        emit = Emitter(builder, in_words(signature.args[0]))
        gradient = _Gradient(emit, *args[1:-9])

        def with_map(normalised):
            gradient.both_ways(lambda pixels: emit.channel_vectors(
                gradient.channels, lambda *part: channel_vector(pixels, normalised, *part)))

        def channel_vector(pixels, normalised, first, mask):
            def load(array):
                return emit.load(emit.address(array, first), mask)

            factor = load(scale)
            terms = [load(array) for array in (mean, shift, slope)] if normalised else []

            def use(place, dz, sums):
                [value] = dz
                place = builder.add(place, first)
                if normalised:
                    number = emit.load(emit.address(z, place), mask)
                    deviation = builder.fsub(number, terms[0], flags=_flags)
                    value = builder.fsub(value, terms[1], flags=_flags)
                    value = builder.fsub(value, builder.fmul(deviation, terms[2], flags=_flags), flags=_flags)
                value = builder.fmul(value, factor, flags=_flags)
                if normalised:
                    value = emit.zero_where(value, number, first_relu)
                emit.store(value, emit.address(out, place), mask)
                return [builder.fadd(sums[0], value, flags=("nsz",))]

            [total_here] = pixels([(first, mask)], [emit.zeros(emit.vector)], use)
            emit.store(total_here, emit.address(total, first), mask)

        with builder.if_else(normalised) as (mapped, plain):
            with mapped:
                with_map(True)
            with plain:
                with_map(False)
        return context.get_dummy_value()

    return types.void(of, *_gradient_types, types.boolean, *[types.int64] * 5, types.boolean,
                      *[types.int64] * 2), codegen


@intrinsic
def sum_rows(typingctx, of, x, rows, channels, total):
    """Write the sum of the rows x (rows, channels), added up in their order as the others here do."""

    def codegen(context, builder, signature, args):
        (_, x, rows, channels, total) = args
        emit = Emitter(builder, in_words(signature.args[0]))

        def channel_vectors(*parts):
            def row(k, carried):
                place = emit.address(x, builder.mul(k, channels))
                return [builder.fadd(carried[i], emit.load(emit.address(place, first), mask), flags=("nsz",))
                        for i, (first, mask) in enumerate(parts)]

            sums = emit.loop(rows, [emit.zeros(emit.vector)] * len(parts), row)
            for (first, mask), vector in zip(parts, sums):
                emit.store(vector, emit.address(total, first), mask)

        emit.channel_vectors(channels, channel_vectors, together=4)
        return context.get_dummy_value()

    return types.void(of, *[types.int64] * 4), codegen
