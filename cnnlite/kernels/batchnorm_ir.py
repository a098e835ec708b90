"""Passes over the pixels of an image in the processor's vectors, for BatchNorm and what stands before it going back.

As in `vector_ir.py` the channels are the outer loop, up to four vectors of them at a time, and all sums stay in
registers until the last pixel has been added.

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
VECTORS_TOGETHER = 4  # of channels; their sums and coefficients, up to 20 vectors, are in registers
ROWS_TOGETHER = 2  # have sums of their own in the statistics, since an addition waits for the one before


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

        def channel_vectors(*parts):
            def row(k):
                place = builder.mul(k, channels)
                return [emit.load(emit.address(x, builder.add(place, first)), mask) for first, mask in parts]

            def sums(add, number):
                """Return `number` sums over all rows for each part, of which `add(part, sums, x)` returns the next."""
                def add_row(carried, k):
                    numbers, parts = row(k), range(len(carried) // number)
                    return [new for i in parts for new in add(i, carried[i * number : (i + 1) * number], numbers[i])]

                def group(k, carried):
                    first = builder.mul(k, together)
                    return [new for r in range(ROWS_TOGETHER) for new in add_row(
                        carried[r * size : (r + 1) * size], builder.add(first, emit.number(r)))]

                size = number * len(parts)
                carried = emit.loop(groups, [emit.zeros(emit.vector)] * (ROWS_TOGETHER * size), group)
                done = builder.mul(groups, together)
                carried[:size] = emit.loop(builder.sub(rows, done), carried[:size],
                                           lambda k, carried: add_row(carried, builder.add(done, k)))
                total = carried[:size]
                for r in range(1, ROWS_TOGETHER):
                    total = [builder.fadd(a, b, flags=_flags) for a, b in zip(total, carried[r * size :])]
                return [total[i : i + number] for i in range(0, size, number)]

            def add_up(i, sums, number):
                return [builder.fadd(sums[0], builder.fsub(number, start[i], flags=_flags), flags=_flags)]

            def add_squares(i, sums, number):
                deviation = builder.fsub(number, middle[i], flags=_flags)
                return [builder.fadd(sums[0], deviation, flags=_flags),
                        builder.fadd(sums[1], builder.fmul(deviation, deviation, flags=_flags), flags=_flags)]

            start = row(emit.number(0))
            middle = [builder.fadd(begin, builder.fmul(total, count, flags=_flags), flags=_flags)
                      for begin, [total] in zip(start, sums(add_up, 1))]
            for (first, mask), value, (of_deviations, of_squares) in zip(parts, middle, sums(add_squares, 2)):
                for vector, array in ((value, center), (of_deviations, error), (of_squares, square)):
                    emit.store(vector, emit.address(array, first), mask)

        emit.channel_vectors(channels, channel_vectors, VECTORS_TOGETHER)
        return context.get_dummy_value()

    return types.void(of, *[types.int64] * 6), codegen


@intrinsic
def map_rows(typingctx, of, x, rows, channels, maps, mean, scale, beta, relu, y):
    """Write to the rows y, which may be x, with `maps` (x - mean) * scale + beta; with `relu` 0 where not above 0."""

    def codegen(context, builder, signature, args):
        (_, x, rows, channels, maps, mean, scale, beta, relu, y) = args
        emit = Emitter(builder, in_words(signature.args[0]))

        def with_map(maps):
            def channel_vectors(*parts):
                def load(array, first, mask):
                    return emit.load(emit.address(array, first), mask)

                coefficients = [[load(array, *part) for array in (mean, scale, beta)] if maps else [] for part in parts]

                def row(k, _):
                    place = builder.mul(k, channels)
                    for (first, mask), numbers in zip(parts, coefficients):
                        here = builder.add(place, first)
                        value = load(x, here, mask)
                        value = emit.affine(value, *numbers) if maps else value
                        emit.store(emit.zero_where(value, value, relu), emit.address(y, here), mask)
                    return []

                emit.loop(rows, [], row)

            emit.channel_vectors(channels, channel_vectors, VECTORS_TOGETHER)

        emit.either(maps, with_map)
        return context.get_dummy_value()

    return types.void(of, *[types.int64] * 3, types.boolean, *[types.int64] * 3, types.boolean, types.int64), codegen


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
        self.emit.either(self.pooled, lambda pooled: pass_over(self.through_windows if pooled else self.as_it_is))

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

            emit.channel_vectors(gradient.channels, channel_vectors, VECTORS_TOGETHER)

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

        # One code for both: without a normalisation no lane of z or of the coefficients is read, and all of them are 0.
        first_relu = builder.and_(first_relu, normalised)

        def channel_vectors(pixels, parts):
            maps = [(first, builder.and_(mask, emit.splat(normalised))) for first, mask in parts]

            def load(array, parts):
                return [emit.load(emit.address(array, first), mask) for first, mask in parts]

            factor, means, shifts, slopes = load(scale, parts), load(mean, maps), load(shift, maps), load(slope, maps)

            def use(place, dz, sums):
                new = []
                for i, (first, mask) in enumerate(parts):
                    here = builder.add(place, first)
                    number = emit.load(emit.address(z, here), maps[i][1])
                    deviation = builder.fsub(number, means[i], flags=_flags)
                    value = builder.fsub(dz[i], shifts[i], flags=_flags)
                    value = builder.fsub(value, builder.fmul(deviation, slopes[i], flags=_flags), flags=_flags)
                    value = emit.zero_where(builder.fmul(value, factor[i], flags=_flags), number, first_relu)
                    emit.store(value, emit.address(out, here), mask)
                    new.append(builder.fadd(sums[i], value, flags=("nsz",)))
                return new

            sums = pixels(parts, [emit.zeros(emit.vector)] * len(parts), use)
            for (first, mask), vector in zip(parts, sums):
                emit.store(vector, emit.address(total, first), mask)

        gradient.both_ways(lambda pixels: emit.channel_vectors(
            gradient.channels, lambda *parts: channel_vectors(pixels, parts), VECTORS_TOGETHER))
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

        emit.channel_vectors(channels, channel_vectors, VECTORS_TOGETHER)
        return context.get_dummy_value()

    return types.void(of, *[types.int64] * 4), codegen
